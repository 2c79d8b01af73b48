"""Pipelines of ordinary sizes beside the coverage table's models: most hang on comparisons, which float32 may spoil."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn import ensemble, linear_model, neighbors, preprocessing, svm
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.covariance import EllipticEnvelope
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeRegressor

from benchmarks.coverage_data import Data

Make = Callable[[], tuple[Any, Data]]
ROWS = 300

_LINE, _RIDGE = linear_model.LogisticRegression(max_iter=500), linear_model.Ridge()
_SCALER = preprocessing.StandardScaler()
_STEPS: dict[str, Any] = {
    "KBinsDiscretizer": preprocessing.KBinsDiscretizer(8, encode="onehot-dense"),
    "SplineTransformer": preprocessing.SplineTransformer(6),
    "SplineTransformer, degree 0": preprocessing.SplineTransformer(6, degree=0),
    "QuantileTransformer": preprocessing.QuantileTransformer(n_quantiles=100),
    "Binarizer": preprocessing.Binarizer(threshold=0.5),
    "scaler and Binarizer": make_pipeline(_SCALER, preprocessing.Binarizer()),
    "PowerTransformer": preprocessing.PowerTransformer(),
    "PolynomialFeatures": preprocessing.PolynomialFeatures(3),
    "scaler and PolynomialFeatures": make_pipeline(_SCALER, preprocessing.PolynomialFeatures(2)),
    "KMeans distances": KMeans(8, n_init=1, random_state=0),
    "Nystroem": Nystroem(n_components=40, random_state=0),
    "PCA": make_pipeline(_SCALER, PCA(3)),
    "floor": preprocessing.FunctionTransformer(np.floor),
    "round": preprocessing.FunctionTransformer(np.round),
    "RandomTreesEmbedding": ensemble.RandomTreesEmbedding(20, random_state=0, sparse_output=False),
}
_REGRESSORS: dict[str, Any] = {
    "scaler, k neighbours": make_pipeline(_SCALER, neighbors.KNeighborsRegressor()),
    "k neighbours": neighbors.KNeighborsRegressor(7),
    "k neighbours by distance": neighbors.KNeighborsRegressor(7, weights="distance"),
    "radius neighbours": neighbors.RadiusNeighborsRegressor(4.0),
    "scaler, forest": make_pipeline(_SCALER, ensemble.RandomForestRegressor(30, random_state=0)),
    "forest": ensemble.RandomForestRegressor(30, random_state=0),
    "scaler, boosting": make_pipeline(_SCALER, ensemble.HistGradientBoostingRegressor(max_iter=40)),
    "powers, tree": make_pipeline(preprocessing.PowerTransformer(), DecisionTreeRegressor(random_state=0)),
    "stack of trees": ensemble.StackingRegressor(
        [("a", _RIDGE), ("b", neighbors.KNeighborsRegressor())], DecisionTreeRegressor(max_depth=4)
    ),
    "boosted lines": ensemble.AdaBoostRegressor(linear_model.Ridge(), n_estimators=8, random_state=0),
    "Gaussian process": make_pipeline(_SCALER, GaussianProcessRegressor(alpha=1e-2)),
    "kernel ridge": make_pipeline(_SCALER, KernelRidge(kernel="rbf", alpha=1e-3)),
    "SVR": make_pipeline(_SCALER, svm.SVR(C=100.0)),
    "MLP": make_pipeline(_SCALER, MLPRegressor(hidden_layer_sizes=(30, 30), max_iter=300, random_state=0)),
    "LinearRegression": linear_model.LinearRegression(),
}
_CLASSIFIERS: dict[str, Any] = {
    "pairs of lines": OneVsOneClassifier(_LINE),
    "SVC, 3 classes": make_pipeline(_SCALER, svm.SVC()),
    "SVC, pairs": make_pipeline(_SCALER, svm.SVC(decision_function_shape="ovo")),
    "hard votes": ensemble.VotingClassifier([("a", _LINE), ("b", LinearDiscriminantAnalysis())]),
    "soft votes": ensemble.VotingClassifier(
        [("a", _LINE), ("b", ensemble.RandomForestClassifier(20, random_state=0))], voting="soft"
    ),
    "calibrated, isotonic": CalibratedClassifierCV(_LINE, method="isotonic", cv=3),
    "calibrated, sigmoid": CalibratedClassifierCV(svm.LinearSVC(), cv=3),
    "boosted trees": ensemble.AdaBoostClassifier(n_estimators=20, random_state=0),
    "nearest centroid": neighbors.NearestCentroid(),
    "QDA": QuadraticDiscriminantAnalysis(),
    "scaler, LogisticRegression": make_pipeline(_SCALER, _LINE),
    "LogisticRegression": _LINE,
    "Perceptron": linear_model.Perceptron(),
    "scaler, k neighbours": make_pipeline(_SCALER, neighbors.KNeighborsClassifier()),
    "scaler, MLP": make_pipeline(_SCALER, MLPClassifier(hidden_layer_sizes=(20,), max_iter=300, random_state=0)),
    "scaler, boosting": make_pipeline(_SCALER, ensemble.HistGradientBoostingClassifier(max_iter=20)),
}


def made() -> dict[str, Make]:
    """Return {title: what trains the model and gives its training set}; the fresh rows are the caller's to draw."""
    found: dict[str, Make] = {}
    for name, step in _STEPS.items():
        found[f"{name}, Ridge"] = lambda step=step: _numbers(make_pipeline(step, linear_model.Ridge()))
    found |= {f"{name} (numbers)": lambda model=model: _numbers(model) for name, model in _REGRESSORS.items()}
    found |= {f"{name} (labels)": lambda model=model: _labels(model) for name, model in _CLASSIFIERS.items()}
    found["KNNImputer, Ridge (k15)"] = lambda: _gaps(KNNImputer())
    found["KNNImputer by distance, Ridge"] = lambda: _gaps(KNNImputer(weights="distance"))
    found["scaler, KNNImputer, Ridge"] = lambda: _gaps(make_pipeline(_SCALER, KNNImputer()))
    found["SimpleImputer, scaler, Ridge"] = lambda: _gaps(make_pipeline(SimpleImputer(add_indicator=True), _SCALER))
    found["columns, LogisticRegression"] = lambda: _table(linear_model.LogisticRegression(max_iter=500))
    found["columns, k neighbours"] = lambda: _table(neighbors.KNeighborsClassifier())
    found["columns, forest"] = lambda: _table(ensemble.RandomForestClassifier(20, random_state=0))
    found["IsotonicRegression"] = lambda: _numbers(IsotonicRegression(out_of_bounds="clip"), width=1)
    found["tuned threshold"] = lambda: _labels(TunedThresholdClassifierCV(_LINE), classes=2)
    found["EllipticEnvelope"] = lambda: _labels(EllipticEnvelope(random_state=0))
    found["IsolationForest"] = lambda: _labels(ensemble.IsolationForest(n_estimators=30, random_state=0))
    found["LocalOutlierFactor"] = lambda: _labels(neighbors.LocalOutlierFactor(novelty=True))
    return found


def _rows(width: int = 6) -> Any:
    return np.random.default_rng(0).normal(20, 5, (ROWS, width)).round(2)


def _numbers(model: Any, width: int = 6) -> tuple[Any, Data]:
    x = _rows(width)
    y = x[:, 0] * 2 + np.sin(x[:, -1]) * 5 + np.random.default_rng(1).normal(size=ROWS)
    return model.fit(x, y), Data(x, y, x)


def _labels(model: Any, classes: int = 3) -> tuple[Any, Data]:
    x = _rows()
    score = x[:, 0] + x[:, 1] + np.random.default_rng(1).normal(0, 3, ROWS)
    y = np.digitize(score, np.quantile(score, np.arange(1, classes) / classes))
    return model.fit(x, y), Data(x, y, x)


def _gaps(step: Any) -> tuple[Any, Data]:
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(ROWS, 6)).round(2), columns=list("abcdef"))
    x = x.mask(rng.random(x.shape) < 0.1)
    y = x.a.fillna(0) + x.b.fillna(0)
    return make_pipeline(step, linear_model.Ridge()).fit(x, y), Data(x, y, x)


def _table(final: Any) -> tuple[Any, Data]:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({f"n{i}": rng.normal(20, 5, ROWS).round(1) for i in range(4)})
    table["count"] = rng.integers(0, 9, ROWS)
    table["place"] = rng.choice(["north", "south", "east"], ROWS).astype(object)
    numbers = make_pipeline(SimpleImputer(), preprocessing.StandardScaler())
    columns = make_column_transformer(
        (numbers, [f"n{i}" for i in range(4)]),
        (preprocessing.OneHotEncoder(handle_unknown="ignore"), ["place", "count"]),
    )
    y = (table["n0"] + 3 * (table["place"] == "east") > 21).astype(int)
    return make_pipeline(columns, final).fit(table, y), Data(table, y, table)

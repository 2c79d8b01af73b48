"""Knows which models may get their numbers as float32: those in which no comparison depends on the lost digits.

A float32 input is a reading rounded to seven digits. There are three cases, and the tables here say which one holds for
each estimator. An estimator that stands in no table gets float64 inputs.

- Trees that round their columns to float32 themselves: their answers stay the same. - Continuous functions of the
columns (sums, products, kernels): the answer changes about as little as the columns. The proof measures by how much,
and asks for a margin (convert/proof/parity.py). - Comparisons (neighbours, bins, knots, trees in float64, categories
among numbers): where the rounding moves a number to the other side, the answer is another one, however far that is.
There are so few such rows that a proof may miss all.
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer

from convert.converters.skl2onnx_graph import first_encodes
from convert.model.schema import Column
from convert.model.steps import Sees, asked_parts, is_dropped

Columns = Sequence[Column | None]


class _Given(IntEnum):
    """What a step is given, compared with what it is given in the original; of several the greatest counts."""

    EQUAL = 0
    """The same: texts, flags, whole numbers that stay whole, and what trees answer."""
    ROUNDED = 1
    """The table's numbers, each rounded to float32."""
    COMPUTED = 2
    """Numbers computed from rounded ones: near the original's, but neither equal to them nor to their float32."""


def _names(*lines: str) -> frozenset[str]:
    return frozenset(name for line in lines for name in line.split())


_ROUNDING_TREES = _names(
    "DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor RandomForestClassifier",
    "RandomForestRegressor ExtraTreesClassifier ExtraTreesRegressor RandomTreesEmbedding IsolationForest",
    "GradientBoostingClassifier GradientBoostingRegressor",
)
_ROUNDING_LIBRARIES = ("xgboost", "catboost")
_CONSTANT = _names("DummyClassifier DummyRegressor _ConstantPredictor LabelEncoder LabelBinarizer")
_PICKING = _names(
    "SelectKBest SelectPercentile SelectFpr SelectFdr SelectFwe GenericUnivariateSelect VarianceThreshold",
    "SequentialFeatureSelector SelectFromModel",
)
_FILLING = _names("SimpleImputer MissingIndicator")
"""They pick too, where the missing value is NaN."""
_COUNTING = _names("OneHotEncoder OrdinalEncoder CountVectorizer DictVectorizer LabelBinarizer MultiLabelBinarizer")
"""From texts and whole numbers they make whole numbers."""
_CONTINUOUS = _names(
    "ARDRegression BayesianRidge ElasticNet ElasticNetCV GammaRegressor HuberRegressor Lars LarsCV Lasso LassoCV",
    "LassoLars LassoLarsCV LassoLarsIC LinearRegression LogisticRegression LogisticRegressionCV MultiTaskElasticNet",
    "MultiTaskElasticNetCV MultiTaskLasso MultiTaskLassoCV OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV",
    "PassiveAggressiveClassifier PassiveAggressiveRegressor PoissonRegressor QuantileRegressor Ridge RidgeCV",
    "RidgeClassifier RidgeClassifierCV SGDClassifier SGDRegressor SGDOneClassSVM TheilSenRegressor TweedieRegressor",
    "LinearSVC LinearSVR SVR NuSVR OneClassSVM KernelRidge GaussianProcessClassifier GaussianProcessRegressor",
    "MLPClassifier MLPRegressor GaussianNB MultinomialNB ComplementNB GaussianMixture BayesianGaussianMixture",
    "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis CCA PLSCanonical PLSRegression PLSSVD",
    "PCA IncrementalPCA KernelPCA FastICA FactorAnalysis TruncatedSVD SparsePCA MiniBatchSparsePCA BernoulliRBM",
    "NeighborhoodComponentsAnalysis FeatureAgglomeration GaussianRandomProjection SparseRandomProjection",
    "Nystroem RBFSampler SkewedChi2Sampler AdditiveChi2Sampler PolynomialCountSketch KernelCenterer",
    "StandardScaler MinMaxScaler MaxAbsScaler RobustScaler Normalizer PowerTransformer PolynomialFeatures",
    "TfidfTransformer",
)
_OF_TWO_CLASSES = _names("SVC NuSVC")
"""Continuous with two classes: with more, a score counts the pairs that a class wins."""
_BLENDING = _names(
    "BaggingRegressor MultiOutputClassifier MultiOutputRegressor OneVsRestClassifier RegressorChain VotingRegressor",
    "GridSearchCV RandomizedSearchCV HalvingGridSearchCV HalvingRandomSearchCV FrozenEstimator SelfTrainingClassifier",
    "FixedThresholdClassifier RFE RFECV RANSACRegressor",
)
"""Their answer is that of the estimators in them, or a continuous function of it."""
_CHOOSING = _names(
    "AdaBoostClassifier AdaBoostRegressor BaggingClassifier CalibratedClassifierCV ClassifierChain OneVsOneClassifier",
    "OutputCodeClassifier TunedThresholdClassifierCV VotingClassifier",
)
"""They count votes, choose or compare, so the answers of their estimators must be equal; exceptions: `_blends`."""
_FUNCTIONS = _names("absolute arctan cos exp expm1 negative positive sin square tanh")
_FUNCTIONS_OF_READINGS = _names("log log1p log2 log10 sqrt cbrt reciprocal")
"""Steep near 0, so there the digits stay only for numbers that were not computed."""
_SCALED_BACK = _names("StandardScaler MinMaxScaler MaxAbsScaler RobustScaler")


class _Compares(Exception):
    """The name of an estimator that compares numbers that differ from the original's."""


def kept_from(model: Any, columns: Sequence[Column]) -> str:
    """Return the class of an estimator in `model` that keeps it from float32 inputs, or "" where none does.

    `columns` are the table's: the same encoder compares flags as well as measured numbers.
    """
    try:
        _answered(model, _read(columns, first_encodes(model)), _fitted(model, columns))
    except _Compares as found:
        return str(found)
    return ""


def _fitted(model: Any, columns: Sequence[Column]) -> Columns:
    """Return the columns at their positions in training; None for a dropped column that the schema leaves out."""
    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    if len(names) <= len(columns):
        return columns
    known = {column.name: column for column in columns}
    return [known.get(name) for name in names]


def _read(columns: Iterable[Column | None], encoded: bool) -> _Given:
    """Return what the first step is given of these columns; whole numbers stay whole only for an encoder."""
    kept = ("string", "bool", "int64") if encoded else ("string", "bool")
    equal = all(column.kind in kept or column.levels for column in columns if column)
    return _Given.EQUAL if equal else _Given.ROUNDED


def _answered(step: Any, given: _Given, columns: Columns | None = None) -> _Given:
    """Return the kind of numbers that `step` gives; `columns` are the table's, where the step sees the table.

    Raises _Compares where the step's answer may differ from the original's.
    """
    if step is None or isinstance(step, str):  # "passthrough" and "drop"
        return given
    name = type(step).__name__
    if type(step).__module__.partition(".")[0] in _ROUNDING_LIBRARIES or name in _ROUNDING_TREES:
        return _equal(step, given, _Given.ROUNDED)
    if not type(step).__module__.startswith("sklearn."):
        return _equal(step, given, _Given.EQUAL)
    if name in _CONTAINERS:
        return _CONTAINERS[name](step, given, columns)
    if name in _CONSTANT:
        return _Given.EQUAL
    if name in _PICKING or (name in _FILLING and _is_gap(step.missing_values)):
        return given
    if name in _CONTINUOUS or (name in _OF_TWO_CLASSES and len(step.classes_) == 2):
        return _Given.COMPUTED
    if name in _BLENDING or name in _CHOOSING:
        return _held(step, given, columns)
    if name == "FunctionTransformer" and _follows(step.func, step.kw_args, given):
        return given if step.func is None else _Given.COMPUTED
    return _equal(step, given, _Given.EQUAL, _Given.EQUAL if name in _COUNTING else _Given.COMPUTED)


def _equal(step: Any, given: _Given, most: _Given, answered: _Given = _Given.EQUAL) -> _Given:
    if given > most:
        raise _Compares(type(step).__name__)
    return answered


def _together(model: Any, given: _Given, columns: Columns | None) -> _Given:
    """Return what the parts of a model give together: a pipeline's last answer, else the greatest of all."""
    found = [_Given.EQUAL]
    for part in asked_parts(model):
        if is_dropped(part.estimator):
            continue
        if part.sees is Sees.BEFORE:
            given, columns = _answered(part.estimator, given, columns), columns if _passes(part.estimator) else None
            found = [given]
        elif part.sees is Sees.PICKED and columns is not None:
            own = [columns[position] for position in part.picked]
            found.append(_answered(part.estimator, _picked(model, part.estimator, given, own), own))
        else:
            found.append(_answered(part.estimator, given, columns))
    return max(found)


def _picked(model: Any, part: Any, given: _Given, own: Columns) -> _Given:
    """Return what a part is given of its `own` columns; a ColumnTransformer reads each of them by itself."""
    if not isinstance(model, ColumnTransformer):
        return given
    return _read(own, not isinstance(part, str) and first_encodes(part))


def _passes(step: Any) -> bool:
    return step is None or (isinstance(step, str) and step == "passthrough")


def _stacked(model: Any, given: _Given, columns: Columns | None) -> _Given:
    found = given if model.passthrough else _Given.EQUAL
    asked = asked_parts(model)
    first = [part.estimator for part in asked if part.sees is not Sees.ANSWERS]
    for part, method in zip(first, model.stack_method_, strict=False):
        answer = _answered(part, given, columns)
        if method == "predict" and hasattr(model, "classes_"):
            _equal(model, answer, _Given.EQUAL)
        found = max(found, answer)
    return max(_answered(part.estimator, found) for part in asked if part.sees is Sees.ANSWERS)


def _target_scaled_back(model: Any, given: _Given, columns: Columns | None) -> _Given:
    answer, scaler = _together(model, given, columns), model.transformer_
    back = getattr(scaler, "inverse_func", None)
    follows = type(scaler).__name__ in _SCALED_BACK or (
        type(scaler).__name__ == "FunctionTransformer" and _follows(back, scaler.inv_kw_args, answer)
    )
    return answer if follows or scaler is None else _equal(scaler, answer, _Given.EQUAL)


_CONTAINERS = {
    "Pipeline": _together,
    "FeatureUnion": _together,
    "ColumnTransformer": _together,
    "StackingClassifier": _stacked,
    "StackingRegressor": _stacked,
    "TransformedTargetRegressor": _target_scaled_back,
}


def _held(model: Any, given: _Given, columns: Columns | None) -> _Given:
    """Return what the trained estimators in a model give together; raise _Compares where it compares their answers."""
    asked = [part.estimator for part in asked_parts(model)]
    found = _together(model, given, columns) if asked else _Given.COMPUTED
    return found if _blends(model, asked) else _equal(model, found, _Given.EQUAL)


def _blends(model: Any, fitted: Sequence[Any]) -> bool:
    """Return whether a model's answer is a continuous function of its estimators' answers."""
    name = type(model).__name__
    if name == "BaggingClassifier":  # else they vote
        return all(hasattr(part, "predict_proba") for part in fitted)
    if name == "VotingClassifier":
        return bool(model.voting == "soft")
    if name == "CalibratedClassifierCV":  # "isotonic" has steps, which may be as steep as a jump
        return bool(model.method != "isotonic")
    return bool(name in _BLENDING)


def _follows(function: Any, arguments: Any, given: _Given) -> bool:
    """Return whether a function is a continuous one of NumPy's."""
    name = function.__name__ if isinstance(function, np.ufunc) else ""
    known = name in _FUNCTIONS or (name in _FUNCTIONS_OF_READINGS and given <= _Given.ROUNDED)
    return function is None or (known and not arguments)


def _is_gap(missing_values: Any) -> bool:
    """Return whether an imputer fills gaps (NaN, pandas' NA), not a number or text that stands for missing."""
    return missing_values is pd.NA or bool(missing_values != missing_values)

"""What the coverage table tries: every estimator on default options, then the options that the tests try."""

import importlib.util
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from sklearn import ensemble
from sklearn.base import is_classifier, is_regressor
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import all_estimators

TESTS = Path(__file__).parent.parent / "tests" / "convert"
_METHODS = ("predict", "predict_proba", "decision_function", "score_samples", "transform")
_SPARSE_DICTIONARY = np.eye(5)
# These change no answer, or only which random numbers are drawn.
_NO_OPTIONS = {"random_state", "n_jobs", "verbose", "thread_count", "allow_writing_files", "deprecated"}


@dataclass(frozen=True)
class Case:
    """An unfitted model, the name of its training set, and whether it stands for its estimator's default options."""

    model: Any
    data: str
    default: bool = False

    @property
    def estimator(self) -> str:
        """The class's name."""
        return type(self.model).__name__

    @property
    def module(self) -> str:
        """The package of the class: of scikit-learn's the part, as `sklearn.linear_model`."""
        return ".".join(type(self.model).__module__.split(".")[: 2 if is_scikit_learn(self.model) else 1])

    @property
    def options(self) -> str:
        """What was given beside the defaults."""
        return ", ".join(_given(self.model))


def is_scikit_learn(model: Any) -> bool:
    """Return whether the class is scikit-learn's own."""
    return type(model).__module__.partition(".")[0] == "sklearn"


def _given(model: Any) -> Iterator[str]:
    defaults = {name: p.default for name, p in inspect.signature(type(model).__init__).parameters.items()}
    for name, value in sorted(model.get_params(deep=False).items()):
        unset = value is None or (name not in defaults and repr(value) in ("False", "nan"))
        if name not in _NO_OPTIONS and not unset and repr(value) != repr(defaults.get(name)):
            yield f"{name}={_shown(value)}"


def _shown(value: Any) -> str:
    if hasattr(value, "get_params") and not isinstance(value, type):
        return value if isinstance(value, str) else f"{type(value).__name__}({', '.join(_given(value))})"
    if isinstance(value, list | tuple):
        inner = ", ".join(map(_shown, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(value, np.ndarray):
        return f"an array {' x '.join(map(str, value.shape))}"
    if callable(value):
        name = getattr(value, "__name__", "")
        return name if name.isidentifier() else "a function"
    return re.sub(r"\s+", " ", repr(value))


def cases() -> list[Case]:
    """Return every case once, the defaults first."""
    listed = [*_defaults(), *_from_tests(), *_texts(), *_encoders(), *_functions(), *_trees(), *_boosters()]
    unique: dict[tuple[str, str, str], Case] = {}
    for case in listed:
        unique.setdefault((case.estimator, case.options, case.data), _seeded(case))
    return list(unique.values())


def _seeded(case: Case) -> Case:
    """Let the model draw the same numbers in each process that trains it."""
    parameters = case.model.get_params()
    for name in [n for n in parameters if n.rpartition("__")[2] == "random_state" and parameters[n] is None]:
        case.model.set_params(**{name: 0})
    return case


_LINE, _RIDGE = LogisticRegression(), Ridge()
_CLASSIFIERS = [("a", _LINE), ("b", DecisionTreeClassifier(max_depth=3))]
_REGRESSORS = [("a", _RIDGE), ("b", DecisionTreeRegressor(max_depth=3))]
_NEEDS_A_CLASSIFIER = (
    "ClassifierChain",
    "FixedThresholdClassifier",
    "MultiOutputClassifier",
    "OneVsOneClassifier",
    "OneVsRestClassifier",
    "OutputCodeClassifier",
    "SelfTrainingClassifier",
    "TunedThresholdClassifierCV",
)
_NEEDS_A_REGRESSOR = (
    "MultiOutputRegressor",
    "RFE",
    "RFECV",
    "RegressorChain",
    "SelectFromModel",
    "SequentialFeatureSelector",
)
# What an estimator cannot do without.
_NEEDED: dict[str, dict[str, Any]] = {
    **{name: {"estimator": _LINE} for name in _NEEDS_A_CLASSIFIER},
    **{name: {"estimator": _RIDGE} for name in _NEEDS_A_REGRESSOR},
    **{name: {"estimators": _CLASSIFIERS} for name in ("StackingClassifier", "VotingClassifier")},
    **{name: {"estimators": _REGRESSORS} for name in ("StackingRegressor", "VotingRegressor")},
    "ColumnTransformer": {"transformers": [("a", StandardScaler(), [0, 1]), ("b", "passthrough", [2])]},
    "FeatureUnion": {"transformer_list": [("a", StandardScaler())]},
    "Pipeline": {"steps": [("a", StandardScaler()), ("b", _RIDGE)]},
    "GridSearchCV": {"estimator": _LINE, "param_grid": {"C": [1, 2]}},
    "RandomizedSearchCV": {"estimator": _LINE, "param_distributions": {"C": [1, 2]}, "n_iter": 1},
    "GaussianRandomProjection": {"n_components": 2},  # by default more columns than there are
    "SparseRandomProjection": {"n_components": 2},
    "IsotonicRegression": {"out_of_bounds": "clip"},
    "LocalOutlierFactor": {"novelty": True},  # else it does not answer for new rows
    "OneHotEncoder": {"handle_unknown": "ignore"},
    "QuantileTransformer": {"n_quantiles": 50},  # as many as there are rows
    "RadiusNeighborsClassifier": {"radius": 4.0, "outlier_label": 0},
    "RadiusNeighborsRegressor": {"radius": 20.0},
    "SelectKBest": {"k": 2},
    "SparseCoder": {"dictionary": _SPARSE_DICTIONARY},
}
_TRAINING_SETS = {
    **dict.fromkeys(("GammaRegressor", "PoissonRegressor", "TweedieRegressor"), "positive numbers"),
    **dict.fromkeys(("CCA", "PLSCanonical", "PLSRegression", "PLSSVD"), "two numbers"),
    **dict.fromkeys(("RegressorChain", "MultiOutputRegressor"), "two numbers"),
    **dict.fromkeys(("RFE", "RFECV", "SelectFromModel", "SequentialFeatureSelector", "Pipeline"), "numbers"),
    **dict.fromkeys(("ClassifierChain", "MultiOutputClassifier"), "labels"),
    **dict.fromkeys(("FixedThresholdClassifier", "TunedThresholdClassifierCV"), "zero or one"),
    **dict.fromkeys(("AdditiveChi2Sampler", "ComplementNB", "MultinomialNB", "NMF", "MiniBatchNMF"), "positive"),
    **dict.fromkeys(("LatentDirichletAllocation", "SkewedChi2Sampler", "RadiusNeighborsClassifier"), "positive"),
    **dict.fromkeys(("OneHotEncoder", "TargetEncoder"), "few values"),
    **dict.fromkeys(("CountVectorizer", "TfidfVectorizer", "HashingVectorizer"), "texts"),
    **dict.fromkeys(("CategoricalNB", "OrdinalEncoder"), "few values by name"),
    "DictVectorizer": "dictionaries",
    "FeatureHasher": "token lists",
    "IsotonicRegression": "one column",
    "KernelCenterer": "kernel",
    "LabelBinarizer": "class labels",
    "LabelEncoder": "class labels",
    "MissingIndicator": "gaps",
    "MultiLabelBinarizer": "label sets",
    "PatchExtractor": "images",
    "SelfTrainingClassifier": "unlabelled",
}


def _defaults() -> Iterator[Case]:
    for name, kind in all_estimators():
        if any(hasattr(kind, method) for method in _METHODS):
            model = kind(**_NEEDED.get(name, {}))
            yield Case(model, _training_set(name, model), default=True)


def _training_set(name: str, model: Any) -> str:
    if name in _TRAINING_SETS:
        return _TRAINING_SETS[name]
    if name.startswith("MultiTask"):
        return "two numbers"
    return "numbers" if is_regressor(model) else "three"


def _test_module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"coverage_{Path(path).stem}", TESTS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parameters(module: ModuleType, names: tuple[str, ...]) -> Iterator[Any]:
    """Yield the values that a module's tests are given for `names`."""
    for test in vars(module).values():
        for mark in getattr(test, "pytestmark", ()):
            given = (mark.args[0],) if mark.name == "parametrize" and isinstance(mark.args[0], str) else mark.args[:1]
            if mark.name == "parametrize" and given in (names, (names,)):
                yield from mark.args[1]


def _from_tests() -> Iterator[Case]:
    for name in ("meta_estimators", "neighbours", "kernel_models", "transformers"):
        module = _test_module(f"converters/test_{name}.py")
        yield from (Case(model, data) for model, data in _parameters(module, ("model", "kind")))
        yield from (Case(model, "zero or one") for model, _ in _parameters(module, ("model", "reason")))
        if name == "neighbours":
            yield from (Case(model, "three") for model in _parameters(module, ("model",)))


def _texts() -> Iterator[Case]:
    module = _test_module("converters/test_text.py")
    yield from (Case(CountVectorizer(**options), "texts") for options in module.OPTIONS)
    for options in _parameters(module, ("options",)):
        weighed = {"sublinear_tf", "norm", "use_idf"} & {*options}
        yield Case((TfidfVectorizer if weighed else CountVectorizer)(**options), "texts")


def _encoders() -> Iterator[Case]:
    module = _test_module("converters/test_encoders.py")
    for options in module.OPTIONS:
        yield Case(OneHotEncoder(**options), "table")
        for policy in ("ignore", "infrequent_if_exist"):
            yield Case(OneHotEncoder(handle_unknown=policy, **options), "unseen")
    known = {"handle_unknown": "use_encoded_value", "unknown_value": -5}
    for options in ({}, {"min_frequency": 20}, {"encoded_missing_value": -1}):
        yield Case(OrdinalEncoder(**options), "table")
        yield Case(OrdinalEncoder(**known, **options), "unseen")
    yield Case(TargetEncoder(cv=2), "unseen")


def _functions() -> Iterator[Case]:
    module = _test_module("converters/test_functions.py")
    for function in _parameters(module, ("function",)):
        yield Case(FunctionTransformer(function), "positive")


def _trees() -> Iterator[Case]:
    for name in ("test_trees", "test_tree_ensembles"):
        module = _test_module(f"trees/{name}.py")
        for model in _parameters(module, ("model",)):
            yield Case(model, "three" if is_classifier(model) else "numbers")
    for loss in _test_module("trees/test_histogram_boosting.py").LOSSES:
        model = ensemble.HistGradientBoostingRegressor(loss=loss, max_iter=6, quantile=0.3)
        yield Case(model, "gaps and numbers")
    yield Case(ensemble.HistGradientBoostingClassifier(max_iter=6, categorical_features=[0, 2]), "few values")
    yield Case(ensemble.RandomForestClassifier(8), "gaps")
    yield Case(ensemble.IsolationForest(n_estimators=20, contamination=0.07, max_features=0.5), "gaps")


def _boosters() -> Iterator[Case]:
    """Yield models of the boosting libraries that are installed; the options are those of tests/convert/trees."""
    try:
        import catboost
        import lightgbm
        import xgboost
    except ImportError:
        return
    settings = _test_module("trees/test_boosting.py")
    light, extreme, cat = settings.LIGHT, settings.EXTREME, settings.CAT
    for given in ({}, {"boosting_type": "dart"}, {"objective": "multiclassova"}, {"use_missing": False}):
        yield Case(lightgbm.LGBMClassifier(**light, **given), "gaps")
    for objective in ("regression", "poisson", "tweedie", "quantile", "huber"):
        yield Case(lightgbm.LGBMRegressor(**light, objective=objective), "gaps and numbers")
    yield Case(lightgbm.LGBMRegressor(**light, linear_tree=True), "numbers")
    for given in ({}, {"booster": "dart", "rate_drop": 0.4}, {"objective": "multi:softmax"}, {"base_score": 0.3}):
        yield Case(xgboost.XGBClassifier(**extreme, **given), "gaps")
    for objective in ("reg:squarederror", "count:poisson", "reg:gamma", "reg:tweedie", "reg:absoluteerror"):
        yield Case(xgboost.XGBRegressor(**extreme, objective=objective), "gaps and numbers")
    yield Case(xgboost.XGBRegressor(**extreme, booster="gblinear"), "numbers")
    yield Case(xgboost.XGBRFRegressor(**extreme), "gaps and numbers")
    for given in ({}, {"loss_function": "MultiClassOneVsAll"}, {"grow_policy": "Lossguide"}, {"nan_mode": "Max"}):
        yield Case(catboost.CatBoostClassifier(**cat, **given), "gaps")
    for loss in ("RMSE", "MAE", "Poisson", "Tweedie:variance_power=1.5"):
        yield Case(catboost.CatBoostRegressor(**cat, loss_function=loss), "gaps and numbers")

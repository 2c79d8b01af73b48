"""Files that LightGBM, XGBoost and CatBoost write themselves: read without running code, as scikit-learn estimators.

Such a file holds the trees and the objective, not the labels' names: classes are numbered from 0, as in the
library.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from appliance import extras
from appliance.errors import ConversionRefused, Misuse
from convert.sources.fetched import Format

_LIGHTGBM_CLASSES = ("binary", "multiclass", "multiclassova")
_LIGHTGBM_RANKS = ("lambdarank", "rank_xendcg")
_CATBOOST_CLASSES = ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll")
_CATBOOST_RANKS = ("YetiRank", "PairLogit", "Query", "StochasticRank", "LambdaMart")


def load(path: Path, form: Format) -> Any:
    """Return the estimator in a booster's own file.

    Raises Misuse when its library is not installed, and ConversionRefused for a file that the library refuses.
    """
    readers: dict[Format, Callable[[Path], Any]] = {"lightgbm": _lightgbm, "xgboost": _xgboost, "catboost": _catboost}
    try:
        return readers[form](path)
    except ModuleNotFoundError as error:
        raise Misuse(f"load {path.name}", f"{form} is not installed", extras.how_to_get("boosting")) from error
    except Exception as error:  # each library has errors of its own for a damaged file
        found = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        raise ConversionRefused(f"load {path.name} with {form}", found, "check that the file is whole") from error


def estimator_of(model: Any) -> Any:
    """Return LightGBM's or XGBoost's Booster as the estimator that its own file is read as; any other model as it is.

    It answers as the Booster does; labels too, where the Booster gives the classes' shares alone.
    """
    library = type(model).__module__.partition(".")[0]
    if type(model).__name__ != "Booster" or library not in ("lightgbm", "xgboost"):
        return model
    if library == "lightgbm":
        return _lightgbm_of(model.model_to_string())
    booster = model.copy()
    booster.set_attr(best_iteration=None, best_score=None)  # a Booster answers with all of its trees
    return _xgboost_of(booster.save_raw("ubj"))


def _lightgbm(path: Path) -> Any:
    return _lightgbm_of(path.read_text(encoding="utf-8"))


def _lightgbm_of(text: str) -> Any:
    """Return what `LGBMModel` is after `fit`: the library has no reader for its estimators' Booster files."""
    import lightgbm
    from sklearn.preprocessing import LabelEncoder

    booster = lightgbm.Booster(model_str=text)
    objective = str(booster.dump_model(num_iteration=1).get("objective", "")).partition(" ")[0]
    if objective in _LIGHTGBM_CLASSES:
        estimator = lightgbm.LGBMClassifier(objective=objective)
        count = max(2, booster.num_model_per_iteration())
        estimator._le = LabelEncoder().fit(np.arange(count))
        estimator._classes, estimator._n_classes = estimator._le.classes_, count
        estimator._class_map = {label: label for label in range(count)}
    else:
        ranks = objective in _LIGHTGBM_RANKS
        estimator = (lightgbm.LGBMRanker if ranks else lightgbm.LGBMRegressor)(objective=objective or None)
    names = booster.feature_name()
    estimator._Booster, estimator._objective, estimator.fitted_ = booster, objective, True
    estimator._n_features = estimator._n_features_in = len(names)
    estimator._fitted_with_feature_names = names != [f"Column_{index}" for index in range(len(names))]
    return estimator


def _xgboost(path: Path) -> Any:
    content = bytearray(path.read_bytes())
    if not content:  # XGBoost 3.2 ends the process
        raise ValueError("it is empty")
    return _xgboost_of(content)


def _xgboost_of(content: bytearray) -> Any:
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(content)
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    if objective in ("binary:logistic", "multi:softprob", "multi:softmax"):
        estimator = xgboost.XGBClassifier()
    else:
        estimator = xgboost.XGBRanker() if objective.startswith("rank:") else xgboost.XGBRegressor()
    estimator.load_model(content)
    return estimator


def _catboost(path: Path) -> Any:
    import catboost

    model = catboost.CatBoost()
    model.load_model(str(path))
    loss = str((model.get_all_params() or {}).get("loss_function", "")).partition(":")[0]
    kind = catboost.CatBoostRegressor
    if loss in _CATBOOST_CLASSES:
        kind = catboost.CatBoostClassifier
    elif loss.startswith(_CATBOOST_RANKS):
        kind = catboost.CatBoostRanker
    estimator = kind()
    estimator.load_model(str(path))
    names = list(estimator.feature_names_)
    estimator._n_features_in = len(names)  # 0 after load_model, as of CatBoost 1.2
    if names != [str(index) for index in range(len(names))]:
        estimator.feature_names_in_ = np.array(names, dtype=object)
    return estimator

"""A trained model in a local file: pickles, which run code when loaded; skops and boosters' files, which do not."""

import importlib
import inspect
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import skops.io

from appliance import extras
from appliance.errors import ConversionRefused, Misuse, NotFound
from convert.sources import native_boosters
from convert.sources.fetched import Format, digest, format_of

_OWN_PACKAGES = ("sklearn", "numpy", "scipy")
# Boosters hold their trees as text or bytes, which their libraries parse.
_OWN_CLASSES = (
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRanker",
    "lightgbm.sklearn.LGBMRegressor",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRanker",
    "xgboost.sklearn.XGBRegressor",
)


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A trained model and where it came from.

    `file_name` is a file's name without its folders, or a registry's URL. `warnings` are the warnings of loading it;
    `run` and `trained_with` (library -> version) are what the registry says.
    """

    model: Any
    file_name: str
    sha256: str
    warnings: tuple[str, ...] = ()
    run: str = ""
    trained_with: dict[str, str] = field(default_factory=dict)


def load(path: Path, form: Format | None = None) -> SourceModel:
    """Return the model that `path` holds; loading a pickle runs whatever code it was given.

    `form` says how to read it, where the ending does not. Raises NotFound when there is no such file, Misuse for an
    unknown ending, an ONNX graph (which is not converted), and a library that is not installed, and ConversionRefused
    when the file cannot be loaded or a skops file holds types that are not known to be harmless.
    """
    if not path.is_file():
        raise NotFound(f"read the model {path}", "there is no such file", "check the path")
    form = form or format_of(path)
    if form == "onnx":
        found = "it is an ONNX graph already"
        raise Misuse(f"load {path.name} as a trained model", found, "give it to `appliance convert` with --expected")
    sha256 = digest(path)  # before its own code can change it
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = _read(path, form)
    complaints = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    return SourceModel(model, path.name, sha256, complaints)


def _read(path: Path, form: Format) -> Any:
    if form == "pickle":
        return _load_pickle(path)
    return _load_skops(path) if form == "skops" else native_boosters.load(path, form)


def _load_pickle(path: Path) -> Any:
    try:
        return joblib.load(path)
    except Exception as error:  # unpickling runs the file's own code, which may raise anything
        found = f"{type(error).__name__}: {error}"
        raise ConversionRefused(f"load {path.name}", found, _how_to_load(error)) from error


def _how_to_load(error: Exception) -> str:
    """Return the next step after an error of a pickle's own code."""
    if isinstance(error, ModuleNotFoundError) and error.name in extras.MODULES["boosting"]:
        return extras.how_to_get("boosting")
    return "install what the model was trained with, or check that the file is whole"


def _load_skops(path: Path) -> Any:
    """Return the model of a skops file, after checking the name of every type in it."""
    try:
        unknown = skops.io.get_untrusted_types(file=path)
        refused = [name for name in unknown if not _is_own_class(name)]
        if not refused:
            return skops.io.load(path, trusted=unknown)
    except Exception as error:  # a damaged file fails in zipfile, json or skops, each in its own way
        found = f"{type(error).__name__}: {error}"
        raise ConversionRefused(f"load {path.name}", found, "write it again with skops.io.dump") from error
    found = f"it holds types that are not known to be harmless: {', '.join(refused)}"
    raise ConversionRefused(f"load {path.name}", found, "train without them, or give a pickle from an author you trust")


def _is_own_class(name: str) -> bool:
    """Return whether `name` is a class of scikit-learn, NumPy or SciPy, or a booster's.

    Functions are left out: NumPy alone has some that run the text they are given.
    """
    if name in _OWN_CLASSES:
        return True
    module, _, qualified = name.rpartition(".")
    if module.partition(".")[0] not in _OWN_PACKAGES:
        return False
    try:
        return inspect.isclass(getattr(importlib.import_module(module), qualified, None))
    except ImportError:
        return False

"""A trained model in a local file: pickles, which run code when loaded; skops and boosters' files, which do not."""

import importlib
import inspect
import re
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib

from appliance import extras
from appliance.errors import ConversionRefused, Misuse, NotFound
from convert.sources import native_boosters, picked
from convert.sources.fetched import Format, digest, format_of

_DISTRIBUTIONS = {"imblearn": "imbalanced-learn", "umap": "umap-learn", "sksurv": "scikit-survival"}
"""The packages that bring modules of other names."""
_OF_A_SCRIPT = re.compile(r"attribute '(\w+)' on <module '(?:[\w.]+\.)?__(?:mp_)?main__'")
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


def load(path: Path, form: Format | None = None, item: str = "") -> SourceModel:
    """Return the model that `path` holds; loading a pickle runs whatever code it was given.

    `form` says how to read it, where the ending does not, and `item` which part of a pickled object the model is (see
    `picked`). Raises NotFound when there is no such file, Misuse for an unknown ending, an ONNX graph (which is not
    converted), and a library that is not installed, and ConversionRefused when the file cannot be loaded, holds no
    estimator, or a skops file holds types that are not known to be harmless.
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
        model = picked.pick(_read(path, form), item, path.name)
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
        found = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        raise ConversionRefused(f"load {path.name}", found, _remedy(error)) from error


def _remedy(error: Exception) -> str:
    """Return what to do about a pickle that cannot be loaded."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package in extras.MODULES["boosting"]:
            return extras.how_to_get("boosting")
        if package not in ("__main__", *sys.stdlib_module_names):
            own = f"if {package} is a module of your own, put its folder on PYTHONPATH"
            return f"pip install {_DISTRIBUTIONS.get(package, package)}; {own}"
    if lost := _OF_A_SCRIPT.search(str(error)):
        return (
            f"{lost[1]} stands in the script or notebook that wrote the model, which a pickle does not hold: move it "
            f"into a module, import it from there, write the model again, and put the module's folder on PYTHONPATH"
        )
    return "install what the model was trained with, or check that the file is whole"


def _load_skops(path: Path) -> Any:
    """Return the model of a skops file, after checking the name of every type in it."""
    import skops.io  # here, since the import takes longer than a small model's conversion

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

"""A trained model in a local file: pickles, which run code when loaded, and skops files, which do not."""

import hashlib
import importlib
import inspect
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import skops.io

from appliance.errors import ConversionRefused, Misuse, NotFound

PICKLES = (".joblib", ".pkl", ".pickle")
SKOPS = ".skops"
_OWN_PACKAGES = ("sklearn", "numpy", "scipy")


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A trained model and where it came from; `warnings` are what loading it complained about."""

    model: Any
    file_name: str
    sha256: str
    warnings: tuple[str, ...] = ()


def load(path: Path) -> SourceModel:
    """Return the model that `path` holds; loading a pickle runs whatever code it was given.

    Raises NotFound when there is no such file, Misuse for an unknown ending, and ConversionRefused when the file
    cannot be loaded or a skops file holds types that are not known to be harmless.
    """
    if not path.is_file():
        raise NotFound(f"read the model {path}", "there is no such file", "check the path")
    if path.suffix not in (*PICKLES, SKOPS):
        known = ", ".join((*PICKLES, SKOPS))
        raise Misuse(f"read the model {path.name}", f"the ending {path.suffix!r} is unknown", f"give one of {known}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = _load_skops(path) if path.suffix == SKOPS else _load_pickle(path)
    complaints = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    return SourceModel(model, path.name, hashlib.sha256(path.read_bytes()).hexdigest(), complaints)


def _load_pickle(path: Path) -> Any:
    try:
        return joblib.load(path)
    except Exception as error:  # unpickling runs the file's own code, which may raise anything
        next_step = "install what the model was trained with, or check that the file is whole"
        raise ConversionRefused(f"load {path.name}", f"{type(error).__name__}: {error}", next_step) from error


def _load_skops(path: Path) -> Any:
    """Return the model of a skops file after every type in it was judged by name."""
    try:
        unknown = skops.io.get_untrusted_types(file=path)
        refused = [name for name in unknown if not _is_own_class(name)]
        if not refused:
            return skops.io.load(path, trusted=unknown)
    except Exception as error:  # a damaged file fails in zipfile, json or skops, each in its own way
        found = f"{type(error).__name__}: {error}"
        raise ConversionRefused(f"load {path.name}", found, "write it again with skops.io.dump") from error
    found = f"it holds types that are not known to be harmless: {', '.join(refused)}"
    raise ConversionRefused(f"load {path.name}", found, "train without them, or give a pickle from a hand you trust")


def _is_own_class(name: str) -> bool:
    """Return whether `name` is a class of scikit-learn, NumPy or SciPy.

    Functions are left out: NumPy alone has some that run the text they are given.
    """
    module, _, qualified = name.rpartition(".")
    if module.partition(".")[0] not in _OWN_PACKAGES:
        return False
    try:
        return inspect.isclass(getattr(importlib.import_module(module), qualified, None))
    except ImportError:
        return False

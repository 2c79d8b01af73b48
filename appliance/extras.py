"""The extras of this distribution: what is lacking of one, and how to get it."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

MODULES: dict[str, Sequence[str]] = {
    "convert": ("joblib", "onnx", "pandas", "pyarrow", "skl2onnx", "sklearn", "skops", "threadpoolctl"),
    "cbor": ("cbor2",),
    "sparkplug": ("google.protobuf",),
    "parquet": ("pyarrow",),
    "ray": ("ray",),
    "boosting": ("catboost", "lightgbm", "xgboost"),
    "mlflow": ("mlflow",),
    "dvc": ("dvc",),
    "s3": ("boto3",),
    "docs": ("flask_swagger_ui",),
}
"""Extra -> the modules that it brings."""


def lacking(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed; none of them is imported."""
    return [module for module in MODULES[extra] if not _is_there(module)]


def how_to_get(extra: str) -> str:
    """Return the next step of a person who lacks an extra. pip finds nothing to extend in the binary."""
    command = f"pip install 'edge-inference-appliance[{extra}]'"
    if getattr(sys, "frozen", False):  # PyInstaller's word for the binary
        return f"the binary takes no more extras; in a Python environment: {command}"
    return command


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in is absent
        return False

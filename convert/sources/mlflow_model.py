"""A folder in MLflow's model format: which file of it is the model, what it was trained with, and its example rows.

The format is that of https://mlflow.org/docs/latest/ml/model/#storage-format; nothing of MLflow is needed to read it.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance import extras
from appliance.errors import ConversionRefused, InvalidInput, Misuse
from convert.sources.fetched import Fetched, Format, format_of

if TYPE_CHECKING:
    import pandas as pd

# Flavor -> (key of the file's name, key of the library's version, the library).
_FLAVORS = {
    "sklearn": ("pickled_model", "sklearn_version", "scikit-learn"),
    "lightgbm": ("data", "lgb_version", "lightgbm"),
    "xgboost": ("data", "xgb_version", "xgboost"),
    "catboost": ("data", "catboost_version", "catboost"),
    "onnx": ("data", "onnx_version", "onnx"),
}
_NATIVE: tuple[Format, ...] = ("lightgbm", "xgboost", "catboost", "onnx")
# MLflow's column types -> NumPy's (https://mlflow.org/docs/latest/api_reference/python_api/mlflow.types.html).
_TYPES = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}


def read(folder: Path, *, source: str, run: str, local: bool) -> Fetched:
    """Return the model file of the first flavor that we read.

    Raises Misuse without PyYAML, ConversionRefused for a model of other flavors, or one that is damaged.
    """
    story = _story(folder, source)
    flavors = story.get("flavors") or {}
    name = next((flavor for flavor in _FLAVORS if flavor in flavors), None)
    if name is None:
        found = f"its flavors are {', '.join(flavors) or 'none'}"
        raise ConversionRefused(f"read {source}", found, f"log it with one of mlflow.{', mlflow.'.join(_FLAVORS)}")
    flavor = flavors[name]
    file_key, version_key, library = _FLAVORS[name]
    path = _inside(folder, str(flavor.get(file_key)), source)
    if path.is_dir():  # MLflow puts an ONNX model's external data beside it
        path = _inside(path, "model.onnx", source)
    version = flavor.get(version_key)
    return Fetched(
        path=path,
        source=source,
        format=_format(path, name),
        local=local,
        run=run or str(story.get("run_id") or ""),
        libraries={library: str(version)} if version else {},
        example=folder if "saved_input_example_info" in story else None,
        code=_inside(folder, str(flavor["code"]), source) if flavor.get("code") else None,
    )


def example(folder: Path) -> "pd.DataFrame | None":
    """Return the model's input example as a table in the signature's types, or None when it is no table.

    Rows of a tensor are given as columns x0, x1, ... Raises InvalidInput when the example is damaged.
    """
    import pandas as pd

    story = _story(folder, folder.name)
    about = story.get("saved_input_example_info") or {}
    path = _inside(folder, str(about.get("artifact_path")), folder.name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if about.get("type") == "dataframe" and isinstance(content, dict):
            frame = pd.DataFrame(content["data"], columns=content.get("columns"))
        elif about.get("type") == "ndarray" and isinstance(content, list):
            frame = pd.DataFrame(content)
            frame.columns = [f"x{index}" for index in range(frame.shape[1])]
        else:
            return None
        return _typed(frame, json.loads((story.get("signature") or {}).get("inputs") or "[]"))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InvalidInput("read the model's input example", str(error), "give rows with --sample") from error


def _typed(frame: "pd.DataFrame", signature: list[dict[str, Any]]) -> "pd.DataFrame":
    """Return the table in the signature's types; JSON has 1.0 for 1 and null for NaN."""
    if len(signature) == 1 and "tensor-spec" in signature[0]:
        return frame.astype(signature[0]["tensor-spec"]["dtype"])
    types = {column.get("name"): _TYPES.get(column.get("type", "")) for column in signature}
    known = {name: kind for name, kind in types.items() if kind and name in frame and not frame[name].isna().any()}
    return frame.astype(known)


def _story(folder: Path, source: str) -> dict[str, Any]:
    """Return the MLmodel file's content."""
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise Misuse(f"read {source}/MLmodel", "PyYAML is not installed", extras.how_to_get("mlflow")) from error
    try:
        story = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, ValueError) as error:
        found = str(error).splitlines()[0]
        raise ConversionRefused(f"read {source}/MLmodel", found, "give a folder that MLflow wrote") from error
    if not isinstance(story, dict) or not isinstance(story.get("flavors") or {}, dict):
        raise ConversionRefused(
            f"read {source}/MLmodel", "it is not an MLflow model", "give a folder that MLflow wrote"
        )
    return story


def _inside(folder: Path, name: str, source: str) -> Path:
    """Return a file of the folder, or refuse a name that leads out of it."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ConversionRefused(f"read {source}/MLmodel", f"{name!r} leads out of the model's folder", "log it again")
    if not path.exists():
        raise ConversionRefused(f"read {source}/MLmodel", f"{name!r} is not in the model's folder", "log it again")
    return path


def _format(path: Path, flavor: str) -> Format:
    """Return how the file is read: by its ending where that runs code or is skops, else by the flavor."""
    if path.suffix in (".pkl", ".pickle", ".joblib", ".skops"):
        return format_of(path)
    return next((native for native in _NATIVE if native == flavor), "pickle")

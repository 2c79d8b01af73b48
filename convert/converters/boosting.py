"""Converts LightGBM's, XGBoost's and CatBoost's models, as far as these libraries are installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from appliance.errors import ConversionRefused
from convert.converters import tree_nodes
from convert.converters.writers import InputTensors, OutputTensors, Writer
from convert.converters.writers import register as register_writer

_native: dict[type, Writer] = {}


def categories_of_training(model: Any) -> dict[int, Any]:
    """Return {column: its categories in training} of a LightGBM or XGBoost model; nothing where they cannot be read."""
    library = type(model).__module__.partition(".")[0]
    try:
        if library == "lightgbm":
            from convert.converters import boosting_lightgbm

            return boosting_lightgbm.categories(model)
        if library == "xgboost":
            from convert.converters import boosting_xgboost

            return boosting_xgboost.categories(model)
    except ConversionRefused:  # the full reason is given when the model is converted
        pass
    return {}


def register() -> None:
    """Make skl2onnx write the models of those of the three libraries that are installed."""
    tree_nodes.allow_opset()
    if find_spec("lightgbm"):
        import lightgbm

        from convert.converters import boosting_lightgbm

        boosting_lightgbm.register()
        _native[lightgbm.Booster] = boosting_lightgbm.regressor
    if find_spec("xgboost"):
        import xgboost

        from convert.converters import boosting_xgboost

        boosting_xgboost.register()
        _native[xgboost.Booster] = boosting_xgboost.regressor
    if find_spec("catboost"):
        from convert.converters import boosting_catboost

        boosting_catboost.register()
    for booster in _native:  # both are called Booster, and skl2onnx finds converters by that name
        register_writer(booster, "regressor", _booster)


def _booster(rows: InputTensors, model: Any) -> OutputTensors:
    return _native[type(model)](rows, model)

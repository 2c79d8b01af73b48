"""Knows which estimators inside a model see the table itself and give its answer, and which columns they hash."""

from typing import Any

from sklearn.pipeline import Pipeline

_INNER = ("best_estimator_", "regressor_")  # where searches and target transformers keep what sees what they see


def first_step(model: Any) -> Any:
    """Return the estimator that sees the table itself: the first of a pipeline, also inside a search."""
    while (inner := _inside(model)) is not model:
        model = inner
    return model


def before_last(model: Any) -> tuple[list[Any], Any]:
    """Return the transformers before the estimator that gives the answer, and that estimator."""
    steps: list[Any] = []
    while isinstance(model, Pipeline) or _inside(model) is not model:
        if isinstance(model, Pipeline):
            steps += _kept(model.steps[:-1])
            model = model.steps[-1][1]
        else:
            model = _inside(model)
    return steps, model


def last_step(model: Any) -> Any:
    """Return the estimator that gives the answer; see `before_last`."""
    return before_last(model)[1]


def hashed_columns(model: Any) -> list[int]:
    """Return the positions of the columns that an estimator knows by hashes: CatBoost's categorical features."""
    indices = getattr(model, "get_cat_feature_indices", None)
    return sorted(map(int, indices())) if indices else []


def column_positions(model: Any, part: str) -> list[int]:
    """Return the positions of the columns that a ColumnTransformer gives to its part of this name.

    They may have been named there by names, positions from either end, a mask, a slice or a function.
    """
    return [int(position) for position in model._transformer_to_input_indices[part]]


def _inside(model: Any) -> Any:
    if isinstance(model, Pipeline):
        return next(iter(_kept(model.steps)), model)
    return next((getattr(model, name) for name in _INNER if hasattr(model, name)), model)


def _kept(steps: list[tuple[str, Any]]) -> list[Any]:
    """Return those of a pipeline's steps that are estimators: "passthrough" and None are none."""
    return [step for _, step in steps if step is not None and not isinstance(step, str)]

"""Finds what a model takes beyond ordinary values: asks the original, then checks that the graph answers the same."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from appliance.bundle.manifest import Category
from appliance.errors import ConversionRefused
from convert.converters import boosting
from convert.model.original import Original
from convert.model.schema import Column, Limits, Schema, text_of_null
from convert.model.steps import walk
from convert.proof.rows import ROWS_PER_COLUMN, UNSEEN_TEXTS, whole, with_values

Agrees = Callable[[pd.DataFrame, Limits], bool]
MOST_CATEGORIES = 10_000
_NAMES_SHOWN = 8


def probe(original: Original) -> Limits:
    """Return what the original takes, found by trying: missing values, infinity, and values unknown in training.

    Raises ConversionRefused where the original refuses something that the manifest cannot say.
    """
    schema = original.schema
    floats = [column for column in schema.columns if column.kind == "float" and not column.levels]
    gaps = [column for column in schema.columns if column.kind in ("float", "string")]
    missing = _taken(original, gaps, lambda column: [column.null])
    texts = [column for column in gaps if column.kind == "string" and column.name in missing]
    limits = Limits(
        missing=missing,
        infinite=_taken(original, floats, lambda column: [np.inf, -np.inf]),
        categories=dict(_categories(original)),
        missing_text={column.name: text_of_null(column.null) for column in texts},
    )
    return _for_one_tensor(schema, limits) if schema.style == "array" else limits


def settle(asked: Limits, schema: Schema, agrees: Agrees) -> tuple[Limits, list[str]]:
    """Return `asked` without what the graph answers in another way than the original, and a note on each.

    The device then refuses such a value, as it would a value that the original refuses. If the sample
    itself has gaps, they stay allowed and the proof decides.
    """
    limits = asked
    # A tensor of many columns takes gaps in all of them or in none.
    has_gaps = (
        schema.style == "array" and schema.takes_alike(limits) and any(column.has_missing for column in schema.columns)
    )
    for column in schema.columns:
        if column.name in limits.missing:
            limits = _settle_missing(limits, schema, column, has_gaps or column.has_missing, agrees)
        if column.name in limits.infinite and not agrees(with_values(schema, {column.name: [np.inf, -np.inf]}), limits):
            limits = replace(limits, infinite=limits.infinite - {column.name})
    if schema.style == "array":
        limits = _for_one_tensor(schema, limits)
    refused = {"missing values": asked.missing - limits.missing, "infinity": asked.infinite - limits.infinite}
    return limits, [_note(what, names) for what, names in refused.items() if names]


def _note(what: str, names: frozenset[str]) -> str:
    shown = ", ".join(sorted(names)[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    return f"the device refuses {what} in {shown}: the original takes them, but the graph answers them otherwise"


def _settle_missing(limits: Limits, schema: Schema, column: Column, needed: bool, agrees: Agrees) -> Limits:
    """Return `limits`, or without missing values in this column where the graph answers them otherwise.

    Where the sample has them they stay allowed, and the proof decides.
    """
    if needed or agrees(with_values(schema, {column.name: [column.null] * ROWS_PER_COLUMN}), limits):
        return limits
    texts = {name: text for name, text in limits.missing_text.items() if name != column.name}
    return replace(limits, missing=limits.missing - {column.name}, missing_text=texts)


def _taken(original: Original, columns: list[Column], values: Callable[[Column], list[Any]]) -> frozenset[str]:
    """Return the columns in which the original takes all of `values`: one call when it takes all, else one each."""
    if not columns:
        return frozenset()
    tried = {column.name: values(column) for column in columns}
    schema = original.schema
    if original.takes(with_values(schema, tried)):
        return frozenset(tried)
    # An array's tensor takes missing values in all its columns or in none, so only columns with gaps matter.
    apart = schema.style != "array" or schema.is_mixed
    asked = [column.name for column in columns if apart or column.has_missing]
    return frozenset(name for name in asked if original.takes(with_values(schema, {name: tried[name]})))


def _categories(original: Original) -> Iterator[tuple[str, list[Category]]]:
    """Yield the columns in which the original refuses a value that training never saw, and the values it takes."""
    yield from ((column.name, list(column.levels)) for column in original.schema.columns if column.levels)
    told = _told(original)
    yield from told.items()
    left = [column for column in original.schema.columns if column.name not in told]
    columns = [column for column in left if column.kind != "bool" and not column.levels]
    tried = {column.name: _unseen(original, column) for column in columns}
    if not tried or original.takes(with_values(original.schema, tried)):
        return
    for column in columns:
        if not original.takes(with_values(original.schema, {column.name: tried[column.name]})):
            yield column.name, _known(original, column)


def _told(original: Original) -> dict[str, list[Category]]:
    """Return {column: its categories} where the model must not be asked which it takes.

    XGBoost refuses unknown categories that sort after the known ones, and answers others as if they were the first.
    """
    found: dict[str, list[Category]] = {}
    for step in walk(original.model, len(original.schema.columns)):
        if type(step.estimator).__module__.startswith("xgboost.") and step.columns:
            for place, known in boosting.categories_of_training(step.estimator).items():
                column = original.schema.columns[step.columns[place]]
                found[column.name] = sorted(map(_plain, known))
    return found


def _unseen(original: Original, column: Column) -> list[Any]:
    """Return values that the column's encoder cannot know, if it has one."""
    values = original.schema.frame[column.name]
    if column.kind == "string":
        return [next(text for text in UNSEEN_TEXTS if text not in set(values))]
    finite = values.to_numpy()[np.isfinite(values.to_numpy())].astype("float64")
    greatest = float(np.abs(finite).max()) if len(finite) else 0.0
    beyond = [greatest * 1.5 + 2.0, finite.min() + 0.37] if len(finite) else [greatest + 2.0]
    return [whole(value) for value in beyond[:1]] if column.kind == "int64" else beyond


def _known(original: Original, column: Column) -> list[Category]:
    """Return the values that the original takes in a column: the sample's, and what its encoders know beside them."""
    kinds = {"string": (str,), "int64": (int, np.integer), "float": (int, float, np.number)}[column.kind]
    known = {_plain(value) for value in original.schema.frame[column.name].dropna()}
    listed = [
        {_plain(value) for value in values if isinstance(value, kinds) and value == value}
        for values in original.encoder_categories()
    ]
    if max(len(known), *map(len, listed), 0) > MOST_CATEGORIES or not known | set().union(*listed):
        found = f"it refuses values that training never saw in {column.name!r}, and takes {len(known)} others"
        raise ConversionRefused(
            f"list the categories of {column.name!r}", found, "fit the encoder to ignore unknown ones"
        )
    # One call for each encoder's list; value by value there would be as many calls as values.
    own = [values for values in listed if values and (values <= known or _takes(original, column, values))]
    known.update(*own)
    if not own and (rest := sorted(set().union(*listed) - known)):
        taken, _ = original.taken(with_values(original.schema, {column.name: rest}))
        known.update(value for value, is_taken in zip(rest, taken, strict=True) if is_taken)
    return sorted(known)


def _takes(original: Original, column: Column, values: set[Any]) -> bool:
    return original.takes(with_values(original.schema, {column.name: sorted(values)}))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _for_one_tensor(schema: Schema, limits: Limits) -> Limits:
    """Return limits that hold for every column of the `features` tensor alike: the manifest has one entry for it.

    Where the columns must differ, each is its own tensor with its own limits.
    """
    if not schema.takes_alike(limits):
        return limits
    names = {column.name for column in schema.columns}
    return replace(
        limits,
        missing=limits.missing if limits.missing >= names else frozenset(),
        infinite=limits.infinite if limits.infinite >= names else frozenset(),
    )

"""Which rows of a block the model takes, and what is wrong with each of the others. Pure.

Only the schema decides. It refuses a table as a whole, so bad rows are searched: a cheap check finds suspect cells,
each of which is checked alone; a table that is still refused is halved until the row is found.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from appliance.arrays import Array
from appliance.bundle.manifest import Input
from appliance.errors import InvalidInput
from appliance.inference.tensors import Feeds, InputSchema
from appliance.inference.values import all_finite

Places = NDArray[np.int64]
"""Rows of a block, by their number in it, ascending."""
NO_ROWS: Places = np.empty(0, np.int64)
Columns = Mapping[str, Sequence[Any] | Array]
Judge = Callable[[Any], str]
"""Values of one column -> why they are refused, "" where they are taken."""


class Bad(msgspec.Struct, frozen=True, array_like=True):
    """A row that the model does not take."""

    row: int
    """Its place in the block."""
    column: str
    """The first column that is wrong; "" where it is the row as a whole."""
    reason: str


@dataclass(frozen=True, slots=True)
class Checked:
    """A block's good and bad rows; `feeds` are those of the `good` rows, None without any."""

    feeds: Feeds | None
    good: Places
    bad: list[Bad]


def check(schema: InputSchema, columns: Columns, rows: int) -> Checked:
    """Return the good and bad rows of a table by column. Every required column must be there."""
    known = {name: columns[name] for name in schema.columns if name in columns}
    if rows == 0:
        return Checked(None, NO_ROWS, [])
    try:
        return Checked(schema.from_columns(known), np.arange(rows), [])
    except InvalidInput:
        found: dict[int, Bad] = {}
    for tensor in schema.inputs:
        for name in (name for name in tensor.columns if name in known):
            for place, reason in _bad_values(tensor, name, known[name]):
                found.setdefault(place, Bad(place, name, reason))
    good = _others(rows, found)
    bad = [found[place] for place in sorted(found)]
    if not len(good):
        return Checked(None, good, bad)
    return Checked(schema.from_columns({name: take(values, good) for name, values in known.items()}), good, bad)


def check_numbers(schema: InputSchema, narrow: Array, wide: Callable[[Places], NDArray[np.float64]]) -> Checked:
    """Return the good and bad rows of a table [rows, columns] of a plain schema in its type, NaN for a missing value.

    Rows with an infinite number, or with a gap that the model does not take, are checked by themselves: `wide` gives
    some rows as they were before a large number became infinite.
    """
    tensor = schema.plain
    assert tensor is not None  # noqa: S101 - a mistake of ours, not of a caller's rows
    few, others = NO_ROWS, np.arange(len(narrow))
    if not all_finite(narrow):
        suspect = (np.isinf(narrow) if tensor.missing else ~np.isfinite(narrow)).any(axis=1)
        few, others = np.flatnonzero(suspect), np.flatnonzero(~suspect)
    parts = [(few, check(schema, dict(zip(schema.columns, wide(few).T, strict=True)), len(few)))] if len(few) else []
    if len(others):
        rest = narrow[others] if len(few) else narrow
        try:
            checked = Checked(schema.from_tensors({tensor.name: rest}), np.arange(len(others)), [])
        except InvalidInput:  # as of a category that training did not have
            checked = check(schema, dict(zip(schema.columns, rest.T, strict=True)), len(others))
        parts.append((others, checked))
    return joined(parts, []) if len(parts) > 1 else parts[0][1]


def joined(parts: Sequence[tuple[Places, Checked]], broken: Sequence[Bad]) -> Checked:
    """Return parts of a block as one; each comes with the places of its rows in the block.

    `broken` are rows of the block that are in no part: they could not be read.
    """
    bad = [msgspec.structs.replace(one, row=int(places[one.row])) for places, part in parts for one in part.bad]
    bad = sorted([*bad, *broken], key=lambda one: one.row)
    fed = [(places[part.good], part.feeds) for places, part in parts if part.feeds is not None]
    if not fed:
        return Checked(None, NO_ROWS, bad)
    if len(fed) == 1:
        return Checked(fed[0][1], fed[0][0], bad)
    good = np.concatenate([places for places, _ in fed])
    order = np.argsort(good)
    feeds = {name: np.concatenate([feeds[name] for _, feeds in fed])[order] for name in fed[0][1]}
    return Checked(feeds, good[order], bad)


def take(values: Sequence[Any] | Array, places: Places) -> Sequence[Any] | Array:
    """Return the values at some places."""
    return values[places] if isinstance(values, np.ndarray) else [values[place] for place in places.tolist()]


def _others(rows: int, places: Iterable[int]) -> Places:
    """Return the rows that are not at these places."""
    left = np.ones(rows, bool)
    left[list(places)] = False
    return np.flatnonzero(left)


def refused(judge: Callable[[int, int], str], first: int, last: int) -> Iterator[tuple[int, str]]:
    """Yield (place, reason) of each place in `first` to before `last` that is refused, by halving."""
    reason = judge(first, last) if last > first else ""
    if not reason:
        return
    if last - first == 1:
        yield first, reason
        return
    middle = (first + last) // 2
    yield from refused(judge, first, middle)
    yield from refused(judge, middle, last)


def _bad_values(tensor: Input, name: str, values: Sequence[Any] | Array) -> Iterator[tuple[int, str]]:
    """Yield (place, reason) of each value of one column that is refused."""
    if _is_plain(tensor, values):
        return
    judge = _judge(tensor, name)
    if not judge(values):
        return
    suspects = _suspects(tensor, values)
    bad = {place: reason for place in suspects if (reason := judge(values[place : place + 1]))}
    yield from bad.items()
    rest = _others(len(values), bad)
    left = take(values, rest)
    for place, reason in refused(lambda first, last: judge(left[first:last]), 0, len(rest)):
        yield int(rest[place]), reason


def _is_plain(tensor: Input, values: Sequence[Any] | Array) -> bool:
    """Return whether a glance shows that all values are taken; False says nothing."""
    if tensor.categories is not None or tensor.type not in ("float32", "float64"):
        return False
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        return False
    with np.errstate(over="ignore"):
        return all_finite(values.astype(tensor.type))


def _judge(tensor: Input, name: str) -> Judge:
    """Return what asks the schema about values of one column."""
    schema = InputSchema([msgspec.structs.replace(tensor, shape=[-1, 1], columns=[name])])

    def judge(values: Any) -> str:
        if not len(values):
            return ""
        try:
            schema.from_columns({name: values})
        except InvalidInput as error:
            return error.found
        return ""

    return judge


def _suspects(tensor: Input, values: Sequence[Any] | Array) -> list[int]:
    """Return the places of values that a cheap check finds suspect; it may find too many or too few."""
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        if values.dtype.kind != "f":
            return []
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = values.astype(tensor.type) if tensor.type.startswith("float") else values
        found: list[int] = np.flatnonzero(~np.isfinite(narrow)).tolist()
        return found
    known = None if tensor.categories is None else {value for value in tensor.categories if value == value}
    return [place for place, value in enumerate(values) if _is_suspect(tensor, value, known)]


def _is_suspect(tensor: Input, value: Any, known: set[Any] | None) -> bool:
    """Return whether a value may be one that the tensor does not take."""
    if tensor.type in ("string", "bool"):
        right = type(value) is (str if tensor.type == "string" else bool)
    else:
        right = type(value) is int or (type(value) is float and math.isfinite(value))
    return not right or (known is not None and value not in known)

"""The rows of a request as they were sent, kept beside the feeds that were made of them. Pure."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from appliance.arrays import Array

MOST = 4096
"""Rows that are kept of one call; of more, every so many. A run that several messages share has no more."""
_VALUE_BYTES, _ROW_BYTES, _TEXT_BYTES = 32, 96, 49


class SentRows:
    """Some rows, each value as the request had it: of no tensor's type yet."""

    __slots__ = ("step", "values")

    def __init__(self, values: Any, rows: int) -> None:
        """`values` are rows (lists or objects), or {column: values}, or {tensor: array}; nobody changes them."""
        self.step = 1 if rows <= MOST else -(-rows // MOST)
        """Every so many rows are kept, from the first on."""
        self.values = values if self.step == 1 else _every(values, self.step)

    def every(self, step: int) -> "SentRows":
        """Return fewer rows: every `step` of those that there are."""
        fewer = SentRows.__new__(SentRows)
        fewer.step, fewer.values = self.step * step, _every(self.values, step)
        return fewer

    def size(self, *, texts: bool) -> int:
        """Return the memory that the rows take, near enough; `texts`: some columns are texts, which may be long."""
        values = self.values
        if isinstance(values, Mapping):
            columns = list(values.values())
            arrays = sum(one.nbytes for one in columns if isinstance(one, np.ndarray))
            return arrays + sum(_size(one, texts) for one in columns if not isinstance(one, np.ndarray))
        return sum(_size(list(row.values()) if isinstance(row, Mapping) else row, texts) for row in values)

    def in_order(self, columns: Sequence[str], inputs: Sequence[tuple[str, int]]) -> list[list[Any]] | None:
        """Return each row as a list in the order of `columns`, a value that was not named as None.

        `inputs` are (tensor, columns that fill it) in the manifest's order. None for tensors of another form.
        """
        values = self.values
        if type(values) is list or not isinstance(values, Mapping):  # to ask for Mapping takes longer
            if all(type(row) is list for row in values):
                return [row.copy() for row in values]
            return [[row.get(name) for name in columns] if isinstance(row, Mapping) else list(row) for row in values]
        if set(values) <= set(columns):
            rows = max(map(len, values.values()), default=0)
            listed = [_listed(values[name]) if name in values else [None] * rows for name in columns]
            return [list(row) for row in zip(*listed, strict=True)]
        if len(values) == 1:
            return _matrix(list(values.values()), len(columns))
        named = set(values) == {name for name, _ in inputs}
        return _matrix([values[name] for name, _ in inputs], len(columns)) if named else None


def _matrix(arrays: Sequence[Array], width: int) -> list[list[Any]] | None:
    """Return tensors beside each other as rows of `width` values, None where they are none."""
    rows = arrays[0].shape[0] if arrays[0].ndim != 1 or width == 1 else 1
    parts = [array.reshape(rows, -1).tolist() for array in arrays if rows and array.size % rows == 0]
    if len(parts) < len(arrays):
        return None
    listed = [list(chain.from_iterable(row)) for row in zip(*parts, strict=True)]
    return listed if listed and len(listed[0]) == width else None


class SentFeeds(dict[str, Array]):
    """Feeds, and beside them the rows as they were sent: for who keeps a log of them."""

    __slots__ = ("sent",)

    def __init__(self, feeds: dict[str, Array], sent: SentRows) -> None:
        dict.__init__(self, feeds)
        self.sent = sent


def _every(values: Any, step: int) -> Any:
    """Return every `step` of some rows, without keeping the others in memory."""
    if isinstance(values, Mapping):
        return {name: _every(one, step) for name, one in values.items()}
    return values[::step].copy() if isinstance(values, np.ndarray) else values[::step]


def _listed(values: Any) -> list[Any]:
    """Return one column's values."""
    return values.reshape(-1).tolist() if isinstance(values, np.ndarray) else list(values)


def _size(values: Sequence[Any], texts: bool) -> int:
    """Return the memory that some values take."""
    size = _ROW_BYTES + _VALUE_BYTES * len(values)
    return size + sum(_TEXT_BYTES + len(one) for one in values if isinstance(one, str)) if texts else size

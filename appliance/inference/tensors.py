"""Rows, columns and tensors: turns what a caller sent into the arrays a graph takes, or says what is wrong with it.

Pure: nothing is read or written here. What scikit-learn would refuse and a graph would answer all the same (a missing
value, infinity, a category that training never saw, no rows at all) is refused here, by the manifest's word.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.arrays import Array
from appliance.bundle.manifest import Input
from appliance.errors import InvalidInput
from appliance.inference import refusals
from appliance.inference.one_row import OneRow
from appliance.inference.sent import SentFeeds, SentRows
from appliance.inference.values import (
    Scalar,
    all_finite,
    kind_of,
    narrowed,
    packed,
    plain_floats,
    quoted,
    wide_numbers,
)

Row = Sequence[Any] | Mapping[str, Any]
Feeds = dict[str, Array]


_NUMBERS = {int, float}
_FLAGS = [0.0, 1.0]
_COMPARED = 200  # characters of a name that is looked for among the columns
_BLOCK = 65536  # values that are looked at together


class InputSchema:
    """The inputs of one version, ready to turn many requests into feeds.

    A row is a list in the order of `columns`, or an object by column name. All methods return {input name: array}
    with the manifest's dtypes and shapes [rows, width] (strings as dtype object), and raise InvalidInput.
    """

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.inputs = tuple(inputs)
        self.columns = [column for tensor in inputs for column in tensor.columns]
        self._by_name = {tensor.name: tensor for tensor in inputs}
        self.keeps_rows = False
        """Whether feeds are SentFeeds; set by who wants the rows."""
        self.may_lack = frozenset(name for one in inputs if one.missing or not one.required for name in one.columns)
        """Columns of which the model takes a missing value."""
        self._known = frozenset(self.columns)
        # One float tensor is the plain array's case, and the fast one: the whole table converts in one call.
        plain = len(inputs) == 1 and inputs[0].type in ("float32", "float64") and not _holds_flags(inputs[0])
        self.plain = inputs[0] if plain else None
        """The one tensor of floats that all columns fill; None where columns differ."""
        self.value_type: Any = Scalar
        """The type of one JSON value of a row, for a typed decoder: Scalar where columns differ."""
        if self.plain is not None:
            self.value_type = float | None if self.plain.missing else float
        self._one = OneRow(self.plain) if self.plain is not None and self.plain.categories is None else None

    def from_rows(self, rows: Sequence[Row], *, typed: bool = False, extra: bool = False) -> Feeds:
        """Return feeds of rows, all lists or all objects.

        `typed` says that every value is already of `value_type`. `extra` lets objects have keys that are no column.
        """
        if typed and len(rows) == 1 and self._one is not None and not self.keeps_rows:
            feeds = self._one.feeds(rows[0])
            if feeds is not None:
                return feeds
        feeds = self._from_rows(rows, typed, extra)
        return SentFeeds(feeds, SentRows(rows, len(rows))) if self.keeps_rows else feeds

    def _from_rows(self, rows: Sequence[Row], typed: bool, extra: bool) -> Feeds:
        """Do what from_rows() does."""
        if not rows:
            raise InvalidInput("read the rows", "there are none", "send at least one row")
        if typed and self.plain is not None and type(rows[0]) is list:
            return {self.plain.name: _checked(self.plain, self._table(self.plain, rows))}
        if isinstance(rows[0], Mapping):
            return self.from_columns(self._columns_of(rows, extra), typed=typed)
        return self.from_columns(self._transposed(rows))

    def from_numbers(self, values: Sequence[float | None], rows: int) -> Feeds:
        """Return feeds of rows that follow each other in one list, each value of `value_type`; of a plain schema."""
        assert self.plain is not None  # noqa: S101 - a mistake of ours, not of a caller's rows
        tensor = self.plain
        flat = packed(tensor.type, values, len(values))
        if flat is None or not (tensor.finite or all_finite(flat)):  # see _table()
            flat = _narrowed(tensor, "", plain_floats(values).reshape(rows, -1))
        return {tensor.name: _checked(tensor, flat.reshape(rows, -1))}

    def from_columns(self, columns: Mapping[str, Sequence[Any] | Array], *, typed: bool = False) -> Feeds:
        """Return feeds of a table given by column, each column holding one value for each row."""
        self._same_names(columns)
        typed = typed and self.plain is not None  # elsewhere value_type is wider than a column's own type
        if len({len(values) for values in columns.values()}) > 1:
            found = ", ".join(f"{name}: {len(values)}" for name, values in columns.items())
            raise InvalidInput("read the columns", f"they differ in length ({found})", "send one value for each row")
        feeds: Feeds = {}
        for tensor in self.inputs:
            parts = [_column(tensor, name, columns.get(name), _length(columns), typed) for name in tensor.columns]
            feeds[tensor.name] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return SentFeeds(feeds, SentRows(columns, _length(columns))) if self.keeps_rows else feeds

    def from_tensors(self, tensors: Mapping[str, Array]) -> Feeds:
        """Return feeds of named tensors, cast where no value changes its meaning.

        Tensors named as columns instead of inputs are a table by column. One tensor of any other name is the one input
        of the model, or a matrix of all columns in their order. A tensor of width 1 may come as [rows], one row as
        [width].
        """
        feeds = self._from_tensors(tensors)
        if self.keeps_rows and not isinstance(feeds, SentFeeds):
            return SentFeeds(feeds, SentRows(dict(tensors), len(next(iter(feeds.values())))))
        return feeds

    def _from_tensors(self, tensors: Mapping[str, Array]) -> Feeds:
        """Do what from_tensors() does."""
        if set(tensors) != set(self._by_name):
            return self._otherwise_named(tensors)
        feeds = {name: _tensor(self._by_name[name], array) for name, array in tensors.items()}
        if len({len(array) for array in feeds.values()}) > 1:
            found = ", ".join(f"{name}: {len(array)}" for name, array in feeds.items())
            raise InvalidInput("read the input tensors", f"they differ in rows ({found})", "send the same rows in each")
        return {tensor.name: feeds[tensor.name] for tensor in self.inputs}

    def _otherwise_named(self, tensors: Mapping[str, Array]) -> Feeds:
        """Return feeds of tensors that are not named as the inputs are, see from_tensors()."""
        if set(tensors) <= self._known and all(_is_column(array) for array in tensors.values()):
            return self.from_columns({name: array.reshape(-1) for name, array in tensors.items()})
        width = len(self.columns)
        if len(tensors) == 1:  # KServe's clients call it input-0, MLServer's predict
            (array,) = tensors.values()
            if len(self.inputs) == 1:
                return {self.inputs[0].name: _tensor(self.inputs[0], array)}
            if array.shape[-1:] == (width,) and array.ndim <= 2:
                matrix = array.reshape(-1, width)
                return self.from_columns({name: matrix[:, place] for place, name in enumerate(self.columns)})
        given = ", ".join(name[:_COMPARED] for name in islice(tensors, _COMPARED)) or "none"
        shapes = f" of shape {list(array.shape)}" if len(tensors) == 1 else ""
        next_step = f"send exactly {', '.join(self._by_name)}, or one tensor [rows, {width}] with them in this order"
        raise InvalidInput("read the input tensors", f"got {given}{shapes}", next_step)

    def _table(self, tensor: Input, rows: Sequence[Any]) -> Array:
        """Return typed rows as one [rows, width] array."""
        width = len(self.columns)
        count = len(rows) * width
        try:
            if set(map(len, rows)) == {width}:
                flat = packed(tensor.type, chain.from_iterable(rows), count)
                # A number that became infinite in packing is refused below, or as every infinity is.
                if flat is not None and (tensor.finite or all_finite(flat)):
                    return flat.reshape(-1, width)
            wide = plain_floats(rows)
        except (ValueError, TypeError) as error:
            raise self._ragged(rows) from error
        if wide.ndim != 2 or wide.shape[1] != width:
            raise self._ragged(rows)
        return _narrowed(tensor, "", wide)

    def _transposed(self, rows: Sequence[Row]) -> dict[str, Sequence[Any]]:
        """Return rows given as lists as {column name: values}."""
        width = len(self.columns)
        if any(isinstance(row, (str, bytes, Mapping)) or not isinstance(row, Sequence) for row in rows):
            raise self._ragged(rows)
        if any(len(row) != width for row in rows):
            raise self._ragged(rows)
        return dict(zip(self.columns, zip(*rows, strict=True), strict=True))

    def _ragged(self, rows: Sequence[Row]) -> InvalidInput:
        """Return the error that names the first row which is no list of the right width."""
        width = len(self.columns)
        for index, row in enumerate(rows):
            if isinstance(row, (str, bytes, Mapping)) or not isinstance(row, Sequence):
                found = f"row {index} is {kind_of(row)}, not a list of {width}"
                return InvalidInput("read the rows", found, "send all rows as lists, or all as objects")
            if len(row) != width:
                expected = ", ".join(self.columns)
                return InvalidInput("read the rows", f"row {index} has {len(row)} values", f"send {width}: {expected}")
        return InvalidInput("read the rows", "they hold more than plain values", f"send rows of {width} values")

    def _columns_of(self, rows: Sequence[Any], extra: bool) -> dict[str, Sequence[Any]]:
        """Return rows given as objects as {column name: values}, absent keys as None where the manifest lets them."""
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping):
                found = f"row {index} is {kind_of(row)}, not an object"
                raise InvalidInput("read the rows", found, "send all rows as lists, or all as objects")
            if row.keys() != self._known:
                self._check_keys(index, row, extra)
        return {name: [row.get(name) for row in rows] for name in self.columns}

    def _check_keys(self, index: int, row: Mapping[str, Any], extra: bool) -> None:
        """Raise InvalidInput for a row that lacks a required column or, unless `extra`, names an unknown one."""
        if not extra:
            self._no_unknown(row, f"row {index}")
        lacking = [name for tensor in self.inputs if tensor.required for name in tensor.columns if name not in row]
        if lacking:
            found = f"row {index} lacks {refusals.listed(lacking)}"
            raise refusals.absent("read the rows", found, lacking, f"send every one of {', '.join(self.columns)}")

    def _same_names(self, columns: Mapping[str, object]) -> None:
        """Raise InvalidInput for a table that lacks a required column or names an unknown one."""
        if columns.keys() == self._known:
            return
        self._no_unknown(columns, "the table")
        lacking = [name for tensor in self.inputs if tensor.required for name in tensor.columns if name not in columns]
        if lacking or not columns:
            raise refusals.absent(
                "read the columns", f"the table lacks {refusals.listed(lacking)}", lacking, "send every required column"
            )

    def _no_unknown(self, names: Iterable[str], where: str) -> None:
        """Raise InvalidInput when a name is no column, with the nearest one that is."""
        unknown = [name for name in names if name not in self._known]
        if unknown:
            near = _nearest(str(unknown[0]), self.columns)
            hint = f"did you mean {near!r}?" if near else f"the columns are {', '.join(self.columns)}"
            raise InvalidInput("read the rows", f"{where} has the unknown column {quoted(unknown[0])}", hint)


def _nearest(name: str, columns: Sequence[str]) -> str:
    """Return the column that `name` may have meant, "" for none or where to look would take long."""
    if len(name) > _COMPARED or len(name) * len(columns) > _COMPARED * 100:
        return ""
    return next(iter(difflib.get_close_matches(name, columns, 1)), "")


def _holds_flags(tensor: Input) -> bool:
    """Return whether a tensor of floats stands for booleans with gaps, which no tensor of booleans can hold."""
    return tensor.type in ("float32", "float64") and tensor.categories == _FLAGS


def _length(columns: Mapping[str, Sequence[Any] | Array]) -> int:
    """Return the number of rows of a table by column."""
    return len(next(iter(columns.values())))


def _is_column(array: Array) -> bool:
    """Return whether a tensor holds one value for each row."""
    return array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)


def _column(tensor: Input, name: str, values: Sequence[Any] | Array | None, rows: int, typed: bool) -> Array:
    """Return one column as a [rows, 1] array of the tensor's dtype."""
    if values is None:
        values = [None] * rows
    if rows == 0:
        raise InvalidInput("read the rows", "there are none", "send at least one row")
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        array = _cast(tensor, name, values)
    elif tensor.type == "string":
        array = _strings(tensor, name, list(values))
    elif typed and tensor.type in ("float32", "float64"):
        array = _narrowed(tensor, name, plain_floats(values))
    else:
        array = _numbers(tensor, name, list(values))
    return _checked(tensor, array.reshape(-1, 1), name)


def _tensor(tensor: Input, array: Array) -> Array:
    """Return a given tensor in the manifest's dtype and shape."""
    width = tensor.shape[1:]
    if array.ndim == 1 and width in ([1], [len(array)]):
        array = array.reshape(-1, *width)
    if list(array.shape[1:]) != width or array.ndim != len(tensor.shape):
        expected = ["rows", *width]
        found = f"its shape is {list(array.shape)}"
        raise InvalidInput(f"read the tensor {tensor.name!r}", found, f"send {expected}".replace("'", ""))
    if array.shape[0] == 0:
        raise InvalidInput(f"read the tensor {tensor.name!r}", "it has no rows", "send at least one row")
    if array.dtype.kind == "O":
        if tensor.type != "string":
            raise refusals.wrong_type(tensor, tensor.name, "texts")
        return _checked(tensor, _strings(tensor, tensor.name, list(array.reshape(-1))).reshape(array.shape))
    return _checked(tensor, _cast(tensor, tensor.name, array))


def _cast(tensor: Input, name: str, array: Array) -> Array:
    """Return `array` in the tensor's dtype; only casts that keep every value's meaning."""
    if tensor.type == "string":
        if array.dtype.kind == "U":
            return array.astype(object)
        raise refusals.wrong_type(tensor, name, f"values of type {array.dtype}")
    target = np.dtype(tensor.type)
    if array.dtype == target:
        return array
    if target.kind == "f" and (array.dtype.kind in "fiu" or (array.dtype.kind == "b" and _holds_flags(tensor))):
        return _narrowed(tensor, name, array)
    if target.kind in "iu" and array.dtype.kind in "iuf":
        return _integers(tensor, name, array)
    raise refusals.wrong_type(tensor, name, f"values of type {array.dtype}")


def _narrowed(tensor: Input, name: str, wide: NDArray[Any]) -> Array:
    """Return numbers as the tensor's floats. Raises InvalidInput for a finite one that would become infinite."""
    return narrowed(
        lambda bad: refusals.infinite(tensor, name or refusals.first_column(tensor, bad)), tensor.type, wide
    )


def _integers(tensor: Input, name: str, array: NDArray[Any]) -> Array:
    """Return numbers as the tensor's integers, refusing fractions and what does not fit."""
    limits = np.iinfo(tensor.type)
    numbers = array.astype(np.float64) if array.dtype.kind == "f" else array
    # A float64 bound would round 2^63-1 up to 2^63, so the upper bound is exclusive for floats.
    above = numbers >= float(limits.max) + 1 if array.dtype.kind == "f" else numbers > limits.max
    bad = ~np.isfinite(numbers) | (numbers < limits.min) | above
    if array.dtype.kind == "f":
        bad |= np.floor(numbers) != numbers
    if bad.any():
        found = f"{refusals.some(numbers[bad].tolist())}, outside the whole numbers of {tensor.type}"
        raise refusals.wrong_type(tensor, name, found, "missing" if np.isnan(numbers[bad]).any() else "type")
    return array.astype(tensor.type)


def _numbers(tensor: Input, name: str, values: list[Any]) -> Array:
    """Return JSON values as the tensor's numbers or booleans."""
    kinds = set(map(type, values))
    if type(None) in kinds and not tensor.missing:
        raise refusals.no_missing(tensor, name)
    kinds.discard(type(None))
    allowed = {bool} if tensor.type == "bool" else _NUMBERS
    if bool in kinds and _holds_flags(tensor):
        values = [float(value) if type(value) is bool else value for value in values]
        kinds = set(map(type, values)) - {type(None)}
    if not kinds <= allowed:
        wrong = [value for value in values if value is not None and type(value) not in allowed]
        raise refusals.wrong_type(tensor, name, f"{kind_of(wrong[0])} ({refusals.some(wrong)})")
    if tensor.type == "bool":
        return np.array(values, dtype=bool)
    whole = kinds == {int} and None not in values
    return _cast(tensor, name, wide_numbers(f"read the column {name!r}", values, whole=whole, column=name))


def _strings(tensor: Input, name: str, values: list[Any]) -> Array:
    """Return texts as dtype object, a missing one as the manifest's stand-in."""
    texts = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        if isinstance(value, str):
            texts[index] = value
        elif value is None:
            if not tensor.missing:
                raise refusals.no_missing(tensor, name)
            texts[index] = tensor.missing_text
        else:
            raise refusals.wrong_type(tensor, name, f"{kind_of(value)} ({quoted(value)})")
    return texts


def _checked(tensor: Input, array: Array, name: str = "") -> Array:
    """Return `array`, or raise InvalidInput for a value that the original model would have refused."""
    if array.dtype.kind == "f":
        _check_finite(tensor, array, name)
    if tensor.categories is not None:
        # In the tensor's own type: float32's 0.1 is not the 0.1 that the manifest's JSON names.
        allowed = set(np.array(tensor.categories, dtype=object if tensor.type == "string" else tensor.type).tolist())
        if tensor.missing and array.dtype.kind == "O":
            allowed.add(tensor.missing_text)
        unseen = _unseen(array, allowed)
        if unseen:
            known = refusals.listed([str(value) for value in tensor.categories])
            column = name or tensor.name
            tried, found = f"read the column {column!r}", f"{refusals.some(unseen)} was never seen in training"
            raise InvalidInput(tried, found, f"send one of {known}", column=column, reason="unseen")
    return array


def _unseen(array: Array, allowed: set[Any]) -> list[Any]:
    """Return the first values, NaN aside, that are none of those allowed; of many values a part at a time."""
    flat = array.reshape(-1)
    for start in range(0, len(flat), _BLOCK):
        values = flat[start : start + _BLOCK].tolist()
        if unseen := [value for value in values if value not in allowed and value == value]:
            return unseen
    return []


def _check_finite(tensor: Input, array: Array, name: str) -> None:
    """Raise InvalidInput for NaN where the model takes no missing value, and for infinity where it takes none."""
    if all_finite(array) or np.isfinite(array).all():
        return
    if not tensor.missing and (bad := np.isnan(array)).any():
        raise refusals.no_missing(tensor, name or refusals.first_column(tensor, bad))
    if tensor.finite and (bad := np.isinf(array)).any():
        raise refusals.infinite(tensor, name or refusals.first_column(tensor, bad))

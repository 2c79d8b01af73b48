"""What blocks of text have in common, whatever their format: records by line, and answers as texts. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np

from appliance.arrays import Array
from appliance.batch.checking import Checked, Places
from appliance.inference.values import all_finite

_encode_json = msgspec.json.Encoder().encode
_FEW = 256  # rows up to which putting them in takes less than building a list
_NEEDS_QUOTES = (b'"', b",", b"\r", b"\n")


@dataclass(slots=True)
class Table:
    """A block of records that were read and checked; blank lines are none."""

    data: bytes
    lines: list[bytes]
    """Each record as it stands in the file, without its line end."""
    numbers: Sequence[int]
    """The line of each record in the block, from 0."""
    checked: Checked

    @property
    def rows(self) -> int:
        """The number of records."""
        return len(self.lines)

    def number_of(self, row: int) -> int | None:
        """Return the number of a record's line in the block, from 0."""
        return self.numbers[row]

    def line_of(self, row: int) -> str:
        """Return a record as a text."""
        return self.lines[row].decode("utf-8", "replace").rstrip("\r")


class Reader(Protocol):
    """Reads one file's blocks of text."""

    def read(self, data: Any) -> Any:
        """Return the records of a block, checked by the schema. Raises InvalidInput where none can be told apart."""

    def cells(self, table: Table, names: Sequence[str], typed: bool) -> list[list[Any] | None]:
        """Return of each record the values of some columns; None for a record that cannot be read.

        A value is as the file has it: a text, or a plain JSON value, None where the record has none. Where `typed`, the
        texts of the model's columns become the values that the model reads.
        """


def csv_texts(array: Array) -> list[bytes]:
    """Return a column of answers as cells of CSV; NaN is empty, infinity `inf`."""
    if array.dtype.kind == "f" and not all_finite(array):
        return [csv_text(value) for value in array.tolist()]
    return _numbers(array) if array.dtype.kind != "O" else texts_of(array.tolist(), csv_text)


def json_texts(array: Array) -> list[bytes]:
    """Return a column of answers in JSON; NaN and infinity are null, as in /predict."""
    return _numbers(array) if array.dtype.kind != "O" else texts_of(array.tolist(), _encode_json)


def flags_of(array: Array) -> list[bytes]:
    """Return a column of qualities as cells: the flags alone."""
    return [one.flag.encode() for one in array.tolist()]


def documents_of(array: Array) -> list[bytes]:
    """Return a column of qualities in JSON, as /predict has it."""
    return list(map(_encode_json, array.tolist()))


def csv_text(value: Any) -> bytes:
    """Return a value as a cell of CSV, quoted where it must be."""
    if value is None or value != value:
        return b""
    if isinstance(value, float) and math.isinf(value):
        return b"inf" if value > 0 else b"-inf"
    text = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else _encode_json(value)
    if not text or any(mark in text for mark in _NEEDS_QUOTES):
        return b'"' + text.replace(b'"', b'""') + b'"'
    return text


def spread(texts: Sequence[bytes], good: Places, rows: int, empty: bytes) -> Sequence[bytes]:
    """Return the texts of the good rows at their places, and `empty` at the others."""
    if len(good) == rows:
        return texts
    if rows - len(good) <= _FEW:
        found = list(texts)
        for place in np.setdiff1d(np.arange(rows), good, assume_unique=True).tolist():
            found.insert(place, empty)
        return found
    found = [empty] * rows
    for place, text in zip(good.tolist(), texts, strict=True):
        found[place] = text
    return found


def _numbers(array: Array) -> list[bytes]:
    """Return numbers or booleans in JSON, a float32 with all digits of its float64."""
    return _encode_json(array.tolist())[1:-1].split(b",") if len(array) else []


def texts_of(values: Sequence[Any], encode: Callable[[Any], bytes]) -> list[bytes]:
    """Return the texts of values of which many may be alike: each is encoded once."""
    known = {value: encode(value) for value in set(values)}
    return [known[value] for value in values]

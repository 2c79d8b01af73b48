"""Scored blocks as lines of CSV or JSON Lines: the columns kept of the input, then the answer. Pure.

Where input and output are of one format and every column is kept, a record is taken over as it stands.
"""

import zlib
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Protocol

import msgspec

from appliance.arrays import Array
from appliance.batch.scoring import QUALITY, AnswerColumn, Scored
from appliance.batch.tables.text import (
    Reader,
    Table,
    csv_text,
    csv_texts,
    documents_of,
    flags_of,
    json_texts,
    spread,
    texts_of,
)
from appliance.errors import InvalidInput
from appliance.inference.values import quoted

_encode_json = msgspec.json.Encoder().encode
_GZIP_LEVEL = 3


class TextOutput(Protocol):
    """Writes scored blocks as text."""

    header: bytes
    """What stands before the first block."""

    def block(self, table: Table, scored: Scored, reader: Reader, more: Sequence[Sequence[str]]) -> bytes:
        """Return the lines of a block; `more` are the columns of provenance."""


class CsvOutput:
    """Lines of CSV."""

    def __init__(self, kept: Sequence[str], raw: bool, answers: Sequence[AnswerColumn], more: Sequence[str]) -> None:
        """`kept` are the input's columns, taken over as they stand where `raw`; `more` the columns of provenance."""
        self._kept, self._raw, self._answers = list(kept), raw, answers
        names = [*kept, *(one.name for one in answers), *more]
        self.header = b",".join(map(csv_text, names)) + b"\n"

    def block(self, table: Table, scored: Scored, reader: Reader, more: Sequence[Sequence[str]]) -> bytes:
        """Return the lines of a block."""
        columns: list[Sequence[bytes]] = [
            spread(_texts(scored, one, flags_of if one.type == QUALITY else csv_texts), scored.good, scored.rows, b"")
            for one in self._answers
        ]
        columns += [texts_of(column, csv_text) for column in more]
        if self._kept:
            columns.insert(0, self._raw_lines(table, reader) if self._raw else self._cells(table, reader))
        return b"".join([line + b"\n" for line in map(b",".join, zip(*columns, strict=True))])

    def _raw_lines(self, table: Table, reader: Reader) -> Sequence[bytes]:
        """Return the records as they stand; of one that cannot be read, empty cells."""
        unreadable = [one.row for one in table.checked.bad if not one.column]
        if not unreadable:
            return table.lines
        lines = list(table.lines)
        for place in unreadable:
            lines[place] = b"," * (len(self._kept) - 1)
        return lines

    def _cells(self, table: Table, reader: Reader) -> Sequence[bytes]:
        """Return the kept cells of each record."""
        rows = reader.cells(table, self._kept, typed=False)
        empty = [None] * len(self._kept)
        return [b",".join(map(csv_text, row or empty)) for row in rows]


class JsonOutput:
    """Lines of JSON: an object each."""

    header = b""

    def __init__(
        self,
        kept: Sequence[str],
        raw: bool,
        answers: Sequence[AnswerColumn],
        more: Sequence[str],
        columns: Sequence[str] = (),
    ) -> None:
        """As CsvOutput; `raw` keeps whatever keys a record has. `columns` are the names of the values in a list."""
        self._kept, self._raw, self._answers = list(kept), raw, answers
        names = [*(one.name for one in answers), *more]
        self._keys = [b'%b"%b":' % (b"," if index else b"", _escaped(name)) for index, name in enumerate(names)]
        self._marks = [b'"%b"' % _escaped(name) for name in names]
        self._names, self._columns = names, list(columns)

    def block(self, table: Table, scored: Scored, reader: Reader, more: Sequence[Sequence[str]]) -> bytes:
        """Return the lines of a block."""
        columns: list[Any] = [self._heads(table, reader)]
        texts: list[Sequence[bytes]] = [
            spread(
                _texts(scored, one, documents_of if one.type == QUALITY else json_texts),
                scored.good,
                scored.rows,
                b"null",
            )
            for one in self._answers
        ]
        for key, column in zip(self._keys, [*texts, *(texts_of(column, _encode_json) for column in more)], strict=True):
            columns += [repeat(key, scored.rows), column]
        return b"".join(map(b"".join, zip(*columns, repeat(b"}\n", scored.rows), strict=True)))

    def _heads(self, table: Table, reader: Reader) -> list[bytes]:
        """Return the begin of each line, up to the answer's first key."""
        if not self._raw:
            rows = reader.cells(table, self._kept, typed=True)
            return [self._object(row) for row in rows]
        unreadable = {one.row for one in table.checked.bad if not one.column}
        if not unreadable and table.lines and all(line[:1] == b"{" and line[-1:] == b"}" for line in table.lines):
            self._check_clashes(table)
            return [_head(line) for line in table.lines]
        self._check_clashes(table)
        return [b"{" if place in unreadable else self._head(line.strip()) for place, line in enumerate(table.lines)]

    def _head(self, line: bytes) -> bytes:
        """Return the begin of one line; a list becomes an object."""
        if line[:1] != b"{":
            line = _encode_json(
                dict(zip(self._columns, msgspec.json.decode(line, type=list[msgspec.Raw]), strict=True))
            )
        return _head(line)

    def _object(self, row: list[Any] | None) -> bytes:
        """Return the begin of a line of kept values."""
        return _head(_encode_json(dict(zip(self._kept, row or [None] * len(self._kept), strict=True))))

    def _check_clashes(self, table: Table) -> None:
        """Raise InvalidInput where a record has a key that the answer has too."""
        for name, mark in zip(self._names, self._marks, strict=True):
            if mark in table.data and any(mark in line and _has_key(line, name) for line in table.lines):
                raise clash(name)


def _texts(scored: Scored, one: AnswerColumn, write: Callable[[Array], list[bytes]]) -> list[bytes]:
    """Return the texts of one column of the answer, of the good rows."""
    return write(scored.columns[one.name]) if scored.columns else []


def clash(name: str) -> InvalidInput:
    """Return the error for a column of the input that is named as one of the answer."""
    found = f"the input has a column {quoted(name)}, and so has the answer"
    return InvalidInput("write the answers", found, "leave it out: name the columns to keep by --keep")


def gzipped(data: bytes) -> bytes:
    """Return data as one member of a gzip file (RFC 1952), the same bytes at any time on any host of one zlib."""
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def _head(line: bytes) -> bytes:
    """Return an object's text up to where another key can follow."""
    text = line[:-1].rstrip()
    return text if text == b"{" else text + b","


def _has_key(line: bytes, name: str) -> bool:
    """Return whether a line is an object with a key."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return isinstance(value, dict) and name in value


def _escaped(name: str) -> bytes:
    """Return a name as it stands between the quotes of a JSON key."""
    return _encode_json(name)[1:-1]

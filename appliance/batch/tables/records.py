"""Where the records of a text end, so that it can be cut into blocks: CSV (RFC 4180) and JSON Lines. Pure.

A quoted text of CSV may hold line ends, so no file is split by bytes alone. Where quotes stand as RFC 4180 has them,
their parity tells which line ends are within one; else a regular expression reads field after field.
"""

import re

import numpy as np
from numpy.typing import NDArray

Ends = NDArray[np.int64]
"""Offsets behind the line end of each record, ascending."""

_COMMA, _LF, _CR, _QUOTE = 44, 10, 13, 34
_FIELD = rb'(?:"(?:[^"]|"")*+"[^,\r\n]*+|[^,"\r\n][^,\r\n]*+|)'
_RECORD = re.compile(_FIELD + rb"(?:," + _FIELD + rb")*+(?:\r\n|\r(?!\Z)|\n)")
_LAST_CR = re.compile(_FIELD + rb"(?:," + _FIELD + rb")*+\r\Z")


def json_ends(data: bytes, last: bool) -> Ends:
    """Return the ends of the records in a text of JSON Lines that begins with one; `last`: nothing follows the text."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == _LF) + 1
    return _with_rest(ends, len(data), last)


def csv_ends(data: bytes, last: bool) -> Ends:
    """Return the ends of the records in a text of CSV that begins with one; `last`: nothing follows the text.

    Lines end with LF, CRLF or CR. What stands behind the last end is no whole record yet.
    """
    returns = data.count(b"\r")
    lone = returns and returns - data.endswith(b"\r") != data.count(b"\r\n")
    bytes_of = np.frombuffer(data, np.uint8)
    if lone or (last and data.endswith(b"\r")):
        return _with_rest(_read_ends(data, last), len(data), last)
    newlines = np.flatnonzero(bytes_of == _LF)
    if _QUOTE in data:
        quotes = np.flatnonzero(bytes_of == _QUOTE)
        if not _well_placed(bytes_of, quotes):
            return _with_rest(_read_ends(data, last), len(data), last)
        newlines = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
    return _with_rest(newlines + 1, len(data), last)


def _with_rest(ends: Ends, size: int, last: bool) -> Ends:
    """Return the ends with that of a last record that has no line end."""
    if last and size and (not len(ends) or ends[-1] != size):
        return np.append(ends, size)
    return ends


def _well_placed(data: NDArray[np.uint8], quotes: Ends) -> bool:
    """Return whether every quote opens or closes a field, or is doubled within one."""
    before = np.where(quotes > 0, data[quotes - 1], _LF)
    after = np.where(quotes + 1 < len(data), data[np.minimum(quotes + 1, len(data) - 1)], _LF)
    opening, closing = before[0::2], after[1::2]
    doubled = np.zeros(len(opening), bool)
    doubled[1:] = quotes[2::2] == quotes[1::2][: len(opening) - 1] + 1
    opens = doubled | (opening == _COMMA) | (opening == _LF)
    closes = (closing == _COMMA) | (closing == _LF) | (closing == _CR) | (closing == _QUOTE)
    return bool(opens.all() and closes.all())


def _read_ends(data: bytes, last: bool) -> Ends:
    """Return the ends field by field."""
    ends, at = [], 0
    while found := _RECORD.match(data, at):
        at = found.end()
        ends.append(at)
    if last and (found := _LAST_CR.match(data, at)):
        ends.append(found.end())
    return np.array(ends, np.int64)

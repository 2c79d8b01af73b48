"""CSV files with a header as blocks of checked rows, by the rules of inference/csv_rows.py. Pure.

Where a block holds nothing but plain numbers, all of them are read by one call; lines with anything else are read apart
where they are few, and the whole block cell by cell where they are many.
"""

import csv
from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from appliance.batch.checking import NO_ROWS, Bad, Checked, Places, check, check_numbers, joined
from appliance.batch.tables.records import csv_ends
from appliance.batch.tables.text import Table
from appliance.errors import InvalidInput
from appliance.inference.csv_rows import has_stray_quote, header_names, read_cells
from appliance.inference.tensors import InputSchema
from appliance.inference.values import packed, plain_floats

_TRIED = "read the CSV"
_COMMA, _LF = 44, 10
_decode_numbers = msgspec.json.Decoder(list[float]).decode
_ODD = bytes(byte not in b"0123456789+-.eE,\n\r" for byte in range(256))
"""Of each byte 1, unless plain numbers, and what is between them, are made of it."""


def read_header(record: bytes, schema: InputSchema) -> list[str]:
    """Return the columns' names of a first record. Raises InvalidInput where it is no header."""
    try:
        rows = list(csv.reader([record.decode("utf-8").rstrip("\r\n")], strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidInput(_TRIED, f"its first line is no header ({error})", "begin with the columns' names") from error
    if not rows or not rows[0]:
        raise InvalidInput(_TRIED, "it has no header", "begin with a line of the columns' names")
    return header_names(rows[0], schema)


class CsvReader:
    """Reads one file's blocks; see text.Reader."""

    def __init__(self, schema: InputSchema, names: Sequence[str]) -> None:
        self._schema = schema
        self._names = list(names)
        tensors = {column: tensor for tensor in schema.inputs for column in tensor.columns}
        self._tensors = [tensors.get(name) for name in names]
        # Where columns of the model stand in a row; None where not all are there or they are no plain numbers.
        named = {name: place for place, name in enumerate(names)}
        here = schema.plain is not None and set(schema.columns) <= set(names)
        self._order = [named[name] for name in schema.columns] if here else None
        self._in_order = list(names) == schema.columns

    def read(self, data: bytes) -> Table:
        """Return a block's rows, checked."""
        lines, numbers = self._records(data)
        checked = self._quick(data, lines) if self._order is not None else None
        return Table(data, lines, numbers, checked or self._slow(lines))

    def cells(self, table: Table, names: Sequence[str], typed: bool) -> list[list[Any] | None]:
        """Return of each row the texts of some columns; where `typed`, those of the model as the model reads them."""
        places = [self._names.index(name) for name in names]
        rows = [_cells(line, len(self._names))[0] for line in table.lines]
        columns: list[Any] = [[row[place] for row in rows if row] for place in places]
        if typed:
            columns = [_plain(read_cells(cells, self._tensors[at])) for cells, at in zip(columns, places, strict=True)]
        whole = iter(zip(*columns, strict=True)) if columns else iter(() for row in rows if row)
        return [list(next(whole)) if row else None for row in rows]

    def _records(self, data: bytes) -> tuple[list[bytes], Sequence[int]]:
        """Return the records without their line ends, and the line of each; blank lines are left out."""
        if b'"' not in data and b"\r" not in data:
            lines = data.split(b"\n")
            if not lines[-1]:
                lines.pop()
        else:
            ends = csv_ends(data, last=True).tolist()
            lines = [data[a:b].rstrip(b"\r\n") for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        if b"" not in lines:
            return lines, range(len(lines))
        # With one column an empty line could be a value: it is an error, as in every listener.
        kept = [len(self._names) == 1 or bool(line) for line in lines]
        return list(compress(lines, kept)), [place for place, keep in enumerate(kept) if keep]

    def _quick(self, data: bytes, lines: list[bytes]) -> Checked | None:
        """Return a block of plain numbers; None where there is more to it than a few lines."""
        body = data.rstrip(b"\r\n").replace(b"\r\n", b"\n")
        checked = self._numbers(body, len(lines), False)
        if checked is not None or not lines:
            return checked
        takes_gaps = self._schema.plain is not None and self._schema.plain.missing
        body = b"\n".join(lines)
        plain = _plain_lines(body, len(lines), takes_gaps)
        if plain is None or plain.sum() <= len(lines) // 2:
            return None
        few, places = np.flatnonzero(~plain), np.flatnonzero(plain)
        if len(few):
            body = b"\n".join(compress(lines, plain.tolist()))
        rest = self._numbers(body, len(places), takes_gaps)
        if rest is None:
            return None
        return joined([(places, rest), (few, self._slow([lines[place] for place in few.tolist()]))], [])

    def _numbers(self, body: bytes, rows: int, takes_gaps: bool) -> Checked | None:
        """Return rows of nothing but plain numbers, and gaps if they are taken; None where they are not."""
        width, tensor = len(self._names), self._schema.plain
        if not rows or tensor is None:
            return None
        text, gaps = b"[" + body.replace(b"\n", b",") + b"]", NO_ROWS
        if takes_gaps:
            text, gaps = _filled(text)
        try:
            values = _decode_numbers(text)
        except msgspec.MsgspecError:
            return None
        if len(values) != rows * width or not _is_even(np.frombuffer(body, np.uint8), rows, width):
            return None
        flat = packed(tensor.type, values, len(values))
        if flat is None:
            return None
        if len(gaps):
            flat = flat.copy()
            flat[gaps] = np.nan
        table: Any = flat.reshape(rows, width)

        def wide(places: Places) -> NDArray[np.float64]:
            found = plain_floats([values[place * width : (place + 1) * width] for place in places.tolist()])
            found[np.isnan(table[places])] = np.nan
            return found if self._in_order else found[:, self._order]

        return check_numbers(self._schema, table if self._in_order else table[:, self._order], wide)

    def _slow(self, lines: list[bytes]) -> Checked:
        """Return rows read cell by cell."""
        rows: list[list[str]] = []
        places: list[int] = []
        broken: list[Bad] = []
        for place, line in enumerate(lines):
            cells, reason = _cells(line, len(self._names))
            if cells:
                rows.append(cells)
                places.append(place)
            else:
                broken.append(Bad(place, "", reason))
        if not rows:
            return Checked(None, np.empty(0, np.int64), broken)
        columns = {
            name: read_cells(cells, tensor)
            for name, tensor, cells in zip(self._names, self._tensors, zip(*rows, strict=True), strict=True)
            if tensor is not None
        }
        return joined([(np.array(places, np.int64), check(self._schema, columns, len(rows)))], broken)


def _plain(values: Any) -> Any:
    """Return values as a list."""
    return values.tolist() if isinstance(values, np.ndarray) else values


def _cells(line: bytes, width: int) -> tuple[list[str] | None, str]:
    """Return the cells of one record, or None and why it has none."""
    try:
        text = line.decode("utf-8")
        if has_stray_quote(text):
            return None, "a quote stands within a text that is not quoted"
        cells = text.split(",") if '"' not in text else next(csv.reader([text], strict=True), [])
    except UnicodeDecodeError as error:
        return None, f"it is no UTF-8 ({error.reason} at byte {error.start})"
    except csv.Error as error:
        return None, str(error)
    if not text:
        return None, 'it is empty: write "" for an empty value, or leave the line out'
    return (cells, "") if len(cells) == width else (None, f"it has {len(cells)} values for {width} columns")


def _is_even(marks: NDArray[np.uint8], rows: int, width: int) -> bool:
    """Return whether every line of a text without a last line end has so many cells."""
    ends = np.flatnonzero(marks == _LF)
    commas = np.flatnonzero(marks == _COMMA)
    if len(ends) != rows - 1 or len(commas) != rows * (width - 1):
        return False
    if width == 1 or rows == 1:
        return True
    by_line = commas.reshape(rows, width - 1)
    return bool((by_line[:-1, -1] < ends).all() and (by_line[1:, 0] > ends).all())


def _filled(text: bytes) -> tuple[bytes, Places]:
    """Return numbers with commas between them, in brackets, with 0 where there is none; and which those are."""
    marks = np.frombuffer(text, np.uint8)
    separators = marks == _COMMA
    separators[0] = separators[-1] = True  # the brackets
    places = np.flatnonzero(separators)
    gaps = np.flatnonzero(np.diff(places) == 1)
    cuts = (places[gaps] + 1).tolist()
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return b"0".join(pieces), gaps


def _plain_lines(body: bytes, rows: int, takes_gaps: bool) -> NDArray[np.bool_] | None:
    """Return of each line whether it looks like plain numbers; None where lines are not `rows`.

    A line with an empty cell does not, unless the model `takes_gaps`.
    """
    ends = np.flatnonzero(np.frombuffer(body, np.uint8) == _LF)
    if len(ends) != rows - 1:
        return None
    odd = np.flatnonzero(np.frombuffer(body.translate(_ODD), np.bool_)).tolist()
    plain = np.ones(rows, bool)
    plain[np.searchsorted(ends, [*odd, *(() if takes_gaps else _empty_cells(body))])] = False
    return plain


def _empty_cells(body: bytes) -> Iterator[int]:
    """Yield a place in the line of each empty cell, or beside it; lines may come more than once."""
    if body[:1] in b",\n":
        yield 0
    if body[-1:] in b",\n":
        yield len(body)
    for mark, within in ((b",,", 0), (b",\n", 0), (b"\n,", 1), (b"\n\n", 1)):
        place = body.find(mark)
        while place >= 0:
            yield place + within
            place = body.find(mark, place + 1)

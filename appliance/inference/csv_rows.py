"""CSV (RFC 4180) as columns of values: one set of rules for every listener and command. Pure.

No line is lost: a first line is taken for a header only where it can be nothing else, blanks of texts are kept, and
what could be read in two ways is refused with the word that decides it.
"""

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from appliance.arrays import Array
from appliance.bundle.manifest import Input
from appliance.errors import InvalidInput
from appliance.inference.tensors import InputSchema
from appliance.inference.values import quoted

HEADERS = ("", "present", "absent")
"""What may be said of a header (RFC 4180, 3); "" says nothing."""

_MISSING = {"", "na", "nan", "null"}
_TRUTH = {"true": True, "false": False}
_BEYOND = 10**400
"""Stands for a number that no float64 holds: the schema then says of which column."""
# Sets of several characters are slow to search for, and other threads wait meanwhile.
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_PART = re.compile(r"[^\r]*\r\n?|[^\r]+")  # of a line with a CR inside
# Group 1: a quote within what is not quoted. A match is about as long as the longest field that the reader takes
# (csv.field_size_limit), so that other threads have their turn between two.
_FIELD = re.compile(r'"(?:[^"]{1,64}+|""){0,131072}+"?|[^",\r\n]{1,131072}("?)')
_BLOCK = 1024  # rows that are read together
_TRIED = "read the CSV"
_FLOATS = ("float16", "float32", "float64")
_DECODE_NUMBERS = msgspec.json.Decoder(list[float]).decode
_DECODE_GAPS = msgspec.json.Decoder(list[float | None]).decode
_DECODE_WHOLE = msgspec.json.Decoder(list[int]).decode


def read_columns(
    text: str, schema: InputSchema, header: str = "", check: Callable[[int], None] = lambda rows: None
) -> dict[str, list[Any]]:
    """Return {column name: values} of a CSV text, each value read as its column's type if it can be.

    `header` is one of HEADERS; `check` is called with the number of rows so far and may raise. Raises InvalidInput.
    """
    if header not in HEADERS:
        raise InvalidInput(_TRIED, f"header={quoted(header)} is unknown", "say header=present or header=absent")
    if has_stray_quote(text):
        raise InvalidInput(_TRIED, "a quote stands within a text that is not quoted", "quote texts as RFC 4180 says")
    rows = _rows(text, len(schema.columns) == 1)
    first = next(rows, None)
    if first is None:
        raise InvalidInput(_TRIED, "it is empty", "send at least one row")
    named = _is_header(first, schema, header)
    names = header_names(first, schema) if named else schema.columns
    readers = _readers(names, schema)
    columns: list[list[Any]] = [[] for _ in names]
    count = 0
    block = [] if named else [first]
    while block := block + list(islice(rows, _BLOCK)):
        for index, row in enumerate(block, count):
            if len(row) != len(names):
                found = f"row {index} has {len(row)} values for {len(names)} columns"
                raise InvalidInput(_TRIED, found, f"send {', '.join(schema.columns)}")
        count += len(block)
        check(count)
        for column, read, cells in zip(columns, readers, zip(*block, strict=True), strict=True):
            column += map(read, cells)
        block = []
    return dict(zip(names, columns, strict=True))


def has_stray_quote(text: str) -> bool:
    """Return whether a quote stands within a text that is not quoted: programs differ in what it means."""
    return '"' in text and any(match[1] for match in _FIELD.finditer(text))


def read_cells(cells: Sequence[str], tensor: Input | None) -> Sequence[Any] | Array:
    """Return a column's cells as values of the tensor's type, as read_columns() does; of no tensor, unchanged.

    Plain numbers come as an array: of many cells they take a tenth of the time.
    """
    if tensor is None:
        return cells
    if tensor.type not in ("string", "bool") and (numbers := _plain_numbers(cells, tensor)) is not None:
        return numbers
    return list(map(_reader(tensor), cells))


def _plain_numbers(cells: Sequence[str], tensor: Input) -> Array | None:
    """Return cells that are numbers as JSON has them, or empty where the tensor may lack one; None for others.

    JSON's numbers are those of which _number() says the same.
    """
    lacking = tensor.missing and "" in cells
    body = ",".join([cell or "null" for cell in cells] if lacking else cells)
    whole = tensor.type not in _FLOATS
    try:
        values = (_DECODE_WHOLE if whole else _DECODE_GAPS if lacking else _DECODE_NUMBERS)(f"[{body}]".encode())
        if len(values) != len(cells):  # a cell with a comma within
            return None
        return np.array(values, dtype=np.int64 if whole else np.float64)
    except (msgspec.MsgspecError, OverflowError, UnicodeEncodeError):
        return None


def _rows(text: str, single: bool) -> Iterator[list[str]]:
    """Yield the rows, empty lines left out; where rows have a `single` value, an empty line could be one."""
    reader = csv.reader(_lines(text), strict=True)
    count = 0
    try:
        for row in reader:
            if row:
                yield row
                count += 1
            elif single:
                found = f"line {reader.line_num} is empty"
                raise InvalidInput(_TRIED, found, 'write "" for an empty value, or leave the line out')
    except csv.Error as error:
        raise InvalidInput(_TRIED, f"after row {count}: {error}", "quote texts as RFC 4180 says") from error


def _lines(text: str) -> Iterator[str]:
    """Yield the lines, each with its end: LF, CRLF or CR, and nothing else that Unicode has for one."""
    lone = text.count("\r") != text.count("\r\n")
    for line in _LINE.finditer(text):
        if lone:
            yield from (part[0] for part in _PART.finditer(line[0]))
        else:
            yield line[0]


def _is_header(first: list[str], schema: InputSchema, said: str) -> bool:
    """Return whether the first row names the columns. Raises InvalidInput where it could be a row as well."""
    if said:
        return said == "present"
    names = [cell.strip() for cell in first]
    names_columns = names == schema.columns or any(
        name in schema.columns and not _is_number(name) for name in dict.fromkeys(names)
    )
    is_row = _may_be_row(first, schema)
    if names_columns and is_row:
        found = "the first line could be a header and could be a row"
        raise InvalidInput(_TRIED, found, "say Content-Type: text/csv; header=present or header=absent")
    # What is neither is refused: numbers for their count, texts for being no column's name.
    return names_columns or not (is_row or all(map(_is_number, first)))


def _may_be_row(cells: list[str], schema: InputSchema) -> bool:
    """Return whether cells are values of the columns' types, in their order."""
    tensors = [tensor for tensor in schema.inputs for _ in tensor.columns]
    return len(cells) == len(tensors) and all(map(_may_be_value, cells, tensors))


def _may_be_value(cell: str, tensor: Input) -> bool:
    """Return whether a cell is a value of a tensor's type."""
    if tensor.type == "string":
        return tensor.categories is None or not cell or cell in tensor.categories
    return _is_number(cell) if tensor.type != "bool" else cell.strip().lower() in _TRUTH or not cell.strip()


def header_names(cells: list[str], schema: InputSchema) -> list[str]:
    """Return the columns' names of a header, blanks around them left out where the name alone is a column.

    Raises InvalidInput for a name that stands twice.
    """
    names = [cell if cell in schema.columns else cell.strip() for cell in cells]
    if len(set(names)) != len(names):
        raise InvalidInput(_TRIED, "a column's name stands twice in the header", "name each column once")
    return names


def _readers(names: Sequence[str], schema: InputSchema) -> list[Callable[[str], Any]]:
    """Return for each column what reads its cells."""
    tensors = {column: tensor for tensor in schema.inputs for column in tensor.columns}
    return [_reader(tensors[name]) if name in tensors else str for name in names]


def _reader(tensor: Input) -> Callable[[str], Any]:
    """Return what reads a cell as a value of the tensor's type; what is none it leaves, for the schema to say so."""
    if tensor.type == "string":
        return _text_or_missing if tensor.missing else str
    return _truth if tensor.type == "bool" else _number


def _text_or_missing(cell: str) -> str | None:
    """Return a text, blanks and all; None for an empty one."""
    return cell or None


def _truth(cell: str) -> bool | str:
    """Return a cell as a boolean, unchanged when it is none."""
    return _TRUTH.get(cell.strip().lower(), cell)


def _is_number(cell: str) -> bool:
    """Return whether a cell is a number or a missing one."""
    return not isinstance(_number(cell), str)


def _number(cell: str) -> int | float | str | None:
    """Return a cell as a number, blanks around it or not; None for a missing one, unchanged when it is neither."""
    text = cell.strip()
    if text.lower() in _MISSING:
        return None
    if "_" in text or not text.isascii():  # Python's own spellings, nobody else's
        return cell
    try:
        return int(text)
    except ValueError:  # also a whole number of thousands of digits
        pass
    try:
        number = float(text)
    except ValueError:
        return cell
    # Infinity is written in letters; digits that become it are a number that is too large.
    return _BEYOND if math.isinf(number) and "n" not in text.lower() else number

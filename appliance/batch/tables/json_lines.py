"""JSON Lines as blocks of checked rows: an object by column name or a list in the columns' order on each line. Pure.

A line of the columns' own types is read by a compiled decoder; any other by the rules of inference/lenient_json.py, and
judged by the schema alone.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from appliance.batch.checking import Bad, Checked, check, check_numbers, joined
from appliance.batch.tables.text import Table
from appliance.bundle.manifest import Input
from appliance.errors import InvalidInput
from appliance.inference import lenient_json
from appliance.inference.tensors import InputSchema
from appliance.inference.values import kind_of, packed, plain_floats, quoted

_FAILURES = (msgspec.MsgspecError, ValueError, RecursionError, InvalidInput)
_NAME_THEM = "name the columns to keep by --keep"
_as_tuple = msgspec.structs.astuple


class JsonLinesReader:
    """Reads one file's blocks; see text.Reader."""

    def __init__(self, schema: InputSchema, only: Sequence[str] | None = None) -> None:
        """`only` are the keys that a row may have, where all of them are kept in columns that were named before."""
        self._schema = schema
        self._only = None if only is None else frozenset(only)
        self._required = {name for one in schema.inputs if one.required for name in one.columns}
        self._decode = _row_decoder(schema)

    def read(self, data: bytes) -> Table:
        """Return a block's rows, checked."""
        lines = data.split(b"\n")
        numbers = [place for place, line in enumerate(lines) if line and not line.isspace()]
        if len(numbers) < len(lines):
            lines = [lines[place] for place in numbers]
        quick: list[tuple[Any, ...]] = []
        places: list[int] = []
        others: list[int] = []
        for place, line in enumerate(lines):
            try:
                quick.append(_as_tuple(self._decode(line)))
                places.append(place)
            except (msgspec.MsgspecError, RecursionError):
                others.append(place)
        parts = [(np.array(places, np.int64), self._checked(quick))] if quick else []
        if not others:
            return Table(data, lines, numbers, joined(parts, []))
        slow, broken = self._slow(lines, others)
        return Table(data, lines, numbers, joined([*parts, *slow], broken))

    def cells(self, table: Table, names: Sequence[str], typed: bool) -> list[list[Any] | None]:
        """Return of each row the values of some keys, None for an absent one."""
        found: list[list[Any] | None] = []
        for line in table.lines:
            try:
                row = _row(line, self._schema)
            except _FAILURES:
                found.append(None)
                continue
            if self._only is not None and not row.keys() <= self._only:
                new = next(name for name in row if name not in self._only)
                raise InvalidInput("keep the columns", f"a row has {quoted(new)}, the first one has not", _NAME_THEM)
            found.append([row.get(name) for name in names])
        return found

    def _checked(self, rows: list[tuple[Any, ...]]) -> Checked:
        """Return rows of the columns' own types."""
        if self._schema.plain is not None:
            flat = list(chain.from_iterable(rows))
            narrow = packed(self._schema.plain.type, flat, len(flat))
            if narrow is None:  # as where there are gaps
                with np.errstate(over="ignore"):
                    narrow = plain_floats(flat).astype(self._schema.plain.type)
            return check_numbers(
                self._schema, narrow.reshape(len(rows), -1), lambda few: plain_floats([rows[at] for at in few.tolist()])
            )
        columns = dict(zip(self._schema.columns, zip(*rows, strict=True), strict=True))
        return check(self._schema, columns, len(rows))

    def _slow(self, lines: list[bytes], places: list[int]) -> tuple[list[Any], list[Bad]]:
        """Return what the compiled decoder refused, as a part of the block, and the rows that cannot be read."""
        rows: list[dict[str, Any]] = []
        read: list[int] = []
        broken: list[Bad] = []
        for place in places:
            try:
                row = _row(lines[place], self._schema)
            except _FAILURES as error:
                broken.append(Bad(place, "", error.found if isinstance(error, InvalidInput) else str(error)))
                continue
            lacking = sorted(self._required - row.keys())
            if lacking:
                broken.append(Bad(place, lacking[0], "the row lacks it"))
                continue
            rows.append(row)
            read.append(place)
        if not rows:
            return [], broken
        columns = {name: [row.get(name) for row in rows] for name in self._schema.columns}
        return [(np.array(read, np.int64), check(self._schema, columns, len(rows)))], broken


def keys_of(line: bytes, schema: InputSchema) -> list[str]:
    """Return the keys of a file's first row; those of the model where it has none that can be read."""
    try:
        return list(_row(line, schema))
    except _FAILURES:
        return list(schema.columns)


def _row(line: bytes, schema: InputSchema) -> dict[str, Any]:
    """Return a line's row by column name. Raises one of _FAILURES."""
    try:
        value = msgspec.json.decode(line)
    except msgspec.MsgspecError:
        if not lenient_json.beyond_json(line):
            raise
        value = lenient_json.loads(line)
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        found = f"it is {kind_of(value)}, neither an object nor a list"
        raise InvalidInput("read a row", found, "write one row on each line")
    if len(value) != len(schema.columns):
        found = f"it has {len(value)} values for {len(schema.columns)} columns"
        raise InvalidInput("read a row", found, f"write {', '.join(schema.columns)}")
    return dict(zip(schema.columns, value, strict=True))


def _row_decoder(schema: InputSchema) -> Any:
    """Return what decodes a line to a row with a field for each column, of the column's own type."""
    fields: list[Any] = []
    names: dict[str, str] = {}
    tensors = [(name, tensor) for tensor in schema.inputs for name in tensor.columns]
    # Fields with a default come last in a struct: none has one but where every column may be left out.
    optional = all(not tensor.required for _, tensor in tensors)
    for index, (name, tensor) in enumerate(tensors):
        kind = _type_of(tensor)
        fields.append((f"f{index}", kind, None) if optional else (f"f{index}", kind))
        names[f"f{index}"] = name
    try:
        return msgspec.json.Decoder(msgspec.defstruct("Row", fields, rename=names, gc=False)).decode
    except ValueError:  # msgspec takes no field name that JSON must escape
        return _refuse


def _refuse(line: bytes) -> Any:
    """Leave every line to the general decoder."""
    raise msgspec.ValidationError


def _type_of(tensor: Input) -> Any:
    """Return the type of a column's values as a typed decoder takes them."""
    kind: Any = {"string": str, "bool": bool}.get(tensor.type, float if tensor.type.startswith("float") else int)
    return kind | None if tensor.missing or not tensor.required else kind

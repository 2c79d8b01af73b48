"""Record batches of Arrow as blocks of checked rows, and scored blocks as record batches.

Whatever engine holds the rows, this is the common part: an Arrow batch in, an Arrow batch out:

    scored, bad = score_batch(scorer, batch)
"""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from appliance.arrays import Array
from appliance.batch.checking import Bad, Checked, check
from appliance.batch.scoring import QUALITY, AnswerColumn, Scored, Scorer
from appliance.bundle.manifest import Input
from appliance.errors import InvalidInput
from appliance.inference.tensors import InputSchema
from appliance.inference.values import quoted

_encode_json = msgspec.json.Encoder().encode


class ArrowTable:
    """A block of an Arrow batch that was checked."""

    def __init__(self, batch: pa.RecordBatch, checked: Checked) -> None:
        self.batch = batch
        self.checked = checked

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.batch.num_rows)

    def number_of(self, row: int) -> None:
        """Return no number of a line."""

    def line_of(self, row: int) -> str:
        """Return a row as JSON."""
        return json.dumps(self.batch.slice(row, 1).to_pylist()[0], default=str)


class ArrowReader:
    """Reads one file's blocks, record batches without dictionaries; see text.Reader."""

    def __init__(self, schema: InputSchema, arrow: pa.Schema) -> None:
        """Raises InvalidInput for a column of the model whose type cannot be taken for the model's."""
        self._schema = schema
        self._arrow = plain_schema(arrow)
        check_types(schema, self._arrow)

    def read(self, data: Any) -> ArrowTable:
        """Return a block's rows, checked; `data` is a record batch, or one that was serialised."""
        batch = data if isinstance(data, pa.RecordBatch) else pa.ipc.read_record_batch(pa.py_buffer(data), self._arrow)
        return ArrowTable(batch, check_batch(self._schema, batch))

    def cells(self, table: Any, names: Sequence[str], typed: bool) -> list[list[Any] | None]:
        """Return of each row the values of some columns."""
        columns = [map(_written, table.batch.column(name).to_pylist()) for name in names]
        return [list(row) for row in zip(*columns, strict=True)] if names else [[] for _ in range(table.rows)]


class ArrowOutput:
    """Scored blocks as serialised record batches; their schema, serialised, stands before the first one."""

    def __init__(
        self,
        kept: Sequence[str],
        answers: Sequence[AnswerColumn],
        more: Sequence[str],
        schema: InputSchema,
        arrow: pa.Schema | None,
    ) -> None:
        """`arrow` is the schema of the input's columns; None where the input is a text."""
        self._kept, self._answers = list(kept), answers
        plain = None if arrow is None else plain_schema(arrow)
        types = [plain.field(name).type for name in kept] if plain else [_text_type(schema, name) for name in kept]
        fields = [pa.field(name, kind) for name, kind in zip(kept, types, strict=True)]
        fields += [pa.field(one.name, _answer_type(one.type)) for one in answers]
        self._schema = pa.schema([*fields, *(pa.field(name, pa.string()) for name in more)])
        self.header = self._schema.serialize().to_pybytes()

    def block(self, table: Any, scored: Scored, reader: Any, more: Sequence[Sequence[str]]) -> memoryview:
        """Return a block as a serialised record batch."""
        arrays = [*self._kept_arrays(table, reader), *answer_arrays(self._answers, scored)]
        arrays += [pa.array(column, pa.string()) for column in more]
        return memoryview(pa.record_batch(arrays, schema=self._schema).serialize())

    def _kept_arrays(self, table: Any, reader: Any) -> list[Any]:
        """Return the kept columns."""
        if isinstance(table, ArrowTable):
            return [_cast(table.batch.column(name), self._schema.field(name)) for name in self._kept]
        rows = reader.cells(table, self._kept, typed=True)
        return [
            pa.array([_fitting(row[place] if row else None, self._schema.field(name).type) for row in rows],
                     self._schema.field(name).type)
            for place, name in enumerate(self._kept)
        ]  # fmt: skip


def score_batch(
    scorer: Scorer, batch: pa.RecordBatch, *, keep: Sequence[str] | None = None, request: str = "", first_row: int = 0
) -> tuple[pa.RecordBatch, list[Bad]]:
    """Return a batch with the columns to keep (None: all) and the answers, null where a row is bad; and the bad rows.

    Raises InvalidInput where a required column is absent, or of a type that cannot be taken for the model's.
    """
    batch = plain_batch(batch)
    names = batch.schema.names if keep is None else list(keep)
    scorer.check_columns(batch.schema.names)
    check_types(scorer.schema, batch.schema)
    scored = scorer.run(check_batch(scorer.schema, batch), batch.num_rows, request=request, first_row=first_row)
    arrays = [batch.column(name) for name in names] + answer_arrays(scorer.answers, scored)
    return pa.record_batch(arrays, names=[*names, *(one.name for one in scorer.answers)]), scored.bad


def check_batch(schema: InputSchema, batch: pa.RecordBatch) -> Checked:
    """Return the rows of a plain batch, checked; columns that the model does not know are not looked at."""
    here = set(batch.schema.names)
    columns = {name: column_values(batch.column(name)) for name in schema.columns if name in here}
    return check(schema, columns, batch.num_rows)


def column_values(column: pa.Array) -> Sequence[Any] | Array:
    """Return a column as the schema takes it: an array, or a list where there are nulls that no array can hold."""
    if kinds.is_decimal(column.type):
        column = column.cast(pa.float64(), safe=False)
    if kinds.is_null(column.type):
        return [None] * len(column)
    if kinds.is_floating(column.type):
        found: Array = column.to_numpy(zero_copy_only=False)
        return found
    if column.null_count or not (kinds.is_integer(column.type) or kinds.is_boolean(column.type)):
        return column.to_pylist()  # type: ignore[no-any-return]
    return column.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def answer_arrays(answers: Sequence[AnswerColumn], scored: Scored) -> list[Any]:
    """Return the columns of the answer, null where a row is bad."""
    return [_answers(one, scored) for one in answers]


def check_types(schema: InputSchema, arrow: pa.Schema) -> None:
    """Raise InvalidInput for a column of the model that holds neither numbers, booleans nor texts, or the wrong one."""
    for tensor in schema.inputs:
        for name in tensor.columns:
            if name in arrow.names and not _is_fit(tensor, arrow.field(name).type):
                found = f"its type is {arrow.field(name).type}, the model takes {tensor.type}"
                raise InvalidInput(f"read the column {quoted(name)}", found, "write it as the model takes it")


def plain_schema(arrow: pa.Schema) -> pa.Schema:
    """Return a schema without dictionaries and metadata."""
    return pa.schema([pa.field(field.name, _plain_type(field.type)) for field in arrow])


def plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch without dictionaries; what it holds is not copied unless it must be."""
    schema = plain_schema(batch.schema)
    arrays = [_cast(column, field) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if kinds.is_dictionary(kind) else kind


def _is_fit(tensor: Input, kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type may be those of a tensor."""
    kind = _plain_type(kind)
    if kinds.is_null(kind):
        return True
    if tensor.type == "string":
        return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))
    if kinds.is_boolean(kind):
        return tensor.type == "bool" or tensor.categories is not None
    numbers = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind)
    return bool(numbers) and tensor.type != "bool"


def _cast(column: Any, field: pa.Field) -> Any:
    """Return a column in a field's type. Raises InvalidInput where it cannot be."""
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        found = f"it is {column.type} here and {field.type} in the first file ({str(error)[:100]})"
        raise InvalidInput(f"keep the column {quoted(field.name)}", found, "leave it out by --keep") from error


def _answers(one: AnswerColumn, scored: Scored) -> Any:
    """Return one column of the answer."""
    kind = _answer_type(one.type)
    if not scored.columns:
        return pa.nulls(scored.rows, kind)
    values = scored.columns[one.name]
    if one.type == QUALITY:
        values = np.array([quality.flag for quality in values.tolist()], object)
    if len(scored.good) == scored.rows:
        return pa.array(np.ascontiguousarray(values) if values.dtype.kind != "O" else values.tolist(), kind)
    whole = np.zeros(scored.rows, object if values.dtype.kind == "O" else values.dtype)
    whole[scored.good] = values
    absent = np.ones(scored.rows, bool)
    absent[scored.good] = False
    if values.dtype.kind == "O":
        whole[absent] = None
        return pa.array(whole.tolist(), kind)
    return pa.array(whole, kind, mask=absent)


def _answer_type(name: str) -> pa.DataType:
    if name == QUALITY:
        return pa.string()
    return pa.bool_() if name == "bool" else pa.from_numpy_dtype(np.dtype(name)) if name != "string" else pa.string()


def _text_type(schema: InputSchema, name: str) -> pa.DataType:
    """Return the type that a column of a text has in an output with types."""
    tensor = next((one for one in schema.inputs if name in one.columns), None)
    if tensor is None or tensor.type == "string":
        return pa.string()
    return pa.bool_() if tensor.type == "bool" else pa.float64() if tensor.type.startswith("float") else pa.int64()


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """Return a value of a text as a column's type; None where it is of another, as a bad row's may be."""
    if kinds.is_string(kind):
        return value if value is None or isinstance(value, str) else _encode_json(value).decode()
    if isinstance(value, bool) or kinds.is_boolean(kind):
        return value if kinds.is_boolean(kind) and isinstance(value, bool) else None
    if kinds.is_floating(kind):
        return float(value) if (isinstance(value, (int, float)) and abs(value) < 1e308) or value != value else None
    return int(value) if isinstance(value, (int, float)) and value == value and abs(value) < 2**63 else None


def _written(value: Any) -> Any:
    """Return a value as texts have it."""
    return (
        value if isinstance(value, (str, int, float, bool, type(None))) else json.loads(json.dumps(value, default=str))
    )

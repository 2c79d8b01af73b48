"""What one process does with a block: read, check, run, format for the output; and how many rows a block has."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from appliance import budget
from appliance.batch.blocks import Block, Count, Split, csv_count, json_count
from appliance.batch.checking import Bad
from appliance.batch.formats import Format, needs_pyarrow
from appliance.batch.scoring import AnswerColumn, Scorer
from appliance.batch.tables.csv_table import CsvReader
from appliance.batch.tables.json_lines import JsonLinesReader
from appliance.batch.tables.records import csv_ends, json_ends
from appliance.batch.tables.text import Reader, Table
from appliance.batch.tables.text_output import CsvOutput, JsonOutput, TextOutput, clash, gzipped
from appliance.errors import InvalidInput
from appliance.fallback import QualityPolicy
from appliance.inference.tensors import InputSchema
from appliance.memory import collector_paused

LEAST_ROWS, MOST_ROWS = 16, 4096
_FIRST_ROWS = 256
GROWTH = 32 * 1024 * 1024
"""Bytes that a block may take."""
PROVENANCE = ("model", "version", "id")
_ID_DIGITS = 16  # of a file's digest in the ids of its rows
_encode_json = msgspec.json.Encoder().encode


class InputFile(msgspec.Struct, frozen=True):
    """What there is to know of one input file before its rows are read."""

    name: str
    format: Format
    id: str
    """Stands for its content, see inputs.Mark."""
    columns: list[str]
    """The names of its columns; of JSON Lines those of its first row."""
    arrow: bytes = b""
    """Of a Parquet or Arrow file the schema, as Arrow writes it."""

    @property
    def request(self) -> str:
        """The first part of the ids of its rows."""
        return self.id[:_ID_DIGITS]


class Spec(msgspec.Struct, frozen=True):
    """What blocks become."""

    files: list[InputFile]
    output: Format
    keep: list[str] | None
    """The columns of the input that are kept; None for all."""
    provenance: bool = False
    refuse_overflow: bool = True
    quality: QualityPolicy = QualityPolicy()

    @property
    def kept(self) -> list[str]:
        """The columns of the input that the output has."""
        return self.files[0].columns if self.keep is None else self.keep

    def is_raw(self, file: InputFile) -> bool:
        """Return whether a file's records are taken over as they stand."""
        if self.keep is not None or file.format.kind != self.output.kind:
            return False
        return file.format.kind == "jsonl" or file.columns == self.kept


class Rejected(msgspec.Struct):
    """A row that the model does not take, as it goes to quarantine."""

    file: str
    row: int
    """Its number in the file, from 0."""
    line_number: int | None
    """The number of its line in the file, from 1; None where the file has no lines."""
    column: str
    reason: str
    line: str
    """The row as it stands in the file."""


class Result(msgspec.Struct):
    """What became of a block."""

    rows: int
    bad: int = 0
    first: Rejected | None = None
    """The first bad row."""
    rejected: bytes = b""
    """All bad rows, as JSON Lines."""
    output: bytes | memoryview = b""
    """What is to be written."""
    counts: bytes = b""
    """What the Counter counted."""


class Facts(msgspec.Struct):
    """What is known once a version is loaded."""

    header: bytes
    """What stands at the begin of the output."""
    block_rows: int = 0


def split_of(kind: str) -> Split:
    """Return what finds the ends of a text's records."""
    return csv_ends if kind == "csv" else json_ends


def count_of(file: InputFile) -> Count:
    """Return what counts the rows among records."""
    return partial(csv_count, single=len(file.columns) == 1) if file.format.kind == "csv" else json_count


def reader_of(file: InputFile, schema: InputSchema, spec: Spec) -> Reader:
    """Return what reads a file's blocks."""
    if file.format.kind == "csv":
        return CsvReader(schema, file.columns)
    if not file.format.is_text:
        with needs_pyarrow():
            from appliance.batch.tables import arrow_table
        return arrow_table.ArrowReader(schema, arrow_schema(file))
    return JsonLinesReader(schema, spec.kept if spec.keep is None and not spec.is_raw(file) else None)


def arrow_schema(file: InputFile) -> Any:
    """Return the schema of a file with columns, None of a text."""
    if file.format.is_text:
        return None
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(file.arrow))


def arrow_output(spec: Spec, answers: Sequence[AnswerColumn], more: Sequence[str], schema: InputSchema) -> Any:
    """Return what writes blocks as record batches."""
    with needs_pyarrow():
        from appliance.batch.tables import arrow_table
    return arrow_table.ArrowOutput(spec.kept, answers, more, schema, arrow_schema(spec.files[0]))


def check_names(spec: Spec, answers: Sequence[AnswerColumn]) -> None:
    """Raise InvalidInput where a kept column is in no file, or is named as one of the answer."""
    ours = {*(one.name for one in answers), *(PROVENANCE if spec.provenance else ())}
    raw_json = spec.keep is None and spec.output.kind == "jsonl" and all(f.format.kind == "jsonl" for f in spec.files)
    for name in () if raw_json else spec.kept:
        if name in ours:
            raise clash(name)
    for file in spec.files if file_has_header(spec) else ():
        absent = [name for name in spec.kept if name not in file.columns]
        if absent:
            found = f"it has no column {absent[0]!r}"
            raise InvalidInput(f"read {file.name}", found, "name the columns to keep by --keep")


def file_has_header(spec: Spec) -> bool:
    """Return whether the columns of every file are known before its rows are read."""
    return all(file.format.kind != "jsonl" for file in spec.files)


class Counter(Protocol):
    """Counts the rows of the scorer, which tells it of each block."""

    def taken(self, bad_columns: Iterable[str]) -> bytes:
        """Return what was counted since the last call, and the bad rows by their columns ("" for none)."""


class Work:
    """Scores blocks of text with one scorer; one in each process."""

    def __init__(
        self,
        scorer: Scorer,
        spec: Spec,
        close: Callable[[], None] = lambda: None,
        counter: Counter | None = None,
    ) -> None:
        """`close` is called when the process has no more to do."""
        self.close = close
        self._counter = counter
        self._scorer = scorer
        self._spec = spec
        self._readers: dict[int, Reader] = {}
        self._outputs: dict[int, TextOutput] = {}

    def facts(self, choose: bool) -> Facts:
        """Return what is known once it is loaded; with `choose` how many rows a block has, too. Raises InvalidInput."""
        check_names(self._spec, self._scorer.answers)
        header = self._output(0).header
        if self._spec.output.gzip and header:
            header = gzipped(header)
        return Facts(header, block_rows(self._scorer) if choose else 0)

    def __call__(self, block: Block) -> Result:
        """Return what becomes of a block. Raises InvalidInput where the file as a whole is wrong."""
        number = block.start.file
        reader = self._reader(number)
        with collector_paused():
            table = reader.read(block.data)
            request, row = self._spec.files[number].request, block.start.row
            scored = self._scorer.run(table.checked, table.rows, request=request, first_row=row)
            rejected = [self._rejected(block, table, one) for one in scored.bad]
            output = self._output(number).block(table, scored, reader, self._provenance(number, row, table.rows))
        return Result(
            rows=table.rows,
            bad=len(rejected),
            first=rejected[0] if rejected else None,
            rejected=b"".join([_encode_json(one) + b"\n" for one in rejected]),
            output=gzipped(output) if self._spec.output.gzip else output,
            counts=self._counter.taken(one.column for one in scored.bad) if self._counter else b"",
        )

    def _reader(self, number: int) -> Reader:
        """Return the reader of a file."""
        if number not in self._readers:
            self._readers[number] = reader_of(self._spec.files[number], self._scorer.schema, self._spec)
        return self._readers[number]

    def _output(self, number: int) -> TextOutput:
        """Return the writer of a file's rows."""
        if number not in self._outputs:
            spec, answers = self._spec, self._scorer.answers
            raw = spec.is_raw(spec.files[number])
            more = PROVENANCE if spec.provenance else ()
            columns = self._scorer.schema.columns
            if spec.output.kind == "csv":
                self._outputs[number] = CsvOutput(spec.kept, raw, answers, more)
            elif spec.output.kind == "jsonl":
                self._outputs[number] = JsonOutput(spec.kept, raw, answers, more, columns)
            else:
                self._outputs[number] = arrow_output(spec, answers, more, self._scorer.schema)
        return self._outputs[number]

    def _provenance(self, number: int, first: int, rows: int) -> list[Sequence[str]]:
        """Return the columns of provenance."""
        if not self._spec.provenance:
            return []
        version, request = self._scorer.version, self._spec.files[number].request
        return [
            [version.name] * rows,
            [version.version] * rows,
            [f"{request}.{row}" for row in range(first, first + rows)],
        ]

    def _rejected(self, block: Block, table: Table, bad: Bad) -> Rejected:
        """Return a bad row with its place in the file."""
        number = table.number_of(bad.row)
        return Rejected(
            self._spec.files[block.start.file].name,
            block.start.row + bad.row,
            None if number is None else block.start.line + number + 1,
            bad.column,
            bad.reason,
            table.line_of(bad.row),
        )


def block_rows(scorer: Scorer) -> int:
    """Return how many rows run together: as many as a run's growth of memory allows, never by the time it takes.

    So every run of a host chooses the same number for a model, and the answers are the same to the last bit.
    """
    columns = max(1, len(scorer.schema.columns))
    most = MOST_ROWS
    while most > LEAST_ROWS and most * columns * budget.CELL > GROWTH:
        most //= 2
    rows = min(_FIRST_ROWS, most)
    if _growth(scorer, rows) * (most // rows) < GROWTH // 2:
        return most
    while rows < most and _growth(scorer, 2 * rows) < GROWTH:
        rows *= 2
    return rows


def _growth(scorer: Scorer, rows: int) -> int:
    """Return the bytes by which the process grows at most while so many rows run; 0 where nobody can tell (Linux)."""
    before = _status("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak, proc(5)
    scorer.version.session.run(scorer.version.example_feeds(rows))
    return max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    """Return a number of bytes of /proc/self/status, 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0

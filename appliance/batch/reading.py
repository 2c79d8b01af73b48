"""All files of a run as one sequence of blocks: what is known of each before its rows are read, and where they are."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from appliance.batch.blocks import Block, Position, text_blocks
from appliance.batch.formats import needs_pyarrow
from appliance.batch.inputs import OpenSource, Source, Text
from appliance.batch.tables.csv_table import read_header
from appliance.batch.tables.json_lines import keys_of
from appliance.batch.work import InputFile, count_of, split_of
from appliance.errors import InvalidInput
from appliance.inference.tensors import InputSchema


class Inputs:
    """The files of one run, open."""

    def __init__(
        self, sources: Sequence[Source], schema: InputSchema, stack: ExitStack, *, names_columns: bool
    ) -> None:
        """Look at the files; `names_columns` says that the output has a column for each key of JSON Lines.

        Raises Misuse where one cannot be read, InvalidInput where one lacks a required column.
        """
        self._schema = schema
        self._names_columns = names_columns
        self.opened = [OpenSource(source) for source in sources]
        for one in self.opened:
            stack.callback(one.close)
        self._texts: dict[int, Text] = {}
        self._arrow: dict[int, Any] = {}
        self.files = [self._looked_at(number, one) for number, one in enumerate(self.opened)]

    def check_unchanged(self) -> None:
        """Raise InvalidInput where a file is no longer what it was when it was opened."""
        for one in self.opened:
            one.check_unchanged()

    def share(self, block: Block) -> float | None:
        """Return which share of the input's bytes is behind a block."""
        if any(one.is_pipe for one in self.opened):
            return None
        sizes = [one.mark.size for one in self.opened]
        current = self.opened[block.end.file]
        plain = current.source.format.is_text and not current.source.format.gzip
        done = block.end.offset if plain else current.raw.tell()
        return min(1.0, (sum(sizes[: block.end.file]) + done) / max(1, sum(sizes)))

    def blocks(self, position: Position, rows: int, shard: tuple[int, int]) -> Iterator[Block]:
        """Yield the blocks of a shard (I, N) from a position on, each of so many lines or rows.

        Of one file a shard takes every N-th unit, of several every N-th file.
        """
        part, parts = shard
        several = len(self.opened) > 1
        for number in range(position.file, len(self.opened)):
            if several and number % parts != part - 1:
                continue
            start = position if number == position.file else Position(number)
            take = _every(1, 1) if several else _every(part, parts)
            if number in self._arrow:
                yield from self._arrow[number].blocks(start, rows, take)
            else:
                yield from self._text_blocks(number, start, rows, take)

    def _text_blocks(self, number: int, start: Position, rows: int, take: Callable[[int], bool]) -> Iterator[Block]:
        """Yield the blocks of one text."""
        file = self.files[number]
        text = self._texts.pop(number, None) or Text(self.opened[number], start.offset)
        if start.offset == 0:
            if file.format.kind == "csv" and not self.opened[number].is_pipe:
                text.first_record(split_of("csv"))
            start = Position(number, text.offset, int(file.format.kind == "csv"), 0)
        yield from text_blocks(text, start, rows, split_of(file.format.kind), count_of(file), take)

    def _looked_at(self, number: int, opened: OpenSource) -> InputFile:
        """Return what there is to know of a file. Raises InvalidInput where it lacks a required column."""
        format, schema = opened.source.format, self._schema
        if not format.is_text:
            return self._columns_looked_at(number, opened)
        text = Text(opened)
        columns = list(schema.columns)
        if format.kind == "csv":
            columns = read_header(text.first_record(split_of("csv")), schema)
            _check_columns(opened.source.name, columns, schema)
        elif self._names_columns:
            columns = keys_of(self._peeked(text), schema)
        if opened.is_pipe:
            self._texts[number] = text  # what was read of it is not there a second time
        return InputFile(opened.source.name, format, opened.mark.id, columns)

    def _columns_looked_at(self, number: int, opened: OpenSource) -> InputFile:
        """Return what there is to know of a Parquet or Arrow file."""
        with needs_pyarrow():
            from appliance.batch import arrow_files
            from appliance.batch.tables.arrow_table import check_types
        file = self._arrow[number] = arrow_files.ArrowFile(opened)
        _check_columns(opened.source.name, file.schema.names, self._schema)
        check_types(self._schema, file.schema)
        schema = file.schema.serialize().to_pybytes()
        return InputFile(opened.source.name, opened.source.format, opened.mark.id, file.schema.names, schema)

    @staticmethod
    def _peeked(text: Text) -> bytes:
        """Return the first line of a text, which stays to be read."""
        line = text.first_record(split_of("jsonl"))
        text.put_back(line)
        return line


def _check_columns(name: str, columns: Sequence[str], schema: InputSchema) -> None:
    """Raise InvalidInput where a file lacks a required column."""
    lacking = [one for tensor in schema.inputs if tensor.required for one in tensor.columns if one not in columns]
    if lacking:
        found = f"its header has no column {', '.join(map(repr, lacking[:5]))}"
        raise InvalidInput(f"read {name}", found, f"the model takes {', '.join(schema.columns)}")


def _every(part: int, parts: int) -> Callable[[int], bool]:
    """Return which units are those of a part."""
    return lambda unit: unit % parts == part - 1

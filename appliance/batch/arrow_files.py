"""Parquet and Arrow files: cut into blocks of record batches to read, written by way of an Arrow stream.

A Parquet file has its table of contents at the end, so it cannot be continued after a crash. The partial is therefore
an Arrow stream, which can be cut between any two batches; at the end it is converted to the output's format.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from appliance.batch.blocks import Block, Position
from appliance.batch.checkpoint import Written
from appliance.batch.inputs import OpenSource
from appliance.batch.sinks import FileSink
from appliance.batch.tables.arrow_table import plain_batch
from appliance.errors import InvalidInput, Misuse
from appliance.store import durable

MOST_GROUP_BYTES = 256 * 1024 * 1024
"""Of one row group of a Parquet file, decoded."""
GROUP_ROWS = 65536
"""Of a row group that is written."""
PART_ROWS = 1_000_000
"""Of one file in a folder that is written."""
_BUFFER = 256 * 1024  # bytes that are read of a column at a time
_OWN_FORMAT = b"ARROW1"


class ArrowFile:
    """One input file with columns."""

    def __init__(self, opened: OpenSource) -> None:
        """Raises InvalidInput if the file has another format, Misuse for a pipe or a row group that is too large."""
        self._opened = opened
        self._is_parquet = opened.source.format.kind == "parquet"
        tried = f"read {opened.source.name}"
        if opened.is_pipe and self._is_parquet:
            raise Misuse(tried, "a Parquet file is not read from a pipe", "name the file, or pipe an Arrow stream")
        try:
            self._file = self._parquet(tried) if self._is_parquet else self._ipc()
            self.schema: Any = self._file.schema_arrow if self._is_parquet else self._file.schema
        except (pa.ArrowException, OSError, EOFError) as error:
            kind = opened.source.format.kind.capitalize()
            raise InvalidInput(tried, f"it is no {kind} file ({str(error)[:200]})", "write it again") from error
        twice = {name for name in self.schema.names if self.schema.names.count(name) > 1}
        if twice:
            raise InvalidInput(tried, f"a column's name stands twice: {sorted(twice)[0]!r}", "name each column once")

    def blocks(self, start: Position, rows: int, take: Callable[[int], bool]) -> Iterator[Block]:
        """Yield blocks of so many rows from a position on; none spans two row groups or batches.

        A group is always read from its begin, so that a run which goes on within one cuts it as the first run did.
        """
        for number, first_row, batches in self._groups(start.offset, rows):
            if not take(number):
                continue
            within = 0
            for batch in batches:
                for first in range(0, batch.num_rows, rows):
                    part = batch.slice(first, rows)
                    begin = Position(start.file, number, within, first_row + within)
                    within += part.num_rows
                    if number > start.offset or within > start.line:
                        end = Position(start.file, number, within, first_row + within)
                        yield Block(begin, end, part.num_rows, plain_batch(part))

    def _groups(self, first: int, rows: int) -> Iterator[tuple[int, int, Iterator[pa.RecordBatch]]]:
        """Yield (number, its first row in the file, its batches) of the row groups, or batches, from `first` on."""
        row = 0
        if self._is_parquet:
            for number in range(self._file.num_row_groups):
                if number >= first:
                    yield number, row, self._group(number, rows)
                row += self._file.metadata.row_group(number).num_rows
            return
        for number in range(getattr(self._file, "num_record_batches", sys.maxsize)):
            batch = self._batch(number)
            if batch is None:
                return
            if number >= first:
                yield number, row, iter([batch])
            row += batch.num_rows

    def _group(self, number: int, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the batches of a row group."""
        with self._whole():
            yield from self._file.iter_batches(rows, row_groups=[number], use_threads=False)

    def _batch(self, number: int) -> Any:
        """Return a batch of an Arrow file, None behind the last one."""
        with self._whole():
            if isinstance(self._file, pa.ipc.RecordBatchFileReader):
                return self._file.get_batch(number)
            try:
                return self._file.read_next_batch()
            except StopIteration:
                return None

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Turn what goes wrong in reading into InvalidInput."""
        try:
            yield
        except (pa.ArrowException, OSError, EOFError) as error:
            raise InvalidInput(f"read {self._opened.source.name}", str(error)[:200], "write it again") from error

    def _parquet(self, tried: str) -> Any:
        """Return the open Parquet file."""
        file = pq.ParquetFile(self._opened.raw, buffer_size=_BUFFER, pre_buffer=False)
        for number in range(file.num_row_groups):
            size = file.metadata.row_group(number).total_byte_size
            if size > MOST_GROUP_BYTES:
                found = f"row group {number} has {size} bytes decoded, {MOST_GROUP_BYTES} may be"
                raise Misuse(tried, found, f"write it with smaller row groups, as of {GROUP_ROWS} rows")
        return file

    def _ipc(self) -> Any:
        """Return the open Arrow file: of the file format, or a stream."""
        raw = self._opened.raw
        if self._opened.is_pipe:
            return pa.ipc.open_stream(raw)
        begin = raw.read(len(_OWN_FORMAT))
        raw.seek(0)
        return pa.ipc.open_file(raw) if begin == _OWN_FORMAT else pa.ipc.open_stream(raw)


class ArrowSink(FileSink):
    """A partial that is an Arrow stream, and becomes a Parquet or Arrow file, or a folder of Parquet files."""

    def __init__(self, path: Path, written: Written | None, kind: str, folder: bool) -> None:
        super().__init__(path, written)
        self._kind = kind
        self._folder = folder
        self._whole = path.with_name(f"{path.name}.partial.{'d' if folder else kind}")

    def publish(self) -> Written:
        """Make the output of the stream and give it its name. Raises OSError."""
        with pa.OSFile(str(self.partial)) as file:  # what is mapped would count as memory of this process
            reader = pa.ipc.open_stream(file)
            if self._folder:
                self._write_folder(reader)
            else:
                _write(reader.schema, reader, self._whole, self._kind)
        written = _written(self._whole / "_SUCCESS" if self._folder else self._whole)
        self._whole.replace(self.path)
        durable.sync_folder(self.path.parent)
        self.partial.unlink()
        return written

    def _write_folder(self, reader: Any) -> None:
        """Write parts of so many rows, and at the end the file _SUCCESS, which lists them."""
        self._whole.mkdir(exist_ok=True)
        for old in self._whole.iterdir():
            old.unlink()
        parts: list[dict[str, Any]] = []
        dealt = _Parts(reader)
        while not parts or not dealt.ended:
            path = self._whole / f"part-{len(parts):05d}.parquet"
            _write(reader.schema, dealt.part(), path, "parquet")
            parts.append({"name": path.name, "rows": dealt.rows, "sha256": _written(path).sha256})
        success = self._whole / "_SUCCESS"
        success.write_bytes(msgspec.json.format(msgspec.json.encode({"parts": parts}), indent=1) + b"\n")
        _sync(success)
        durable.sync_folder(self._whole)


class _Parts:
    """Batches dealt out to files of so many rows."""

    def __init__(self, batches: Any) -> None:
        self._batches = iter(batches)
        self._next = next(self._batches, None)
        self.rows = 0
        """Of the part that was given last."""

    @property
    def ended(self) -> bool:
        """Whether no row is left."""
        return self._next is None

    def part(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches of the next part."""
        self.rows = 0
        while self._next is not None and self.rows < PART_ROWS:
            batch, left = self._next, PART_ROWS - self.rows
            self._next = batch.slice(left) if batch.num_rows > left else next(self._batches, None)
            self.rows += min(left, batch.num_rows)
            yield batch.slice(0, left)


def _write(schema: pa.Schema, batches: Any, path: Path, kind: str) -> None:
    """Write batches as a file, and make it last."""
    if kind == "arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
    else:
        # Floats have too many values for a dictionary, and looking takes most of the time.
        texts = [field.name for field in schema if not pa.types.is_floating(field.type)]
        with pq.ParquetWriter(str(path), schema, use_dictionary=texts or False, compression="snappy") as writer:
            group: list[pa.RecordBatch] = []
            for batch in batches:
                group.append(batch)
                if sum(one.num_rows for one in group) >= GROUP_ROWS:
                    table = pa.Table.from_batches(group, schema)
                    writer.write_table(table.slice(0, GROUP_ROWS), row_group_size=GROUP_ROWS)
                    group = table.slice(GROUP_ROWS).to_batches()
            if group:
                writer.write_table(pa.Table.from_batches(group, schema), row_group_size=GROUP_ROWS)
    _sync(path)


def _sync(path: Path) -> None:
    """Make a file last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(path: Path) -> Written:
    """Return a file's size and digest."""
    with path.open("rb") as file:
        return Written(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())

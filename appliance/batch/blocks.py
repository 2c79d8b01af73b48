"""Text files cut into blocks of whole records, in order, from any position on.

A position is the beginning of a block: a checkpoint holds it, and a resumed run begins there. Blocks depend only on the
content and on the lines per block, never on how much was read at a time. So an interrupted run has the same blocks as
one without an interruption.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec
import numpy as np

from appliance.batch.tables.records import Ends
from appliance.errors import InvalidInput

READ_BYTES = 1024 * 1024
LONGEST_RECORD = 64 * 1024 * 1024
"""Most bytes of one record: a longer one most likely has a quote that is not closed."""
UNIT_LINES = 65536
"""Lines of a unit, of which a shard takes every N-th."""
BOM = b"\xef\xbb\xbf"


class Position(msgspec.Struct, frozen=True):
    """Where a block begins."""

    file: int = 0
    """The number of the input file."""
    offset: int = 0
    """In bytes of the file, decompressed; of a Parquet or Arrow file the number of the row group or batch."""
    line: int = 0
    """The number of the line in the file; of a Parquet or Arrow file of the row in its group or batch."""
    row: int = 0
    """The number of the row in the file."""


class Block(msgspec.Struct):
    """Some rows of one file, to be scored together."""

    start: Position
    end: Position
    """Where the next block begins."""
    rows: int
    data: Any
    """The text; of a Parquet or Arrow file a record batch."""


class Readable(Protocol):
    """What gives bytes."""

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer only at the end."""


Split = Callable[[bytes, bool], Ends]
Count = Callable[[bytes, Ends], int]
Take = Callable[[int], bool]
"""The number of a unit -> whether it is scored here."""


def text_blocks(
    file: Readable, start: Position, lines: int, split: Split, count: Count, take: Take = lambda unit: True
) -> Iterator[Block]:
    """Yield the blocks of a text of which `file` gives what is behind `start`, each of so many lines.

    `count` says how many of the records in a piece are rows. Raises InvalidInput where no record ends.
    """
    pending, ended = b"", False
    ends = np.empty(0, np.int64)
    while not ended:
        more = file.read(READ_BYTES)
        ended = not more
        pending += more
        ends = split(pending, ended)
        first = 0
        while len(ends) - first >= lines or (ended and first < len(ends)):
            last = min(first + lines, len(ends))
            begin = int(ends[first - 1]) if first else 0
            data = pending[begin : int(ends[last - 1])]
            rows = count(data, ends[first:last] - begin)
            end = Position(start.file, start.offset + len(data), start.line + last - first, start.row + rows)
            if rows and take(start.line // UNIT_LINES):
                yield Block(start, end, rows, data)
            start, first = end, last
        pending = pending[int(ends[first - 1]) :] if first else pending
        if len(pending) > LONGEST_RECORD and not len(split(pending, False)):
            found = f"the record that begins in line {start.line + 1} does not end within {LONGEST_RECORD} bytes"
            raise InvalidInput("read the file", found, "look for a quote there that is not closed")


def csv_count(data: bytes, ends: Ends, single: bool) -> int:
    """Return how many records of a piece of CSV are rows: blank lines are none, where rows have more than one cell."""
    if single:
        return len(ends)
    first = np.frombuffer(data, np.uint8)[np.concatenate([[0], ends[:-1]]).astype(np.int64)]
    return int(np.count_nonzero((first != 10) & (first != 13)))


def json_count(data: bytes, ends: Ends) -> int:
    """Return how many lines of a piece of JSON Lines are rows: blank lines are none."""
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    marks: Any = np.frombuffer(data, np.uint8)
    blank = np.isin(marks[starts], np.frombuffer(b" \t\r\n\x0b\x0c", np.uint8))
    spaces = sum(not data[starts[place] : ends[place]].strip() for place in np.flatnonzero(blank).tolist())
    return len(ends) - spaces

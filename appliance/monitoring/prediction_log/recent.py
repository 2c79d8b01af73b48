"""The last answers in the log, as they are kept: what its column policy drops or hashes is so here too."""

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from appliance import nofollow
from appliance.errors import StoreError
from appliance.monitoring.prediction_log import lines, segments
from appliance.monitoring.prediction_log.segments import Segment

MOST_COLUMNS = 50
"""Columns of a row that are shown."""
_TAIL = 256 * 1024  # bytes at the end of an open segment that are read
_HEAD = 256 * 1024  # bytes in which its header is looked for
_MOST_WRITERS = 8


class RecentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One row and its answer, or why it was refused."""

    id: str
    time: float
    """Unix time."""
    version: str
    row: dict[str, Any] | None
    """By column; null where rows are not kept."""
    prediction: Any
    probability: dict[str, float | None] | None
    """By class label, where the model gives it."""
    milliseconds: float
    error: str
    """Why it was refused, in a word; "" for an answer."""
    column: str
    """The column that is to blame for it."""


class RecentAnswers(msgspec.Struct, frozen=True):
    """The last answers of a model, the latest first."""

    model: str
    policy: dict[str, str]
    """Columns that are not kept as they were sent: drop, hash or round:STEP."""
    answers: list[RecentAnswer]


def recent(state_dir: Path, model: str, count: int) -> RecentAnswers:
    """Return the last `count` answers; none where nothing is logged. Damaged files are passed over."""
    writers = []
    with suppress(OSError, StoreError):
        for writer in segments.writers(state_dir, model):
            if own := segments.of_writer(writer):
                writers.append(own)
    writers.sort(key=lambda own: -own[-1].modified)
    found: list[RecentAnswer] = []
    policy: dict[str, str] = {}
    for own in writers[:_MOST_WRITERS]:
        answers: list[RecentAnswer] = []
        for segment in reversed(own[-2:]):  # the open one, which may just have begun, and the one before
            with suppress(OSError, StoreError):
                header, rows = _read(segment)
                policy |= header.policy if header else {}
                answers = [*_answers(header, rows), *answers] if header else answers
            if len(answers) >= count:
                break
        found += answers[: -count - 1 : -1]
    found.sort(key=lambda one: -one.time)
    return RecentAnswers(model, policy, found[:count])


def _read(segment: Segment) -> tuple[lines.Header | None, Sequence[bytes]]:
    """Return (header, last whole lines) of a segment; of one that is being written no more than its end is read."""
    if segment.packed:
        whole, _ = segments.split(segment.read())
        return segments.header_of(whole), whole[-10_000:]
    descriptor = nofollow.open_file(segment.path, within=segment.writer.state_dir)
    with io.FileIO(descriptor) as file:
        header = segments.header_of(segments.split(file.read(_HEAD) or b"")[0][:1])
        size = file.seek(0, io.SEEK_END)
        start = file.seek(max(0, size - _TAIL))
        whole, _ = segments.split(file.read(_TAIL) or b"")
        return header, whole[1:] if start else whole


def _answers(header: lines.Header, rows: Sequence[bytes]) -> Iterator[RecentAnswer]:
    """Yield the rows among some lines."""
    for line in rows:
        if not line.startswith(lines.ROW) or lines.read_erased(line):
            continue
        with suppress(*lines.FAILURES):
            yield _answer(header, msgspec.json.decode(line, type=lines.Row))


def _answer(header: lines.Header, row: lines.Row) -> RecentAnswer:
    """Return one row."""
    labels = [str(label) for label in header.classes]
    return RecentAnswer(
        id=row.id,
        time=row.t,
        version=header.version,
        row=dict(zip(header.columns[:MOST_COLUMNS], row.x, strict=False)) if row.x is not None else None,
        prediction=row.y,
        probability=dict(zip(labels, row.p, strict=False)) if row.p is not None and labels else None,
        milliseconds=row.ms,
        error=row.error,
        column=row.column,
    )

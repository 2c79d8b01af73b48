"""The writers of one process, for the thread that owns them; decides when to write, seal, sync and rotate."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from appliance.config import PredictionLogConfig
from appliance.errors import ApplianceError
from appliance.monitoring.prediction_log import lines, retention
from appliance.monitoring.prediction_log.layout import Answered, Layout, whole
from appliance.monitoring.prediction_log.segments import Writer
from appliance.monitoring.prediction_log.writer import BLOCK, SegmentWriter, wants_rotation
from appliance.predictor import Prediction
from appliance.trace_context import TraceContext, of

TOGETHER = 32
"""Lines that are made and written at once."""
SEAL_SECONDS, EMPTY_SEAL_SECONDS = 1.0, 900.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Ticket:
    """A caller that waits until lines are written."""

    done: threading.Event = field(default_factory=threading.Event)
    failure: str = ""


class Item(msgspec.Struct, gc=False):  # a frozen dataclass takes ten times as long to make
    """Something that waits to be written: a prediction, what is kept of a large one, or lines."""

    layout: Layout
    rows: int
    size: int
    time: float
    ticket: Ticket | None = None
    prediction: Prediction | None = None
    answered: Answered | None = None
    made: Sequence[Any] = ()
    """Lines that are whole but for their nonce."""
    traces: Mapping[str, TraceContext] | None = None
    """Of the requests, see trace_context."""


@dataclass(slots=True)
class Gap:
    """Rows that are missing in the log: how many, since when, and why."""

    layout: Layout
    rows: int
    since: float
    reason: str


@dataclass(slots=True)
class _Open:
    """A writer, and when what is due."""

    writer: SegmentWriter
    sealed: float
    begun: float
    """When its sealing key was first used."""


class Keeper:
    """Has the writers. One thread at a time may use it."""

    def __init__(
        self, config: PredictionLogConfig, state_dir: Path, slot: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._state_dir = state_dir
        self._slot = slot
        self._clock = clock
        self._open: dict[tuple[str, str], _Open] = {}
        self._nonces = _nonces()
        self._synced = 0.0
        self._failing = False

    def patience(self, gaps: bool) -> float | None:
        """Return the seconds for which nothing is due, None where nothing will be; `gaps`: some wait."""
        return SEAL_SECONDS if gaps or self._open else None

    def close(self) -> None:
        """Seal and pack what is open, and let go of the folders."""
        for one in self._open.values():
            try:
                one.writer.close()
            except (OSError, ApplianceError) as error:
                log.error("prediction log is not sealed", extra={"log": str(one.writer.writer), "error": str(error)})
        self._open.clear()

    def write(self, items: Sequence[Item]) -> Iterator[tuple[Item, int]]:
        """Write items, those of one version together; yield (item, rows) of rows that could not be written.

        A caller that waits for an item gets the result.
        """
        groups: dict[tuple[str, str], list[Item]] = {}
        for item in items:
            groups.setdefault((item.layout.model, item.layout.version), []).append(item)
        for found in groups.values():
            written, wanted, failure = self._write_group(found)
            self._tell(failure)
            self._rotate_full(found[0].layout)
            for item in found:
                if item.ticket:
                    item.ticket.failure = str(failure) if failure else ""
                    item.ticket.done.set()
            lost = [item for item in found if not item.ticket]
            if written < wanted and lost:
                yield lost[0], max(1, (wanted - written) * sum(one.rows for one in lost) // wanted)

    def write_gap(self, gap: Gap) -> bool:
        """Write a gap; return whether it is there."""
        line = lines.line_of(lines.Gap(gap.rows, round(gap.since, 3), gap.reason))
        try:
            return bool(self._writer(gap.layout).writer.append([line]))
        except (OSError, ApplianceError):
            return False

    def tend(self, now: float) -> None:
        """Seal, sync and rotate what is due at the moment `now` of the monotonic clock."""
        sync = self._config.sync != "never" and now - self._synced >= SEAL_SECONDS
        if sync:
            self._synced = now
        for one in self._open.values():
            try:
                self._tend_one(one, now, sync)
            except (OSError, ApplianceError) as error:
                self._tell(error)

    def _write_group(self, items: Sequence[Item]) -> tuple[int, int, Exception | None]:
        """Write the items of one version; return (lines written, lines that there are, why not all)."""
        wanted, written = sum(item.rows for item in items), 0
        made = (line for item in items for line in self._lines(item))
        try:
            writer = self._writer(items[0].layout).writer
            # Few at once: each write releases the interpreter's lock, so that the threads that answer do not wait long.
            while part := list(islice(made, TOGETHER)):
                done = writer.append(part)
                if done < len(part):
                    self._prune()
                    done += writer.append(part[done:])
                written += done
                if done < len(part):
                    return written, wanted, writer.fault
            # A label's sender is told that it is kept; so is, with "always", whoever asked for a prediction.
            if self._config.sync == "always" or any(item.ticket and item.made for item in items):
                writer.sync()
        except (OSError, ApplianceError) as error:
            return min(written, wanted - 1), wanted, error
        return written, wanted, None

    def _lines(self, item: Item) -> Iterator[bytes]:
        """Yield an item's lines."""
        answered = item.answered or (whole(item.prediction) if item.prediction else None)
        if answered:
            for row in item.layout.rows(answered, self._nonces):
                if item.traces and (trace := of(row.id.rpartition(".")[0], item.traces)):
                    row.trace = trace.trace_id
                yield lines.line_of(row)
        for line in item.made:
            line.n = next(self._nonces)
            yield lines.line_of(line)

    def _writer(self, layout: Layout) -> "_Open":
        """Return the writer of a version, opened when first needed."""
        key = layout.model, layout.version
        if key not in self._open:
            place = Writer(self._state_dir, layout.model, layout.version, self._slot)
            writer = SegmentWriter.open(place, layout.header, self._clock)
            now = time.monotonic()
            self._open[key] = _Open(writer, now, now)
            self._prune()
        return self._open[key]

    def _tend_one(self, one: _Open, now: float, sync: bool) -> None:
        due = now - one.sealed
        if due >= EMPTY_SEAL_SECONDS or (due >= SEAL_SECONDS and one.writer.unsealed()):
            one.writer.seal()
            one.sealed = now
        if now - one.begun >= EMPTY_SEAL_SECONDS:
            one.writer.advance_key()
            one.begun = now
        if one.writer.size >= self._segment_bytes() or wants_rotation(one.writer.writer):
            self._rotate(one)
        elif sync:
            one.writer.sync()

    def _rotate_full(self, layout: Layout) -> None:
        """Rotate a writer whose segment is full; where the disk does not take it, it is tried again."""
        one = self._open.get((layout.model, layout.version))
        if one and one.writer.size >= self._segment_bytes():
            try:
                self._rotate(one)
            except (OSError, ApplianceError) as error:
                self._tell(error)

    def _rotate(self, one: _Open) -> None:
        one.writer.rotate()
        one.sealed = time.monotonic()
        self._prune()

    def _segment_bytes(self) -> int:
        return retention.segment_bytes(self._config.segment_bytes, self._config.max_bytes, len(self._open))

    def _prune(self) -> None:
        """Keep to the quota and the days: what the open segments may grow by is spared."""
        size = self._segment_bytes()
        grow = sum(max(0, size - one.writer.size) + size // 2 for one in self._open.values())
        quota, days = self._config.max_bytes, self._config.max_days
        retention.prune(self._state_dir, quota=quota, days=days, reserve=grow)

    def _tell(self, failure: Exception | None) -> None:
        """Log once that nothing can be written, and once that writing works again."""
        if bool(failure) != self._failing:
            self._failing = bool(failure)
            if failure:
                log.error("prediction log cannot be written", extra={"error": str(failure)})
            else:
                log.info("prediction log is written again")


def _nonces() -> Iterator[str]:
    """Yield random texts of 16 hex digits."""
    while True:
        block = os.urandom(8 * BLOCK).hex()
        for place in range(0, len(block), 16):
            yield block[place : place + 16]

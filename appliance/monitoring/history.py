"""Each model's requests over time: minutes for a day and hours for a month, in STATE_DIR/history/NAME.ring.

The first process of a service looks once a minute at the counters of all processes (counters.py) and writes what is
new into the files, on the thread that follows the store. A model that nobody asked costs nothing. Any process reads.

What is on disk when. A minute is written when it has ended, and when the service stops: a kill loses the minute that
runs, and its successor goes on in the same files. Files are written in place and not synced, to spare the flash: after
a power cut what the system had not written yet is missing too, by Linux's defaults some 30 seconds. A file that is
damaged begins again. A file has SIZE (52,672) bytes, for ever: 30 models take 1.6 MB of disk. In memory are the counts
at the last look, 23 numbers for each model: some 30 KiB for 30 models; who asks reads one file at a time.

The clock may be set at any time. What is counted while it is set counts for the minute that it then shows; a minute
that comes a second time is added to, and what lies ahead is not shown. No count is ever negative.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from appliance import nofollow
from appliance.errors import StoreError
from appliance.monitoring import history_ring
from appliance.monitoring.counters import BOUNDS, CALLER_ERRORS, REQUEST_BUCKETS, SERVICE_ERRORS, SUCCESSES
from appliance.monitoring.history_ring import Counted, Series
from appliance.monitoring.shared_cells import Key
from appliance.store import durable
from appliance.store.versions import Store

log = logging.getLogger(__name__)

FOLDER = "history"
_SUFFIX = ".ring"
_CELLS = (
    SUCCESSES,
    CALLER_ERRORS,
    SERVICE_ERRORS,
    *range(REQUEST_BUCKETS, REQUEST_BUCKETS + len(BOUNDS) + 1),
)
RECENT_MINUTES = 15
"""Minutes whose failures are said to be recent."""

Sums = Callable[[], Mapping[Key, Sequence[float]]]
"""Gives the cells of counters.RequestCounters over all processes, by (model, version)."""


class History:
    """Writes the history of all models; for one thread, in the first process of a service."""

    def __init__(self, store: Store, sums: Sums, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives Unix time."""
        self._store, self._sums, self._clock = store, sums, clock
        self._minute = int(clock() // 60)
        self._pruned = self._minute // 60
        self._told = ""
        # Of a process that was started again the others have counted already: that is no news of this minute.
        self._last = _of_models(sums())

    def look(self) -> None:
        """Write the minute that has ended, if one has."""
        minute = int(self._clock() // 60)
        if minute == self._minute:
            return
        # After a jump ahead the minute before now is as good as any; after one back the last minute lies ahead.
        ended = minute - 1 if minute > self._minute else minute
        self._minute = minute
        self._write(ended)
        if minute // 60 != self._pruned:
            self._pruned = minute // 60
            self._prune()

    def stop(self) -> None:
        """Write what the minute that runs has so far."""
        self._write(int(self._clock() // 60))

    def _write(self, minute: int) -> None:
        """Write what is new of each model as that of a minute."""
        before, self._last = self._last, _of_models(self._sums())
        trouble = ""
        for model, cells in self._last.items():
            new = _since(cells, before.get(model))
            if new.requests:
                try:
                    self._add(model, minute, new)
                except (OSError, StoreError) as error:  # a full or read-only disk must not end what is served
                    trouble = str(error)
        if trouble and trouble != self._told:
            log.error("history is not written", extra={"error": trouble})
        self._told = trouble

    def _add(self, model: str, minute: int, counted: Counted) -> None:
        """Add a minute to a model's file, made where it is absent or damaged."""
        path, within = _path(self._store.state_dir, model), self._store.state_dir
        content = _read(path, within)
        if content is None:
            content = history_ring.empty()
            durable.make_folder(path.parent, within=within)
            durable.write_atomically(path, content, within=within)
        durable.overwrite(path, history_ring.with_minute(content, minute, counted), within=within)

    def _prune(self) -> None:
        """Delete the files of models that are installed no more."""
        folder, within = self._store.state_dir / FOLDER, self._store.state_dir
        with suppress(OSError, StoreError):
            kept = {f"{name}{_SUFFIX}" for name in self._store.names()}
            for name in nofollow.entries(folder, within=within).keys() - kept:
                with suppress(OSError, StoreError):
                    durable.delete(folder / name, within=within)


def read(state_dir: Path, model: str, span: str, now: float) -> Series:
    """Return a model's history; all zeros where there is none. `span` is one of history_ring.SPANS."""
    content = None
    with suppress(OSError, StoreError):
        content = _read(_path(state_dir, model), state_dir)
    return history_ring.series(content or history_ring.empty(), model, span, now)


class Recent:
    """What failed lately, by model; read again once a minute. Safe in any thread."""

    def __init__(self, state_dir: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._state_dir, self._clock = state_dir, clock
        self._read: dict[str, tuple[int, Counted]] = {}

    def of(self, model: str) -> Counted:
        """Return what was asked of a model in the last RECENT_MINUTES, as far as it was written; without times."""
        now = self._clock()
        minute = int(now // 60)
        known = self._read.get(model)
        if known is None or known[0] != minute:
            told = read(self._state_dir, model, "hour", now)
            counts = [told.requests, told.caller_failures, told.service_failures]
            requests, caller, service = (sum(part[-RECENT_MINUTES:]) for part in counts)
            known = self._read[model] = minute, Counted(requests, caller, service, ())
        return known[1]


def _path(state_dir: Path, model: str) -> Path:
    return state_dir / FOLDER / f"{model}{_SUFFIX}"


def _read(path: Path, within: Path) -> bytes | None:
    """Return a sound file's content, None where there is none. Raises OSError, StoreError."""
    try:
        content = nofollow.read(path, within=within)
    except FileNotFoundError:
        return None
    if history_ring.is_sound(content):
        return content
    log.error("history begins again", extra={"file": os.fspath(path), "error": "it is damaged"})
    return None


def _of_models(sums: Mapping[Key, Sequence[float]]) -> dict[str, list[float]]:
    """Return {model: its cells that are kept, over its versions}; requests to no known model are nobody's."""
    found: dict[str, list[float]] = {}
    for (model, _), cells in sums.items():
        if model:
            own = [cells[cell] for cell in _CELLS]
            found[model] = [one + more for one, more in zip(found[model], own, strict=True)] if model in found else own
    return found


def _since(cells: Sequence[float], before: Sequence[float] | None) -> Counted:
    """Return what was counted since; of counters that began again all of it."""
    if before is None or any(now < then for now, then in zip(cells, before, strict=True)):
        before = [0.0] * len(cells)
    new = [int(now - then) for now, then in zip(cells, before, strict=True)]
    return Counted(sum(new[:3]), new[1], new[2], new[3:])

"""What was counted of each model's active version, kept up and written: what a later probation compares with.

It goes on whether anything is judged or not, so that the version before is known once the next one comes; so this
module takes nothing of what proves, which most hosts need once in weeks.

Threads: one at a time. That is the one which follows the store, and from the first experiment or probation on the
judge's; both in the first process of the service.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from appliance.errors import StoreError
from appliance.experiments import probation_record
from appliance.experiments.probation_record import Watch, followed
from appliance.monitoring.counters import CALLER_ERRORS, RUN_BUCKETS, SERVICE_ERRORS, SUCCESSES
from appliance.monitoring.shared_cells import Key
from appliance.store.record import Activation
from appliance.store.versions import Store

log = logging.getLogger(__name__)

WRITE_SECONDS = 10.0
"""Between two writes of what was counted."""
IDLE_WRITE_SECONDS = 600.0
"""Between two writes where nothing but time passed."""

Sums = Callable[[], Mapping[Key, list[float]]]
"""Gives the cells of counters.RequestCounters over all processes, by (model, version)."""


class Counted(msgspec.Struct):
    """What is kept of one model between two looks."""

    watch: Watch
    sums: dict[str, Sequence[float]]
    """{version: its cells at the last look}; what they hold more the next time is new."""
    looked: float
    written: float
    tested: float
    stored: Watch | None = None
    self_test: str = ""
    told: str = ""


class Tally:
    """Keeps the counts of every model's active version; see the module's docstring."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, Counted] = {}

    def look(self, name: str, now: Activation, sums: Mapping[Key, Sequence[float]]) -> None:
        """Count what is new of a model on which nothing is judged, and write it at times."""
        if now.active is None:
            self.forget(name)
            return
        kept = self.counted(name, now, sums)
        kept.watch = msgspec.structs.replace(kept.watch, verdict="", action=None)
        self.write(name, kept)

    def forget(self, name: str) -> None:
        """Keep nothing of a model: none of its versions is active."""
        self._kept.pop(name, None)

    def counted(self, name: str, now: Activation, sums: Mapping[Key, Sequence[float]]) -> Counted:
        """Return what is kept of a model, with what is new of its active version."""
        assert now.active is not None  # noqa: S101 - the callers have asked
        found = {version: cells for (model, version), cells in sums.items() if model == name}
        kept, clock = self._kept.get(name), time.monotonic()
        if kept is None:
            stored = probation_record.read(self._store.state_dir, name)
            # Of a version whose counts are stored, what this first look finds may be in them already: this process
            # may have been started again. Where the service was, its cells began at zero just now.
            known = dict(found) if stored and stored.now.version == now.active else {}
            kept = Counted(followed(stored, now), known, clock, clock, clock, stored)
            self._kept[name] = kept
        watch = followed(kept.watch, now)
        if watch is not kept.watch:
            kept.watch, kept.self_test, kept.tested = watch, "", clock
        if now.active in found:
            kept.watch = _with_more(kept.watch, found[now.active], kept.sums.get(now.active, ()))
        kept.sums = found
        kept.watch = msgspec.structs.replace(kept.watch, seconds=kept.watch.seconds + clock - kept.looked)
        kept.looked = clock
        return kept

    def write(self, name: str, kept: Counted) -> None:
        """Write what was counted, at times; a store that cannot be written keeps it in memory."""
        clock = time.monotonic()
        wait = 0.0 if kept.stored is None or kept.stored.since != kept.watch.since else WRITE_SECONDS
        if kept.stored is not None and _without_time(kept.watch) == _without_time(kept.stored):
            wait = IDLE_WRITE_SECONDS if kept.watch.verdict else float("inf")
        if clock - kept.written < wait:
            return
        kept.written = clock
        try:
            probation_record.write(self._store.state_dir, name, kept.watch)
            kept.stored = kept.watch
        except (OSError, StoreError) as error:
            if kept.told != str(error):
                kept.told = str(error)
                log.warning("probation's counts are not written", extra={"model": name, "error": str(error)})


def _without_time(watch: Watch) -> Watch:
    """Return a watch without what each second changes; the words of a verdict have the time in them."""
    return msgspec.structs.replace(watch, seconds=0.0, verdict="judged" if watch.verdict else "")


def _with_more(watch: Watch, cells: Sequence[float], before: Sequence[float]) -> Watch:
    """Return a watch with what some cells have more than before; cells that began anew count from zero."""
    if before and cells[SUCCESSES] < before[SUCCESSES]:
        before = ()
    more = [max(one - other, 0) for one, other in zip(cells, before, strict=True)] if before else list(cells)
    failures = int(more[CALLER_ERRORS] + more[SERVICE_ERRORS])
    requests = int(more[SUCCESSES]) + failures
    buckets = [int(runs) for runs in more[RUN_BUCKETS:]]
    if not requests and not any(buckets):
        return watch
    return msgspec.structs.replace(watch, now=watch.now.plus(requests, failures, buckets))

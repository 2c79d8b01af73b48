"""Counts of the arms of an experiment, made by every process in files that outlive the service.

A step of an experiment has a file for each process, STATE_DIR/experiments/SLOT@MODEL@ID.STEP.arms: nothing that was
counted is lost when a process is killed. First the counts of each arm; then, for each kind of event, BUCKETS bytes for
the keys. A key belongs to one bucket, and the first key of a bucket decides for which arm it counts: so each key counts
once a step, or one broken device would decide alone, and what is counted falls to each arm by its share.

Threads: those that answer add to the cells of their process, with the lock held; the judge's reads the files.
"""

import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.arrays import Array
from appliance.errors import ApplianceError
from appliance.inference.values import all_finite
from appliance.monitoring import shared_cells
from appliance.monitoring.shared_cells import Key, Layout, SharedCells
from appliance.predictor import Prediction
from appliance.store.routing_record import MOST_ARMS as ARMS
from appliance.store.routing_record import Routing

SEEN, FAILED, SLOW, NAN = range(4)
"""The kinds of events: an answered or failed request; a failure; a run above the bound; an answer that is NaN."""
KINDS = 4
RUNS = 2 * KINDS
"""Runs of the graph that were held against the bound. Before it: all events by kind, then those without a key."""
FIELDS = RUNS + 1
BUCKETS = 16_384
WARM_UP = 50
"""The first runs of a version in each process, which are not compared with the bound: caches are cold."""
_HEAD = ARMS * FIELDS
LAYOUT = Layout(".arms", lambda key: _HEAD + KINDS * BUCKETS // 8)

_ANSWERED, _ANSWERED_NAN, _FAILED = (SEEN,), (SEEN, NAN), (SEEN, FAILED)

Cells = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """What one arm did in one step, over all processes; lists by kind of event."""

    events: Sequence[int] = (0,) * KINDS
    """Of requests."""
    units: Sequence[int] = (0,) * KINDS
    """Of keys, each once, and of requests without one: what the tests count."""
    runs: int = 0
    """That were held against the bound of slow runs."""


@dataclass(slots=True)
class _Step:
    """One step of one experiment in this process."""

    routing: Routing
    cells: shared_cells.Cells
    """The mapped file: what is written here is in the file. Not as a numpy array, which is slower number by number."""
    buckets: memoryview
    """KINDS * BUCKETS bytes: 0, or 1 + the arm's place."""
    places: Mapping[str, int]
    """{ID/VERSION: its place among the arms}."""
    bound: float
    """Seconds above which a run is slow."""
    runs: list[int] = field(default_factory=lambda: [0] * ARMS)


class ArmCounters:
    """Counts what arms do. An Observer of the predictor, safe in any thread."""

    def __init__(
        self, routing_of: Callable[[str], Routing | None], folder: Path | None, slot: int = 0, *, within: Path | None
    ) -> None:
        """`routing_of` gives a model's experiment as this process follows it; `folder` and `slot` as SharedCells."""
        self._routing_of = routing_of
        self._shared = SharedCells(folder, slot, LAYOUT, within=within)
        self._lock = threading.Lock()
        self._steps: dict[str, _Step] = {}

    def predicted(self, prediction: Prediction) -> None:
        """Count the requests that an arm answered by one run; nothing without an experiment."""
        if prediction.arm and (routing := self._routing_of(prediction.model)) is not None:
            self.count(prediction, routing)

    def count(self, prediction: Prediction, routing: Routing) -> None:
        """Count the requests that an arm of the experiment that runs answered by one run; about 3 us."""
        step = self._step(prediction.model, routing)
        place = step.places.get(prediction.arm)
        if place is None:  # of another experiment, which has ended
            return
        kinds = _ANSWERED if prediction.finite or not has_nan(prediction.outputs.values()) else _ANSWERED_NAN
        seconds, bound = prediction.run_seconds, step.bound
        with self._lock:
            step.runs[place] += 1
            if bound < inf and step.runs[place] > WARM_UP:
                step.cells[place * FIELDS + RUNS] += 1
                if seconds > bound:
                    kinds = (*kinds, SLOW)
            for key in prediction.keys or ("",) * prediction.requests:
                _count(step, place, kinds, key)

    def failed(
        self, model: str, version: str, error: ApplianceError, seconds: float, arm: str = "", key: str = ""
    ) -> None:
        """Count a request that an arm did not answer."""
        if not arm or (routing := self._routing_of(model)) is None:
            return
        step = self._step(model, routing)
        if (place := step.places.get(arm)) is None:
            return
        with self._lock:
            _count(step, place, _FAILED, key)

    def _step(self, model: str, routing: Routing) -> _Step:
        """Return the step that runs."""
        step = self._steps.get(model)
        if step is not None and step.routing is routing:
            return step
        if step is None or (step.routing.id, step.routing.step) != (routing.id, routing.step):
            return self._begun(model, routing)
        step.routing, step.bound = routing, slow_bound(routing)  # the same step, with newer results of the judge
        return step

    def _begun(self, model: str, routing: Routing) -> _Step:
        """Return a new step, with what was counted of it before a restart."""
        with self._lock:
            key, before = step_key(model, routing), self._steps.get(model)
            if before is not None and (old := step_key(model, before.routing)) != key:
                self._shared.forget(old)  # or each step that ever ran here stays mapped
            cells = self._shared.of(key)
            step = _Step(
                routing,
                cells,
                memoryview(cells).cast("B")[8 * _HEAD :],
                {f"{routing.id}/{arm.version}": place for place, arm in enumerate(routing.arms[:ARMS])},
                slow_bound(routing),
            )
            self._steps[model] = step
        return step


def step_key(model: str, routing: Routing) -> Key:
    """Return the key of a step's files."""
    return model, f"{routing.id}.{routing.step}"


def slow_bound(routing: Routing) -> float:
    """Return the seconds above which a run is slow in this step; infinite where too little is known to tell."""
    return routing.snapshot.get(routing.base, {}).get("slow_bound") or inf


def has_nan(outputs: Iterable[Array]) -> bool:
    """Return whether any number of some outputs is NaN."""
    return any(array.dtype.kind == "f" and not all_finite(array) and bool(np.isnan(array).any()) for array in outputs)


def read(folder: Path, routing: Routing, model: str, *, within: Path | None) -> list[ArmCounts]:
    """Return what each arm did in the step that runs, over all processes; zeros where nothing was counted."""
    key = step_key(model, routing)
    found = [
        np.asarray(cells) for one, cells in shared_cells.each(folder, LAYOUT, within=within, only=key) if one == key
    ]
    return _together(found, len(routing.arms))


def _together(processes: Sequence[Cells], arms: int) -> list[ArmCounts]:
    """Return the counts of all processes; of a bucket that two of them have, the first one's counts."""
    if not processes:
        return [ArmCounts()] * arms
    head = np.sum([cells[:_HEAD] for cells in processes], axis=0).reshape(ARMS, FIELDS).astype(int)
    buckets = np.zeros(KINDS * BUCKETS, np.uint8)
    for cells in processes:
        own = cells[_HEAD:].view(np.uint8)
        np.copyto(buckets, own, where=buckets == 0)
    keys: NDArray[Any] = np.array([np.bincount(kind, minlength=ARMS + 1)[1:] for kind in buckets.reshape(KINDS, -1)])
    return [
        ArmCounts(
            events=head[place, :KINDS].tolist(),
            units=(head[place, KINDS : 2 * KINDS] + keys[:, place]).tolist(),
            runs=int(head[place, RUNS]),
        )
        for place in range(arms)
    ]


def _count(step: _Step, place: int, kinds: Sequence[int], key: str) -> None:
    """Count one request's events. Holds the lock."""
    at, cells = place * FIELDS, step.cells
    if not key:
        for kind in kinds:
            cells[at + kind] += 1
            cells[at + KINDS + kind] += 1
        return
    bucket = zlib.crc32(key.encode("utf-8", "surrogatepass")) % BUCKETS
    for kind in kinds:
        cells[at + kind] += 1
        if not step.buckets[kind * BUCKETS + bucket]:
            step.buckets[kind * BUCKETS + bucket] = place + 1

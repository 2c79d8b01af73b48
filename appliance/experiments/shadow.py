"""Runs a challenger on rows that the active version has just answered, in the background, and compares the answers.

Threads: those that answer call predicted(), which puts a copy's references into a queue, or drops it where the queue is
full, the time is used up, or the service is busy: the shadow is the first thing that is dropped, and nobody waits for
it. One thread at nice 10 takes up to MOST_ROWS rows out of the queue, runs the challenger once, and adds to the sums;
then it rests. Few rows at a time and seldom: while it works on them, those that answer wait for the interpreter. Its
answers go nowhere but into comparisons. The lock guards the queue and its size; it is never held during a run.
"""

import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from appliance.arrays import Array
from appliance.errors import ApplianceError
from appliance.experiments import comparison, pairs, worst_rows
from appliance.experiments.comparison import Compared, Comparer, WorstRow
from appliance.inference.version import LoadedVersion
from appliance.monitoring.shared_cells import Key, SharedCells
from appliance.predictor import Prediction
from appliance.store.routing_record import Routing

log = logging.getLogger(__name__)

MOST_REQUESTS = 256
"""That wait: more would only be older, and make the garbage collector's full runs more frequent."""
MOST_BYTES = 1024 * 1024
"""Of what waits, its Python objects included."""
MOST_ROWS = 64
"""Of one run of the challenger; of a request with more rows, the first ones are compared."""
PAUSE_SECONDS = 0.2
"""Between two runs of the challenger. One takes about a millisecond, in which those that answer wait for the
interpreter: five a second touch half a percent of the requests, ten would be all of the slowest percent.
"""
NICE = 10
BURST_SECONDS = 0.1
"""Processor time that an idle shadow may use at once."""
_OBJECT_BYTES = 1024  # that a prediction takes beside its numbers: its ids, dicts and array headers
_TEXT_BYTES = 64
_REMEMBERED_IDS = 1024
_RUNS_BETWEEN_WORST = 5.0  # seconds between two writes of the worst rows

Challenger = Callable[[str], tuple[Routing, LoadedVersion, LoadedVersion] | None]
"""Model -> its experiment, the active version and the challenger, both loaded here; None where none is asked."""


@dataclass(slots=True)
class _Asked:
    """What is kept while one experiment's challenger is asked."""

    id: str
    active: LoadedVersion
    challenger: LoadedVersion
    comparer: Comparer
    cells: comparison.Cells
    pairs: pairs.Writer
    worst: list[WorstRow]
    worst_written: float = 0.0


class Shadow:
    """Copies live rows to challengers. start() starts its thread."""

    def __init__(
        self,
        challenger: Challenger,
        routing_of: Callable[[str], Routing | None],
        folder: Path | None,
        slot: int = 0,
        *,
        within: Path | None = None,
        busy: Callable[[], bool] = lambda: False,
        cpu: float = 0.1,
        threads: int = 1,
        keep_rows: bool = True,
    ) -> None:
        """`cpu` is the share of one core that it may use, `busy` whether requests wait; see ArmCounters for the rest.

        `threads` of a session work on one run: each is taken to have used as much time as the shadow's own.
        `keep_rows` is False where no row may be written to disk.
        """
        self._challenger, self._routing_of = challenger, routing_of
        self._folder, self._slot, self._within = folder, slot, within
        self._shared = SharedCells(folder, slot, comparison.LAYOUT, within=within)
        self._busy, self._cpu, self._keep_rows = busy, cpu / threads, keep_rows
        self._waiting: deque[tuple[int, Prediction]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._ending = False
        self._idle = False  # whether its thread waits for the first copy
        self._allowed = BURST_SECONDS  # seconds of processor time; written by the shadow's thread alone
        self._asked: dict[str, _Asked] = {}
        self._ids: dict[int, None] = {}  # hashes of the last requests' ids, oldest first
        self._thread = threading.Thread(target=self._drain, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin to ask; in the process that answers, since a fork takes no thread along."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End, without what waits."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(seconds)

    def predicted(self, prediction: Prediction) -> None:
        """Copy a prediction of an experiment's active version, or not; below 1 us where it does not."""
        if not prediction.arm:
            return
        routing = self._routing_of(prediction.model)
        shadow = routing.shadow if routing else None
        if routing is None or shadow is None or prediction.version != routing.base:
            return
        if shadow.share < 1 and random.random() >= shadow.share:  # noqa: S311 - a share of requests, not a secret
            return
        if self._allowed <= 0 or len(self._waiting) >= MOST_REQUESTS or self._busy():
            self._drop(prediction, routing)
            return
        size = _size(prediction)
        with self._changed:
            if len(self._waiting) < MOST_REQUESTS and self._bytes + size <= MOST_BYTES and not self._ending:
                self._waiting.append((size, prediction))
                self._bytes += size
                if self._idle:
                    self._idle = False
                    self._changed.notify()
                return
        self._drop(prediction, routing)

    def _drop(self, prediction: Prediction, routing: Routing) -> None:
        """Count a prediction that is not compared; two threads at once may count one, which is near enough."""
        cells = self._shared.of(shadow_key(prediction.model, routing))
        cells[comparison.DROPPED] += prediction.requests

    def _drain(self) -> None:
        """Compare what waits until stop(); on the shadow's own thread."""
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)  # of this thread alone, on Linux
        while batch := self._next():
            begun, cpu = time.monotonic(), time.thread_time()
            try:
                self._compare(batch)
            except Exception:  # the outermost handler of the thread: an error must not end it
                log.exception("shadow failed", extra={"model": batch[0].model})
            del batch
            self._pay(begun, time.thread_time() - cpu)

    def _pay(self, begun: float, used: float) -> None:
        """Subtract a comparison's processor time from the allowance, and sleep at least until some is left again."""
        self._allowed -= used
        with self._changed:
            self._changed.wait_for(lambda: self._ending, max(PAUSE_SECONDS, -self._allowed / self._cpu))
        self._allowed = min(self._allowed + (time.monotonic() - begun) * self._cpu, BURST_SECONDS)

    def _next(self) -> list[Prediction]:
        """Return the oldest predictions of one version and the same outputs; empty when it has ended."""
        with self._changed:
            idle = time.monotonic()
            while not self._waiting and not self._ending:
                self._idle = True
                self._changed.wait()
            self._idle = False
            self._allowed = min(self._allowed + (time.monotonic() - idle) * self._cpu, BURST_SECONDS)
            if self._ending:
                return []
            batch: list[Prediction] = []
            rows = 0
            while self._waiting and (not batch or rows + self._waiting[0][1].rows <= MOST_ROWS):
                prediction = self._waiting[0][1]
                if batch and not _alike(prediction, batch[0]):
                    break
                self._bytes -= self._waiting.popleft()[0]
                batch.append(prediction)
                rows += prediction.rows
            return batch

    def _compare(self, batch: Sequence[Prediction]) -> None:
        """Ask the challenger for the rows of a batch and add to the sums."""
        asked = self._current(batch[0])
        fresh = [one for one in batch if asked and one.version == asked.active.version and self._is_first(one)]
        if asked is not None and fresh:
            self._ask(asked, fresh)
            # Last: who reads that so many were compared finds what came of all of them.
            asked.cells[comparison.REQUESTS] += sum(one.requests for one in fresh)

    def _ask(self, asked: _Asked, batch: Sequence[Prediction]) -> None:
        """Run the challenger once; if that fails, request by request: a single one may be the cause."""
        names = [name for name in batch[0].outputs if name in asked.challenger.output_names]
        feeds = _joined([one.inputs for one in batch])
        begun = time.perf_counter()
        try:
            feeds = asked.challenger.schema.from_tensors(
                feeds
            )  # refuses what a caller of this version would be refused
            answers = dict(zip(names, asked.challenger.session.run(feeds, names), strict=True))
        except ApplianceError:
            if len(batch) == 1:
                asked.cells[comparison.ERRORS] += batch[0].requests
                return
            for one in batch:
                self._ask(asked, [one])
            return
        seconds = time.perf_counter() - begun
        compared = asked.comparer.compare(_joined([one.outputs for one in batch]), answers)
        if compared is None:
            return
        rows = len(compared.alike)
        comparison.add(asked.cells, compared, len(asked.comparer.labels))
        asked.cells[comparison.TIMED_ROWS] += rows
        asked.cells[comparison.CHALLENGER_SECONDS] += seconds
        # A request of many rows is compared by its first ones alone: their share of its time.
        own = sum(one.run_seconds * min(one.rows, MOST_ROWS) / max(one.rows, 1) for one in batch)
        asked.cells[comparison.ACTIVE_SECONDS] += own
        self._keep(asked, batch, compared, feeds)

    def _keep(self, asked: _Asked, batch: Sequence[Prediction], compared: Compared, feeds: dict[str, Array]) -> None:
        """Keep the pairs for labels that come later, and the worst rows."""
        ids = [identifier for one in batch for identifier, _ in zip(one.ids(), range(MOST_ROWS), strict=False)]
        asked.pairs.add(ids, compared.active, compared.challenger)
        least = comparison.how_far(asked.worst[-1]) if len(asked.worst) == comparison.WORST else 0.0
        places = np.flatnonzero(compared.difference > least)
        if not self._keep_rows or not len(places):
            return
        largest = places[np.argsort(-compared.difference[places], kind="stable")][: comparison.WORST]
        columns = worst_rows.Columns(asked.active.manifest)
        rows = [columns.worst(compared, ids, feeds, int(place), asked.comparer.labels) for place in largest]
        asked.worst = comparison.worst_of([*asked.worst, *rows])
        if time.monotonic() - asked.worst_written > _RUNS_BETWEEN_WORST:
            asked.worst_written = time.monotonic()
            worst_rows.write(self._folder, self._slot, (asked.active.name, asked.id), asked.worst, self._within)

    def _current(self, prediction: Prediction) -> _Asked | None:
        """Return what is kept of the experiment that runs now; None where no challenger is asked any more."""
        found = self._challenger(prediction.model)
        if found is None:
            self._end(prediction.model)
            return None
        routing, active, challenger = found
        asked = self._asked.get(prediction.model)
        if asked is None or asked.id != routing.id or asked.challenger is not challenger:
            self._end(prediction.model)
            key = shadow_key(prediction.model, routing)
            asked = self._asked[prediction.model] = _Asked(
                routing.id,
                active,
                challenger,
                Comparer(active.manifest, challenger.manifest),
                np.asarray(self._shared.of(key)),
                pairs.Writer(self._folder, self._slot, key, self._within),
                worst_rows.read(self._folder, key, within=self._within, slot=self._slot),
            )
        return asked

    def _end(self, model: str) -> None:
        """Keep nothing of the experiment that was the last one on a model, if any."""
        ended = self._asked.pop(model, None)
        if ended is not None:
            self._shared.forget((model, ended.id))

    def _is_first(self, prediction: Prediction) -> bool:
        """Return whether a request was not compared a moment ago: MQTT repeats, and callers retry, with the same id."""
        mark = hash((prediction.model, prediction.request_id, *prediction.shared_by[:1]))
        if prediction.request_id and mark in self._ids:
            return False
        self._ids[mark] = None
        if len(self._ids) > _REMEMBERED_IDS:
            del self._ids[next(iter(self._ids))]
        return True


def shadow_key(model: str, routing: Routing) -> Key:
    """Return the key of an experiment's files."""
    return model, routing.id


def _alike(one: Prediction, other: Prediction) -> bool:
    """Return whether two predictions' rows go into one run: the same version, outputs and shapes of a row."""
    return (
        (one.model, one.version) == (other.model, other.version)
        and one.outputs.keys() == other.outputs.keys()
        and all(
            array.shape[1:] == other.inputs[name].shape[1:] and array.dtype == other.inputs[name].dtype
            for name, array in one.inputs.items()
            if name in other.inputs
        )
        and one.inputs.keys() == other.inputs.keys()
    )


def _joined(tables: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return the rows of several tables as one, of each the first MOST_ROWS."""
    if len(tables) == 1:
        return {name: array[:MOST_ROWS] for name, array in tables[0].items()}
    return {name: np.concatenate([table[name][:MOST_ROWS] for table in tables]) for name in tables[0]}


def _size(prediction: Prediction) -> int:
    """Return the bytes that a prediction keeps in memory, near enough."""
    size = _OBJECT_BYTES
    for table in (prediction.inputs, prediction.outputs):
        for array in table.values():
            size += array.nbytes + (_TEXT_BYTES * array.size if array.dtype.kind == "O" else 0)
    return size

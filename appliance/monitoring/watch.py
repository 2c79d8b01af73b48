"""The watch over drift: counts rows beside the requests, closes windows, and tells what has changed.

Threads. Those that answer call predicted(), which only puts the prediction into a queue. One thread of each process
counts what waits, once a second and whenever FEW wait, into cells that all processes add up (shared_cells.py). In the
first process the same thread also cuts windows and judges them. The open window is in memory, lost with the process; a
closed one is judged and on disk, see drift_state.py.

Windows go by the monotonic clock: a host without a battery may set its clock at any time. Wall time only labels them.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from appliance.config import DriftConfig
from appliance.drift_report import DriftReport
from appliance.errors import ApplianceError
from appliance.inference.version import LoadedVersion
from appliance.monitoring.drift_judge import Limits
from appliance.monitoring.drift_keeper import Keeper
from appliance.monitoring.drift_state import Reports
from appliance.monitoring.drift_tables import TableCounter, Tables
from appliance.monitoring.metrics import Metrics
from appliance.monitoring.refusals import Refused
from appliance.monitoring.shared_cells import Key, Layout, SharedCells
from appliance.monitoring.unseen_board import UnseenBoard
from appliance.predictor import Prediction
from appliance.repository import Served
from appliance.store.versions import Store

if TYPE_CHECKING:
    from appliance.monitoring.distribution import Distribution

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
ROWS_A_SECOND = 500
"""Rows per second above which only every k-th request is counted: a window of an hour still has 1.8 million."""
MOST_WAITING = 2048
"""Rows that are taken in a second; what comes beyond is left out, since a sample is enough."""
FEW = 64
"""Predictions that wait before they are counted at once: a single row's objects take some 3 KiB."""
CHUNK = 256
"""Rows that are counted in one go: the interpreter's lock is held for less than 0.2 ms."""


class DriftWatch:
    """An Observer of the predictor that counts rows, and the thread that judges them. One for each process."""

    def __init__(
        self,
        store: Store,
        limits: Limits,
        *,
        folder: Path | None = None,
        slot: int = 0,
        refused: Callable[[], Mapping[Key, Refused]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folder` and `slot` as SharedCells has them; `refused` returns the refusals of all processes so far."""
        self._tables: dict[Key, Tables] = {}
        self._roles: dict[tuple[str, str], LoadedVersion | None] = {}  # (model, role) -> what serves in it
        self._cells = SharedCells(folder, slot, Layout(".drift", self._size_of))
        self._counters: dict[Key, TableCounter] = {}
        self._unseen = UnseenBoard(folder, slot)
        self._keeper = Keeper(store, limits, refused) if slot == 0 else None
        self._reports = Reports(store)
        self._drifted: dict[Key, str] = {}
        self._waiting: deque[Prediction] = deque()
        self._rows = 0  # taken since the last tick, about
        self._seen = 0  # since the last tick, about
        self._every = 1
        self._clock = clock
        self._stop = threading.Event()
        self._wake = threading.Event()  # FEW wait, or the end has come
        self._changed = threading.Lock()  # for _roles, which the thread that follows the store replaces
        self._thread = threading.Thread(target=self._run, name="drift", daemon=True)

    @classmethod
    def of(
        cls, config: DriftConfig, store: Store, metrics: Metrics, folder: Path | None, slot: int
    ) -> "DriftWatch | None":
        """Return the watch that a configuration asks for, which `metrics` tell of; None where it is off."""
        if not config.enabled:
            return None
        watch = cls(store, Limits.of(config), folder=folder, slot=slot, refused=metrics.counters.refusals.counts)
        metrics.drift = watch.reports
        return watch

    # On the threads that answer.

    def predicted(self, prediction: Prediction) -> None:
        """Put a prediction aside to be counted; about 0.2 us. Of a large one, CHUNK rows spread over it."""
        rows = prediction.rows
        self._seen += rows
        if self._every > 1 and self._seen % self._every >= rows:
            return
        if self._rows >= MOST_WAITING:
            return
        if rows > CHUNK:
            prediction = _thinned(prediction)
            rows = prediction.rows
        self._rows += rows
        self._waiting.append(prediction)
        if len(self._waiting) >= FEW and not self._wake.is_set():
            self._wake.set()

    def failed(
        self, model: str, version: str, error: ApplianceError, seconds: float, arm: str = "", key: str = ""
    ) -> None:
        """Nothing: refusals are counted by column elsewhere."""

    # On the thread that follows the store.

    def switched(self, served: Served) -> None:
        """Take note of the version in a role: versions with a role are watched, each by itself."""
        with self._changed:
            roles = dict(self._roles)
            roles[served.name, served.role] = served.loaded
            self._roles = roles

    # In any thread.

    def watched(self) -> list[Key]:
        """Return the versions that have a role and a baseline."""
        return sorted(self._tables)

    def drifted(self, model: str, version: str) -> str:
        """Return an input column of a version that is in drift, "" for none; as of the last second."""
        return self._drifted.get((model, version), "")

    def report(self, model: str, version: str) -> DriftReport | None:
        """Return what is told of a version's drift; None where it is not watched."""
        if (model, version) not in self._tables:
            return None
        return self._reports.of(model, version) or DriftReport(model=model, version=version)

    def reports(self) -> list[DriftReport]:
        """Return what is told of every version that is watched."""
        return [report for key in self.watched() if (report := self.report(*key)) is not None]

    def distribution(self, model: str, version: str) -> "Distribution | None":
        """Return how a version's rows are spread: those of the last window, else all since the service started.

        None where it is not watched.
        """
        tables = self._tables.get((model, version))
        if tables is None:
            return None
        from appliance.monitoring import distribution  # when somebody looks

        report = self._reports.of(model, version)
        window = self._reports.window(model, version, tables.layout)
        cells = window.cells if window else self._cells.sums().get((model, version), [0.0] * tables.size)
        columns = {one.column: one for one in report.columns} if report else {}
        return distribution.of(tables, cells, window.ended if window else "", columns)

    # For the service.

    def start(self) -> None:
        """Begin to count; in the process that answers, since a fork takes no thread along."""
        self._follow()
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """End the thread. The open window is lost."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def tick(self) -> None:
        """Count what waits, and in the first process do what is due; only on the watch's thread."""
        self._follow()
        self._count()
        self._rows = 0
        rate, self._seen = self._seen / TICK_SECONDS, 0
        self._every = max(1, round(rate / ROWS_A_SECOND))
        self._unseen.write({key: counter.unseen for key, counter in self._counters.items() if counter.unseen})
        if self._keeper is not None:
            self._keeper.tend(self._clock(), self._tables, self._cells.sums(), self._unseen.all())
        self._drifted = {(one.model, one.version): column for one in self.reports() if (column := one.drifted_input())}

    def _run(self) -> None:
        """Tick once a second until stop(), and count in between where FEW wait."""
        due = time.monotonic() + TICK_SECONDS
        while not self._stop.is_set():
            self._wake.wait(max(0.0, due - time.monotonic()))
            self._wake.clear()
            if self._stop.is_set():
                return
            now = time.monotonic()
            try:
                if now < due:
                    self._follow()  # else what a version answered that has just begun to serve is not counted
                    self._count()
                else:
                    due = now + TICK_SECONDS
                    self.tick()
            except Exception:  # the last boundary of the thread: a fault must not end the watch
                log.exception("drift watch failed and goes on")

    def _follow(self) -> None:
        """Have tables for each version that has a role and a baseline, and for no other."""
        serving = {(one.name, one.version): one for one in self._roles.values() if one is not None}
        for key in self._tables.keys() - serving.keys():
            del self._tables[key]
            self._counters.pop(key, None)
        for key, loaded in serving.items():
            if key not in self._tables and (tables := _tables(loaded)) is not None:
                self._tables[key] = tables
                self._counters[key] = TableCounter(tables)
                self._cells.of(key)  # the window begins now, not at its first row

    def _count(self) -> None:
        """Count what waits."""
        waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
        groups: dict[tuple[Key, frozenset[str]], list[Prediction]] = {}
        for one in waiting:
            groups.setdefault(((one.model, one.version), frozenset(one.outputs)), []).append(one)
        for (key, _), predictions in groups.items():
            if key in self._counters:
                self._add_safely(key, predictions)

    def _add_safely(self, key: Key, predictions: list[Prediction]) -> None:
        """Count predictions of one version; one whose rows cannot be counted is watched no more, the others are."""
        try:
            self._add(key, predictions)
        except Exception:
            log.exception("drift is not watched any more", extra={"model": key[0], "version": key[1]})
            del self._counters[key]

    def _add(self, key: Key, predictions: list[Prediction]) -> None:
        """Count predictions of one version that have the same outputs, CHUNK rows together."""
        shared: Any = self._cells.of(key)
        cells = np.frombuffer(shared, dtype=np.float64)
        chunk: list[Prediction] = []
        rows = 0
        for place, one in enumerate(predictions):
            chunk.append(one)
            rows += one.rows
            if rows >= CHUNK or place == len(predictions) - 1:
                inputs = {name: _joined([p.inputs[name] for p in chunk]) for name in chunk[0].inputs}
                outputs = {name: _joined([(p.of_graph or p.outputs)[name] for p in chunk]) for name in chunk[0].outputs}
                self._counters[key].add(cells, inputs, outputs)
                chunk, rows = [], 0

    def _size_of(self, key: Key) -> int:
        """Return the cells of a version; -1 for one that this process does not watch."""
        return self._tables[key].size if key in self._tables else -1


def _tables(loaded: LoadedVersion) -> Tables | None:
    """Return the tables of a version, None where its bundle has no baseline, or one that cannot be read."""
    try:
        return Tables(loaded.manifest, loaded.baseline) if loaded.baseline is not None else None
    except ApplianceError as error:
        extra = {"model": loaded.name, "version": loaded.version, "error": str(error)}
        log.error("drift is not watched", extra=extra)
        return None


def _thinned(prediction: Prediction) -> Prediction:
    """Return CHUNK rows spread over a large prediction, copied: what was sent need not stay in memory for them."""
    step = -(-prediction.rows // CHUNK)
    return msgspec.structs.replace(
        prediction,
        inputs={name: array[::step].copy() for name, array in prediction.inputs.items()},
        outputs={name: array[::step].copy() for name, array in (prediction.of_graph or prediction.outputs).items()},
        of_graph=None,
        quality=None,
        rows=len(range(0, prediction.rows, step)),
        shared_by=(),
    )


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Return the rows of several arrays as one."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

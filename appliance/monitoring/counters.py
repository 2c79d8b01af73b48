"""Counts of each version: requests by outcome, rows, times. An observer of the predictor."""

import threading
import time
from bisect import bisect_left
from pathlib import Path

from appliance.errors import ApplianceError, Misuse, NotAllowed, NotFound
from appliance.monitoring.last_failures import LastFailures
from appliance.monitoring.refusals import RefusalCounters
from appliance.monitoring.shared_cells import Key, Layout, SharedCells
from appliance.predictor import Counts, Prediction
from appliance.repository import ACTIVE, Served

SUCCESSES, CALLER_ERRORS, SERVICE_ERRORS, ROWS, REQUEST_SECONDS, PREPARE_SECONDS, RUN_SECONDS, LAST, RUNS = range(9)
FAILURE_SECONDS = 9
"""The first cells. LAST is the Unix time of the last prediction; of several processes the latest counts. RUNS of the
graph are fewer than SUCCESSES where several requests share one.
"""

BOUNDS = (
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of the histograms' buckets in seconds: a small graph runs in microseconds, a large one in seconds."""

REQUEST_BUCKETS = 10
"""Cell of the first bucket of the request times; one more bucket than bounds."""
RUN_BUCKETS = REQUEST_BUCKETS + len(BOUNDS) + 1
CELLS = RUN_BUCKETS + len(BOUNDS) + 1
LAYOUT = Layout(".counts", lambda key: CELLS, frozenset({LAST}))

_CALLERS_FAULT = (Misuse, NotAllowed, NotFound)


class RequestCounters:
    """The counters of one process, and the sum over all that share its folder. An Observer of the predictor."""

    def __init__(self, folder: Path | None = None, slot: int = 0) -> None:
        """`folder` and `slot` as SharedCells has them. Requests that reached no known model count for ("", "")."""
        self._cells = SharedCells(folder, slot, LAYOUT)
        self._lock = threading.Lock()  # for adding to cells
        self._serving: dict[str, str | None] = {}  # model -> version that serves
        self.refusals = RefusalCounters(folder, slot)
        """Which columns were refused."""
        self.last = LastFailures(folder, slot)
        """The last failure of each model."""

    def predicted(self, prediction: Prediction) -> None:
        """Count a prediction; about 2 us. Each request that shared a run counts, and took the whole run's time."""
        key = (prediction.model, prediction.version)
        cells = self._cells.of(key)
        prepare, run, requests = prediction.prepare_seconds, prediction.run_seconds, prediction.requests
        request = prepare + run
        request_bucket = REQUEST_BUCKETS + bisect_left(BOUNDS, request)
        run_bucket = RUN_BUCKETS + bisect_left(BOUNDS, run)
        with self._lock:
            cells[SUCCESSES] += requests
            cells[RUNS] += 1
            cells[ROWS] += prediction.rows
            cells[REQUEST_SECONDS] += request * requests
            cells[PREPARE_SECONDS] += prepare
            cells[RUN_SECONDS] += run
            cells[request_bucket] += requests
            cells[run_bucket] += 1
            cells[LAST] = prediction.time

    def failed(
        self, model: str, version: str, error: ApplianceError, seconds: float = 0.0, arm: str = "", key: str = ""
    ) -> None:
        """Count a request that was not answered, by whose fault it was, and its time.

        An unknown name counts as "": callers must not be able to make new time series.
        """
        callers = isinstance(error, _CALLERS_FAULT)
        cell = CALLER_ERRORS if callers else SERVICE_ERRORS
        counted = self._known(model, version)
        cells = self._cells.of(counted)
        with self._lock:
            cells[cell] += 1
            cells[FAILURE_SECONDS] += seconds
        column = self.refusals.failed(counted, error)
        if counted[0]:
            self.last.note(counted[0], "caller" if callers else "service", error, time.time(), column=column)

    def switched(self, served: Served) -> None:
        """Take note of a version that has a role, so that its series begin at zero."""
        if served.role == ACTIVE:
            if served.is_gone:
                self._serving.pop(served.name, None)
            else:
                self._serving[served.name] = served.loaded.version if served.loaded else None
        if served.loaded:
            key = (served.name, served.loaded.version)
            self._cells.of(key)
            self.refusals.know(key, served.loaded.schema.columns)

    def counts(self) -> dict[Key, Counts]:
        """Return what was asked of each (model, version) so far, over all processes."""
        return {key: _counts(cells) for key, cells in self.sums().items()}

    def sums(self) -> dict[Key, list[float]]:
        """Return {(model, version): cells} of all processes."""
        return self._cells.sums()

    def _known(self, model: str, version: str) -> Key:
        """Return the key that a failure counts for."""
        if (model, version) in self._cells:
            return model, version
        if model not in self._serving:
            return "", ""
        return model, "" if version else self._serving[model] or ""


def _counts(cells: list[float]) -> Counts:
    """Return the record of one version's cells."""
    return Counts(
        successes=int(cells[SUCCESSES]),
        failures=int(cells[CALLER_ERRORS] + cells[SERVICE_ERRORS]),
        rows=int(cells[ROWS]),
        request_seconds=cells[REQUEST_SECONDS],
        prepare_seconds=cells[PREPARE_SECONDS],
        run_seconds=cells[RUN_SECONDS],
        failure_seconds=cells[FAILURE_SECONDS],
        last=cells[LAST],
        caller_failures=int(cells[CALLER_ERRORS]),
        service_failures=int(cells[SERVICE_ERRORS]),
        buckets=cells[REQUEST_BUCKETS:RUN_BUCKETS],
    )

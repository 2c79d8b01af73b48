"""Counts every prediction, quickly, and tells Prometheus about all processes of the service at once."""

import logging
import threading
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.errors import ApplianceError, Misuse, NotAllowed, NotFound
from appliance.monitoring.counters import (
    BOUNDS,
    CALLER_ERRORS,
    FAILURE_SECONDS,
    LAST,
    PREPARE_SECONDS,
    REQUEST_BUCKETS,
    REQUEST_SECONDS,
    ROWS,
    RUN_BUCKETS,
    RUN_SECONDS,
    RUNS,
    SERVICE_ERRORS,
    SUCCESSES,
    Cells,
    Key,
    open_cells,
    sum_of_all,
)
from appliance.mqtt_state import MqttState
from appliance.predictor import Counts, Prediction
from appliance.repository import Served
from appliance.store import condition

log = logging.getLogger(__name__)

_MQTT = "mqtt.state"
_CALLERS_FAULT = (Misuse, NotAllowed, NotFound)


@dataclass(frozen=True, slots=True)
class Serving:
    """What a process serves of one model; `problem` is empty where the store's wish is fulfilled."""

    version: str | None
    problem: str


class Metrics:
    """The counters of one process, and the sum over all that share its folder. An Observer of the predictor.

    `folder` is empty when the service starts and shared by its processes; None counts in memory, for one process
    alone. `slot` numbers the process: no two living ones may have the same, a restarted one takes its predecessor's.
    """

    def __init__(self, folder: Path | None = None, slot: int = 0, *, state_dir: Path | None = None) -> None:
        """`state_dir` is the state folder, of which is told whether it can be written; None tells nothing of it."""
        self._folder = folder
        self._slot = slot
        self._state_dir = state_dir
        self._lock = threading.Lock()
        self._cells: dict[Key, Cells] = {}
        self._serving: dict[str, Serving] = {}
        self._mqtt: MqttState | None = None
        self._write_serving()

    def predicted(self, prediction: Prediction) -> None:
        """Count a prediction; about 2 us. Each request that shared a run counts, and took the whole run's time."""
        key = (prediction.model, prediction.version)
        cells = self._cells.get(key) or self._opened(key)
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

    def failed(self, model: str, version: str, error: ApplianceError, seconds: float = 0.0) -> None:
        """Count a request that was not answered, and the time that it took, by whose fault it was.

        A name that nothing is known of counts as "": callers must not be able to make new time series.
        """
        cell = CALLER_ERRORS if isinstance(error, _CALLERS_FAULT) else SERVICE_ERRORS
        cells = self._opened(self._known(model, version))
        with self._lock:
            cells[cell] += 1
            cells[FAILURE_SECONDS] += seconds

    def switched(self, served: Served) -> None:
        """Take note of what this process now serves of a model (see ModelRepository.switched)."""
        with self._lock:
            if served.wanted is None and served.loaded is None and served.problem is None:
                self._serving.pop(served.name, None)
            else:
                version = served.loaded.version if served.loaded else None
                self._serving[served.name] = Serving(version, str(served.problem or ""))
            self._write_serving()
        if served.loaded:
            self._opened((served.name, served.loaded.version))  # so that its series begin at zero

    def exposition(self) -> bytes:
        """Return the Prometheus text format (0.0.4) of all processes."""
        # prometheus_client takes 30 ms to import; the first scrape pays, not the first prediction.
        from appliance.monitoring.exposition import text

        state = condition.look(self._state_dir) if self._state_dir else None
        return text(self._sums(), self._all_serving(), self.mqtt_state(), state)

    def counts(self) -> dict[Key, Counts]:
        """Return what was asked of each (model, version) so far, over all processes."""
        return {key: _counts(cells) for key, cells in self._sums().items()}

    def mqtt(self, state: MqttState) -> None:
        """Take what the MQTT door, which one process has, tells of itself."""
        self._mqtt = state
        self._share(_MQTT, msgspec.json.encode(state))

    def mqtt_state(self) -> MqttState | None:
        """Return what the MQTT door last told, in whichever process it is; None when there is none."""
        if self._folder is None:
            return self._mqtt
        try:
            return msgspec.json.decode((self._folder / _MQTT).read_bytes(), type=MqttState)
        except (FileNotFoundError, msgspec.MsgspecError):
            return self._mqtt

    def _opened(self, key: Key) -> Cells:
        """Return the cells of `key`, opened when first needed."""
        with self._lock:
            if key not in self._cells:
                self._cells[key] = open_cells(self._folder, self._slot, key)
            return self._cells[key]

    def _known(self, model: str, version: str) -> Key:
        """Return the key that a failure counts for."""
        if (model, version) in self._cells:
            return model, version
        serving = self._serving.get(model)
        if serving is None:
            return "", ""
        return model, "" if version else serving.version or ""

    def _sums(self) -> dict[Key, list[float]]:
        """Return {(model, version): cells} of all processes."""
        if self._folder is None:
            with self._lock:
                return {key: list(cells) for key, cells in sorted(self._cells.items())}
        return sum_of_all(self._folder)

    def _write_serving(self) -> None:
        """Tell the other processes what this one serves."""
        self._share(f"{self._slot}.serving", msgspec.json.encode(self._serving))

    def _share(self, name: str, content: bytes) -> None:
        """Write a file for the other processes to read."""
        if self._folder is None:
            return
        file = self._folder / name
        beside = file.with_suffix(".new")
        try:
            beside.write_bytes(content)
            beside.replace(file)
        except OSError as error:  # a full disk must not keep a version from being served
            log.error("metrics do not show what is served", extra={"file": str(file), "error": str(error)})

    def _all_serving(self) -> list[dict[str, Serving]]:
        """Return {model: Serving} of each process."""
        if self._folder is None:
            return [dict(self._serving)]
        files = sorted(self._folder.glob("*.serving"))
        return [msgspec.json.decode(file.read_bytes(), type=dict[str, Serving]) for file in files]


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
    )

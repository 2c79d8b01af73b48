"""All metrics for Prometheus, over all processes of the service."""

from collections.abc import Callable, Sequence
from pathlib import Path

from appliance.drift_report import DriftReport
from appliance.monitoring.counters import RequestCounters
from appliance.monitoring.experiment_figures import ExperimentFigures
from appliance.monitoring.log_counters import LogCounters
from appliance.monitoring.mqtt_board import MqttBoard
from appliance.monitoring.serving import ServingBoard
from appliance.repository import Served
from appliance.store import condition


class Metrics:
    """The counters, what serves, and MQTT's last report.

    `folder` is empty when the service starts and shared by its processes; None counts in memory, for one process
    alone. `slot` numbers the process: no two living ones may have the same, a restarted one takes its predecessor's.
    """

    def __init__(self, folder: Path | None = None, slot: int = 0, *, state_dir: Path | None = None) -> None:
        """`state_dir` is the state folder; a metric says whether it can be written. None leaves that metric out."""
        self.drift: Callable[[], list[DriftReport]] = list
        """Returns what is told of the drift of every version that is watched."""
        self.experiments: Callable[[], Sequence[ExperimentFigures]] = tuple
        """Returns what is told of the experiments that run."""
        self.counters = RequestCounters(folder, slot)
        self.serving = ServingBoard(folder, slot)
        self.log = LogCounters(folder, slot)
        self.mqtt = MqttBoard(folder)
        self._state_dir = state_dir

    def switched(self, served: Served) -> None:
        """Take note of what this process now serves (see ModelRepository.switched)."""
        self.serving.switched(served)
        self.counters.switched(served)

    def exposition(self) -> bytes:
        """Return the Prometheus text format (0.0.4) of all processes."""
        # prometheus_client takes 30 ms to import; the first scrape pays, not the first prediction.
        from appliance.monitoring.exposition import text
        from appliance.monitoring.quality import report

        state = condition.look(self._state_dir) if self._state_dir else None
        refused = self.counters.refusals.counts()
        log, running, drift = self.log.figures(self._state_dir), self.experiments(), self.drift()
        quality = report.of_all(self._state_dir) if self._state_dir else {}
        known = (state, refused, log, running, drift, quality)
        return text(self.counters.sums(), self.serving.all(), self.mqtt.read(), *known)

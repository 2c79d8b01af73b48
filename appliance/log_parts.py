"""The parts of the prediction log, joined for one process: the log, and in the first one what joins labels with it."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from appliance.config import Config
from appliance.errors import ApplianceError, NotReady, StoreError
from appliance.labels import LabelFeed, TakeLabels
from appliance.monitoring.log_counters import LogCounters
from appliance.predictor import Models, Observer
from appliance.store.versions import Store

if TYPE_CHECKING:
    from appliance.monitoring.prediction_log.log import PredictionLog
    from appliance.monitoring.prediction_log.recent import RecentAnswers

log = logging.getLogger(__name__)


class LogParts:
    """What one process has of the prediction log; nothing but what is read of it where it is off."""

    def __init__(self, config: Config, store: Store, models: Models, counters: LogCounters, slot: int) -> None:
        """`slot` numbers the process; that of 0 joins labels. Raises ConfigError."""
        self._config = config.log.predictions
        self._store = store
        self._first = slot == 0
        self._joining: threading.Thread | None = None
        self.feeds: list[LabelFeed] = []
        """Who is told of each prediction whose label came."""
        self.recorder = self._log(models, counters, slot) if self._config.enabled else None
        """The log, None where it is off."""

    def _log(self, models: Models, counters: LogCounters, slot: int) -> "PredictionLog":
        from appliance.monitoring.prediction_log.log import PredictionLog  # a service that logs nothing has none of it

        return PredictionLog(self._config, self._store.state_dir, models, slot=slot, count=counters.dropped)

    @property
    def observers(self) -> Sequence[Observer]:
        """Who is to be told of requests that were refused."""
        return [self.recorder] if self.recorder else []

    @property
    def take_labels(self) -> TakeLabels | None:
        """Where labels go; None where nothing is logged."""
        return self.recorder.take_labels if self.recorder else None

    def start(self, stop: threading.Event) -> None:
        """Begin to write and to join, the latter until `stop` is set; in the process that answers."""
        if self.recorder is None:
            return
        self.recorder.start()
        if self._first:
            from appliance.monitoring.quality.join import Joiner

            joiner = Joiner(
                self._store.state_dir,
                max_label_days=self._config.max_label_days,
                tolerance_of=self._tolerance,
                feeds=self.feeds,
            )
            self._joining = threading.Thread(target=joiner.run, args=(stop,), name="labels", daemon=True)
            self._joining.start()

    def stop(self) -> None:
        """Write what waits, seal and pack; what start() was told to stop at is set."""
        if self.recorder:
            self.recorder.stop()
        if self._joining:
            self._joining.join(timeout=10)

    def heads(self) -> list[dict[str, Any]]:
        """Return where the chains of the log end, of all processes; none where it is off."""
        if self.recorder is None:
            return []
        from appliance.monitoring.prediction_log import segments

        try:
            return segments.heads(self._store.state_dir)
        except (OSError, StoreError) as error:
            log.error("the heads of the prediction log cannot be read", extra={"error": str(error)})
            return []

    def recent(self, model: str, count: int) -> "RecentAnswers":
        """Return a model's last answers, as they are logged. Raises NotReady where the log is off."""
        if self.recorder is None:
            raise NotReady(f"show answers of {model}", "predictions are not logged", "set [log.predictions] enabled")
        from appliance.monitoring.prediction_log.recent import recent

        return recent(self._store.state_dir, model, count)

    def quality(self, model: str) -> dict[str, Any]:
        """Return what labels say of a model."""
        from appliance.monitoring.quality import report

        done = [one for one in self._store.receipts() if one.model == model and one.what == "mark good"]
        good = {one.version: one.when[:10] for one in done if one.outcome == "done"}
        return report.of_model(self._store.state_dir, model, now=time.time(), good_since=good)

    def _tolerance(self, model: str, version: str) -> tuple[float, float] | None:
        """Return how far a version's numbers may be from the original's; None where it is not installed any more."""
        try:
            found = self._store.manifest(model, version).policy.tolerance
        except ApplianceError:
            return None
        return found.absolute, found.relative

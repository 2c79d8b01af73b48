"""The parts of the prediction log, joined for one process: the log, and in the first one what joins labels with it."""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from appliance import nofollow
from appliance.bundle import baseline, members
from appliance.config import Config
from appliance.errors import ApplianceError, NotReady, StoreError
from appliance.labels import LabelFeed, TakeLabels
from appliance.monitoring.log_counters import LogCounters
from appliance.predictor import Models, Observer
from appliance.store.receipts import Followed, Receipt
from appliance.store.versions import Store

if TYPE_CHECKING:
    from appliance.monitoring.prediction_log.log import PredictionLog
    from appliance.monitoring.prediction_log.recent import RecentAnswers
    from appliance.monitoring.quality.standing import Past, Standing

log = logging.getLogger(__name__)


class LogParts:
    """What one process has of the prediction log; nothing but what is read of it where it is off."""

    def __init__(self, config: Config, store: Store, models: Models, counters: LogCounters, slot: int) -> None:
        """`slot` numbers the process; that of 0 joins labels. Raises ConfigError."""
        self._config = config.log.predictions
        self._store = store
        self._first = slot == 0
        self._false_alarms = config.drift.false_alarms_a_year
        self._marks = Followed(store.receipts_dir, _marked_good)
        self._pasts: dict[tuple[str, str], Past | None] = {}  # by their baselines
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
                good_since=self._good_since,
                judge=self._judge,
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

        good = {version: times[-1] for (name, version), times in self._marks.value().items() if name == model}
        return report.of_model(self._store.state_dir, model, now=time.time(), good_since=good)

    def standing(self, model: str, version: str) -> "Standing | None":
        """Return whether a version's labels are worse than its past; None where nothing is known."""
        if self.recorder is None:
            return None
        from appliance.monitoring.quality import state

        try:
            return state.read(self._store.state_dir, model).standings.get(version)
        except (OSError, ApplianceError) as error:
            log.error("quality cannot be read", extra={"model": model, "error": str(error)})
            return None

    def _good_since(self, model: str, version: str) -> Sequence[str]:
        """Return when a version was marked good, each time."""
        return self._marks.value().get((model, version), ())

    def _judge(
        self, model: str, version: str, days: dict[str, dict[str, float]], classes: Sequence[Any], own: "Past | None"
    ) -> "tuple[str, str, Past | None]":
        """Return how a version's labels stand; as quality.join.Judge."""
        from appliance.experiments import label_alarm
        from appliance.monitoring.quality.state import day_of

        own = own or label_alarm.past_of(days, classes, day_of(time.time()))
        known = self._baseline_past(model, version) if classes else None
        return *label_alarm.judged(days, classes, known, own, self._false_alarms), own

    def _baseline_past(self, model: str, version: str) -> "Past | None":
        """Return what a bundle's calibration says of a version, None where it has none, or is not installed."""
        key = model, version
        if key not in self._pasts:
            from appliance.monitoring.quality.standing import Past

            bins = []
            with suppress(ApplianceError, OSError):
                path = self._store.folder(model, version) / members.BASELINE
                found = baseline.read(nofollow.read(path, within=self._store.state_dir))
                bins = found.calibration if found.unseen else []
            rows, wrong = sum(one.rows for one in bins), sum(one.rows * (1 - one.right) for one in bins)
            self._pasts[key] = Past(rows, wrong, wrong) if rows else None
        return self._pasts[key]

    def _tolerance(self, model: str, version: str) -> tuple[float, float] | None:
        """Return how far a version's numbers may be from the original's; None where it is not installed any more."""
        try:
            found = self._store.manifest(model, version).policy.tolerance
        except ApplianceError:
            return None
        return found.absolute, found.relative


def _marked_good(receipts: Sequence[Receipt]) -> dict[tuple[str, str], list[str]]:
    """Return {(model, version): when it was marked good (UTC, ISO 8601), each time, the oldest first}."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in receipts:
        if (one.what, one.outcome) == ("mark good", "done"):
            found.setdefault((one.model, one.version), []).append(one.when)
    return found

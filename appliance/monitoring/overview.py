"""What one process knows of the whole host, for people: alarms, each model's history, what failed last.

Nothing is computed until somebody asks, but for what history.py writes once a minute.
"""

import time
from collections.abc import Callable

from appliance import alarms
from appliance.alarms import Alarm, Failures, Seen
from appliance.drift_report import DriftReport
from appliance.monitoring import history
from appliance.monitoring.counters import RequestCounters
from appliance.monitoring.history import History, Recent
from appliance.monitoring.history_ring import Series
from appliance.readiness import Ready
from appliance.repository import ModelRepository
from appliance.store import condition, receipts
from appliance.store.versions import Store


class Overview:
    """The alarms and histories of a host; safe in any thread, but for look() and stop()."""

    def __init__(
        self,
        store: Store,
        models: ModelRepository,
        counters: RequestCounters,
        drift_of: Callable[[str, str], DriftReport | None],
        failing: Callable[[str], tuple[str, str] | None] = lambda name: None,
        *,
        first: bool = True,
    ) -> None:
        """`drift_of` gives a version's report, None where it is not watched; the `first` process writes history.

        `failing` gives (version, why) of a model's version that fails its probation and serves on, None for none.
        """
        self._store, self._models, self._drift_of = store, models, drift_of
        self._counters, self._failing = counters, failing
        self._history = History(store, counters.sums) if first else None
        self._recent = Recent(store.state_dir)
        self._taken_back = receipts.Followed(store.receipts_dir, lambda known: alarms.taken_back(known, receipts.now()))

    def look(self) -> None:
        """Do what is due; on the thread that follows the store."""
        self._counters.last.share()
        if self._history:
            self._history.look()

    def stop(self) -> None:
        """Write what is known by now; on the same thread, or once that has ended."""
        if self._history:
            self._history.stop()

    def alarms(self, ready: Ready) -> list[Alarm]:
        """Return what somebody should look at, the worst first."""
        drift, failures, failing = {}, {}, {}
        for served in self._models.served():
            lately = self._recent.of(served.name)
            failures[served.name] = Failures(lately.requests, lately.caller_failures, lately.service_failures)
            if (told := self._failing(served.name)) is not None:
                failing[served.name] = told
            report = self._drift_of(served.name, served.loaded.version) if served.loaded else None
            if report is not None:
                drift[served.name] = report.version, report.summary()
        found = condition.look(self._store.state_dir)
        taken_back = self._taken_back.value(int(time.time() // 3600))  # each hour some are old enough to be left out
        return alarms.of(Seen(ready, found, drift, failures, failing, taken_back))

    def series(self, model: str, span: str) -> Series:
        """Return a model's history, see history.read()."""
        return history.read(self._store.state_dir, model, span, time.time())

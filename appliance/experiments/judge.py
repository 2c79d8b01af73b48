"""Acts on the results: begins a canary's next step, promotes it, ends an experiment, ends a probation.

Threads: one, in the first process of the service, from its first experiment or probation on. It looks once a second at
the counts of all processes. Each decision is one change of the store, which every process follows. Nothing is decided
in memory, so a kill between two looks loses nothing: the next look finds the same counts and decides the same.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from appliance.config.probation import ProbationConfig
from appliance.errors import ApplianceError, NotFound, NotReady
from appliance.experiments import files, report
from appliance.experiments.probation import slow_bound
from appliance.experiments.probation_watch import NanWatch, ProbationWatch
from appliance.experiments.step_clock import StepClock
from appliance.experiments.tally import Sums, Tally
from appliance.experiments.verdict import Verdict
from appliance.monitoring.counters import RUN_BUCKETS
from appliance.monitoring.shared_cells import Key
from appliance.repository import ModelRepository
from appliance.store import experiments
from appliance.store.routing_record import Routing
from appliance.store.tested import SelfTest
from appliance.store.versions import Store

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class Judge:
    """Looks at every model of this host once a second; see the module's docstring."""

    def __init__(
        self,
        store: Store,
        models: ModelRepository,
        sums: Sums,
        routing_of: Callable[[str], Routing | None],
        self_test: SelfTest,
        probation: ProbationConfig,
        nan: NanWatch,
        tally: Tally,
    ) -> None:
        """`self_test` tries a version that is not loaded here; those that are, are tried in this process.

        `tally` has what was counted until now, and is nobody else's from now on.
        """
        self._store, self._models, self._sums = store, models, sums
        self._routing_of, self._self_test = routing_of, self_test
        self._watch = ProbationWatch(store, models, probation, self.in_process, nan, tally)
        self._folder = files.folder(store.state_dir)
        self._clock = StepClock(self._folder, within=store.state_dir)
        self._told: dict[str, str] = {}  # model -> the last trouble that went to the log

    def follow(self, stop: threading.Event) -> None:
        """Look now, and once a second until `stop` is set."""
        self.look()
        while not stop.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Look at each model once; a model that cannot be judged leaves the others judged."""
        sums = self._sums()
        for served in self._models.served():
            try:
                self._look_at(served.name, sums)
            except (NotFound, NotReady) as error:  # another process or a user was faster
                log.info("verdict came too late", extra={"model": served.name, "error": str(error)})
            except ApplianceError as error:
                self._tell(served.name, str(error))
            except Exception:  # the outermost handler of the thread: an error must not end it
                log.exception("model cannot be judged", extra={"model": served.name})

    def _look_at(self, name: str, sums: Mapping[Key, list[float]]) -> None:
        """Look at one model: its experiment where one runs, and its active version."""
        routing = self._routing_of(name)
        if routing is not None:
            self._experiment(name, routing, sums)
        self._watch.look(name, sums, quiet=routing is not None)

    def _experiment(self, name: str, routing: Routing, sums: Mapping[Key, list[float]]) -> None:
        """Do what follows for an experiment."""
        if self._bound_is_missing(routing):
            bound = self._snapshot(name, routing, sums)
            if bound:
                experiments.keep_evidence(self._store, name, routing.id, log_e=routing.log_e, snapshot=bound)
        if self._cannot_load(name, routing):
            self._clock.pause(name)
            return
        seconds = self._clock.count(name, routing)
        verdict = report.verdict(self._folder, name, routing, seconds, within=self._store.state_dir)
        if verdict.action == "go back":
            experiments.abort(self._store, name, experiment=routing.id, why=verdict.text, evidence=verdict.document())
            self._models.refresh()
            extra = {"model": name, "versions": routing.challengers, "serving": routing.base, "why": verdict.text}
            log.error("experiment is taken back", extra=extra)
        elif verdict.action == "go on":
            self._go_on(name, routing, verdict, sums)

    def _go_on(self, name: str, routing: Routing, verdict: Verdict, sums: Mapping[Key, list[float]]) -> None:
        """Begin a canary's next step, or promote it after the last one."""
        if routing.step < len(routing.plan.steps):
            snapshot = self._snapshot(name, routing, sums) or routing.snapshot
            experiments.advance(
                self._store, name, routing.id, routing.step + 1,
                log_e={**routing.log_e, **verdict.log_e}, snapshot=snapshot, why=verdict.text,
            )  # fmt: skip
            log.info("canary goes on", extra={"model": name, "step": routing.step + 1, "why": verdict.text})
        else:
            test = self.in_process(name)
            experiments.promote(
                self._store, name, test, experiment=routing.id, why=verdict.text, evidence=verdict.document()
            )
            log.info("canary is promoted", extra={"model": name, "version": routing.challengers[0]})
        self._models.refresh()

    def in_process(self, name: str) -> SelfTest:
        """Return a self-test that tries a version by its session of this process, where it is the same as on disk."""
        loaded = {one.loaded.version: one.loaded for one in self._models.roles(name).values() if one.loaded}

        def test(folder: Path) -> msgspec.Struct:
            version = loaded.get(folder.name)
            if version is None or self._store.installed(name, folder.name).digest != version.digest:
                return self._self_test(folder)
            return version.self_test()

        return test

    def _snapshot(
        self, name: str, routing: Routing, sums: Mapping[Key, list[float]]
    ) -> dict[str, dict[str, float]] | None:
        """Return the bound of slow runs by what the active version took so far; None while too little is known."""
        cells = sums.get((name, routing.base))
        bound = slow_bound(cells[RUN_BUCKETS:]) if cells else float("inf")
        return {routing.base: {"slow_bound": bound}} if bound < float("inf") else None

    @staticmethod
    def _bound_is_missing(routing: Routing) -> bool:
        """Return whether requests are split and nothing says yet which runs are slow."""
        splits = sum(arm.share > 0 for arm in routing.arms) > 1
        return splits and "slow_bound" not in routing.snapshot.get(routing.base, {})

    def _cannot_load(self, name: str, routing: Routing) -> bool:
        """Tell of a challenger that is not loaded here: its requests are answered by the active version meanwhile."""
        loaded = {one.loaded.version for one in self._models.roles(name).values() if one.loaded}
        missing = [version for version in routing.challengers if version not in loaded]
        if missing:
            problems = [str(one.problem) for one in self._models.roles(name).values() if one.problem]
            self._tell(name, f"{', '.join(missing)} cannot be loaded, so nothing is compared: {'; '.join(problems)}")
        return bool(missing)

    def _tell(self, name: str, found: str) -> None:
        """Log once what hinders the judge."""
        if self._told.get(name) != found:
            self._told[name] = found
            log.error("model cannot be judged", extra={"model": name, "found": found})

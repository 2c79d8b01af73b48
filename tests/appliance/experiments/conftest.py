"""A host in one process: a real store, repository and predictor, whose judge looks when it is told to."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.config import Config, ExperimentsConfig, ProbationConfig, StoreConfig
from appliance.errors import ApplianceError, InvalidInput
from appliance.experiment_roles import ExperimentRoles
from appliance.experiments import report, tally
from appliance.experiments.parts import Experiments
from appliance.inference.selftest import self_test
from appliance.monitoring.counters import RequestCounters
from appliance.predictor import Prediction, Predictor
from appliance.repository import ModelRepository
from appliance.store import activation, experiments
from appliance.store.experiments import Wish
from appliance.store.routing_record import Arm, Plan, Routing
from appliance.store.versions import Store
from tests.conftest import wait_for

QUICK = ProbationConfig(min_requests=50, min_seconds=0, self_test_seconds=0)
ROW = [1.0, 2.0, 3.0, 4.0]


class Host:
    """One process of a service over a store of its own, without listeners."""

    def __init__(self, state: Path, probation: ProbationConfig = QUICK, slot: int = 0) -> None:
        self.store = Store(state)
        self.config = Config(
            store=StoreConfig(state_dir=str(state)), probation=probation, experiments=ExperimentsConfig(shadow_cpu=1)
        )
        self.models = ModelRepository(self.store, roles=ExperimentRoles(keep_previous=True))
        self.counters = RequestCounters()
        self.models.switched = self.counters.switched
        self.busy = False
        self.parts = Experiments(self.config, self.store, self.models, self.counters.sums, self_test, slot=slot)
        self.parts.busy = lambda: self.busy
        self.predictor = Predictor(self.models, [self.counters, self.parts])
        self.stop = threading.Event()
        self.models.refresh()

    @property
    def judge(self) -> Any:
        return self.parts._judge

    def look(self) -> None:
        """Follow the store, and have the judge look once."""
        self.models.refresh()
        self.judge.look()
        self.models.refresh()

    def ask(self, row: list[float] | None = None, key: str = "", request: str = "") -> Prediction | None:
        """Ask for a prediction as a listener does; None where it fails, which the observers are told."""
        version = self.predictor.route("iris", None, key)
        try:
            if row == []:
                raise InvalidInput("read the row", "it is empty", "send one")
            feeds = {"features": np.array([row or ROW], np.float32)}
            return self.predictor.run(version, feeds, keys=(key,), request=request)
        except ApplianceError as error:
            self.predictor.failed("iris", version.version, error, 0.001, version.arm, key)
            return None

    def ask_arm(self, arm: str, row: list[float] | None = None, many: int = 1) -> None:
        """Ask as requests do that were routed to an arm."""
        roles = self.models.roles("iris").values()
        version = next(one.loaded for one in roles if one.loaded and one.loaded.version == arm)
        loaded = version.as_arm(f"{self.models.arms('iris').id}/{arm}")
        for _ in range(many):
            if row == []:
                error = InvalidInput("read the row", "it is empty", "send one")
                self.predictor.failed("iris", arm, error, 0.001, loaded.arm)
            else:
                self.predictor.run(loaded, {"features": np.array([row or ROW], np.float32)})

    def begin(self, kind: str, version: str = "2.0.0", share: float = 1.0, **plan: Any) -> Routing:
        """Begin an experiment and follow it."""
        quick = {"min_requests": 100, "min_seconds": 0.0, "margin": 0.1} | plan
        if kind == "split":
            wish = Wish("split", arms=(Arm("1.0.0", 1 - share), Arm(version, share)), plan=Plan(**quick))
        else:
            wish = Wish(kind, shadow=Arm(version, share), plan=Plan(**quick))
        made = experiments.begin(self.store, "iris", wish, self_test)
        self.models.refresh()
        return made

    def compared(self, routing: Routing) -> dict[str, Any]:
        """Return the comparison so far."""
        return report.document(self.store, "iris", routing, 1.0)["comparison"]

    def wait_compared(self, routing: Routing, requests: int) -> dict[str, Any]:
        """Return the comparison once it has so many requests."""
        wait_for(lambda: self.compared(routing)["requests"] >= requests, f"{requests} requests compared")
        return self.compared(routing)

    def receipts(self, what: str) -> list[Any]:
        return [one for one in self.store.receipts() if one.what == what]

    def close(self) -> None:
        self.stop.set()
        self.parts.stop()


@pytest.fixture(scope="session")
def experiment_bundles(tmp_path_factory, make_bundle) -> dict[str, Path]:
    """Bundles by name: one, two (alike but for their number), nan and nan2 (NaN where a row lacks a value)."""
    folder = tmp_path_factory.mktemp("experiment-bundles")
    return {
        "one": make_bundle(folder, version="1.0.0", kind="gaps"),
        "two": make_bundle(folder, version="2.0.0", kind="gaps"),
        "nan": make_bundle(folder, version="2.0.1", kind="blind"),
        "nan2": make_bundle(folder, version="2.0.2", kind="blind"),
    }


@pytest.fixture
def make_host(tmp_path, experiment_bundles, monkeypatch) -> Iterator[Any]:
    """Return a function that starts a host with 1.0.0 active (and good) and all others installed."""
    monkeypatch.setattr(tally, "WRITE_SECONDS", 0.0)
    hosts: list[Host] = []

    def make(**settings: Any) -> Host:
        state = tmp_path / "state"
        if not state.exists():
            store = Store(state)
            for path in experiment_bundles.values():
                store.install(path)
            activation.activate(store, "iris", "1.0.0", self_test)
            activation.mark_good(store, "iris")
        hosts.append(Host(state, **settings))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


@pytest.fixture
def host(make_host) -> Host:
    return make_host()

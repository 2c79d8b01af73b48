"""The story of a new version on one host, on real services: better, failing, slow, worse by labels; and a kill."""

import http.client
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.experiments import report
from appliance.inference.selftest import self_test
from appliance.store import activation, experiments
from appliance.store.experiments import Wish
from appliance.store.routing_record import Arm, Plan, Routing
from appliance.store.versions import Store
from tests.appliance.conftest import build_bundle
from tests.conftest import wait_for
from tests.end_to_end.services import Service, run

ROW: list[float | None] = [1.0, 2.0, 3.0, 4.0]
GAP: list[float | None] = [1.0, None, 3.0, 4.0]
QUICK: dict[str, Any] = {"min_requests": 60, "min_seconds": 0.5, "margin": 0.2}
VERSIONS = {"1.0.0": "gaps", "2.0.0": "gaps", "3.0.0": "regression", "4.0.0": "slow"}
"""1.0.0 and 2.0.0 take rows that lack a value, 3.0.0 refuses them (400), 4.0.0 is slow."""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("versions")
    for version, kind in VERSIONS.items():
        (folder / f"iris-{version}.bundle").write_bytes(build_bundle("iris", version, kind=kind))
    return sorted(folder.iterdir())


@pytest.fixture
def store(tmp_path, bundles) -> Store:
    """A store with all versions, 1.0.0 active and good."""
    store = Store(tmp_path / "state")
    for path in bundles:
        store.install(path)
    activation.activate(store, "iris", "1.0.0", self_test)
    activation.mark_good(store, "iris")
    return store


@pytest.fixture
def start(store) -> Iterator[Callable[..., Service]]:
    """Return a function that starts a service over the store, of two processes by default."""
    services: list[Service] = []

    def start(**settings: str) -> Service:
        told = {"APPLIANCE_HTTP_PROCESSES": "2", "APPLIANCE_MODELS_POLL_SECONDS": "0.2"} | settings
        services.append(Service(store.state_dir, **told))
        assert services[-1].port
        return services[-1]

    yield start
    for service in services:
        service.stop(signal.SIGKILL)


class Callers:
    """Ask over connections of their own until they are stopped; each has a key, a new one for each request."""

    def __init__(self, service: Service, row: Callable[[int], list[float | None]] = lambda n: ROW, many: int = 3):
        self.port, self.row = service.port, row
        self.stopped = threading.Event()
        self.answers: list[tuple[float, int, str]] = []
        """(when, status, version)."""
        self.threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(many)]
        for thread in self.threads:
            thread.start()

    def _ask(self, caller: int) -> None:
        number = 0
        while not self.stopped.is_set():
            # A connection of its own for some requests, so that both processes are asked.
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            for _ in range(10):
                number += 1
                headers = {"X-Routing-Key": f"device-{caller}-{number}"}
                connection.request("POST", "/predict", json.dumps({"features": self.row(number)}), headers)
                answer = connection.getresponse()
                told = json.loads(answer.read())
                self.answers.append((time.time(), answer.status, str(told.get("version", ""))))
            connection.close()
            time.sleep(0.01)

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(30)

    def statuses(self) -> Counter[int]:
        return Counter(status for _, status, _ in self.answers)


@pytest.fixture
def ask() -> Iterator[Callable[..., Callers]]:
    """Return Callers; they are stopped at the end."""
    made: list[Callers] = []

    def ask(*arguments: Any, **rest: Any) -> Callers:
        made.append(Callers(*arguments, **rest))
        return made[-1]

    yield ask
    for callers in made:
        callers.stop()


def begin(store: Store, kind: Any, version: str, *, share: float = 0.5, **plan: Any) -> Routing:
    made = Plan(**QUICK | {"schema_may_differ": True} | plan)
    arms = (Arm("1.0.0", 1 - share), Arm(version, share)) if kind == "split" else ()
    shadow = None if kind == "split" else Arm(version, 1.0)
    return experiments.begin(store, "iris", Wish(kind, arms=arms, shadow=shadow, plan=made), self_test)


def ended(store: Store, seconds: float = 40.0) -> Any:
    """Wait for the end of an experiment; return the receipt of its end."""
    ways = ("promote", "abort")
    return wait_for(lambda: next((one for one in store.receipts() if one.what in ways), None), "an end", seconds)


def test_a_better_version_is_promoted_and_marked_good_without_a_failed_request(store, start, ask):
    service = start(APPLIANCE_PROBATION_MIN_REQUESTS="300", APPLIANCE_PROBATION_MIN_SECONDS="1")
    callers = ask(service)
    begin(store, "canary", "2.0.0", steps=(0.2, 0.5))
    assert ended(store).what == "promote"
    wait_for(lambda: activation.read(store, "iris").state == "good", "marked good", 40)
    callers.stop()
    assert activation.read(store, "iris").active == "2.0.0"
    assert set(callers.statuses()) == {200}
    steps = [one.experiment["step"] for one in store.receipts() if one.what == "step"]
    assert steps == [1, 2]
    assert "2.0.0 failed on 0 of" in store.receipts()[-1].why
    told = json.loads(run(store.state_dir, "status", "--json").stdout)["models"][0]["probation"]
    assert (told["state"], told["verdict"]) == ("good", "")


def test_a_version_that_refuses_the_plants_rows_is_found_by_its_shadow_before_anybody_meets_it(store, start, ask):
    service = start()
    callers = ask(service, lambda number: GAP)
    begin(store, "canary", "3.0.0", steps=(0.2,), min_requests=100_000)
    receipt = ended(store)
    callers.stop()
    assert "3.0.0 could not answer" in receipt.why
    assert set(callers.statuses()) == {200}  # 0 requests met it


def test_a_split_whose_version_answers_400_ends_within_a_second_everywhere(store, start, ask):
    service = start()
    callers = ask(service, lambda number: GAP)
    wait_for(lambda: len(callers.answers) > 50, "answers")
    begin(store, "split", "3.0.0", share=0.3, schema_may_differ=True)
    receipt = ended(store)
    begun = time.time()
    seen = len(callers.answers)
    wait_for(lambda: len(callers.answers) > seen + 300, "answers afterwards")
    callers.stop()
    assert "3.0.0 failed on" in receipt.why
    last = max(when for when, status, _ in callers.answers if status == 400)
    assert last < begun + 1.5  # 1 s, and what a busy machine takes
    assert callers.statuses().keys() == {200, 400}
    assert service.said("experiment is taken back")["level"] == "error"
    shown = run(store.state_dir, "experiment", "iris").stdout
    assert "taken back" in shown
    assert "3.0.0 failed on" in shown


def test_a_slow_version_is_taken_back(store, start, ask):
    service = start(APPLIANCE_HTTP_PROCESSES="1")
    callers = ask(service)
    wait_for(lambda: len(callers.answers) > 300, "answers of the active version")
    routing = begin(store, "split", "4.0.0", share=0.5)
    receipt = ended(store, 90)
    assert receipt.experiment["id"] == routing.id
    assert "runs of 4.0.0 were slow" in receipt.why
    assert set(callers.statuses()) == {200}


def test_a_version_that_labels_prove_worse_is_taken_back(store, start):
    service = start(APPLIANCE_HTTP_PROCESSES="1", APPLIANCE_LOG_PREDICTIONS_ENABLED="true")
    begin(store, "canary", "2.0.0", steps=(0.5,), min_requests=100_000)
    wait_for(lambda: experiment(store)["running"], "a running experiment")
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)

    def post(path: str, document: dict[str, Any], identifier: str = "") -> dict[str, Any]:
        connection.request("POST", path, json.dumps(document), {"X-Request-Id": identifier})
        answer = connection.getresponse()
        told = json.loads(answer.read() or b"{}")
        assert answer.status in (200, 202), told
        return told

    numbers = iter(range(10_000))

    def ask_and_label() -> bool:
        """Ask one row and send what it really was, as the plant's own program does: 1.0.0 is nearly right."""
        identifier = f"row-{next(numbers)}"
        told = post("/predict", {"features": ROW}, identifier)
        assert told["version"] == "1.0.0"  # nobody meets the worse one
        time.sleep(0.05)  # labels come later than answers
        post("/models/iris/feedback", {"labels": [{"id": f"{identifier}.0", "label": told["prediction"][0] + 1}]})
        return any(one.what == "abort" for one in store.receipts())

    wait_for(ask_and_label, "taken back", 60)
    why = ended(store).why
    assert "1.0.0 alone was right on" in why
    assert "2.0.0 alone on 0" in why


def test_a_version_on_probation_that_fails_goes_back_within_a_second_everywhere(store, start, ask):
    service = start()
    callers = ask(service, lambda number: GAP)
    wait_for(lambda: len(callers.answers) > 300, "answers of the version before")
    time.sleep(1.2)  # the judge looks once a second
    activation.activate(store, "iris", "3.0.0", self_test, inputs_changed=True)
    now = wait_for(lambda: (found := activation.read(store, "iris")).active == "1.0.0" and found, "taken back", 40)
    back = time.time()
    seen = len(callers.answers)
    wait_for(lambda: len(callers.answers) > seen + 300, "answers afterwards")
    callers.stop()
    assert "probation of 3.0.0: 3.0.0 failed on" in now.why
    assert max(when for when, status, _ in callers.answers if status == 400) < back + 1.5
    assert service.said("version on probation is taken back")["level"] == "error"


def test_a_kill_loses_no_evidence_and_no_decision(store, start, ask):
    service = start(APPLIANCE_HTTP_PROCESSES="1")
    begin(store, "canary", "2.0.0", steps=(0.3, 0.6), min_requests=50, min_seconds=6.0)
    callers = ask(service)
    wait_for(lambda: (now := experiments.read(store, "iris")) and now.step == 1, "the first step", 40)
    wait_for(lambda: counted(store) >= 50, "requests of the canary", 40)
    callers.stop()
    before = counted(store)
    service.stop(signal.SIGKILL)
    assert experiments.read(store, "iris").step == 1
    start(APPLIANCE_HTTP_PROCESSES="1")  # nobody asks it
    assert counted(store) >= before or experiments.read(store, "iris").step == 2
    wait_for(lambda: (now := experiments.read(store, "iris")) and now.step == 2, "the second step", 40)


def counted(store: Store) -> int:
    """Return the requests that the canary has answered in its step; here, since a command takes its time."""
    routing = experiments.read(store, "iris")
    arms = report.document(store, "iris", routing, 0.0)["arms"] if routing else []
    return int(arms[1]["requests"]) if arms else 0


def experiment(store: Store) -> dict[str, Any]:
    """Return what the command says of the experiment."""
    told: dict[str, Any] = json.loads(run(store.state_dir, "experiment", "iris", "--json").stdout)
    return told

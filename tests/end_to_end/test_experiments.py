"""Experiments on a service of two processes: under load no request fails, all processes agree, a kill loses nothing."""

import contextlib
import http.client
import json
import signal
import threading
from collections import Counter

import pytest

from appliance.inference.selftest import self_test
from appliance.routing import Router
from appliance.store import activation, experiments
from appliance.store.experiments import Wish
from appliance.store.routing_record import Arm, Plan
from appliance.store.versions import Store
from tests.conftest import wait_for
from tests.end_to_end.services import Service, write_bundle

KEYS = [f"device-{number}" for number in range(16)]


class Load:
    """Clients that ask row after row, each its own key, until they are stopped."""

    def __init__(self, port: int, clients: int = 3) -> None:
        self.port = port
        self.statuses: Counter[int] = Counter()
        self.wrong: list[dict] = []
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, client: int) -> None:
        number = 0
        while not self._ending.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            with contextlib.closing(connection):
                for _ in range(20):  # on each connection; the next one may be another process's
                    number += 1
                    status, told = ask(connection, [client, number], KEYS[number % len(KEYS)])
                    self.statuses[status] += 1
                    right = status == 200 and told["prediction"] == [client + number + int(told["version"][0])]
                    if not right:
                        self.wrong.append(told)

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(60)


def ask(connection: http.client.HTTPConnection, row: list[float], key: str) -> tuple[int, dict]:
    connection.request("POST", "/predict", json.dumps({"features": row}).encode(), {"X-Routing-Key": key})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def met(port: int) -> dict[str, set[str]]:
    """Return {key: versions} over many connections, so that every process is asked."""
    found: dict[str, set[str]] = {key: set() for key in KEYS}
    for _ in range(6):
        for key in KEYS:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                found[key].add(ask(connection, [1, 2], key)[1]["version"])
    return found


def agrees(port: int, made) -> bool:
    """Return whether every process routes every key as the record says."""
    pick = Router(made.salt, [(arm.version, arm.share) for arm in made.arms]).pick
    return met(port) == {key: {pick(key, 0.0)} for key in KEYS}


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "state")
    for version in ("1.0.0", "2.0.0"):
        store.install(write_bundle(tmp_path, version))
    activation.activate(store, "plant", "1.0.0", self_test)
    activation.mark_good(store, "plant")
    return store


@pytest.fixture
def service(store):
    # The experiments of these tests end by hand.
    service = Service(store.state_dir, APPLIANCE_HTTP_PROCESSES="2")
    yield service
    service.stop()


def test_under_load_no_request_fails_while_experiments_begin_go_on_and_end(store, service):
    load = Load(service.port)
    try:
        split = Wish("split", arms=(Arm("1.0.0", 0.5), Arm("2.0.0", 0.5)))
        made = experiments.begin(store, "plant", split, self_test)
        wait_for(lambda: agrees(service.port, made), "agreed on the split")
        experiments.abort(store, "plant")
        wait_for(lambda: set().union(*met(service.port).values()) == {"1.0.0"}, "agreed on its end")
        canary = Wish("canary", shadow=Arm("2.0.0", 1.0), plan=Plan(steps=(0.3, 0.6), hold=True))
        made = experiments.begin(store, "plant", canary, self_test)
        for step in (1, 2):
            made = experiments.advance(store, "plant", made.id, step)
            wait_for(lambda made=made: agrees(service.port, made), "agreed on the step")
        experiments.promote(store, "plant", self_test)
        wait_for(lambda: set().union(*met(service.port).values()) == {"2.0.0"}, "agreed on the promotion")
        activation.roll_back(store, "plant", self_test)
        wait_for(lambda: set().union(*met(service.port).values()) == {"1.0.0"}, "agreed on the roll back")
    finally:
        load.stop()
    assert load.wrong == []
    assert set(load.statuses) == {200}
    assert load.statuses[200] > 100


def test_after_a_kill_the_same_keys_meet_the_same_versions(store, service):
    canary = Wish("canary", shadow=Arm("2.0.0", 1.0), plan=Plan(steps=(0.4,), hold=True))
    made = experiments.advance(store, "plant", experiments.begin(store, "plant", canary, self_test).id, 1)
    wait_for(lambda: agrees(service.port, made), "agreed on the step")
    before = met(service.port)
    service.stop(signal.SIGKILL)
    again = Service(store.state_dir, APPLIANCE_HTTP_PROCESSES="2")
    try:
        wait_for(lambda: agrees(again.port, made), "agreed again")
        assert met(again.port) == before
        assert set().union(*before.values()) == {"1.0.0", "2.0.0"}
    finally:
        again.stop()

"""Requests that wait at the same time share a run: each has its own answer, and one that is wrong harms no other."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from appliance.errors import InvalidInput
from appliance.inference import batching
from appliance.inference.selftest import self_test
from appliance.rest.server.listener import bind
from appliance.rest.server.server import Server, make_server
from appliance.store import experiments
from appliance.store.experiments import Wish
from appliance.store.routing_record import Arm
from tests.appliance.rest.server.test_direct import Client, post

PATH, INFER = "/models/classifier/predict", "/v2/models/classifier/infer"
BAD = 66.0  # a value that the graph refuses here


class Shared:
    """A service whose model `classifier` shares runs, and what its graph was run for."""

    def __init__(self, api, server: Server, port: int) -> None:
        self.api, self.server, self.port = api, server, port
        self.loaded = api.models.get("classifier")
        self.runs: list[int] = []
        """Rows of each run."""
        self.told: list = []
        self.running, self.go_on = threading.Semaphore(0), threading.Event()
        self.go_on.set()
        self._run = self.loaded.session.run
        self.loaded.session.run = self._told_run
        api.recorder.predicted = self.told.append

    def _told_run(self, feeds, outputs=None):
        table = next(iter(feeds.values()))
        self.runs.append(len(table))
        self.running.release()
        assert self.go_on.wait(20)
        if (table == BAD).any():
            raise InvalidInput("run the model", "a value is refused", "send another")
        return self._run(feeds, outputs)

    def ask(self, requests: list[bytes]) -> list[tuple[int, dict[str, str], bytes]]:
        """Send requests, each on a connection of its own, so that one turn of the loop finds all of them."""
        clients = [Client(f"127.0.0.1:{self.port}", []) for _ in requests]
        for client, request in zip(clients, requests, strict=True):
            client.ask(request)  # its head is known from now on
        held, go_on = threading.Event(), threading.Event()
        self.server.call_soon(lambda: (held.set(), go_on.wait(20)))
        assert held.wait(20)
        self.runs.clear()
        self.told.clear()
        for client, request in zip(clients, requests, strict=True):
            client.socket.sendall(request)
        go_on.set()
        answers = [client.answer() for client in clients]
        for client in clients:
            client.close()
        return answers


@pytest.fixture
def share(make_api) -> Iterator[Callable[..., Shared]]:
    with contextlib.ExitStack() as stopping:

        def start(**settings: object) -> Shared:
            api = make_api("classifier", **settings)
            listener = bind("127.0.0.1", 0)
            app, config = api.app, api.context.config
            server = make_server(app, listener, config, app.is_small, answer=app.direct, together=app.together)
            thread = threading.Thread(target=server.run)
            api.models.get("classifier").batches = True
            api.models._serve(api.models._served, api.models._arms)
            shared = Shared(api, server, listener.getsockname()[1])
            thread.start()
            stopping.callback(thread.join, 20)
            stopping.callback(server.stop)
            stopping.callback(shared.go_on.set)
            return shared

        yield start


def row(number: float) -> bytes:
    return json.dumps({"features": [number, 2, 3, 4]}).encode()


def tensors(number: float, **more: object) -> bytes:
    tensor = {"name": "features", "shape": [1, 4], "datatype": "FP32", "data": [number, 2, 3, 4]}
    return json.dumps({"inputs": [tensor], **more}).encode()


def test_what_waits_together_is_one_run_and_each_answer_is_as_alone(share):
    shared = share()
    two = json.dumps({"features": [[1, 2, 3, 4], [5, 6, 7, 8]]}).encode()
    requests = [post(PATH, row(number)) for number in range(10)] + [post(PATH, two)]
    alone = [shared.ask([request])[0] for request in requests]
    assert shared.runs == [2]
    assert shared.ask(requests) == alone
    assert shared.runs == [12]
    assert [(one.rows, one.requests) for one in shared.told] == [(12, 11)]
    assert len({one.request_id for one in shared.told} | {request for request, _ in shared.told[0].shared_by}) == 11


def test_request_that_is_wrong_harms_no_other(share):
    shared = share()
    bodies = [row(1), b"{", b'{"features": [1]}', row(2), json.dumps({"features": ["a", 2, 3, 4]}).encode()]
    answers = shared.ask([post(PATH, body) for body in bodies])
    assert [status for status, _, _ in answers] == [200, 400, 400, 200, 400]
    assert shared.runs == [2]
    assert len(shared.api.recorder.failures) == 2 * 3
    assert answers[0][2] != answers[3][2]


def test_row_that_the_graph_refuses_harms_no_other(share):
    shared = share()
    answers = shared.ask([post(PATH, row(number)) for number in (1, BAD, 3)])
    assert [status for status, _, _ in answers] == [200, 400, 200]
    assert shared.runs == [3, 1, 1, 1]
    assert answers[0] == shared.ask([post(PATH, row(1))])[0]


def test_open_inference_keeps_each_ones_id_outputs_and_form(share):
    shared = share()
    output = shared.loaded.output_names[-1]
    wanted = [
        {"id": "a"},
        {"id": "b"},
        {"id": "c", "outputs": [{"name": output}]},
        {"id": "d", "outputs": [{"name": output, "parameters": {"classification": 1}}]},
        {"id": "e", "outputs": [{"name": output, "parameters": {"binary_data": True}}]},
    ]
    requests = [post(INFER, tensors(number, **more)) for number, more in enumerate(wanted)]
    alone = [shared.ask([request])[0] for request in requests]
    assert shared.ask(requests) == alone
    assert sorted(shared.runs) == [1, 2, 2]
    assert [json.loads(body)["id"] for _, _, body in alone[:4]] == ["a", "b", "c", "d"]


def test_each_answer_has_the_id_that_its_caller_gave(share):
    shared = share()
    requests = [post(PATH, row(number), f"X-Request-Id: id-{number}") for number in range(4)]
    answers = shared.ask(requests)
    assert [headers["X-Request-Id"] for _, headers, _ in answers] == [f"id-{number}" for number in range(4)]
    assert sorted(shared.told[0].shared_by) == [(f"id-{number}", 1) for number in range(4)]


def test_each_answer_has_the_trace_of_its_caller(share):
    shared = share()
    parents = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 4)]
    answers = shared.ask([post(PATH, row(1), f"traceparent: {parent}") for parent in parents])
    assert shared.runs == [3]
    assert [headers["Traceparent"] for _, headers, _ in answers] == parents


def test_different_tokens_share_no_run(share):
    shared = share()
    requests = [post(PATH, row(number), f"Authorization: Bearer {number % 2}") for number in range(6)]
    assert {status for status, _, _ in shared.ask(requests)} == {200}
    assert shared.runs == [3, 3]


def test_more_than_a_run_may_hold_are_several_runs(share):
    shared = share()
    rows = json.dumps({"features": [[1, 2, 3, 4]] * 100}).encode()
    assert {status for status, _, _ in shared.ask([post(PATH, rows)] * 5)} == {200}
    assert shared.runs == [200, 200, 100]


def test_what_waits_for_a_thread_is_one_run_too(share):
    shared = share(threads=1)
    shared.server.task_dispatcher._slow[PATH] = float("inf")
    clients = [Client(f"127.0.0.1:{shared.port}", []) for _ in range(6)]
    shared.go_on.clear()
    clients[0].socket.sendall(post(PATH, row(0)))
    assert shared.running.acquire(timeout=20)
    for number, client in enumerate(clients[1:], 1):
        client.socket.sendall(post(PATH, row(number) if number != 3 else b"{"))
    while len(shared.server.task_dispatcher.queue) < 5:
        threading.Event().wait(0.005)
    shared.go_on.set()
    answers = [client.answer() for client in clients]
    for client in clients:
        client.close()
    assert [status for status, _, _ in answers] == [200, 200, 200, 400, 200, 200]
    assert shared.runs == [1, 4]
    assert len({body for _, _, body in answers}) == 6


def test_two_requests_of_one_connection_keep_their_order(share):
    shared = share()
    client = Client(f"127.0.0.1:{shared.port}", [])
    first, second = (post(PATH, row(number)) for number in (1, 2))
    expected = [client.ask(request)[0] for request in (first, second)]
    (channel,) = shared.server.active_channels.values()
    direct = shared.server.direct
    # As TLS does where two records have come; a plain connection is read once in a turn.
    shared.server.call_soon(lambda: (direct.take(channel, first), direct.take(channel, second), direct.flush()))
    assert [client.answer(), client.answer()] == expected
    client.close()


def test_client_that_left_before_its_answer_harms_no_other(share):
    shared = share()
    held, go_on = threading.Event(), threading.Event()
    clients = [Client(f"127.0.0.1:{shared.port}", []) for _ in range(3)]
    for client in clients:
        client.ask(post(PATH, row(1)))
    shared.server.call_soon(lambda: (held.set(), go_on.wait(20)))
    assert held.wait(20)
    for number, client in enumerate(clients):
        client.socket.sendall(post(PATH, row(number)))
    clients[1].close()
    go_on.set()
    assert [clients[0].answer()[0], clients[2].answer()[0]] == [200, 200]
    clients[0].close()
    clients[2].close()


def test_no_run_is_shared_where_an_experiment_runs(share, bundle_bytes, tmp_path):
    shared = share()
    assert shared.api.app.shares_runs(PATH)
    assert not shared.api.app.shares_runs("/models/classifier/versions/1.0.0/predict")
    assert not shared.api.app.shares_runs("/models/nobody/predict")
    shared.api.install(bundle_bytes("classifier", "1.1.0", kind="classifier"), tmp_path, activate=False)
    half = (Arm("1.0.0", 0.5), Arm("1.1.0", 0.5))
    experiments.begin(shared.api.store, "classifier", Wish("split", arms=half), self_test)
    shared.api.models.refresh()
    assert not shared.api.app.shares_runs(PATH)


class Timed:
    """A version whose run takes `first` seconds and `more` for each further row, by a clock of its own."""

    def __init__(self, first: float, more: float) -> None:
        self.first, self.more, self.now = first, more, 0.0
        self.session = SimpleNamespace(run=self.run)

    def run(self, feeds) -> None:
        self.now += self.first + self.more * (len(feeds["x"]) - 1)

    def example_feeds(self, rows: int):
        return {"x": np.zeros((rows, 1))}


@pytest.mark.parametrize(
    ("first", "more", "pays"),
    [
        (7e-6, 0.5e-6, False),  # a linear model
        (14e-6, 3e-6, False),  # a forest of 100 trees
        (90e-6, 25e-6, True),  # one of 500
        (6e-3, 0.5e-3, True),  # neighbours
        (6e-3, 6e-3, False),  # what takes as long for each row, however many there are
    ],
)
def test_runs_are_shared_where_that_saves_time(first, more, pays, monkeypatch):
    version = Timed(first, more)
    monkeypatch.setattr(batching.time, "thread_time", lambda: version.now)
    assert batching.pays(version) is pays

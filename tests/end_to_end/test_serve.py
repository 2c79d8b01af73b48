"""`appliance serve` as its users meet it: a real process, real signals, versions that change under load."""

import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.end_to_end.services import APPLIANCE, done, run, write_bundle

CLIENTS = 8


class Client(threading.Thread):
    """Asks without a pause over one connection and keeps what it got."""

    def __init__(self, port: int, stop: threading.Event) -> None:
        super().__init__()
        self.connection = HTTPConnection("127.0.0.1", port, timeout=30)
        self.stopped = stop
        self.versions: list[str] = []
        self.failures: list[object] = []

    def run(self) -> None:
        body = json.dumps({"features": [[1, 2], [10, 20]]})
        while not self.stopped.is_set():
            try:
                self.connection.request("POST", "/models/plant/predict", body)
                answer = self.connection.getresponse()
                found = json.loads(answer.read())
            except (OSError, ValueError) as error:
                self.failures.append(error)
                return
            add = float(found.get("version", "0").split(".")[0])
            right = [3 + add, 30 + add]
            if answer.status != 200 or found["prediction"] != right or found["score"] != right:
                self.failures.append((answer.status, found))
            self.versions.append(str(found.get("version")))


@pytest.mark.parametrize("processes", ["1", "2"])
def test_no_request_fails_and_no_answer_mixes_versions_while_8_clients_ask_and_versions_change(state, serve, processes):
    service = serve(APPLIANCE_HTTP_PROCESSES=processes)
    stop = threading.Event()
    clients = [Client(service.port, stop) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for version, *step in (
        ("1.0.0", "activate", "plant", "2.0.0"),
        ("2.0.0", "rollback", "plant"),
        ("1.0.0", "activate", "plant", "2.0.0"),
        ("2.0.0",),
    ):
        all_have_it = _until(lambda now=version: all(client.versions[-20:] == [now] * 20 for client in clients))
        assert all_have_it, (version, [(client.versions[-1:], client.failures) for client in clients])
        if step:
            done(state, *step)
    stop.set()
    for client in clients:
        client.join(30)
    assert [client.failures for client in clients] == [[]] * CLIENTS
    for client in clients:
        changes = sum(a != b for a, b in zip(client.versions, client.versions[1:], strict=False))
        assert (client.versions[0], client.versions[-1], changes) == ("1.0.0", "2.0.0", 3)
    assert service.stop() == 0


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_service_cleanly(serve, processes, number):
    service = serve(APPLIANCE_HTTP_PROCESSES=processes)
    assert service.predict([1, 2])["prediction"] == [4.0]
    assert service.stop(number) == 0
    assert service.said("stopped")
    assert service.rest == []


def test_killed_process_is_started_again_while_the_other_answers(serve):
    service = serve(APPLIANCE_HTTP_PROCESSES="2")
    assert service.predict([1, 2])["prediction"] == [4.0]
    deadline = time.monotonic() + 30
    while len(workers := _children(service.process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(workers[0], signal.SIGKILL)
    service.said("process ended and is started again")
    while len(after := _children(service.process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert workers[0] not in after
    for _ in range(20):
        assert service.predict([1, 2])["prediction"] == [4.0]
    assert service.stop() == 0


def test_service_starts_and_serves_the_old_version_when_the_new_one_is_damaged_while_it_runs(state, serve):
    service = serve()
    assert service.get("/health/ready")[0] == 200
    done(state, "activate", "plant", "2.0.0")
    assert _until(lambda: service.predict([1, 2])["version"] == "2.0.0")
    done(state, "rollback", "plant")
    assert _until(lambda: service.predict([1, 2])["version"] == "1.0.0")
    (state / "models/plant/2.0.0/model.onnx").write_bytes(b"bad sector")
    refused = run(state, "activate", "plant", "2.0.0")
    assert refused.returncode == 3
    assert "model.onnx" in refused.stderr
    assert service.predict([1, 2])["version"] == "1.0.0"
    assert service.stop() == 0


def test_leftovers_of_a_power_cut_are_swept_at_the_start(state, serve):
    leftover = state / "models/plant/.3.0.0.partial-cut"
    leftover.mkdir()
    (leftover / "model.onnx").write_bytes(b"half")
    service = serve()
    assert service.predict([1, 2])["prediction"] == [4.0]
    assert not leftover.exists()
    assert service.stop() == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_open_port_without_tokens_is_refused_unless_said_outright(state, processes):
    environment = os.environ | {"APPLIANCE_HTTP_HOST": "0.0.0.0", "APPLIANCE_HTTP_PROCESSES": processes}
    command = [APPLIANCE, "serve", "--port", "0", "--state-dir", str(state)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.count("no token is needed") == 1
    assert 'auth = "none"' in ended.stderr


def test_taken_port_is_a_clear_error(serve, state):
    service = serve()
    ended = run(state, "serve", "--port", str(service.port))
    assert ended.returncode == 2
    assert "Address already in use" in ended.stderr
    assert "--port" in ended.stderr


def test_container_started_with_serve_alone_serves_the_bundle_that_was_put_beside_it(tmp_path, serve):
    models = tmp_path / "opt-ml-model"
    models.mkdir()
    write_bundle(models, "1.0.0")
    (models / "damaged.bundle").write_bytes(b"not a bundle")
    service = serve(tmp_path / "empty", APPLIANCE_STORE_PRELOAD_DIR=str(models))
    assert service.get("/ping")[0] == 200
    assert service.predict([1, 2])["prediction"] == [4.0]
    assert service.said("bundle cannot be preloaded")["bundle"] == "damaged.bundle"
    assert service.stop() == 0


def test_a_preloaded_version_that_was_rolled_back_stays_so_at_the_next_start(tmp_path, serve):
    models, state = tmp_path / "model", tmp_path / "empty"
    models.mkdir()
    for version in ("1.0.0", "2.0.0"):
        write_bundle(models, version)
        service = serve(state, APPLIANCE_STORE_PRELOAD_DIR=str(models))
        assert service.predict([1, 2])["version"] == version
        assert service.stop() == 0
    done(state, "rollback", "plant")
    service = serve(state, APPLIANCE_STORE_PRELOAD_DIR=str(models))
    assert service.predict([1, 2])["version"] == "1.0.0"
    assert service.stop() == 0


def test_request_lines_carry_the_callers_request_id_when_switched_on(serve):
    service = serve(APPLIANCE_LOG_REQUESTS="true")
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.port}/predict", b'{"features": [1, 2]}', {"X-Request-Id": "line-4-shift-2"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["X-Request-Id"] == "line-4-shift-2"
    line = service.said("request")
    assert (line["request_id"], line["path"], line["status"]) == ("line-4-shift-2", "/predict", 200)


def test_service_without_a_model_starts_and_says_that_it_is_not_ready(tmp_path, serve):
    service = serve(tmp_path / "empty")
    status, body = service.get("/health/ready")
    assert status == 503
    assert "appliance activate" in json.dumps(body)
    assert service.stop() == 0


def _until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return False


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found

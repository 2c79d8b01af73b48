"""No request costs a host its memory: what it would become is refused by its number, in the process and as a whole."""

import gzip
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance.budget import Budget
from tests.end_to_end.services import Service, done

MIB = 1024**2
PREDICT, V1, INFER = "/models/labels/predict", "/v1/models/labels:predict", "/v2/models/labels/infer"
SMALL = (PREDICT, b'{"features": [1, 2, 3, 4]}')
CSV = {"Content-Type": "text/csv"}
PACKED = {"Content-Encoding": "gzip"}


def keys(count: int) -> bytes:
    return b"{%s}" % b",".join(b'"%x":1' % index for index in range(count))


ATTACKS = {
    "one long key, packed": (PREDICT, lambda: gzip.compress(b'{"features": {"%s": 1}}' % (b"a" * (31 * MIB))), PACKED),
    "NaN": (PREDICT, lambda: b'{"features": [' + b"NaN, " * (28 * MIB // 5) + b"1]}", {}),
    "Infinity, packed": (V1, lambda: gzip.compress(b'{"instances": [' + b"-Infinity," * (3 * MIB) + b"1]}"), PACKED),
    "commas": ("/invocations", lambda: b"," * (32 * MIB - 1), CSV),
    "lines": ("/invocations", lambda: b"1\n" * (16 * MIB - 1), CSV),
    "empty objects": ("/invocations", lambda: b'{"dataframe_records": [' + b"{}," * (10 * MIB) + b"{}]}", {}),
    "empty lists": (PREDICT, lambda: b'{"features": [' + b"[]," * (10 * MIB) + b"[]]}", {}),
    "whole numbers": (V1, lambda: b'{"instances": [' + b"1," * (15 * MIB) + b"1]}", {}),
    "short texts": (V1, lambda: b'{"instances": [' + b'"ab",' * (6 * MIB) + b"1]}", {}),
    "many keys": (PREDICT, lambda: b'{"features": %s}' % keys(2_000_000), {}),
    "a name in another row": ("/invocations", lambda: b'{"inputs": %s}' % keys(2_000_000).replace(b":1", b":[1]"), {}),
    "wide text": (V1, lambda: ('{"instances": ["\U0001f600' + "a" * (31 * MIB) + '"]}').encode(), {}),
    "nested data": (INFER, lambda: b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": ['
                    + b"[1]," * (7 * MIB) + b"[1]]}]}", {}),
}  # fmt: skip


class Measured:
    """A service in a process of its own, and what memory it takes."""

    def __init__(self, state: Path, **settings: str) -> None:
        self.service = Service(state, **settings)
        self.port = self.service.port
        self.pid = self.service.process.pid
        self.ask(*SMALL)

    def ask(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("POST", path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def memory(self, key: str) -> int:
        """Return VmRSS or VmHWM in bytes."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

    def settle(self) -> None:
        """Wait until memory has not shrunk for half a second."""
        least, since = self.memory("VmRSS"), time.monotonic()
        while time.monotonic() - since < 0.5:
            time.sleep(0.05)
            if (now := self.memory("VmRSS")) < least:
                least, since = now, time.monotonic()

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="utf-8")


@pytest.fixture(scope="module")
def state(tmp_path_factory, bundle_bytes) -> Path:
    folder = tmp_path_factory.mktemp("budget")
    (folder / "labels.bundle").write_bytes(bundle_bytes("labels", kind="labels"))
    done(folder / "state", "install", str(folder / "labels.bundle"))
    done(folder / "state", "activate", "labels", "1.0.0")
    return folder / "state"


@pytest.fixture(scope="module")
def measured(state) -> Iterator[Measured]:
    running = Measured(state)
    yield running
    assert running.service.stop() == 0


@pytest.mark.parametrize("attack", ATTACKS)
def test_large_body_is_refused_within_the_budget_and_its_memory_goes_back(measured, attack):
    path, make, headers = ATTACKS[attack]
    body = make()
    measured.settle()  # what the last one freed goes back
    measured.forget_peak()
    idle, before = measured.memory("VmRSS"), time.monotonic()
    status, found = measured.ask(path, body, headers)
    assert status in (400, 413), found[:200]
    assert time.monotonic() - before < 20  # alone on a quiet machine below 1 s
    assert len(found) < 10_000
    assert measured.memory("VmHWM") - idle < 130 * MIB
    del body
    deadline = time.monotonic() + 10
    while measured.memory("VmRSS") - idle > 12 * MIB:
        assert time.monotonic() < deadline, measured.memory("VmRSS") - idle
        time.sleep(0.1)


PROBE = """if True:
    import http.client, sys, time
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
    worst = 0.0
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        began = time.perf_counter()
        connection.request("POST", "/models/labels/predict", b'{"features": [1, 2, 3, 4]}')
        assert connection.getresponse().read()
        worst = max(worst, time.perf_counter() - began)
        time.sleep(0.002)
    print(worst)
"""


def test_small_requests_are_answered_while_large_ones_are_decoded(measured):
    rows = 100_000
    body = b'{"features": [' + b"[1.5,2.5,3.5,4.5]," * (rows - 1) + b"[1,2,3,4]]}"
    probe = subprocess.Popen([sys.executable, "-c", PROBE, str(measured.port), "4"], stdout=subprocess.PIPE, text=True)
    answered = 0
    while probe.poll() is None:
        status, found = measured.ask(PREDICT, body)
        assert status == 200
        assert found.count(b"setosa") >= rows
        answered += 1
    assert answered
    load = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert float(probe.stdout.read()) < 0.1 * (1 + load)  # 100 ms where nobody else has the cores


@pytest.mark.parametrize("setting", ["0", str(16 * MIB)])
def test_many_large_requests_at_once_do_not_end_the_service(state, setting):
    limit = 3 * 1024 * MIB if setting == "0" else 1024 * MIB  # of addresses: threads and libraries take most of them
    running = Measured(state, APPLIANCE_HTTP_THREADS="8", APPLIANCE_HTTP_MAX_DECODED_BYTES=setting)
    try:
        subprocess.run(["prlimit", f"--pid={running.pid}", f"--as={limit}"], check=True)
        budget = int(setting) or 128 * MIB
        bodies = [b'{"features": [' + b"[1.5,2.5,3.5,4.5]," * count + b"[1,2,3,4]]}" for count in (99_000, 20_000)]
        bodies += [make() for name, (_, make, headers) in ATTACKS.items() if not headers and name != "many keys"]
        idle = running.memory("VmRSS")
        running.forget_peak()

        def ask(body: bytes) -> int:
            try:
                return running.ask(PREDICT, body)[0]
            except OSError:  # refused while it was being sent
                return 413

        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(ask, bodies * 2))
        assert set(statuses) <= {200, 400, 413, 503}
        assert running.memory("VmHWM") - idle < 1.75 * budget + 24 * MIB
        assert running.ask(*SMALL)[0] == 200
        assert running.memory("VmSize") < 700 * MIB  # all threads share a few heaps, each of 64 MiB of addresses
        assert running.service.process.poll() is None
    finally:
        assert running.service.stop() == 0


@pytest.fixture
def tight(make_api):
    """An api whose requests may take 8 MiB."""
    api = make_api("labels", "regression")
    api.context.budget.total = 8 * MIB
    return api


def test_answer_beyond_the_budget_is_refused_by_the_rows_before_the_model_runs(tight):
    rows = 60_000
    packed = gzip.compress(b'{"features": [' + b"[1,2,3,4]," * 10 + b"[1,2,3,4]]}")
    assert tight.post(PREDICT, packed, CONTENT_ENCODING="gzip").status == 200
    tensor = {"name": "features", "datatype": "FP32", "shape": [rows, 4], "parameters": {"binary_data_size": rows * 16}}
    header = json.dumps({"inputs": [tensor]}).encode()
    body = header + bytes(rows * 16)
    got = tight.post(INFER, body, INFERENCE_HEADER_CONTENT_LENGTH=str(len(header)))
    assert got.status == 413
    assert f"the answer to {rows} rows would take up to" in got.json["error"]
    assert "send fewer" in got.json["error"]
    assert tight.context.budget.used == 0


def test_answer_in_parts_is_the_answer_in_one_piece(make_api):
    api = make_api("labels", "table")
    rows = [[index % 7, 1, 2, index % 3] for index in range(20_000)]
    large = api.post(PREDICT, {"features": rows}).json
    small = api.post(PREDICT, {"features": rows[:50]}).json
    assert len(large["prediction"]) == len(large["probability"]) == 20_000
    assert large["prediction"][:50] == small["prediction"]
    for row, expected in zip(large["probability"], small["probability"], strict=False):
        assert row == pytest.approx(expected)
    assert api.post(V1, {"instances": rows}).json["predictions"] == large["prediction"]
    data = [value for row in rows for value in row]
    call = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [20_000, 4], "data": data}]}
    outputs = {output["name"]: output["data"] for output in api.post(INFER, call).json["outputs"]}
    assert outputs["prediction"] == large["prediction"]
    assert outputs["probability"][:3] == list(large["probability"][0].values())


def test_what_a_request_held_is_given_back_whatever_becomes_of_it(tight):
    budget = tight.context.budget
    bodies = [b"[" * 100_000, b'{"features": "%s"}' % (b"a" * 100_000), b'{"features": [%s1]}' % (b"1," * 50_000)]
    bodies.append(b'{"features": [%s[1,2,3,4]]}' % (b"[1,2,3,4]," * 10_000))
    for body in bodies:
        for path in (PREDICT, V1, INFER, "/invocations"):
            for headers in ({}, {"CONTENT_TYPE": "text/csv"}):
                assert tight.post(path, body, **headers).status in (200, 400, 413)
                assert budget.used == 0


def test_large_requests_take_turns_and_who_waits_too_long_is_told_when_to_come_again(tight, monkeypatch):
    monkeypatch.setattr("appliance.rest.http_types.WAIT_SECONDS", 0.3)
    budget: Budget = tight.context.budget
    body = b'{"features": [%s[1,2,3,4]]}' % (b"[1,2,3,4]," * 7_000)
    budget.claim("hold", 7 * MIB, "it")
    got = tight.post(PREDICT, body)
    assert (got.status, got.headers["Retry-After"]) == (503, "1")
    assert tight.post(PREDICT, b'{"features": [1, 2, 3, 4]}').status == 200
    threading.Timer(0.1, budget.release, (7 * MIB,)).start()
    assert tight.post(PREDICT, body).status == 200


def test_no_error_repeats_megabytes_or_compares_them(api):
    long = "\x00" * (2 * MIB)
    tensor = {"name": "features", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    for path, body in (
        ("/models/regression/predict", {"features": {long: 1}}),
        ("/models/table/predict", {"features": {"site": long, "temp-C": 1, "count": 1, "on": long}}),
        ("/v1/models/regression:predict", {"instances": [[long, 1, 2, 3]]}),
        ("/v1/models/regression:predict", {"instances": [[1, 2, 3, 4]], "parameters": {long: 1}}),
        ("/v2/models/regression/infer", {"inputs": [tensor | {"name": long, "shape": [4, 1]}]}),
        ("/v2/models/regression/infer", {"inputs": [tensor | {"datatype": long}]}),
        ("/v2/models/regression/infer", {"inputs": [tensor | {"shape": [10**4000] * 8}]}),
        ("/v2/models/regression/infer", {"inputs": [tensor], "outputs": [{"name": long}]}),
        ("/v2/models/regression/infer", {"inputs": [tensor | {"parameters": {"content_type": long}}]}),
        ("/v2/models/regression/infer", {"inputs": [tensor], "parameters": {"triton_" + long: 1}}),
        ("/v2/repository/models/regression/load", {"parameters": {long: "1"}}),
    ):
        began = time.thread_time()
        got = api.post(path, body)
        assert got.status in (400, 413, 501), (path, got.body[:200])
        assert len(got.body) < 20_000
        assert time.thread_time() - began < 2

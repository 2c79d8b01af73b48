"""A graph runs within bounds: what loops for ever or takes too much memory is refused, and holds nobody else up."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import appliance
from appliance import cli, pinned
from appliance.bundle import archive, examples
from appliance.config import ModelsConfig
from appliance.errors import NotReady, SelfTestFailed
from appliance.inference import trial
from appliance.inference.selftest import self_test
from appliance.store import activation, trials
from appliance.store.versions import Store
from appliance.trials import Trials
from tests.loops import adding

ROOT = Path(appliance.__file__).parents[1]
MIB = 1024**2
ROW = {"features": [1, 2, 3, 4]}


def endless() -> list[onnx.NodeProto]:
    """Return nodes that never end."""
    return [helper.make_node("Loop", ["", "true", "features"], ["looped"], body=adding("sum"))]


def huge() -> list[onnx.NodeProto]:
    """Return nodes that make 1 GiB of ones."""
    one = numpy_helper.from_array(np.ones(1, np.float32))
    return [
        helper.make_node("ConstantOfShape", ["many"], ["ones"], value=one),
        helper.make_node("ReduceMax", ["ones"], ["looped"], keepdims=0),
    ]


def crash() -> list[onnx.NodeProto]:
    """Return nodes that make more than any memory holds."""
    one = numpy_helper.from_array(np.ones(1, np.float32))
    return [
        helper.make_node("ConstantOfShape", ["most"], ["ones"], value=one),
        helper.make_node("ReduceMax", ["ones"], ["looped"], keepdims=0),
    ]


def hostile(bundle_bytes: Callable[..., bytes], nodes: list[onnx.NodeProto], version: str) -> bytes:
    """Return a bundle like any other, whose graph has more `nodes`."""
    bundle = archive.read(bundle_bytes(version=version))
    model = onnx.load_model_from_string(bundle.members[archive.MODEL])
    del model.graph.node[:]
    constants = {
        "true": np.array(True),
        "many": np.array([256 * MIB], np.int64),
        "most": np.array([2**50], np.int64),
        "axis1": np.array([1], np.int64),
        "none": np.array(0, np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    model.graph.node.extend(nodes)
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["looped"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "none"], ["nothing"]),
            helper.make_node("ReduceSum", ["features", "axis1"], ["total"], keepdims=0),
            helper.make_node("Add", ["total", "nothing"], ["prediction"]),
        ]
    )
    inputs, _ = examples.read(bundle.members[archive.EXAMPLES])
    rows = examples.write(inputs, [inputs[0].sum(axis=1)])
    return archive.write(bundle.manifest, model.SerializeToString(), b"{}", rows)


GRAPHS = {"endless": endless, "huge": huge, "beyond": crash}


class Host:
    """A state folder in which a sound version serves and hostile ones are installed."""

    def __init__(self, folder: Path, bundle_bytes: Callable[..., bytes]) -> None:
        self.folder = folder
        self.store = Store(folder / "state")
        self.install(bundle_bytes(version="1.0.0"))
        activation.activate(self.store, "iris", "1.0.0", self_test)
        for number, name in enumerate(GRAPHS):
            self.install(hostile(bundle_bytes, GRAPHS[name](), f"{number + 2}.0.0"))

    def install(self, content: bytes) -> None:
        path = self.folder / "sent.bundle"
        path.write_bytes(content)
        self.store.install(path)

    def environment(self, **settings: object) -> dict[str, str]:
        given = {"STATE_DIR": self.folder / "state", "STORE_PRELOAD_DIR": self.folder / "none", **settings}
        own = {f"APPLIANCE_{name}": str(value) for name, value in given.items()}
        return {**os.environ, "PYTHONPATH": str(ROOT), **own}

    def start(self, *arguments: str, **settings: object) -> "subprocess.Popen[str]":
        # A shell's background jobs, as these tests may be, inherit that SIGINT is ignored.
        code = "import signal; signal.signal(2, signal.default_int_handler); from appliance.cli import main; main()"
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.Popen(command, env=self.environment(**settings), stderr=subprocess.PIPE, text=True)


@pytest.fixture
def host(tmp_path, bundle_bytes) -> Host:
    return Host(tmp_path, bundle_bytes)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that have not ended."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def runs(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@pytest.mark.parametrize(
    ("version", "limit", "seconds"),
    [("2.0.0", "self_test_seconds", 2), ("3.0.0", "max_memory_bytes", 30), ("4.0.0", "max_memory_bytes", 30)],
)
def test_activate_refuses_what_does_not_keep_within_its_limits(host, version, limit, seconds):
    process = host.start("activate", "iris", version, MODELS_SELF_TEST_SECONDS=seconds)
    told = process.communicate(timeout=100)[1]
    assert (process.returncode, limit in told) == (3, True), told
    assert activation.read(host.store, "iris").active == "1.0.0"
    assert host.store.receipts()[-1].outcome == "refused"


def test_memory_of_a_trial_never_grows_beyond_its_limit(host):
    limits = trial.TrialLimits(60, 128 * MIB)
    peaks = [0]
    failed = []

    def try_it() -> None:
        with pytest.raises(SelfTestFailed, match="max_memory_bytes") as caught:
            trial.run(host.store.folder("iris", "3.0.0"), limits)
        failed.append(caught.value)

    thread = threading.Thread(target=try_it)
    thread.start()
    while thread.is_alive():
        for child in children(os.getpid()):
            with suppress(OSError, IndexError):
                peaks.append(int(Path(f"/proc/{child}/statm").read_text().split()[1]) * 4096)
        time.sleep(0.005)
    assert failed
    assert max(peaks) < 256 * MIB


def test_store_is_free_for_others_while_a_version_is_tried(host, bundle_bytes, until):
    process = host.start("activate", "iris", "2.0.0", MODELS_SELF_TEST_SECONDS=60)
    try:
        until(lambda: children(process.pid), "a trial")
        begun = time.monotonic()
        host.install(bundle_bytes(version="5.0.0"))
        activation.activate(host.store, "iris", "5.0.0", self_test)
        assert time.monotonic() - begun < 20
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_trial_ends_with_the_command_that_started_it(host, until, number):
    process = host.start("activate", "iris", "2.0.0", MODELS_SELF_TEST_SECONDS=60)
    try:
        (child,) = until(lambda: attempts(process.pid), "a trial")
        process.send_signal(number)
        process.communicate(timeout=30)
        until(lambda: not runs(child), "ended")
    finally:
        process.kill()


def test_trial_inherits_no_socket_and_no_file(host, until):
    with closing(http.client.socket.create_server(("127.0.0.1", 0))):
        thread = threading.Thread(target=lambda: _refused(host, trial.TrialLimits(3)))
        thread.start()
        (child,) = until(lambda: attempts(os.getpid()), "a trial")
        held = {int(entry.name): str(entry.readlink()) for entry in Path(f"/proc/{child}/fd").iterdir()}
        thread.join()
    assert held[1].startswith("pipe:")
    assert not any(target.startswith("socket:") for target in held.values())


def attempts(pid: int) -> list[int]:
    """Return the trials that a process has started and that run by now."""
    found = []
    for child in children(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            if "trial_process" in Path(f"/proc/{child}/cmdline").read_text():
                found.append(child)
    return found


def _refused(host: Host, limits: trial.TrialLimits) -> None:
    with pytest.raises(SelfTestFailed):
        trial.run(host.store.folder("iris", "2.0.0"), limits)


def test_trial_ends_when_the_service_ends(host):
    stopping = threading.Event()
    threading.Timer(1.0, stopping.set).start()
    with pytest.raises(NotReady, match="the service ends"):
        trial.run(host.store.folder("iris", "2.0.0"), trial.TrialLimits(60), stopping=stopping)


def test_trial_of_a_frozen_program_is_its_own_hidden_command(host):
    assert cli.TRIAL == trial.WORD
    folder = str(host.store.folder("iris", "1.0.0"))
    asked = {"file": folder, "within": None, "seconds": 30, "memory_bytes": 512 * MIB, "parent": os.getpid()}
    command = [sys.executable, "-c", "from appliance.cli import main; main()", trial.WORD, json.dumps(asked)]
    done = subprocess.run(command, env=host.environment(), capture_output=True, timeout=60)
    answer = msgspec.json.decode(done.stdout, type=trial.TrialResult)
    assert answer.passed
    assert answer.passed.rows == 5


def test_trial_by_a_copy_of_the_process_says_the_same(host):
    """Where this program's files are closed to its user, root's command is copied instead of started again."""
    code = (
        "import os, sys; from pathlib import Path; from appliance.inference import trial\n"
        "os.access = lambda *_: False\n"
        "print(trial.run(Path(sys.argv[1]), trial.TrialLimits(60)).rows)\n"
        "try: trial.run(Path(sys.argv[2]), trial.TrialLimits(3))\n"
        "except trial.SelfTestFailed as error: print(error.found)"
    )
    folders = [str(host.store.folder("iris", version)) for version in ("1.0.0", "2.0.0")]
    done = subprocess.run(
        [sys.executable, "-c", code, *folders], env=host.environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["5", "load and self-test take more than 3 seconds ([models] self_test_seconds)"]


def test_what_passed_is_not_tried_again_unless_something_changed(host, monkeypatch):
    tried: list[Path] = []

    def run(file: Path, *rest: Any) -> Any:
        tried.append(file)
        return self_test(file)

    monkeypatch.setattr(trial, "run", run)
    asked = Trials(host.store, ModelsConfig())
    digest = host.store.installed("iris", "1.0.0").digest
    asked.ensure("iris", "1.0.0", digest)
    assert tried == []  # the activation tested it
    record = host.store.models_dir / "iris" / trials.FILE
    known = trials.read(record.parent)["1.0.0"]
    for change in ({"digest": "0" * 64}, {"processor": "another"}, {"onnxruntime": "1.0"}, {"memory_bytes": 2**60}):
        record.write_bytes(msgspec.json.encode({"1.0.0": msgspec.structs.replace(known, **change)}))
        asked.ensure("iris", "1.0.0", digest)
        asked.ensure("iris", "1.0.0", digest)
        assert len(tried) == 1
        tried.clear()
    record.write_bytes(b"{ half a record")
    asked.ensure("iris", "1.0.0", digest)
    assert len(tried) == 1


def test_trial_keeps_its_limits_where_a_process_may_set_none(host, monkeypatch):
    """systemd's SystemCallFilter answers EPERM: then the parent's clock and its look at the memory bound it."""
    code = (
        "import os, resource\n"
        "def denied(*_): raise PermissionError(1, 'Operation not permitted')\n"
        "os.nice = resource.setrlimit = denied\n"
        "from appliance.inference import trial_process\n"
        "trial_process.main()"
    )
    monkeypatch.setattr(trial, "_command", lambda: [sys.executable, "-c", code])
    assert trial.run(host.store.folder("iris", "1.0.0"), trial.TrialLimits(60)).rows == 5
    for version, setting in (("2.0.0", "self_test_seconds"), ("3.0.0", "max_memory_bytes")):
        with pytest.raises(SelfTestFailed, match=setting):
            trial.run(host.store.folder("iris", version), trial.TrialLimits(8, 64 * MIB))


def test_limit_follows_the_size_of_the_model_and_the_host():
    assert trial.default_memory(1000, 16 * 1024 * MIB) == 512 * MIB
    assert trial.default_memory(500 * MIB, 16 * 1024 * MIB) == 4000 * MIB
    assert trial.default_memory(500 * MIB, 1024 * MIB) == 512 * MIB
    assert trial.default_memory(1000, 128 * MIB) == 64 * MIB


class Service:
    """A service over a host, as a process of its own."""

    def __init__(self, host: Host, **settings: object) -> None:
        self.process = host.start("serve", "--port", "0", **settings)
        self.lines: list[str] = []
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line)
            if "listening" in line:
                break
        self.port = int(json.loads(self.lines[-1])["url"].rpartition(":")[2])
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())


@pytest.fixture
def serve(host) -> Iterator[Callable[..., Service]]:
    running: list[Service] = []

    def start(**settings: object) -> Service:
        running.append(Service(host, **settings))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.wait()


def test_start_tries_nothing_that_passed_and_follows_nothing_that_does_not(host, serve, until):
    service = serve(MODELS_SELF_TEST_SECONDS=4)
    assert service.ask("POST", "/predict", ROW)[1]["version"] == "1.0.0"
    assert children(service.process.pid) == []
    activation.activate(host.store, "iris", "2.0.0", lambda folder: msgspec.defstruct("Figures", [])())
    until(lambda: "self_test_seconds" in service.ask("GET", "/models/iris")[1]["problem"], "refused", 60)
    assert service.ask("POST", "/predict", ROW)[1]["version"] == "1.0.0"


def test_endless_activation_over_http_takes_no_thread_for_long_and_ends_with_the_service(host, serve, until):
    service = serve(MODELS_SELF_TEST_SECONDS=300)
    answers: list[int] = []
    path = "/models/iris/versions/2.0.0/activate"
    askers = [threading.Thread(target=lambda: answers.append(service.ask("POST", path)[0])) for _ in range(2)]
    for thread in askers:
        thread.start()
    (child,) = until(lambda: children(service.process.pid), "a trial")
    assert service.ask("POST", "/predict", ROW)[0] == 200
    for thread in askers:
        thread.join(60)
    assert answers == [503, 503]
    assert service.ask("GET", "/health/ready")[0] == 200
    assert children(service.process.pid) == [child]
    service.process.terminate()
    assert service.process.wait(30) == 0
    until(lambda: not runs(child), "ended")


def test_request_that_names_a_hostile_version_starts_nothing_unbounded(host, serve):
    service = serve(MODELS_SELF_TEST_SECONDS=3)
    for version in ("2.0.0", "3.0.0"):
        path = f"/models/iris/versions/{version}/predict"
        status, answer = service.ask("POST", path, ROW)
        assert status == 409, answer
        begun = time.monotonic()
        assert service.ask("POST", path, ROW)[0] == 409
        assert time.monotonic() - begun < 3  # it is known; nothing is tried again
    assert service.ask("POST", "/predict", ROW)[1]["version"] == "1.0.0"


def test_versions_named_in_turn_are_kept_or_refused_but_not_loaded_anew(host, serve, bundle_bytes):
    for version in ("5.0.0", "6.0.0", "7.0.0"):
        host.install(bundle_bytes(version=version))
    service = serve()
    for turn in range(4):
        begun = time.monotonic()
        for version, status in (("5.0.0", 200), ("6.0.0", 200), ("7.0.0", 503)):
            answered, answer = service.ask("POST", f"/models/iris/versions/{version}/predict", ROW)
            assert answered == status, answer
        if turn:
            assert children(service.process.pid) == []
            assert time.monotonic() - begun < 10
    assert f"{pinned.IDLE_SECONDS:g} seconds" in answer["next"]

"""What `make run` shows a newcomer: the main job, both listeners, and an end that leaves nothing running."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import free_port

EXAMPLE = Path(__file__).parents[2] / "examples/iris"
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")} | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("iris")


class Run:
    """One run of the example; `said` is all that it has printed so far."""

    def __init__(self, work: Path, number: int, *options: str) -> None:
        self.log = work / f"printed-{number}"
        command = [sys.executable, EXAMPLE / "run.py", work, *options]
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(command, stdout=sink, stderr=sink, env=ENVIRONMENT)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def ports(self) -> list[int]:
        """Return the ports of its two listeners: HTTP, and the broker's."""
        broker = re.search(r"^port = (\d+)$", self.said, re.MULTILINE)
        http = re.search(r"appliance serve .*--port (\d+)", self.said)
        return [int(found[1]) for found in (http, broker) if found]


@pytest.fixture
def run(work):
    runs = []

    def start(*options: str) -> Run:
        runs.append(Run(work, len(runs), *options))
        return runs[-1]

    yield start
    for one in runs:
        one.process.send_signal(signal.SIGTERM)
        one.process.wait(30)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(("broker", "number"), [("mosquitto", signal.SIGINT), ("amqtt", signal.SIGTERM)])
def test_both_listeners_answer_and_nothing_is_left_running(run, until, broker, number):
    one = run("--broker", broker, "--port", str(free_port()))
    until(lambda: "Serving until" in one.said or one.process.poll() is not None, "served", 90)
    assert f"the broker is {broker}" in one.said
    assert '{"prediction":["virginica"]' in one.said.partition("$ curl")[2].partition("messages of sensors")[0]
    answers = re.findall(r'-> bed/(\w+)/species \{"prediction":\["(\w+)"\].*"sensor":"(\w+)-1"\}', one.said)
    assert answers == [("north", "setosa", "north"), ("east", "versicolor", "east"), ("south", "virginica", "south")]
    assert all(map(is_open, one.ports()))
    one.process.send_signal(number)
    assert one.process.wait(30) == 0
    assert one.said.endswith("stopped\n")
    assert len(one.ports()) == 2
    assert not any(map(is_open, one.ports()))


def test_a_port_that_is_taken_is_said_before_anything_begins(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        one = run("--port", str(taken.getsockname()[1]))
        assert one.process.wait(60) != 0
    assert "is taken" in one.said
    assert "$" not in one.said


def test_a_service_that_ends_takes_the_broker_with_it(run, until):
    one = run("--port", str(free_port()))
    until(lambda: "Serving until" in one.said, "served", 90)
    _, broker = one.ports()
    (service,) = [
        child for child in children(one.process.pid) if b"serve" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    os.kill(service, signal.SIGKILL)
    assert one.process.wait(30) != 0
    assert "the service ended with exit code" in one.said
    assert not is_open(broker)


def test_an_interrupt_before_anything_serves_ends_without_a_traceback(run, until):
    one = run("--port", str(free_port()))
    until(lambda: "$ appliance install" in one.said, "began", 60)
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(30) in (0, 130)
    assert "Traceback" not in one.said

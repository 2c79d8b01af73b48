"""For tests of every folder: a real mosquitto on a free port, which forgets nothing; what is made once a run; waits."""

import contextlib
import fcntl
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

# Hypothesis judges answers here, never their time, which a busy machine decides.
hypothesis_settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("untimed")

_RANDOM = random.SystemRandom()  # processes that were seeded alike do not ask for the same ports
IRIS_COMMANDS = (
    "python examples/iris/train.py .",
    "appliance convert model.joblib --name iris --version 1.0.0 --sample sample.csv --target species",
)
"""What the bundle of the iris example is made by, as the pages show it; a test of a page need not run them again."""
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody has.

    It is below the range from which Linux takes the ports of outgoing connections (32768 and up): one of those could
    take it before the program does, or while a broker is stopped that is started again.
    """
    while True:
        port = _RANDOM.randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(true: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Return what `true` gives once it is truthy."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.02)
    pytest.fail(f"never {what}")


class Broker:
    """A mosquitto that forgets nothing when it is stopped, and says after keep_all() what it may forget when killed."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.host, self.port = "127.0.0.1", free_port()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "mosquitto.conf"
        self.process: subprocess.Popen[bytes] | None = None
        self._saving: list[str] = []
        # In memory: it outlives the broker, and a save after every change is quick.
        self._saved = tempfile.mkdtemp(prefix="mosquitto-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.configure(*lines)
        self.start()

    def configure(self, *lines: str) -> None:
        """Write the configuration: our own, and more lines."""
        saved = ["persistence true", f"persistence_location {self._saved}/"]
        rest = ["user root", "max_queued_messages 1000000", "max_inflight_messages 100"]
        own = [f"listener {self.port} {self.host}", "allow_anonymous true"]
        self._config.write_text("\n".join([*saved, *rest, *self._saving, *own, *lines]) + "\n")

    def keep_all(self) -> None:
        """Save after every few changes, and restart so; each save takes as long as some hundred messages.

        It acknowledges before it saves: see unsaved().
        """
        self._saving = ["autosave_interval 20", "autosave_on_changes true", "log_type all"]
        self.configure()
        self.stop()
        self.start()

    def start(self, *within: str) -> None:
        """Start it; `within` goes before the command, as to enter a network namespace."""
        log = (self.folder / "log").open("ab")
        self._begun = log.tell()
        self.process = subprocess.Popen([*within, MOSQUITTO, "-c", str(self._config)], stdout=log, stderr=log)
        wait_for(self._answers, f"a broker on {self.port}: {(self.folder / 'log').read_text()}")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
            return True
        return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(20)

    def unsaved(self, client_id: str) -> set[int]:
        """Return the packet identifiers of a client's messages that the killed broker cannot be shown to have saved.

        By its own log since it was started: it has one thread, so what it wrote before a line that follows a save is in
        the file. A save that is the last line may not have ended.
        """
        lines = (self.folder / "log").read_bytes()[self._begun :].decode().splitlines()
        assert not any("Error" in line for line in lines)
        saves = [place for place, line in enumerate(lines) if "Saving in-memory database" in line]
        ended = [place for place in saves if place < len(lines) - 1]
        received = re.compile(rf"Received PUBLISH from {re.escape(client_id)} \(d\d, q1, r\d, m(\d+),")
        since = lines[ended[-1] :] if ended else lines
        return {int(found[1]) for line in since if (found := received.search(line))}

    def remove(self) -> None:
        """Kill it and delete what it saved."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self._saved, ignore_errors=True)


@pytest.fixture(scope="session")
def once_a_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that makes a folder once a run, whichever worker asks first: once_a_run(name, make) -> folder.

    make(folder) fills the empty folder; the others wait for it. If it raises, the next to ask tries again. All tests of
    a run have the same folder, so none may change it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name: str, make: Callable[[Path], object]) -> Path:
        folder, whole = shared / f"once-{name}", shared / f"once-{name}.whole"
        with (shared / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def iris_bundle(once_a_run: Callable[..., Path]) -> Path:
    """Return the bundle of the iris example; beside it are model.joblib and sample.csv."""

    def make(folder: Path) -> None:
        (folder / "examples").symlink_to(Path(__file__).parents[1] / "examples")
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        for command in IRIS_COMMANDS:
            subprocess.run(shlex.split(command), cwd=folder, env=environment, check=True, capture_output=True)

    return once_a_run("iris-example", make) / "iris-1.0.0.bundle"


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Return a function that starts a broker: start_broker("name", "line of its configuration", ...)."""
    brokers: list[Broker] = []

    def start(name: str, *lines: str) -> Broker:
        brokers.append(Broker(tmp_path / name, *lines))
        return brokers[-1]

    yield start
    for one in brokers:
        one.remove()


@pytest.fixture
def broker(start_broker: Callable[..., Broker]) -> Broker:
    return start_broker("broker")


@pytest.fixture
def until() -> Callable[..., Any]:
    """Return wait_for, see there."""
    return wait_for

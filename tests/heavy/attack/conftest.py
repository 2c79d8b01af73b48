"""A service with little memory, two models and a broker beside it; figures of each case, shown at the end."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confined import Confined, confined

APPLIANCE = Path(sys.executable).parent / "appliance"
FIGURES: list[tuple[str, str, float, float]] = []
TRAIN = """
import joblib, numpy as np, pandas as pd, sys
from sklearn.linear_model import LogisticRegression
rng = np.random.default_rng(0)
rows = pd.DataFrame(rng.normal(size=(1000, 4)), columns=list("abcd"))
classes = int(sys.argv[1])
joblib.dump(LogisticRegression(max_iter=20).fit(rows, np.arange(1000) % classes), "m.joblib")
rows.to_csv("s.csv", index=False)
"""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what each case took."""
    for name, answer, seconds, mib in FIGURES:
        terminalreporter.write_line(f"{name:60} {answer:>12} {seconds:7.2f} s {mib:+8.1f} MiB")


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function that takes down a case's answer, seconds and MiB."""
    return lambda answer, seconds, mib: FIGURES.append((request.node.name, str(answer), seconds, mib))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with `small` (3 classes) and `wide` (50 classes) active, both of four columns."""
    state = tmp_path_factory.mktemp("state")
    for name, classes in (("small", 3), ("wide", 50)):
        folder = tmp_path_factory.mktemp(name)
        subprocess.run([sys.executable, "-c", TRAIN, str(classes)], cwd=folder, check=True)
        words = ["convert", "m.joblib", "--name", name, "--version", "1.0.0", "--sample", "s.csv"]
        for command in (words, ["install", f"{name}-1.0.0.bundle"], ["activate", name, "1.0.0"]):
            environment = os.environ | {"APPLIANCE_STATE_DIR": str(state)}
            subprocess.run([APPLIANCE, *command], cwd=folder, check=True, capture_output=True, env=environment)
    return state


@dataclass
class Attacked:
    """A service under attack."""

    port: int
    running: Confined
    model: str = "small"
    """One that is active, of four columns."""
    most_mib: float = 0.0
    """What one request may take beside what is there when nobody asks."""

    def ask(self, path: str, body: bytes = b"", timeout: float = 60.0, **headers: str) -> tuple[int, bytes]:
        """Return the status and the body of an answer; underscores in the names of headers are hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("POST" if body else "GET", path, body or None, named)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def predicts(self) -> bool:
        """Return whether a plain request is answered, and rightly so."""
        status, body = self.ask(f"/models/{self.model}/predict", b'{"features": [0.1, 0.2, 0.3, 0.4]}')
        return status == 200 and len(json.loads(body)["prediction"]) == 1

    def alive(self) -> bool:
        """Return whether the first process still runs, nothing was killed for memory, and a request is answered."""
        return self.running.process.poll() is None and not self.running.killed_for_memory() and self.predicts()


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Return a function that gives a free port of loopback."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def serve(models: Path, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a context manager that starts a service: serve(kind="cgroup", mib=128, toml="...")."""

    @contextlib.contextmanager
    def start(*, toml: str = "", state: Path = models, model: str = "small", **limits: Any) -> Iterator[Attacked]:
        folder = tmp_path_factory.mktemp("service")
        port = free_port()
        (folder / "appliance.toml").write_text(f'[http]\nport = {port}\n[models]\ndefault = "{model}"\n{toml}')
        command = [APPLIANCE, "serve", "--config", folder / "appliance.toml", "--state-dir", state]
        with confined(command, folder / "log", **limits) as running:
            attacked = Attacked(port, running, model)
            for _ in range(600):
                with contextlib.suppress(OSError):
                    if attacked.predicts():
                        break
                assert running.process.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
            yield attacked

    return start

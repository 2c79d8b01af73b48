"""The binary reaches nothing but the broker that it was given: not one packet, not one name that is looked up.

Run by `make binary-test` and `make kit-test`, as root.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from namespace import (
    APPLIANCE,
    MINUTES,
    Space,
    build_fast_clock,
    fast_clock,
    hold,
    idle_for_an_hour,
    live,
    made_space,
    run,
    wait_for,
)

PROGRAM = Path(os.environ["BINARY"]).resolve() / "appliance" / "appliance"
SWITCHES = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")
# What onnxruntime does of its own accord where nobody switches it off.
BARE = f"import onnxruntime, time\nend = time.time() + {MINUTES} * 60\nwhile time.time() < end: time.sleep(1)"

Service = Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]


@pytest.fixture
def space(tmp_path) -> Iterator[Space]:
    with made_space(f"leaves{os.getpid()}", tmp_path) as made:
        yield made


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """Variables of a user who has nothing but a configuration: no switch for telemetry is among them."""
    (tmp_path / "home").mkdir()
    (tmp_path / "appliance.toml").write_text(APPLIANCE)
    own = {"HOME": str(tmp_path / "home"), "APPLIANCE_CONFIG": str(tmp_path / "appliance.toml")}
    return {"PATH": os.environ["PATH"], "APPLIANCE_STATE_DIR": str(tmp_path / "state"), **own}


@pytest.fixture
def appliance(space, environment) -> Callable[..., str]:
    """Return a function that runs the command inside."""

    def call(*words: str) -> str:
        line = ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), str(PROGRAM), *words]
        return run(*space.inside(*line))

    return call


@pytest.fixture
def service(space, environment, appliance, bundles, tmp_path) -> Service:
    """Return a context manager that serves iris 1.0.0 inside, under strace, and ends it by SIGTERM."""
    appliance("install", str(bundles / "iris-1.0.0.bundle"))
    appliance("activate", "iris", "1.0.0")

    @contextmanager
    def serve(**more: str) -> Iterator[subprocess.Popen[bytes]]:
        # strace hands the variables on by -E, so that it does not live by the fast clock itself.
        given = [word for name, value in more.items() for word in ("-E", f"{name}={value}")]
        line = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=%network", "-o", str(tmp_path / "trace"), *given]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(space.inside(*line, str(PROGRAM), "serve"), env=environment, stderr=log)
        try:
            yield process
        finally:
            subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=False)
            assert process.wait(60) == 0, (tmp_path / "log").read_text()

    return serve


def waiting(home: Path) -> list[Path]:
    """Return what onnxruntime keeps in a user's home until it is sent, and whatever else lies there."""
    return [path for path in home.rglob("*") if path.is_file()]


def test_binary_reaches_its_broker_alone_in_all_that_it_does(service, space, appliance, bundles, tmp_path):
    with service():
        live(space, appliance, str(bundles))
    hold(space, tmp_path / "trace")
    assert waiting(tmp_path / "home") == []


def test_binary_reaches_its_broker_alone_in_an_hour(service, space, appliance, bundles, tmp_path):
    with service(**fast_clock(build_fast_clock(tmp_path))):
        wait_for(lambda: space.status_messages() > 0, "connected")
        idle_for_an_hour(space)
        assert space.predict(200) == "1.0.0 virginica"
        assert space.predict_over_mqtt("late")["version"] == "1.0.0"
    hold(space, tmp_path / "trace")
    assert waiting(tmp_path / "home") == []


def test_library_that_is_not_switched_off_is_caught(space, environment, tmp_path):
    """What the tests above rest on: onnxruntime's own telemetry would be counted, and on the fast clock soon."""
    assert not set(SWITCHES) & set(environment)
    quick = environment | fast_clock(build_fast_clock(tmp_path))
    line = ["env", "-i", *(f"{name}={value}" for name, value in quick.items()), sys.executable, "-c", BARE]
    run(*space.inside(*line))
    assert space.counts().lookup > 0
    assert waiting(tmp_path / "home") != []


def test_address_that_nobody_configured_is_caught(space):
    asks = "import socket; socket.create_connection(('192.0.2.7', 443), 0.5)"
    subprocess.run(space.inside(sys.executable, "-c", asks), capture_output=True, check=False, timeout=60)
    assert space.counts().other > 0

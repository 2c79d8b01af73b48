"""What systemd is told, on a socket such as it gives to a service, and by a service that it would start."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from appliance import systemd
from tests.conftest import free_port


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """The end of NOTIFY_SOCKET that a service manager reads."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_says_nothing_where_no_manager_listens(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert systemd.notify(systemd.ALIVE) is False


def test_state_reaches_the_manager(manager):
    assert systemd.notify(systemd.ALIVE)
    assert manager.recv(100) == b"READY=1\nWATCHDOG=1"


def test_state_reaches_a_socket_in_the_abstract_namespace(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0appliance-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@appliance-test-{os.getpid()}")
        assert systemd.notify(systemd.STOPPING)
        assert listening.recv(100) == b"STOPPING=1"


def test_manager_that_is_gone_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert systemd.notify(systemd.ALIVE) is False


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [
        ("30000000", "ours", 30.0),
        ("30000000", "our parent's", 30.0),
        ("500000", "", 0.5),
        ("30000000", "4194304", None),
        ("0", "", None),
        ("soon", "", None),
        ("", "", None),
    ],
)
def test_watchdog_counts_when_it_watches_this_process(monkeypatch, microseconds, pid, seconds):
    pid = {"ours": str(os.getpid()), "our parent's": str(os.getppid())}.get(pid, pid)
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    assert systemd.watchdog_seconds() == seconds


def test_signs_of_life_end_when_something_is_wrong_and_return_with_it(monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "3000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    stop, told, wrong = threading.Event(), threading.Semaphore(0), threading.Event()
    asked = threading.Semaphore(0)

    def alive() -> str:
        asked.release()
        return "self-test failed" if wrong.is_set() else ""

    systemd.watch(alive, told.release, stop)
    assert told.acquire(timeout=30)
    wrong.set()
    for _ in range(3):  # the one that may be under way, and two that see it
        assert asked.acquire(timeout=30)
    while told.acquire(blocking=False):
        pass
    while asked.acquire(blocking=False):
        pass
    assert asked.acquire(timeout=30)
    assert not told.acquire(blocking=False)
    wrong.clear()
    assert told.acquire(timeout=30)
    stop.set()


def states(manager: socket.socket, wanted: bytes, times: int = 1) -> None:
    """Return once `wanted` came `times` times."""
    while times:
        times -= wanted in manager.recv(100)


@pytest.mark.parametrize("processes", [1, 2])
def test_service_is_announced_kept_alive_by_its_self_test_and_taken_leave_of(manager, make_bundle, tmp_path, processes):
    state = tmp_path / "state"
    cli = [str(Path(sys.executable).parent / "appliance")]
    # Watched is the process itself: systemd would write the service's own number into WATCHDOG_PID.
    environment = {key: value for key, value in os.environ.items() if key != "WATCHDOG_PID"} | {
        "APPLIANCE_STATE_DIR": str(state),
        "APPLIANCE_HTTP_PORT": str(free_port()),
        "APPLIANCE_HTTP_PROCESSES": str(processes),
        "WATCHDOG_USEC": "300000",
    }
    bundle = make_bundle(tmp_path)
    subprocess.run([*cli, "install", bundle], env=environment, check=True, capture_output=True)
    subprocess.run([*cli, "activate", "iris", "1.0.0"], env=environment, check=True, capture_output=True)
    service = subprocess.Popen([*cli, "serve"], env=environment, stderr=subprocess.DEVNULL)
    try:
        states(manager, b"READY=1")
        answer = _ask(int(environment["APPLIANCE_HTTP_PORT"]))
        states(manager, b"WATCHDOG=1", times=2)
        service.send_signal(signal.SIGTERM)
        states(manager, b"STOPPING=1")
        code = service.wait(timeout=60)
    finally:
        service.kill()
    assert answer["ready"] is True
    assert code == 0


def _ask(port: int) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/health/ready")
    return json.loads(connection.getresponse().read())

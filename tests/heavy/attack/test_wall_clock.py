"""The wall clock is set by an hour while the service runs: no time-out of HTTP is longer or shorter for it."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.services import Service, done, write_bundle

HEAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 22\r\n\r\n"
BODY = b'{"features": [[1, 2]]}'


@pytest.fixture
def clock(tmp_path: Path) -> Callable[[int], object]:
    """Return a function that says by how many seconds the wall clock of the service is off."""
    file = tmp_path / "off"
    file.write_text("0")

    def off(seconds: int) -> None:
        new = file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(file)

    return off


@pytest.fixture
def service(tmp_path: Path, clock: object):
    library = tmp_path / "wall_clock.so"
    source = Path(__file__).with_name("wall_clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    state = tmp_path / "state"
    done(state, "install", str(write_bundle(tmp_path, "1.0.0")))
    done(state, "activate", "plant", "1.0.0")
    service = Service(
        state,
        LD_PRELOAD=str(library),
        WALL_CLOCK=str(tmp_path / "off"),
        APPLIANCE_HTTP_REQUEST_TIMEOUT="3",
        APPLIANCE_HTTP_IDLE_TIMEOUT="4",
        APPLIANCE_HTTP_DRAIN_TIMEOUT="3",
    )
    assert service.predict([1, 2])["prediction"] == [4.0]
    yield service
    if service.process.poll() is None:
        service.process.kill()
        service.process.wait(20)


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=30)


@pytest.mark.parametrize("off", [-3600, 3600])
def test_trickled_request_ends_with_408_after_its_time(service, clock, off):
    with connect(service) as client:
        client.sendall(HEAD[:10])
        begun = time.monotonic()
        clock(off)
        client.setblocking(False)
        got = b""
        for place in range(10, len(HEAD)):
            client.sendall(HEAD[place : place + 1])
            time.sleep(0.2)
            with contextlib.suppress(BlockingIOError):
                got = client.recv(4096)
                break
    assert got.split()[1] == b"408"
    assert 2.5 < time.monotonic() - begun < 6


@pytest.mark.parametrize("off", [-3600, 3600])
def test_request_in_flight_and_silent_connection_outlive_the_change(service, clock, off):
    with connect(service) as client, connect(service) as silent:
        client.sendall(HEAD + BODY[:5])
        silent.sendall(HEAD + BODY)
        assert silent.recv(4096).startswith(b"HTTP/1.1 200")
        clock(off)
        time.sleep(1.5)  # the service looks at its connections meanwhile
        client.sendall(BODY[5:])
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        silent.sendall(HEAD + BODY)
        assert silent.recv(4096).startswith(b"HTTP/1.1 200")
        begun = time.monotonic()
        assert silent.recv(1) == b""  # idle_timeout, by the clock that nobody sets
        assert 3 < time.monotonic() - begun < 7


def test_service_ends_in_its_time(service, clock):
    with connect(service) as half:
        half.sendall(HEAD)
        begun = time.monotonic()
        service.process.terminate()
        clock(-3600)
        assert service.process.wait(20) == 0
        assert time.monotonic() - begun < 8

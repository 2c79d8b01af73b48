"""What signals do: SIGTERM answers whatever was sent whole, SIGHUP reads the tokens again, others end nothing."""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.end_to_end.services import Service

BODY = b'{"features": [[1, 2], [10, 20]]}'
REQUEST = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
TOKENS = ("0123456789abcdef-old", "0123456789abcdef-new")


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=30)


def answers(client: socket.socket, count: int = 1) -> list[bytes]:
    """Return the heads of `count` answers."""
    got, heads = b"", []
    while len(heads) < count:
        head, end, rest = got.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0) if end else 0
        if end and len(rest) >= length:
            heads.append(head)
            got = rest[length:]
            continue
        data = client.recv(65536)
        assert data, "closed without an answer"
        got += data
    assert not got
    return heads


def pids(service: Service) -> list[int]:
    """Return the service's processes, the first one being the one that was started."""
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    return [service.process.pid, *map(int, children)]


def all_up(service: Service, processes: str) -> None:
    """Wait until every process serves."""
    deadline = time.monotonic() + 60
    while sum(line["message"] == "listening" for line in service.log) < int(processes):
        assert time.monotonic() < deadline, service.log
        time.sleep(0.02)


def halted(service: Service, act: Callable[[], None]) -> None:
    """Do something while no process of the service runs, so that all of it is in the kernel's buffers afterwards.

    The first process goes on first: the others do once the signal that it passes on waits for them.
    """
    first, *others = running = pids(service)
    for pid in running:
        os.kill(pid, signal.SIGSTOP)
    act()
    os.kill(first, signal.SIGCONT)
    deadline = time.monotonic() + 30
    while not all(waits(pid, signal.SIGTERM) for pid in others):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for pid in others:
        os.kill(pid, signal.SIGCONT)


def waits(pid: int, number: int) -> bool:
    """Return whether a signal waits for a process that is stopped."""
    pending = Path(f"/proc/{pid}/status").read_text().partition("ShdPnd:")[2].split()[0]
    return bool(int(pending, 16) & 1 << (number - 1))


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_every_request_that_was_sent_whole_is_answered_before_the_service_ends(serve, processes, number):
    service = serve(APPLIANCE_HTTP_PROCESSES=processes)
    all_up(service, processes)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(service)) for _ in range(120)]
        for client in clients:
            client.sendall(REQUEST)
            answers(client)
        fresh: list[socket.socket] = []

        def send() -> None:
            for client in clients:
                client.sendall(REQUEST * 3)
            for _ in range(120):  # these wait in the listener's queue
                fresh.append(stack.enter_context(connect(service)))
                fresh[-1].sendall(REQUEST)
            os.kill(service.process.pid, number)

        halted(service, send)
        for count, group in ((3, clients), (1, fresh)):
            for client in group:
                heads = answers(client, count)
                assert [head.split()[1] for head in heads] == [b"200"] * count
                assert b"Connection: close" in heads[-1]
                assert client.recv(1) == b""
    assert service.process.wait(20) == 0
    assert service.rest == []


@pytest.mark.parametrize("processes", ["1", "2"])
def test_clients_that_ask_without_a_pause_meet_no_reset(serve, processes, until):
    service = serve(APPLIANCE_HTTP_PROCESSES=processes)
    all_up(service, processes)
    asked, failures, refused = [], [], threading.Event()

    def ask() -> None:
        while not refused.is_set():
            try:
                client = connect(service)
            except ConnectionRefusedError:
                refused.set()
                return
            with client:
                while True:
                    try:
                        client.sendall(REQUEST)
                        head = answers(client)[0]
                    except (OSError, AssertionError) as error:
                        failures.append(error)
                        return
                    asked.append(head)
                    if b"Connection: close" in head:
                        break

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(asked) >= 800 or failures, "asked")
    service.process.terminate()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert {head.split()[1] for head in asked} == {b"200"}
    assert service.process.wait(20) == 0


def test_silent_connections_and_half_requests_do_not_hold_the_end_up(serve):
    service = serve(APPLIANCE_HTTP_DRAIN_TIMEOUT="3")
    with connect(service) as silent, connect(service) as half, connect(service) as late:
        half.sendall(REQUEST[:-5])
        late.sendall(REQUEST)
        answers(late)
        begun = time.monotonic()
        service.process.terminate()
        time.sleep(0.2)
        late.sendall(REQUEST)  # within the moment for which silent connections stay open
        assert b"200" in answers(late)[0]
        half.sendall(REQUEST[-5:])
        assert b"200" in answers(half)[0]
        assert silent.recv(1) == b""
        assert service.process.wait(20) == 0
        assert time.monotonic() - begun < 15


@pytest.mark.parametrize("processes", ["1", "2"])
def test_hangup_reads_the_tokens_again_in_every_process_and_ends_none(serve, tmp_path, processes):
    file = tmp_path / "tokens"
    file.write_text(f"predict {TOKENS[0]}\n")
    file.chmod(0o600)
    service = serve(APPLIANCE_HTTP_PROCESSES=processes, APPLIANCE_HTTP_TOKENS_FILE=str(file))
    all_up(service, processes)
    before = pids(service)
    status = file.stat()
    replaced = file.read_text().replace(*TOKENS)
    file.write_text(replaced)  # its size and date tell nothing
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.kill(service.process.pid, signal.SIGHUP)
    deadline = time.monotonic() + 30
    while sum(line["message"] == "tokens read again" for line in service.log) < int(processes):
        assert time.monotonic() < deadline, service.log
        time.sleep(0.02)
    for token, status in zip(TOKENS, (b"401", b"200"), strict=True):
        for _ in range(6):
            with connect(service) as client:
                client.sendall(REQUEST.replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {token}\r\n\r\n".encode(), 1))
                assert answers(client)[0].split()[1] == status
    assert pids(service) == before
    assert service.stop() == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_other_signals_end_nothing(serve, processes):
    service = serve(APPLIANCE_HTTP_PROCESSES=processes)
    all_up(service, processes)
    before = pids(service)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
        for pid in before:
            for _ in range(20):
                os.kill(pid, number)
    for _ in range(10):
        assert service.predict([1, 2])["prediction"] == [4.0]
    assert pids(service) == before
    assert service.stop() == 0


def test_hangups_while_it_starts_do_not_end_it(serve):
    service = serve(APPLIANCE_HTTP_PROCESSES="2")
    ignoring = Path(f"/proc/{service.process.pid}/status")
    deadline = time.monotonic() + 30
    while not int(ignoring.read_text().partition("SigIgn:")[2].split()[0], 16) & 1 << (signal.SIGHUP - 1):
        assert time.monotonic() < deadline  # python itself has to start first
    while not any(line["message"] == "listening" for line in service.log):
        for pid in pids(service):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)
        time.sleep(0.01)
        assert service.process.poll() is None
    assert service.predict([1, 2])["prediction"] == [4.0]
    assert service.stop() == 0


def test_many_requests_to_stop_at_once_are_one(serve):
    service = serve(APPLIANCE_HTTP_PROCESSES="2")
    all_up(service, "2")
    running = pids(service)
    for _ in range(50):
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    assert service.process.wait(20) == 0
    assert json.dumps(service.rest) == "[]"


def test_units_of_the_service_reload_it_by_a_hangup():
    root = Path(__file__).parents[2]
    unit = (root / "packaging/systemd/appliance.service").read_text().splitlines()
    assert unit.count("ExecReload=/bin/kill -HUP $MAINPID") == 1
    container = (root / "ansible/roles/appliance/templates/appliance.service.j2").read_text()
    assert "kill --signal=HUP appliance" in container


@pytest.mark.parametrize("processes", ["1", "2"])
def test_requests_that_wait_at_the_port_of_a_starting_service_are_answered_before_it_ends(serve, processes):
    port = free_port()
    service = serve(APPLIANCE_HTTP_PROCESSES=processes, at=str(port))
    deadline = time.monotonic() + 60
    while True:
        try:
            client = socket.create_connection(("127.0.0.1", port), timeout=30)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    with client:
        client.sendall(REQUEST)  # first: an idle connection is closed, and this process may have to wait for its turn
        service.process.terminate()
        assert answers(client)[0].split()[1] == b"200"
    assert service.process.wait(30) == 0

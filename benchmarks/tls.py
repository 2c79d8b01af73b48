"""The cost of TLS on the port, compared with a plain port in one run: `python -m benchmarks.tls [--requests N]`.

Processor time of the service for a request on a connection that stays open and for one on a new connection, and how
long the former takes while another client does nothing but connect: handshakes run in the loop, so they are in its way.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import ssl
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.contenders import COMMAND
from benchmarks.prepare import prepare
from benchmarks.processes import Server, free_port

Connect = Callable[[int], http.client.HTTPConnection]
HEAD = "POST /models/iris/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def main() -> None:
    """Measure both and print the figures and their ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tls", description=__doc__)
    parser.add_argument("--requests", type=int, default=4000, help="of each measurement (default 4000)")
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory(prefix="bench-tls-") as name:
        folder = Path(name)
        state_dir = prepare(folder).state_dir
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        options = ["-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"]
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        made = ["openssl", "req", *options, *names, "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(made, check=True, capture_output=True)
        context = ssl.create_default_context(cafile=str(certificate))
        files = {"APPLIANCE_HTTP_CERTIFICATE": str(certificate), "APPLIANCE_HTTP_KEY": str(key)}
        with _service(state_dir, {}, folder) as plain, _service(state_dir, files, folder) as secure:
            one = _measured(plain, lambda port: http.client.HTTPConnection("localhost", port), requests)
            other = _measured(
                secure, lambda port: http.client.HTTPSConnection("localhost", port, context=context), requests
            )
    print(f"{'':<52}{'plain':>9}{'TLS':>9}{'ratio':>8}")
    for what in one:
        print(f"{what:<52}{one[what]:>9.3f}{other[what]:>9.3f}{other[what] / one[what]:>8.2f}")


@contextlib.contextmanager
def _service(state_dir: Path, environment: dict[str, str], folder: Path) -> Iterator[Server]:
    """Start a service, with TLS where the environment says so; it is ready when `status --ready` says so."""
    port = free_port()
    command = [str(COMMAND), "serve", "--port", str(port), "--state-dir", str(state_dir)]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment(environment))
    try:
        until = time.monotonic() + 60
        url = f"{'https' if environment else 'http'}://localhost:{port}"
        trusted = environment | {"SSL_CERT_FILE": environment.get("APPLIANCE_HTTP_CERTIFICATE", "")}
        ready = [str(COMMAND), "status", "--ready", "--url", url]
        while subprocess.run(ready, env=_environment(trusted), capture_output=True).returncode:
            if time.monotonic() > until or process.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            time.sleep(0.2)
        yield Server("appliance", port, process)
    finally:
        process.terminate()
        process.wait(30)


def _environment(more: dict[str, str]) -> dict[str, str]:
    """Return the environment of a command."""
    return {**os.environ, **{name: value for name, value in more.items() if value}}


def _measured(server: Server, connect: Connect, requests: int) -> dict[str, float]:
    """Return the figures of one service."""
    rows = [[random.uniform(0, 8) for _ in range(4)] for _ in range(997)]
    bodies = [json.dumps({"features": [row]}).encode() for row in rows]
    kept = connect(server.port)
    _ask(kept, bodies[0])
    open_ = _cpu(server, lambda place: _ask(kept, bodies[place % 997]), requests)

    def new_connection(place: int) -> None:
        with contextlib.closing(connect(server.port)) as connection:
            _ask(connection, bodies[place % 997])

    new = _cpu(server, new_connection, max(1, requests // 8))
    stop = threading.Event()
    others = threading.Thread(target=lambda: [new_connection(0) for _ in iter(stop.is_set, True)])
    others.start()
    times = sorted(_seconds(kept, bodies[place % 997]) for place in range(requests))
    stop.set()
    others.join()
    return {
        "processor time of a request, connection open, ms": 1000 * open_,
        "processor time of a request, new connection, ms": 1000 * new,
        "seconds beside a client that connects, median, ms": 1000 * statistics.median(times),
        "seconds beside a client that connects, 99 %, ms": 1000 * times[int(0.99 * len(times))],
    }


def _cpu(server: Server, ask: Callable[[int], object], times: int) -> float:
    """Return the processor time of the service for one call of `ask`, in seconds."""
    before = server.cpu_seconds()
    for place in range(times):
        ask(place)
    return (server.cpu_seconds() - before) / times


def _seconds(connection: http.client.HTTPConnection, body: bytes) -> float:
    """Return how long one request takes."""
    begun = time.perf_counter()
    _ask(connection, body)
    return time.perf_counter() - begun


def _ask(connection: http.client.HTTPConnection, body: bytes) -> None:
    """Send one request in one piece, as most clients do, and read its answer."""
    if connection.sock is None:
        connection.connect()
    head = f"{HEAD}Content-Length: {len(body)}\r\n\r\n"
    connection.sock.sendall(head.encode() + body)
    with http.client.HTTPResponse(connection.sock, method="POST") as answer:
        answer.begin()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(content.decode())


if __name__ == "__main__":
    main()

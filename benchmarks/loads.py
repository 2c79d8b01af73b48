"""Loads an HTTP service with wrk and says how fast it answered."""

import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SCRIPT, _ROWS_SCRIPT = (Path(__file__).with_name(name) for name in ("post.lua", "post_rows.lua"))


@dataclass(frozen=True)
class Request:
    """A POST: path with its leading slash, body and headers as sent."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclass(frozen=True)
class Load:
    """What one load, or the median of several, measured. Latencies are None where there was no request to time."""

    per_second: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_us: float | None = None
    """CPU time of the service for each request, microseconds."""
    failures: int = 0
    """Answers of status 400 and above, broken connections and time-outs."""
    other_load: float = 0.0
    """Share of all cores that other programs used meanwhile."""


def load(port: int, request: Request, connections: int, seconds: int, *, bodies: Sequence[bytes] | None = None) -> Load:
    """Send `request` to 127.0.0.1:`port` over `connections` kept-alive connections for `seconds`.

    With `bodies`, none of which has a line break, each request has the next one of them.

    wrk runs one thread: it is far from its limit here, and a second one would take a core from the service.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed; on Debian: apt-get install wrk")
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\n".join(bodies) if bodies else request.body)
        body.flush()
        url = f"http://127.0.0.1:{port}{request.path}"
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s"]
        command += [str(_ROWS_SCRIPT if bodies else _SCRIPT), url, "--"]
        command += [body.name, *(f"{name}: {value}" for name, value in request.headers.items())]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return _read(output)


def median(loads: Sequence[Load]) -> Load:
    """Return the median of each figure; failures are added up, and the worst disturbance stands for all."""

    def middle(name: str) -> float | None:
        values = [value for value in (getattr(load, name) for load in loads) if value is not None]
        return statistics.median(values) if values else None

    failures, other_load = sum(load.failures for load in loads), max(load.other_load for load in loads)
    speed = middle("per_second") or 0.0
    return Load(speed, middle("p50_ms"), middle("p99_ms"), middle("cpu_us"), failures, other_load)


def _read(output: str) -> Load:
    """Return the figures of post.lua's one line of JSON."""
    found = json.loads(output.strip().splitlines()[-1])
    failures = sum(found[kind] for kind in ("status", "connect", "read", "write", "timeout"))
    seconds = found["duration_us"] / 1e6
    # wrk counts refused requests as answered; what was refused was not served.
    served = max(0, found["requests"] - found["status"])
    return Load(served / seconds, found["p50_us"] / 1e3, found["p99_us"] / 1e3, failures=failures)

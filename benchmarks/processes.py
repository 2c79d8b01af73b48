"""Starts the processes under measurement, waits for their first answer, and reads what they cost from /proc."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loads import Request

_STOP_SECONDS = 10.0


class DidNotStart(SystemExit):
    """A service that ended or kept silent instead of answering; ends the run with its log unless caught."""


@dataclass(frozen=True)
class Server:
    """A started service: the process that was started (its children belong to it) and the port it answers on."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    def pss_mib(self) -> float:
        """Return the proportional set size of the process tree, in MiB (proc(5), smaps_rollup)."""
        return pss_mib(self.process.pid)

    def cpu_seconds(self) -> float:
        """Return the user and system time that the process tree has used, in seconds (proc(5), stat)."""
        return cpu_seconds(descendants(self.process.pid))


@contextlib.contextmanager
def started(
    name: str,
    command: Sequence[str],
    port: int,
    probe: Request,
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = 60.0,
) -> Iterator[Server]:
    """Start `command`, yield once `probe` was answered with 200, stop the whole process group at the end.

    What the service writes goes to `log`. Raises DidNotStart with the log's end when it does not answer in `seconds`.
    """
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=sink, env={**os.environ, **(env or {})}, cwd=cwd, start_new_session=True
        )
    try:
        wait_until(lambda: answers(port, probe), process, seconds, log)
        yield Server(name, port, process)
    finally:
        _stop(process)


def run(*command: object) -> None:
    """Run a command; stop everything, in its own words, when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float, log: Path) -> None:
    """Return when `ready()`; raise DidNotStart with the log's end when `process` ends or `seconds` pass before."""
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise DidNotStart(
                f"{' '.join(map(str, process.args))}\ndid not answer (exit code {process.poll()}):\n{tail}"
            )
        time.sleep(0.002)


def answers(port: int, request: Request) -> bool:
    """Return whether `request` is answered with 200."""
    try:
        return ask(port, request)[0] == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def ask(port: int, request: Request, method: str = "POST") -> tuple[int, bytes]:
    """Return the status and body that `request` is answered with."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, request.path, request.body, dict(request.headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """Return `pid` and every process below it."""
    found = [pid]
    for each in found:  # grows while it is walked
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


def pss_mib(pid: int) -> float:
    """Return the proportional share of memory of `pid` and every process below it, in MiB."""
    return sum(_kib(each, "Pss") for each in descendants(pid)) / 1024


def own_mib(pid: int) -> float:
    """Return the memory that `pid` and every process below it share with nobody else's files, in MiB.

    Unlike the proportional share it does not change when others who use the same libraries come and go.
    """
    return sum(_kib(each, "Pss_Anon") for each in descendants(pid)) / 1024


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the user and system time that processes have used so far, in seconds."""
    return sum(_cpu_ticks(pid) for pid in pids) / os.sysconf("SC_CLK_TCK")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process politely, then whatever of its group is left."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"{process.args} ignored SIGTERM for {_STOP_SECONDS:g} s", file=sys.stderr)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _kib(pid: int, name: str) -> int:
    """Return one line of a process' sums of memory, 0 if it just ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0


def _cpu_ticks(pid: int) -> int:
    """Return utime + stime of one process, 0 if it just ended."""
    with contextlib.suppress(OSError):
        # The command's name, in brackets, may hold spaces: count the fields after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    return 0

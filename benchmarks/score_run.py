"""Runs a program that scores a file to its end, and measures what its tree of processes took."""

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

_PAUSE = 0.02  # seconds between two looks at memory
_LEFT = 30.0  # seconds for what a program left behind to end
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_TICKS = os.sysconf("SC_CLK_TCK")


class Figures(msgspec.Struct):
    """What one program took for a file."""

    name: str
    rows: int
    wall: float
    cpu: float
    """Seconds of processor time, start and end of the program included."""
    pss_mib: float
    first_row: float | None = None
    """Seconds from the program's start to its first rows on disk."""
    first_row_cpu: float | None = None
    """Seconds of processor time until then: what the start takes, however busy the machine is."""

    @property
    def per_row(self) -> float:
        """Microseconds of processor time."""
        return 1e6 * self.cpu / self.rows


def run(
    name: str,
    command: list[str],
    rows: int,
    environment: dict[str, str] | None = None,
    begun: Callable[[], bool] = lambda: False,
    folder: Path | None = None,
) -> Figures:
    """Run a program to its end and return what it took. Raises SystemExit where it fails.

    Processes that it leaves behind, as Ray's are, count too: they become children of this one (PR_SET_CHILD_SUBREAPER).
    """
    print(f"  {name} ...", file=sys.stderr, flush=True)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    start, first, first_cpu, pss = time.perf_counter(), None, None, 0.0
    before = os.times()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **(environment or {})}, cwd=folder
        )
        while process.poll() is None:
            if first is None and begun():
                first, first_cpu = time.perf_counter() - start, _cpu_of_tree(process.pid)
            pss = max(pss, _pss_mib(process.pid))
            time.sleep(_PAUSE)
        wall = time.perf_counter() - start
        log.seek(0)
        if process.returncode:
            raise SystemExit(f"{name}: exit code {process.returncode}\n{log.read().decode(errors='replace')[-2000:]}")
    _wait_for_the_rest()
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"    {cpu:.1f} s of processor time, {wall:.1f} s, {pss:.0f} MiB", file=sys.stderr, flush=True)
    return Figures(name, rows, wall, cpu, pss, first, first_cpu)


def _wait_for_the_rest() -> None:
    """Wait for processes that a program left to us; their time is counted once they are waited for."""
    deadline = time.monotonic() + _LEFT
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(_PAUSE)


def _tree(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        yield current
        with suppress(OSError):
            for task in Path(f"/proc/{current}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())


def _cpu_of_tree(pid: int) -> float:
    """Return the seconds of processor time of a process and all below it, ended ones too."""
    total = 0
    for current in _tree(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{current}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))  # proc_pid_stat(5): utime, stime, cutime, cstime
    return total / _TICKS


def _pss_mib(pid: int) -> float:
    """Return the proportional set size of a process and all below it."""
    total = 0
    for current in _tree(pid):
        with suppress(OSError, StopIteration):
            rollup = Path(f"/proc/{current}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024

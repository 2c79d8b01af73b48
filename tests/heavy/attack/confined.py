"""Runs a command with a limit of memory, by cgroup (v1 or v2) or by RLIMIT_DATA, and says what it took.

The cgroup is made below this process's own and removed at the end. Needs root, or a cgroup that was delegated.
"""

import contextlib
import os
import re
import resource
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path("/sys/fs/cgroup")
Confinement = Literal["cgroup", "rlimit", "none"]


@dataclass
class Confined:
    """A running command; figures are of its whole tree of processes."""

    process: subprocess.Popen[bytes]
    group: Path | None
    log: Path
    highest: dict[int, float] = field(default_factory=dict)

    def peak_mib(self) -> float:
        """Return the sum of the largest resident sizes that its living processes ever had (proc(5), VmHWM), in MiB."""
        for pid in _tree(self.process.pid):
            with contextlib.suppress(OSError):
                found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
                self.highest[pid] = int(found[1]) / 1024 if found else 0.0
        return sum(self.highest.values())

    def begin_peak(self) -> float:
        """Forget the peaks so far (proc(5), clear_refs); return what is resident now, in MiB."""
        for pid in _tree(self.process.pid):
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")
        self.highest.clear()
        return self.peak_mib()

    def killed_for_memory(self) -> int:
        """Return how many of its processes the kernel has killed for the limit."""
        if self.group is None:
            return 0
        events = self.group / ("memory.events" if (self.group / "memory.events").exists() else "memory.oom_control")
        found = re.search(r"^oom_kill (\d+)", events.read_text(), re.MULTILINE)
        return int(found[1]) if found else 0


@contextlib.contextmanager
def confined(
    command: Sequence[Any], log: Path, *, kind: Confinement, mib: int = 128, environment: dict[str, str] | None = None
) -> Iterator[Confined]:
    """Start `command` with at most `mib` MiB and end it with all its processes; what it writes goes to `log`."""
    group = _new_group(mib * 2**20) if kind == "cgroup" else None
    enter = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group)] if group else []

    def limit() -> None:
        if kind == "rlimit":
            resource.setrlimit(resource.RLIMIT_DATA, (mib * 2**20, mib * 2**20))

    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*enter, *map(str, command)],
            stdout=sink,
            stderr=sink,
            env=os.environ | (environment or {}),
            preexec_fn=limit,
            start_new_session=True,
        )
    try:
        yield Confined(process, group, log)
    finally:
        for pid in _tree(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        process.wait(20)
        if group:
            _remove(group)


def _new_group(limit: int) -> Path:
    """Return a new cgroup below our own that may have `limit` bytes of memory."""
    paths = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    v1 = ROOT / "memory"
    above = v1 / paths["memory"].lstrip("/") if "memory" in paths else ROOT / paths[""].lstrip("/")
    group = above / f"attack-{secrets.token_hex(4)}"
    group.mkdir()
    (group / ("memory.limit_in_bytes" if "memory" in paths else "memory.max")).write_text(str(limit))
    return group


def _remove(group: Path) -> None:
    """Remove a cgroup once its last process is gone."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)
    raise AssertionError(f"{group} still has processes")


def _tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    return found

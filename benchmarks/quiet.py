"""The load of other programs during a measurement: figures from a busy machine do not count."""

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.processes import cpu_seconds, descendants

LIMIT = 0.10
"""Share of all cores; a measurement with more load of other programs is repeated."""
_PAUSE_SECONDS = 2.0

Result = TypeVar("Result")


def measured_in_quiet(measure: Callable[[], Result], attempts: int) -> tuple[Result, float]:
    """Return the result of `measure` at its least disturbed attempt, and the other programs' share of all cores.

    The first attempt below LIMIT ends it; others follow after a pause, up to `attempts` in all.
    """
    best: tuple[Result, float] | None = None
    for attempt in range(attempts):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        start, before = time.monotonic(), _other_seconds()
        result = measure()
        share = (_other_seconds() - before) / (time.monotonic() - start) / (os.cpu_count() or 1)
        if best is None or share < best[1]:
            best = result, max(0.0, share)
        if share < LIMIT:
            break
    assert best is not None
    return best


def _other_seconds() -> float:
    """Return the CPU seconds since boot that were not used by this process, its descendants and its past children.

    Time stolen by the hypervisor counts; interrupts do not, for the traffic on the loopback interface is ours.
    """
    user, nice, system, _idle, _wait, _irq, _softirq, steal = (
        int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    past = resource.getrusage(resource.RUSAGE_CHILDREN)
    ours = cpu_seconds(descendants(os.getpid())) + past.ru_utime + past.ru_stime
    return (user + nice + system + steal) / os.sysconf("SC_CLK_TCK") - ours

"""The process in which a version is tried: limits itself, loads, tests, says what it found, ends. See trial."""

import contextlib
import ctypes
import json
import math
import os
import re
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from appliance.errors import ApplianceError
from appliance.inference import trial
from appliance.inference.figures import SelfTest

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_NICENESS = 5  # what serves goes first
_NO_MEMORY = re.compile(r"bad_alloc|alloc|memory", re.IGNORECASE)  # in what onnxruntime says


def main() -> int:
    """Try the version that the last argument names; write one line of JSON (trial.TrialResult) to standard output."""
    asked = json.loads(sys.argv[-1])
    _limit_process(asked)
    try:
        answer = trial.TrialResult(passed=_tried(asked))
    except ApplianceError as error:
        answer = trial.TrialResult(refused=(type(error).__name__, *_parts(error, asked)))
    except MemoryError:
        over = trial.over_memory(f"self-test of {asked['file']}", asked["memory_bytes"])
        answer = trial.TrialResult(refused=(type(over).__name__, over.tried, over.found, over.next_step))
    os.write(1, msgspec.json.encode(answer))
    os._exit(0)  # the graph's threads and buffers need no goodbye


def _limit_process(asked: dict[str, Any]) -> None:
    """Give up what a graph has no use for; end with the parent."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != asked["parent"]:  # it ended before that call
        os._exit(1)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(OSError):  # a confined service may not (SystemCallFilter=~@resources)
        os.nice(_NICENESS)
    seconds = math.ceil(asked["seconds"]) + 1
    _limit(resource.RLIMIT_CPU, seconds, seconds + 1)
    _limit(resource.RLIMIT_CORE, 0, 0)
    _limit(resource.RLIMIT_FSIZE, 0, 0)


def _limit(what: int, soft: int, hard: int) -> None:
    """Set a limit of this process; where that is not allowed, the parent's clock and its look at the memory remain."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(what, (soft, hard))


def _tried(asked: dict[str, Any]) -> SelfTest:
    """Load and test the version within its memory limit."""
    from appliance.bundle import archive
    from appliance.inference import selftest

    _limit_memory(asked["memory_bytes"])
    before = _status("VmRSS")
    file = Path(asked["file"])
    if file.is_dir():
        within = Path(asked["within"]) if asked["within"] else None
        bundle = archive.read_folder(file, within=within, most_bytes=sys.maxsize)
    else:
        with os.fdopen(0, "rb", closefd=False) as given:
            bundle = archive.read(given.read())
    figures = selftest.try_bundle(bundle)
    return msgspec.structs.replace(figures, memory_bytes=max(0, _status("VmHWM") - before))


def _limit_memory(count: int) -> None:
    """Let this process have `count` bytes more than it has, and count its peak from here."""
    most = _status("VmData") + count
    _limit(resource.RLIMIT_DATA, most, most)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what there is now


def _parts(error: ApplianceError, asked: dict[str, Any]) -> tuple[str, str, str]:
    """Return an error's three parts; one that comes of the memory limit names it."""
    if _NO_MEMORY.search(error.found):
        error = trial.over_memory(error.tried, asked["memory_bytes"])
    return error.tried, error.found, error.next_step


def _status(key: str) -> int:
    """Return a number of bytes of /proc/self/status."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - nothing is built for it
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith(f"{key}:")), 0)


if __name__ == "__main__":
    sys.exit(main())

"""The service's start time, memory and idle CPU."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.contenders import appliance
from benchmarks.loads import Request, load

IMPORTS = "import numpy, onnxruntime, flask, waitress, msgspec, prometheus_client"
_IDLE_SECONDS = 10.0
_SETTLE_SECONDS = 2.0


def first_prediction(state_dir: Path, request: Request, repeats: int = 5) -> dict[str, float]:
    """Return {`service`, `imports`}: median seconds from a process' start to its first answer, and of the bare imports.

    The two alternate. One unmeasured turn goes before, so that bytecode is compiled and files are in memory.
    """
    service, imports = [], []
    for turn in range(repeats + 1):
        start = time.perf_counter()
        with appliance(state_dir, 1, request):
            answered = time.perf_counter() - start
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        imported = time.perf_counter() - start
        if turn:
            service.append(answered)
            imports.append(imported)
    return {"service": statistics.median(service), "imports": statistics.median(imports)}


def memory_and_idle(state_dir: Path, processes: int, request: Request, seconds: int) -> dict[str, float]:
    """Return {`pss_mib`, `idle_cpu`} of a fresh service after a load: MiB of the tree, and the share of one core."""
    with appliance(state_dir, processes, request) as server:
        load(server.port, request, connections=8, seconds=seconds)
        pss = server.pss_mib()
        time.sleep(_SETTLE_SECONDS)
        before = server.cpu_seconds()
        time.sleep(_IDLE_SECONDS)
        return {"pss_mib": pss, "idle_cpu": (server.cpu_seconds() - before) / _IDLE_SECONDS}

"""The ceiling of the work, reference (b): how fast bare `session.run` answers in a number of processes at once."""

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.loads import Load
from benchmarks.workloads import Workload


def floor(model: Path, workload: Workload, seconds: float, *, processes: int, with_json: bool = False) -> Load:
    """Return the runs a second of `processes` independent loops over the ONNX file `model`, started at the same moment.

    With `with_json` each run also decodes the request's body and encodes the answer: what JSON costs at the least.
    """
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "body"
        body.write_bytes(workload.batch().body)
        command = [sys.executable, "-m", "benchmarks.references", "floor", str(model), str(body), str(seconds)]
        command += ["--json"] if with_json else []
        loops = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        for loop in loops:
            if not loop.stdout.readline():  # "ready"
                raise SystemExit(f"the floor of {workload.name} did not start: {' '.join(command)}")
        for loop in loops:
            loop.stdin.write("go\n")
            loop.stdin.flush()
        return Load(sum(float(loop.communicate()[0]) for loop in loops))

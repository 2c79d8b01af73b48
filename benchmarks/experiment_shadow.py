"""The cost of a shadow for callers: speed, p99, CPU and memory with and without it, in one run.

`python -m benchmarks.experiment_shadow --help`
"""

import argparse
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from appliance.experiments import report
from appliance.inference.selftest import self_test
from appliance.store import experiments
from appliance.store.experiments import Wish
from appliance.store.routing_record import Arm
from appliance.store.versions import Store
from benchmarks import contenders
from benchmarks.loads import Load, Request, load
from benchmarks.prepare import Prepared, install_again, prepare
from benchmarks.processes import Server, ask, own_mib
from benchmarks.workloads import Workload, workloads

NEXT = "1.1.0"
ROWS = 997
"""Different rows of a load, sent in turn."""
MOST_P99 = 1.05
MOST_MIB = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiment_shadow", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each load; the median ratio counts (default 5)")
    parser.add_argument("--seconds", type=int, default=5, help="of each load (default 5)")
    parser.add_argument("--connections", type=int, default=8, help="of each load (default 8)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-shadow-") as name:
        prepared = prepare(Path(name))
        shadowed = _shadowed(prepared)
        everything = workloads(prepared.models)[:2]
        probe = everything[0].predict()
        with contextlib.ExitStack() as running:
            plain, other = (
                running.enter_context(contenders.appliance(folder, 1, probe))
                for folder in (prepared.state_dir, shadowed)
            )
            for workload in everything:
                _compare(workload, prepared, shadowed, (plain, other), options)
            _memory(plain, other, everything)


def _shadowed(prepared: Prepared) -> Path:
    """Return a copy of the state folder in which each model is shadowed by another version of itself."""
    install_again(prepared, NEXT)
    shadowed = prepared.state_dir.with_name("shadowed")
    shutil.copytree(prepared.state_dir, shadowed)
    for name in prepared.onnx:
        experiments.begin(Store(shadowed), name, Wish("shadow", shadow=Arm(NEXT, 1.0)), self_test)
    return shadowed


def _compare(
    workload: Workload, prepared: Prepared, shadowed: Path, servers: tuple[Server, Server], options: argparse.Namespace
) -> None:
    """Print one workload's figures; both services are loaded in turn, so that a disturbance meets them alike."""
    request, bodies = workload.predict(), _bodies(workload, prepared)
    found: dict[str, list[Load]] = {"none": [], "shadow": []}
    cpu = {"none": 0.0, "shadow": 0.0}
    for _ in range(options.rounds):
        for name, server in zip(found, servers, strict=True):
            before = server.cpu_seconds()
            found[name].append(load(server.port, request, options.connections, options.seconds, bodies=bodies))
            cpu[name] += server.cpu_seconds() - before
    print(f"{workload.name}: {workload.title}, {options.connections} connections, one process, {len(bodies)} rows")
    for name, loads in found.items():
        speed, p99 = (statistics.median(getattr(one, what) or 0 for one in loads) for what in ("per_second", "p99_ms"))
        failed = sum(one.failures for one in loads)
        print(f"  {name:<8} {speed:8.0f}/s  p99 {p99:6.2f} ms  {failed} failed  CPU {cpu[name]:.1f} s")
    pairs = list(zip(found["shadow"], found["none"], strict=True))
    p99 = statistics.median((one.p99_ms or 0) / (other.p99_ms or 1) for one, other in pairs)
    speed = statistics.median(one.per_second / other.per_second for one, other in pairs)
    print(f"  shadow to none: p99 {p99:.3f} (aim: <= {MOST_P99}), speed {speed:.3f}")
    store = Store(shadowed)
    routing = experiments.read(store, workload.model)
    assert routing is not None
    told = report.document(store, workload.model, routing, 0.0)["comparison"]
    print(f"  compared {told['requests']}, dropped {told['dropped_requests']}, agreement {told['agreement']}")


def _memory(plain: Server, shadowed: Server, everything: list[Workload]) -> None:
    """Print the memory of the shadow beside that of its graphs, which the other service is made to load as well."""
    for workload in everything:
        asked = workload.predict()
        named = Request(asked.path.replace("/predict", f"/versions/{NEXT}/predict"), asked.body, asked.headers)
        status, answer = ask(plain.port, named)
        if status != 200:
            raise SystemExit(f"{named.path} was answered {status}: {json.loads(answer)}")
    mib = [own_mib(server.process.pid) for server in (shadowed, plain)]
    models = len({workload.model for workload in everything})
    beside = mib[0] - mib[1]
    print(f"memory: {mib[0]:.1f} MiB with the shadows of {models} models, {mib[1]:.1f} with the same graphs alone:")
    print(f"  {beside:+.1f} MiB (aim: <= {MOST_MIB:g} for each)")


def _bodies(workload: Workload, prepared: Prepared) -> list[bytes]:
    """Return the bodies of different rows: those of the training table, each a little changed."""
    table = np.loadtxt(prepared.models / f"{workload.model}.csv", delimiter=",", skiprows=1)[:, :-1]
    random = np.random.default_rng(1)
    rows = table[random.integers(len(table), size=ROWS)] * random.normal(1, 0.01, (ROWS, table.shape[1]))
    return [msgspec.json.encode({"features": row}) for row in rows.tolist()]


if __name__ == "__main__":
    sys.exit(main())

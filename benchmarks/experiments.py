"""The cost of routing: the choice of the arm alone, and W1 and W2 with and without a split.

`python -m benchmarks.experiments --help`
"""

import argparse
import contextlib
import itertools
import shutil
import statistics
import sys
import tempfile
import timeit
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from appliance.experiment_roles import ExperimentRoles
from appliance.inference.selftest import self_test
from appliance.predictor import Predictor
from appliance.repository import ModelRepository
from appliance.store import experiments
from appliance.store.experiments import Wish
from appliance.store.routing_record import Arm
from appliance.store.versions import Store
from benchmarks import contenders
from benchmarks.loads import Load, Request, load, median
from benchmarks.prepare import Prepared, install_again, prepare
from benchmarks.processes import Server
from benchmarks.workloads import Workload, workloads

NEXT = "1.1.0"
HALF = (Arm("1.0.0", 0.5), Arm(NEXT, 0.5))
CALLS = 50_000
AIMS = {"by chance": 0.2, "by key": 2.0}
"""Microseconds that a choice may cost beside none."""
LEAST_RATIO = 0.97
"""Of the requests a second under a split, to those without."""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="bench-experiments-") as folder:
        prepared = prepare(Path(folder))
        install_again(prepared, NEXT)
        _choices(prepared.state_dir, options.rounds)
        if not options.no_load:
            _loads(prepared, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiments", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each figure; the median counts (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="of each load (default 3)")
    parser.add_argument("--connections", type=int, default=8, help="of each load (default 8)")
    parser.add_argument("--no-load", action="store_true", help="the choice of the arm alone, without a service")
    return parser.parse_args()


def _choices(state_dir: Path, rounds: int) -> None:
    """Print what Predictor.route costs without an experiment, by chance and by key."""
    store = Store(state_dir)
    models = ModelRepository(store, roles=ExperimentRoles())
    models.refresh()
    route = Predictor(models).route
    keys = itertools.cycle([f"device-{number}" for number in range(10_000)])
    found = {"none": _microseconds(lambda: route("iris"), rounds)}
    turning = _microseconds(lambda: next(keys), rounds)
    experiments.begin(store, "iris", Wish("split", arms=HALF), self_test)
    models.refresh()
    found["by chance"] = _microseconds(lambda: route("iris"), rounds)
    found["by key"] = _microseconds(lambda: route("iris", None, next(keys)), rounds) - turning
    experiments.abort(store, "iris")
    print("a choice of the version that answers, microseconds")
    for name, spent in found.items():
        aim = f", {spent - found['none']:+.2f} beside none (aim: <= {AIMS[name]:g})" if name in AIMS else ""
        print(f"  {name:<10} {spent:6.2f}{aim}")


def _loads(prepared: Prepared, options: argparse.Namespace) -> None:
    """Print the requests a second with a split, by chance and by key, to those without, in one run."""
    split = prepared.state_dir.with_name("split")
    shutil.copytree(prepared.state_dir, split)
    for name in prepared.onnx:
        experiments.begin(Store(split), name, Wish("split", arms=HALF), self_test)
    everything = workloads(prepared.models)[:2]
    probe = everything[0].predict()
    with contextlib.ExitStack() as running:
        plain, routed = (
            running.enter_context(contenders.appliance(folder, 1, probe)) for folder in (prepared.state_dir, split)
        )
        for workload in everything:
            _compare(workload, plain, routed, options)


def _compare(workload: Workload, plain: Server, routed: Server, options: argparse.Namespace) -> None:
    """Print one workload's figures; the rows follow each other in each round, so that a disturbance meets all."""
    request = workload.predict()
    keyed = replace(request, headers={**request.headers, "X-Routing-Key": "device-1"})
    rows: dict[str, tuple[Server, Request]] = {
        "no experiment": (plain, request), "split, by chance": (routed, request), "split, by key": (routed, keyed),
    }  # fmt: skip
    loads: dict[str, list[Load]] = {name: [] for name in rows}
    for _ in range(options.rounds):
        for name, (server, asked) in rows.items():
            loads[name].append(_load(server, asked, options))
    print(f"{workload.name}: {workload.title}, {options.connections} connections, one process")
    first = loads["no experiment"]
    for name, done in loads.items():
        pairs = list(zip(done, first, strict=True))
        speed = statistics.median(one.per_second / other.per_second for one, other in pairs)
        cost = statistics.median((other.cpu_us or 0) / (one.cpu_us or 1) for one, other in pairs)
        figures = median(done)
        against = f"speed {speed:.3f}, by CPU {cost:.3f} of none (aim: >= {LEAST_RATIO})" * (name != "no experiment")
        print(
            f"  {name:<18}{figures.per_second:7.0f}/s {figures.cpu_us:5.0f} us CPU  p99 {figures.p99_ms:6.2f} ms"
            f"  {figures.failures} failed  {against}"
        )


def _load(server: Server, asked: Request, options: argparse.Namespace) -> Load:
    """Return a load with what a request cost the service: a busy machine changes that far less than the speed."""
    before = server.cpu_seconds()
    done = load(server.port, asked, options.connections, options.seconds)
    used = server.cpu_seconds() - before
    return replace(done, cpu_us=used / max(done.per_second * options.seconds, 1) * 1e6)


def _microseconds(call: Callable[[], object], rounds: int) -> float:
    """Return the microseconds of a call, the call of a function around it taken away: the least of some rounds."""
    bare = min(timeit.repeat(lambda: None, number=CALLS, repeat=rounds))
    return (min(timeit.repeat(call, number=CALLS, repeat=rounds)) - bare) / CALLS * 1e6


if __name__ == "__main__":
    sys.exit(main())

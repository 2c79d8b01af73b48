"""Measures the REST service beside its references in one run: `python -m benchmarks.rest --help`."""

import argparse
import contextlib
import dataclasses
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

from benchmarks import contenders, footprint, report, targets
from benchmarks.contenders import Contender
from benchmarks.floors import floor
from benchmarks.loads import Load, load, median
from benchmarks.peers import peers
from benchmarks.prepare import Prepared, prepare
from benchmarks.processes import Server, answers, ask
from benchmarks.quiet import measured_in_quiet
from benchmarks.workloads import Workload, workloads


def main() -> None:
    options = _options()
    # The default would end this process alone and leave every service running.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="bench-rest-") as folder:
        prepared = prepare(Path(folder))
        everything = workloads(prepared.models)
        chosen = [workload for workload in everything if workload.name.startswith(tuple(options.only))]
        results = _measure(options, prepared, chosen)
        aims = list(targets.speed(results))
        if not options.no_footprint:
            aims += _footprint(prepared, everything[0], options.seconds)
    report.print_results(results, {workload.name: workload.title for workload in chosen})
    report.print_targets(aims)
    if options.json:
        report.write_json(options.json, results, aims, _machine())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rest", description=__doc__)
    parser.add_argument("--peers", action="store_true", help="also MLServer and KServe, installed in BENCH_PEERS_DIR")
    parser.add_argument("--only", type=_names, default=["W"], help="workloads by how their names begin: W1,W3-json")
    parser.add_argument("--seconds", type=int, default=3, help="of each load (default 3)")
    parser.add_argument("--rounds", type=int, default=2, help="loads of each row; the median counts (default 2)")
    parser.add_argument("--attempts", type=int, default=2, help="at a load while others use the cores (default 2)")
    parser.add_argument("--connections", type=_numbers, default=[1, 8, 32], help="default 1,8,32")
    parser.add_argument("--no-footprint", action="store_true", help="leave out start, memory and idle CPU")
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    return parser.parse_args()


def _measure(options: argparse.Namespace, prepared: Prepared, chosen: list[Workload]) -> targets.Results:
    """Start everything, load it workload by workload, stop it, and return the figures."""
    results: targets.Results = {}
    with contextlib.ExitStack() as running:
        probe = workloads(prepared.models)[0].predict()
        services = [running.enter_context(contenders.appliance(prepared.state_dir, number, probe)) for number in (2, 1)]
        rows = [row for service in services for row in contenders.appliance_rows(service, chosen)]
        rows.append(running.enter_context(contenders.tutorial(prepared.models, chosen)))
        if options.peers:
            rows += running.enter_context(peers(prepared.onnx, chosen))
        for workload in chosen:
            with _constants(workload, services[0]) as ceilings:
                able = [row for row in rows + ceilings if _serves(row, workload)]
                for connections in options.connections:
                    print(f"{workload.name}, {connections} connections", file=sys.stderr)
                    results |= _rounds(options, prepared, workload, connections, able)
    return results


def _rounds(
    options: argparse.Namespace, prepared: Prepared, workload: Workload, connections: int, rows: list[Contender]
) -> targets.Results:
    """Load every row in turn, round after round, so that a disturbance of the machine meets all of them."""
    found: dict[str, list[Load]] = {row.name: [] for row in rows}
    for _ in range(options.rounds):
        for row in rows:
            run = partial(_load, row, workload, connections, options.seconds)
            found[row.name].append(_in_quiet(run, options.attempts))
        for name, with_json in ((targets.FLOOR, False), (targets.FLOOR_JSON, True)):
            if not with_json or workload.name == "W3-json":
                model = prepared.onnx[workload.model]
                run = partial(floor, model, workload, options.seconds, processes=2, with_json=with_json)
                found.setdefault(name, []).append(_in_quiet(run, options.attempts))
    return {(workload.name, connections, name): median(loads) for name, loads in found.items()}


def _load(row: Contender, workload: Workload, connections: int, seconds: int) -> Load:
    """Load one row and add what a request cost it in CPU, which other programs disturb far less than its speed."""
    before = row.server.cpu_seconds()
    found = load(row.server.port, row.requests[workload.name], connections, seconds)
    spent = row.server.cpu_seconds() - before
    return dataclasses.replace(found, cpu_us=1e6 * spent / max(1.0, found.per_second * seconds))


def _in_quiet(measure: Callable[[], Load], attempts: int) -> Load:
    """Return a load measured while others left the machine alone, as far as they did."""
    found, other_load = measured_in_quiet(measure, attempts)
    return dataclasses.replace(found, other_load=other_load)


@contextlib.contextmanager
def _constants(workload: Workload, service: Server) -> Iterator[list[Contender]]:
    """Run reference (a) in its three forms, answering what the service answers to this workload."""
    request = workload.predict()
    status, answer = ask(service.port, request)
    if status != 200:
        raise SystemExit(
            f"{request.path} of the service was answered {status}: {answer[:500].decode(errors='replace')}"
        )
    with contextlib.ExitStack() as running:
        kinds = ("tuned", "own", "stock")
        yield [running.enter_context(contenders.constant(workload, answer, kind)) for kind in kinds]


def _serves(row: Contender, workload: Workload) -> bool:
    """Return whether a row takes a workload's request; say so when it should but does not."""
    request = row.requests.get(workload.name)
    if request is None:
        return False
    if not answers(row.server.port, request):
        print(
            f"{row.name} does not answer {workload.name}: {ask(row.server.port, request)[1][:300]!r}", file=sys.stderr
        )
        return False
    return True


def _footprint(prepared: Prepared, workload: Workload, seconds: int) -> list[targets.Target]:
    """Return the aims about start, memory and idle CPU."""
    print("first prediction, memory and idle CPU", file=sys.stderr)
    request = workload.predict()
    first = footprint.first_prediction(prepared.state_dir, request)
    after = {number: footprint.memory_and_idle(prepared.state_dir, number, request, seconds) for number in (1, 2)}
    return list(targets.footprint(first, after))


def _machine() -> dict[str, object]:
    """Return what the figures depend on."""
    packages = ("numpy", "onnxruntime", "waitress", "flask", "msgspec", "scikit-learn")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def _names(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()

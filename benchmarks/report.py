"""Writes a run's figures as tables for people and as JSON for the next run."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from benchmarks.quiet import LIMIT
from benchmarks.targets import FLOOR, FLOOR_JSON, KSERVE, MLSERVER, STACK, Results, Target, reference

_BASES = {
    "/a": STACK,
    "/b": FLOOR,
    "/b json": FLOOR_JSON,
    "/c": "(c) tutorial",
    "/kserve": KSERVE,
    "/mlserver": MLSERVER,
}


def print_results(results: Results, titles: dict[str, str]) -> None:
    """Print one table for each workload: speed, latencies and the ratio to each reference."""
    for workload, title in titles.items():
        rows = [(connections, row) for name, connections, row in results if name == workload]
        if not rows:
            continue
        print(f"\n{workload}: {title}")
        print(f"{'conn':>4}  {'':46} {'req/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>8}" + _ratio_heads())
        for connections, row in rows:
            print(f"{connections:>4}  {row:46} {_line(results, workload, connections, row)}")


def print_targets(targets: Iterable[Target]) -> None:
    """Print each aim with its bound, what was found, and whether that reaches it."""
    print(f"\n{'':7} {'found':>9} {'aim':>8}")
    for target in targets:
        verdict = "reached" if target.reached else "MISSED"
        print(f"{verdict:7} {target.found:9.2f} {'<=' if target.at_most else '>='} {target.bound:5g}  {target.title}")


def write_json(file: Path, results: Results, targets: list[Target], machine: dict[str, object]) -> None:
    """Write everything measured to `file`."""
    loads = [
        {"workload": workload, "connections": connections, "row": row, **msgspec.to_builtins(load)}
        for (workload, connections, row), load in results.items()
    ]
    aims = [msgspec.to_builtins(target) | {"reached": target.reached} for target in targets]
    document = {"machine": machine, "loads": loads, "targets": aims}
    file.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def _ratio_heads() -> str:
    return "".join(f" {head:>9}" for head in _BASES)


def _line(results: Results, workload: str, connections: int, row: str) -> str:
    """Return one row's figures and its ratio to each reference that was measured beside it."""
    load = results[workload, connections, row]
    cells = [f"{load.per_second:9,.0f} {_cell(load.p50_ms)} {_cell(load.p99_ms)} {_cell(load.cpu_us, 0)}"]
    for base in _BASES.values():
        other = reference(results, workload, connections, base)
        cells.append(f"{load.per_second / other.per_second:9.2f}" if other and other.per_second else f"{'':9}")
    failures = f"  {load.failures} FAILED" if load.failures else ""
    disturbed = f"  disturbed: others used {load.other_load:.0%} of the cores" if load.other_load > LIMIT else ""
    return " ".join(cells) + failures + disturbed


def _cell(value: float | None, digits: int = 2) -> str:
    return f"{'':8}" if value is None else f"{value:8.{digits}f}"

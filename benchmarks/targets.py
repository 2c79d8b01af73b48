"""The project's aims, each compared with one run's figures. Never a test: machines differ."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.loads import Load

Results = dict[tuple[str, int, str], Load]
"""{(workload, connections, row): load}; a row that does not depend on connections stands under each number."""

TWO, ONE = "appliance, 2 processes", "appliance, 1 process"
STACK = "(a) constant, tuned waitress"
FLOOR, FLOOR_JSON = "(b) session.run, both cores", "(b) decode, session.run, encode, both cores"
KSERVE, MLSERVER = "(d) kserve,", "(d) mlserver,"
"""How the rows of a peer's settings begin; the fastest of them is what we are held against."""


@dataclass(frozen=True)
class Target:
    """One aim: its sentence, the bound, and what was measured. `at_most` bounds from above, else from below."""

    title: str
    bound: float
    found: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        return self.found <= self.bound if self.at_most else self.found >= self.bound


def speed(results: Results) -> Iterator[Target]:
    """Yield the aims about requests a second and latencies, as far as the run measured both sides."""
    for workload, connections in dict.fromkeys((workload, connections) for workload, connections, _ in results):
        yield from _against_peers(results, workload, connections)
        if workload in ("W1", "W2"):
            yield from _ratio(results, workload, connections, f"{ONE}, /predict", STACK, 0.7)
        elif connections > 1:  # one connection cannot keep two cores busy
            row, base, bound = _AGAINST_FLOOR[workload]
            yield from _ratio(results, workload, connections, row, base, bound)
        if connections == 8:
            yield from _tails(results, workload, connections)


def footprint(first: dict[str, float], after_load: dict[int, dict[str, float]]) -> Iterator[Target]:
    """Yield the aims about the start, memory and idle CPU; `after_load` is {processes: figures}."""
    title = f"first prediction ({first['service']:.3f} s) / bare imports ({first['imports']:.3f} s)"
    yield Target(title, 1.5, first["service"] / first["imports"], at_most=True)
    for processes, figures in after_load.items():
        title = f"memory (PSS, MiB) of {processes} process(es) after W1"
        yield Target(title, 80 if processes == 1 else 100, figures["pss_mib"], at_most=True)
        yield Target(f"idle CPU of {processes} process(es), % of a core", 1, 100 * figures["idle_cpu"], at_most=True)


_AGAINST_FLOOR = {
    "W3-json": (f"{TWO}, /predict", FLOOR_JSON, 0.75),
    "W3-binary": (f"{TWO}, /infer", FLOOR, 0.85),
}


def _against_peers(results: Results, workload: str, connections: int) -> Iterator[Target]:
    """Yield the aims of W1 and W2 against the peers: each of ours against the peer's best."""
    if workload in ("W1", "W2") and connections > 1:
        for row in (f"{TWO}, /predict", f"{TWO}, /infer"):
            yield from _ratio(results, workload, connections, row, KSERVE, 4)
            yield from _ratio(results, workload, connections, row, MLSERVER, 6 if workload == "W1" else 20)


def reference(results: Results, workload: str, connections: int, begins: str) -> Load | None:
    """Return the fastest of the rows whose names begin so, None where none was measured."""
    rows = [
        load
        for (at, number, row), load in results.items()
        if (at, number) == (workload, connections) and row.startswith(begins)
    ]
    return max(rows, key=lambda load: load.per_second, default=None)


def _ratio(results: Results, workload: str, connections: int, row: str, base: str, bound: float) -> Iterator[Target]:
    """Yield the aim `row` / `base` >= `bound` if both were measured."""
    ours, theirs = results.get((workload, connections, row)), reference(results, workload, connections, base)
    if ours and theirs:
        title = f"{workload}, {connections} connections: {row} / {base.rstrip(',')}"
        yield Target(title, bound, ours.per_second / theirs.per_second)


def _tails(results: Results, workload: str, connections: int) -> Iterator[Target]:
    """Yield the aim p99 <= 5 x p50 of each of our rows."""
    for (at, number, row), load in results.items():
        if (at, number) == (workload, connections) and row.startswith("appliance") and load.p50_ms and load.p99_ms:
            title = f"{workload}, {connections} connections: {row}, p99 / p50"
            yield Target(title, 5, load.p99_ms / load.p50_ms, at_most=True)

"""Rules that roll a canary back, simulated side by side: how often they are wrong, and how soon they act rightly.

`python -m benchmarks.experiment_rules --help`

Every rule sees the same requests. Flagger's and Argo Rollouts' are as their documentation gives them; a z-test each
minute is what one would write first; ours is the service's own code (appliance/experiments/evidence.py).
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from appliance.experiments.evidence import Events

SHARE = 0.05
"""Of the requests that the canary answers."""
MINUTES = 60
FLAGGER_THRESHOLD, FLAGGER_SUCCESS = 10, 0.99
"""docs/gitbook/usage/how-it-works.md: a check each minute, 99 % success in its window, 10 bad checks roll back; a
window without a request is a bad check (fluxcd/flagger#1501)."""
ARGO_MINUTES, ARGO_SUCCESS, ARGO_LIMIT = 5, 0.95, 3
"""docs/features/analysis.md: every five minutes, 95 % success; more than 3 bad measurements abort."""
Z_LIMIT = 1.645
"""One-sided 5 %."""


@dataclass(frozen=True)
class Case:
    """What happens: requests a second, and the failure rates of the active version and of the canary."""

    title: str
    rate: float
    active: float
    canary: float


@dataclass(frozen=True)
class Minutes:
    """Requests and failures of each minute, of the canary and elsewhere."""

    requests: Sequence[int]
    failures: Sequence[int]
    other_requests: Sequence[int]
    other_failures: Sequence[int]


ALIKE = [
    Case("no difference, 100/s, 0.5 %", 100, 0.005, 0.005),
    Case("no difference, 10/s, 0.5 %", 10, 0.005, 0.005),
    Case("no difference, 1/s, 0.2 %", 1, 0.002, 0.002),
    Case("no difference, 0.1/s, 0.1 %", 0.1, 0.001, 0.001),
    Case("no difference, 1/s, 5 %", 1, 0.05, 0.05),
]
WORSE = [
    Case("100/s, 0.1 -> 1 %", 100, 0.001, 0.01),
    Case("10/s, 0.1 -> 3 %", 10, 0.001, 0.03),
    Case("1/s, 0.1 -> 10 %", 1, 0.001, 0.1),
    Case("1/s, all fail", 1, 0.001, 1.0),
    Case("0.1/s, all fail", 0.1, 0.001, 1.0),
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiment_rules", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="hours that are simulated for each case (default 1000)")
    parser.add_argument("--seed", type=int, default=17)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    print(f"taken back within an hour (median minute), canary {SHARE:.0%}, {options.runs} hours for each case\n")
    print(f"{'':<30}" + "".join(f"{name:>20}" for name in RULES))
    for case in (*ALIKE, *WORSE):
        _print(case, [_minutes(case, random) for _ in range(options.runs)])
    _print_total_failure(random, options.runs)
    _print_every_look(random, options.runs)


def flagger(hour: Minutes) -> float:
    """Return the minute in which Flagger's defaults roll back; infinite for never."""
    bad = 0
    for minute, (requests, failures) in enumerate(zip(hour.requests, hour.failures, strict=True), 1):
        bad += not requests or 1 - failures / requests < FLAGGER_SUCCESS
        if bad >= FLAGGER_THRESHOLD:
            return minute
    return math.inf


def argo(hour: Minutes) -> float:
    """Return the minute in which Argo's documented example aborts; infinite for never. No request is no failure."""
    bad = 0
    for end in range(ARGO_MINUTES, MINUTES + 1, ARGO_MINUTES):
        window = slice(end - ARGO_MINUTES, end)
        requests = sum(hour.requests[window])
        bad += bool(requests) and 1 - sum(hour.failures[window]) / requests < ARGO_SUCCESS
        if bad > ARGO_LIMIT:
            return end
    return math.inf


def z_test(hour: Minutes) -> float:
    """Return the minute in which a z-test of two proportions, over all so far, first finds a difference."""
    for minute, (n, k, m, j) in _sums(hour):
        pooled = (k + j) / max(n + m, 1)
        spread = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)) if n and m else 0.0
        if spread and (k / n - j / m) / spread > Z_LIMIT:
            return minute
    return math.inf


def ours(hour: Minutes) -> float:
    """Return the minute in which the service's own test acts."""
    for minute, (_, k, _, j) in _sums(hour):
        if Events(k, j, SHARE).prove():
            return minute
    return math.inf


RULES: dict[str, Callable[[Minutes], float]] = {"Flagger": flagger, "Argo": argo, "z-test": z_test, "ours": ours}


def _sums(hour: Minutes) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Return (minute, (requests, failures, other requests, other failures)), each over all so far."""
    columns = (hour.requests, hour.failures, hour.other_requests, hour.other_failures)
    sums = np.cumsum(np.array(columns), axis=1).T.tolist()
    return [(minute, (n, k, m, j)) for minute, (n, k, m, j) in enumerate(sums, 1)]


def _minutes(case: Case, random: np.random.Generator) -> Minutes:
    """Return one hour of a case, drawn."""
    requests = random.poisson(60 * case.rate * SHARE, MINUTES)
    others = random.poisson(60 * case.rate * (1 - SHARE), MINUTES)
    failures, other_failures = random.binomial(requests, case.canary), random.binomial(others, case.active)
    return Minutes(requests.tolist(), failures.tolist(), others.tolist(), other_failures.tolist())


def _print(case: Case, hours: Sequence[Minutes]) -> None:
    """Print one row of the table."""
    cells = []
    for rule in RULES.values():
        ends = [end for end in map(rule, hours) if end < math.inf]
        minute = f" ({statistics.median(ends):.0f})" if ends and case.active != case.canary else ""
        cells.append(f"{len(ends) / len(hours):.1%}{minute}")
    print(f"{case.title:<30}" + "".join(f"{cell:>20}" for cell in cells))


def _print_total_failure(random: np.random.Generator, runs: int) -> None:
    """Print how many requests of the canary fail until the test acts, looked at after each."""
    found = []
    for _ in range(runs):
        canary, others = 0, 0
        while not Events(canary, others, SHARE).prove():
            fell = random.random() < SHARE
            canary += bool(fell)
            others += not fell and random.random() < 0.001
        found.append(canary)
    share = sum(one <= 4 for one in found) / runs
    print(f"\nall of the canary's requests fail: found after {statistics.median(found):.0f} of them (median),")
    print(f"  within 4 in {share:.1%} of {runs} cases (aim: all but chance)")


def _print_every_look(random: np.random.Generator, runs: int, events: int = 1000) -> None:
    """Print how often the test is ever wrong over many events, looked at after each."""
    print(f"\never wrong over {events:,} events that are looked at one by one (aim: <= 1 %)")
    for share in (0.01, 0.05, 0.25, 0.5):
        wrong = 0
        for _ in range(runs):
            falls = np.cumsum(random.random(events) < share)
            looks = np.flatnonzero(falls > share * np.arange(1, events + 1))
            wrong += any(Events(int(falls[at]), int(at + 1 - falls[at]), share).prove() for at in looks.tolist())
        print(f"  canary {share:>4.0%}: {wrong / runs:.2%}")


if __name__ == "__main__":
    sys.exit(main())

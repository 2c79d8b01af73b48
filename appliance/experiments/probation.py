"""What the counts of a version on probation show against those of the version before: mark good, go back, or wait.

The two served one after the other, so a share that is known by design does not exist here. Each rate has bounds that
hold at every look, and a margin for what changed on the host in between: a version goes back when the lower bound of
its rate is above the upper bound of the other's by more than the margin.
"""

from collections.abc import Mapping, Sequence
from math import inf

from appliance.config.probation import ProbationConfig
from appliance.experiments.evidence import Rate, difference, rate_is_higher
from appliance.experiments.probation_record import Action, Counts, Watch
from appliance.experiments.quality import Quality
from appliance.experiments.verdict import percent, says_quality, wrongness
from appliance.monitoring.counters import BOUNDS

SLOW_SHARE = 0.95
"""Of the version before's runs that were within the bound above which a run is slow."""
LEAST_FAILURES = 10
"""Least failures before a version goes back: a user may try requests by hand, some of them wrong."""
LEAST_RUNS = 100
"""Runs of the version before that such a bound needs."""
SLOW_FLOOR = 1e-3
"""Seconds below which no run is slow: nobody notices them beside the request's own time."""
SLOW_MARGIN = 0.1
"""Tolerated share of slow runs above that of the version before: other programs share the host."""


def judge(
    settings: ProbationConfig, watch: Watch, *, self_test: str = "", quality: Mapping[str, Quality] | None = None
) -> tuple[Action, str]:
    """Return what follows for the version that is active, and why.

    `self_test` is what its last self-test failed on, "" for nothing; `quality` is by version.
    """
    now, before = watch.now, watch.before
    if self_test:
        return "go back", f"{now.version} fails its self-test: {self_test}"
    for proof in (_failures, _slow, _nan):
        if found := proof(settings, watch):
            return "go back", found
    if before and (found := _quality(settings, now.version, before.version, quality or {})):
        return "go back", found
    return _progress(settings, watch)


def _progress(settings: ProbationConfig, watch: Watch) -> tuple[Action, str]:
    """Return whether a version without a fault has enough requests and time to be marked good."""
    now, before, seconds = watch.now, watch.before, watch.seconds
    if now.requests < settings.min_requests or seconds < settings.min_seconds:
        found = (
            f"{now.version} answered {now.requests} of {settings.min_requests} requests, "
            f"{seconds:.0f} of {settings.min_seconds:.0f} s; {now.failures} failed"
        )
        late = seconds > settings.max_seconds and now.requests < settings.min_requests
        return "wait", f"too little traffic to judge it: {found}; it stays on probation" if late else found
    most, usual = now.failed.bounds()[1], before.failed.point if before else 0.0
    told = f"{now.version} failed on {now.failures} of {now.requests} requests (at most {percent(most)})"
    other = f", {before.version} on {before.failures} of {before.requests}" if before and before.requests else ""
    if most - usual > settings.margin:
        return "wait", f"{told}{other}: more than {percent(settings.margin)} above is possible still"
    return "mark good", f"{told}{other}"


def _failures(settings: ProbationConfig, watch: Watch) -> str:
    """Return how it is proved that the version fails more often than the one before, "" where it is not."""
    now, before = watch.now, watch.before
    if before is None or now.failures < LEAST_FAILURES:
        return ""
    if not rate_is_higher(now.failed, before.failed, settings.margin, settings.alpha):
        return ""
    return (
        f"{now.version} failed on {now.failures} of {now.requests} requests (at least "
        f"{percent(now.failed.bounds(settings.alpha)[0])}), {before.version} on {before.failures} of {before.requests}"
    )


def _slow(settings: ProbationConfig, watch: Watch) -> str:
    """Return how it is proved that the version is slower than the one before, "" where it is not."""
    now, before = watch.now, watch.before
    if before is None or (bound := slow_bound(before.run_buckets, steps=1)) == inf:
        return ""
    ours, theirs = _above(now, bound), _above(before, bound)
    if not rate_is_higher(ours, theirs, SLOW_MARGIN, settings.alpha):
        return ""
    return (
        f"{ours.events} of {ours.trials} runs of {now.version} took longer than {bound:g} s, "
        f"{theirs.events} of {theirs.trials} of {before.version}"
    )


def _nan(settings: ProbationConfig, watch: Watch) -> str:
    """Return how it is proved that the version answers NaN where the one before answers numbers, "" where it is not."""
    looked, found = watch.nan
    if not found or Rate(found, looked).bounds(settings.alpha)[0] <= settings.margin:
        return ""
    before = watch.before.version if watch.before else "the version before"
    return f"{watch.now.version} answered NaN to {found} of {looked} requests, where {before} answers numbers"


def _quality(settings: ProbationConfig, now: str, before: str, quality: Mapping[str, Quality]) -> str:
    """Return how labels prove that the version is wrong more often than the one before, "" where they do not."""
    ours, theirs = quality.get(now), quality.get(before)
    if ours is None or theirs is None or difference(wrongness(ours), wrongness(theirs), settings.alpha)[0] <= 0:
        return ""
    return f"with labels, {now} is {says_quality(ours)}; {before} is {says_quality(theirs)}"


def _above(counts: Counts, bound: float) -> Rate:
    """Return the share of a version's runs that took longer than `bound`, one of counters.BOUNDS, in seconds."""
    within = sum(runs for top, runs in zip(BOUNDS, counts.run_buckets, strict=False) if top <= bound)
    runs = sum(counts.run_buckets)
    return Rate(runs - within, runs)


def slow_bound(run_buckets: Sequence[float], steps: int = 0) -> float:
    """Return the bound of counters.BOUNDS that held SLOW_SHARE of some runs, or `steps` above it, in seconds.

    At least SLOW_FLOOR; infinite for fewer than LEAST_RUNS runs, or where no bound held so many.
    """
    runs, within = sum(run_buckets), 0.0
    if runs < LEAST_RUNS:
        return inf
    for place, count in enumerate(run_buckets[: len(BOUNDS)]):
        within += count
        if within >= SLOW_SHARE * runs:
            return max(BOUNDS[min(place + steps, len(BOUNDS) - 1)], SLOW_FLOOR)
    return inf

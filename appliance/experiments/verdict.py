"""The verdict on an experiment from its sums, in words: go back, go on, or wait. Pure.

Each challenger is tested against the active version alone: what other arms do is no evidence against it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log
from typing import Any, Literal

from appliance.experiments import comparison
from appliance.experiments.counting import FAILED, NAN, SEEN, SLOW, ArmCounts
from appliance.experiments.evidence import BOUND_ALPHA, Events, Rate, Sums, difference
from appliance.experiments.quality import PairedQuality, Quality
from appliance.store.routing_record import Routing

BROKEN_SPLIT = 1000.0
"""E above which the shares of the keys count as wrong: then no count of the experiment is valid."""

Action = Literal["go back", "go on", "wait"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one test says of one challenger."""

    test: str
    version: str
    text: str
    log_e: float = 0.0
    acts: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was counted of an experiment."""

    arms: Sequence[ArmCounts]
    """Of the step that runs, in the order of the record's arms."""
    shadow: Sequence[float] = (0.0,) * comparison.CELLS
    """Sums of the comparison, see comparison.py."""
    paired: PairedQuality = field(default_factory=PairedQuality)
    quality: Mapping[str, Quality] = field(default_factory=dict)
    """By version."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from what was counted."""

    action: Action
    text: str
    """One sentence for a person."""
    findings: Sequence[Finding] = ()
    log_e: Mapping[str, float] = field(default_factory=dict)
    """{test and version: ln E of all steps up to now}, for the record when a step begins."""
    inconclusive: bool = False
    """Whether there was too little traffic in the time that the plan allows."""

    def document(self) -> dict[str, Any]:
        """Return the verdict for JSON."""
        tests = [
            {"test": one.test, "version": one.version, "log_e": round(one.log_e, 3), "acts": one.acts, "text": one.text}
            for one in self.findings
        ]
        return {"action": self.action, "text": self.text, "inconclusive": self.inconclusive, "tests": tests}


def judge(routing: Routing, seen: Seen, seconds: float) -> Verdict:
    """Return what follows for an experiment whose step began `seconds` ago."""
    findings = [finding for version in routing.challengers for finding in _findings(routing, seen, version)]
    log_e = {_name(one): one.log_e for one in findings if one.test in ("failures", "slow", "nan")}
    broken = _broken_split(routing, seen)
    if broken is not None:
        return Verdict("wait", broken.text, [broken, *findings], log_e)
    acting = next((one for one in findings if one.acts), None)
    if acting is not None and routing.kind == "shadow":
        return Verdict("wait", f"{acting.text}. It only shadows, so no caller got these answers", findings, log_e)
    if acting is not None:
        return Verdict("go back", acting.text, findings, log_e)
    if routing.kind != "canary":
        return Verdict("wait", _comparing(routing, findings), findings, log_e)
    missing = _missing(routing, seen, seconds)
    step = _step_words(routing)
    if missing:
        late = seconds > routing.plan.max_seconds and not _enough(routing, seen)
        told = f"inconclusive: too little traffic. {step} holds: {missing}" if late else f"{step}: {missing}"
        return Verdict("wait", told, findings, log_e, inconclusive=late)
    if routing.plan.hold:
        return Verdict("wait", f"{step}: all tests passed; it is held until: promote, or abort", findings, log_e)
    return Verdict("go on", f"{step}: all tests passed", findings, log_e)


def _findings(routing: Routing, seen: Seen, version: str) -> list[Finding]:
    """Return what each test says of a challenger."""
    found = []
    if routing.shadow is not None and routing.shadow.version == version:
        found += [*_shadow_tests(routing, seen.shadow, version), _paired_quality(routing, seen.paired, version)]
    place = next((at for at, arm in enumerate(routing.arms) if arm.version == version and at), 0)
    if place and routing.arms[place].share > 0:
        found += _split_tests(routing, seen, place)
    return found


def _shadow_tests(routing: Routing, sums: Sequence[float], version: str) -> list[Finding]:
    """Return what the rows that both were asked say: errors and NaN of one where the other answered."""
    requests, rows = int(sums[comparison.REQUESTS]), int(sums[comparison.ROWS])
    errors = Events(int(sums[comparison.ERRORS]), 0, 0.5)
    nan = Events(int(sums[comparison.CHALLENGER_NAN]), int(sums[comparison.ACTIVE_NAN]), 0.5)
    alpha, base = routing.plan.alpha, routing.base
    most = percent(Rate(errors.canary, requests).bounds()[1])
    agreed = f"; both agree on {percent(sums[comparison.AGREED] / rows)} of {rows} rows" if rows else ""
    return [
        Finding(
            "shadow errors",
            version,
            f"{version} could not answer {errors.canary} of {requests} requests that {base} answered"
            f" (at most {most}){agreed}" + chance(errors.log_e, alpha),
            errors.log_e,
            errors.prove(alpha),
        ),
        Finding(
            "shadow nan",
            version,
            f"{version} alone answered NaN to {nan.canary} of {rows} rows, {base} alone to {nan.others}"
            + chance(nan.log_e, alpha),
            nan.log_e,
            nan.prove(alpha),
        ),
    ]


def _paired_quality(routing: Routing, paired: PairedQuality, version: str) -> Finding:
    """Return the sequential sign test: of rows with a label on which the two differ, who is right more often."""
    worse = Events(paired.active_better, paired.challenger_better, 0.5)
    text = (
        f"of {paired.both} labelled rows that both answered, {routing.base} alone was right on {worse.canary},"
        f" {version} alone on {worse.others}"
    )
    if not paired.both:
        text = "no label has come yet of a row that both answered"
    return Finding(
        "quality of pairs",
        version,
        text + chance(worse.log_e, routing.plan.alpha),
        worse.log_e,
        worse.prove(routing.plan.alpha),
    )


def _split_tests(routing: Routing, seen: Seen, place: int) -> list[Finding]:
    """Return what the requests say that were split: failures, slow runs, NaN, and labels."""
    version, base = routing.arms[place].version, routing.arms[0].version
    share, alpha = _share(routing, place), routing.plan.alpha
    ours, theirs = seen.arms[place], seen.arms[0]
    rate, other = Rate(ours.events[FAILED], ours.events[SEEN]), Rate(theirs.events[FAILED], theirs.events[SEEN])
    texts = {
        "failures": f"{version} failed on {rate.events} of {rate.trials} requests (at most "
        f"{percent(rate.bounds()[1])}), {base} on {other.events} of {other.trials}",
        "slow": f"{ours.events[SLOW]} of {ours.runs} runs of {version} were slow, "
        f"{theirs.events[SLOW]} of {theirs.runs} of {base}",
        "nan": f"{version} answered NaN to {ours.events[NAN]} of {rate.trials} requests, "
        f"{base} to {theirs.events[NAN]} of {other.trials}",
    }
    found = []
    for test, kind in (("failures", FAILED), ("slow", SLOW), ("nan", NAN)):
        done = routing.log_e.get(f"{test} {version}", 0.0)
        events = Events(ours.units[kind], theirs.units[kind], share, done)
        text = texts[test] + chance(events.log_e, alpha)
        found.append(Finding(test, version, text, events.log_e, events.prove(alpha)))
    return [*found, *_labels_test(routing, seen.quality, version, base)]


def _labels_test(routing: Routing, quality: Mapping[str, Quality], version: str, base: str) -> list[Finding]:
    """Return what labels say of two arms that answered different rows: the confidence sequence of the difference."""
    ours, theirs = quality.get(version), quality.get(base)
    if ours is None or theirs is None:
        return []
    low, _ = difference(wrongness(ours), wrongness(theirs), routing.plan.alpha)
    text = f"with labels, {version} is {says_quality(ours)}; {base} is {says_quality(theirs)}"
    return [Finding("quality", version, text, 0.0, low > 0)]


def wrongness(quality: Quality) -> Sums:
    """Return the sums of what is wrong of each labelled row: 0 or 1 of a class label, else the error."""
    if quality.errors.total or quality.errors.squares:
        return quality.errors
    wrong = quality.right.trials - quality.right.events
    return Sums(quality.right.trials, wrong, wrong)


def says_quality(quality: Quality) -> str:
    """Return what labels say of one version, for a person."""
    if quality.errors.total:
        return f"off by {quality.errors.mean:.4g} on average of {quality.errors.count} rows"
    low, high = quality.right.bounds()
    return f"right on {percent(low)} to {percent(high)} of rows ({quality.right.trials} labels)"


def _broken_split(routing: Routing, seen: Seen) -> Finding | None:
    """Return the finding that the arms do not have their shares, None while they may."""
    for place, arm in enumerate(routing.arms):
        if place == 0 or arm.share <= 0:
            continue
        ours, theirs, share = seen.arms[place].units[SEEN], seen.arms[0].units[SEEN], _share(routing, place)
        more, fewer = Events(ours, theirs, share), Events(theirs, ours, 1 - share)
        if max(more.log_e, fewer.log_e) >= log(BROKEN_SPLIT):
            text = (
                f"the routing is broken: {arm.version} has {ours} of {ours + theirs} keys and requests without one, "
                f"where {percent(share)} are its share; nothing is compared until this is fixed: appliance abort"
            )
            return Finding("split", arm.version, text, max(more.log_e, fewer.log_e), True)
    return None


def _share(routing: Routing, place: int) -> float:
    """Return the share that an arm has of what it and the active version answer; within (0, 1)."""
    ours, theirs = routing.arms[place].share, routing.arms[0].share
    return min(max(ours / (ours + theirs), 1e-9), 1 - 1e-9)


def _missing(routing: Routing, seen: Seen, seconds: float) -> str:
    """Return what a canary's step still waits for, "" for nothing."""
    plan, version = routing.plan, routing.challengers[0]
    failures, requests, before = _progress(routing, seen)
    if requests < plan.min_requests or seconds < plan.min_seconds:
        return f"{version} has {requests} of {plan.min_requests} requests, {seconds:.0f} of {plan.min_seconds:.0f} s"
    most = Rate(failures, requests).bounds()[1]
    if most - before > plan.margin:
        found = f"after {requests} requests its failure rate may be up to {percent(most)}"
        return f"{found}, more than {percent(plan.margin)} above that of {routing.base} ({percent(before)})"
    return ""


def _progress(routing: Routing, seen: Seen) -> tuple[int, int, float]:
    """Return (failures, requests) of a canary in its step, and the active version's failure rate."""
    if routing.step == 0:  # what the active version failed on was not copied, so beside it the rate is 0
        return int(seen.shadow[comparison.ERRORS]), int(seen.shadow[comparison.REQUESTS]), 0.0
    ours, theirs = seen.arms[1], seen.arms[0]
    return ours.events[FAILED], ours.events[SEEN], Rate(theirs.events[FAILED], theirs.events[SEEN]).point


def _enough(routing: Routing, seen: Seen) -> bool:
    return _progress(routing, seen)[1] >= routing.plan.min_requests


def _step_words(routing: Routing) -> str:
    """Return which step runs."""
    if routing.step == 0:
        return "shadow"
    share = routing.arms[1].share
    return f"step {routing.step} of {len(routing.plan.steps)} ({percent(share)} of requests)"


def _comparing(routing: Routing, findings: Sequence[Finding]) -> str:
    """Return the sentence for an experiment that ends when a person says so."""
    told = findings[0].text if findings else "nothing was compared yet"
    return f"{routing.kind} runs until it is ended by hand; {told}"


def _name(finding: Finding) -> str:
    """Return the name of a test in the record."""
    return f"{finding.test} {finding.version}"


def percent(share: float) -> str:
    """Return a share in percent, with two digits that count."""
    return f"{float(f'{100 * share:.2g}'):g} %" if share < 0.995 else f"{float(f'{100 * share:.4g}'):g} %"


def chance(log_e: float, alpha: float = BOUND_ALPHA) -> str:
    """Return the text on sufficient evidence (how rarely equal versions look like this), else ""."""
    if log_e < -log(alpha):
        return ""
    times = f"{exp(log_e):,.0f}" if log_e < log(1e6) else "a million"
    return f"; if both were alike, this would happen at most once in {times} times"

"""What is told of experiments: the one that runs with its evidence, how the last one ended, both in words."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from appliance.errors import ApplianceError
from appliance.experiments import files
from appliance.store import activation, experiments
from appliance.store.receipts import Receipt
from appliance.store.routing_record import Arm, Kind, Plan, Routing
from appliance.store.versions import Store

Outcome = Literal["promoted", "taken back", "ended"]

_BEGUN = ("shadow", "canary", "split")
_OUTCOMES: dict[str, Outcome] = {"promote": "promoted", "abort": "taken back"}


class Ended(msgspec.Struct, frozen=True):
    """How an experiment ended."""

    id: str
    kind: Kind
    version: str
    """The one that was promoted, else the challenger."""
    outcome: Outcome
    """`ended`: another version was activated by hand, or none."""
    when: str
    """UTC, ISO 8601, to the second."""
    why: str


class RunningExperiment(msgspec.Struct, frozen=True):
    """An experiment at a glance."""

    id: str
    kind: Kind
    arms: Sequence[Arm]
    """Who answers requests that name no version; shares from 0 to 1."""
    shadow: Arm | None
    step: int
    steps: int
    """How many steps a canary has after its shadow."""
    since: str
    verdict: str
    """What follows from what was counted so far, in words."""


class StepPlan(msgspec.Struct, frozen=True):
    """When a step of a canary ends, and when a test acts; see `[experiments]`."""

    min_requests: int
    min_seconds: float
    max_seconds: float
    margin: float
    alpha: float


class ExperimentInfo(msgspec.Struct, frozen=True):
    """The experiment on a model, and the last one that ended."""

    model: str
    running: bool
    id: str | None = None
    kind: Kind | None = None
    base: str | None = None
    """The version that was active when it began, and that abort returns to."""
    arms: Sequence[Arm] = ()
    """Who answers requests that name no version; shares from 0 to 1."""
    shadow: Arm | None = None
    """Who is asked beside, and of which share of the rows."""
    key: str | None = None
    step: int = 0
    steps: Sequence[float] = ()
    """The shares of a canary's steps; step 0 is the shadow."""
    hold: bool = False
    plan: StepPlan | None = None
    since: str | None = None
    """When the step began: UTC, ISO 8601."""
    why: str = ""
    evidence: Mapping[str, Any] | None = None
    """Counts and results: `verdict` (action, text, tests), `arms`, and with a shadow `comparison`."""
    last: Ended | None = None
    """The last one that ended."""
    problem: str = ""
    """Why its record cannot be read, so that the active version answers; or which of its versions is missing."""
    next: str = ""
    """Where none runs: the command that begins one."""


def info(store: Store, name: str) -> ExperimentInfo:
    """Return the experiment on a model, and the last one that ended. Raises NotFound for an unknown model."""
    if not store.versions(name):
        store.folder(name, "")  # raises NotFound, naming what comes close
    problem, routing = "", None
    try:
        routing = experiments.read(store, name)
    except ApplianceError as error:
        problem = str(error)
    last = last_ended([one for one in store.receipts() if one.model == name], routing)
    if routing is None:
        begin = "" if problem else _how_to_begin(store, name)
        return ExperimentInfo(name, False, last=last, problem=problem, next=begin)
    return ExperimentInfo(
        name,
        True,
        id=routing.id,
        kind=routing.kind,
        base=routing.base,
        arms=routing.arms,
        shadow=routing.shadow,
        key=routing.key,
        step=routing.step,
        steps=routing.plan.steps,
        hold=routing.plan.hold,
        plan=_plan(routing.plan),
        since=routing.since,
        why=routing.why,
        evidence=_evidence(store, name, routing),
        last=last,
        problem=missing(store, name, routing),
    )


def problem_of(store: Store, name: str) -> str:
    """Return what is wrong with a model's experiment, "" for nothing: its record, or a version that is missing."""
    try:
        now = experiments.read(store, name)
    except ApplianceError as error:
        return str(error)
    return missing(store, name, now) if now else ""


def missing(store: Store, name: str, routing: Routing) -> str:
    """Return which versions of an experiment are not there any more, and what to do; "" where all are."""
    installed = store.versions(name)
    gone = [version for version in (routing.base, *routing.challengers) if version not in installed]
    if not gone:
        return ""
    answers = f": {routing.base} answers its requests" if routing.base in installed else ""
    again = f"install {'it' if len(gone) == 1 else 'them'} again, or: appliance abort {name}"
    return f"{' and '.join(gone)} {'is' if len(gone) == 1 else 'are'} not installed any more{answers}; {again}"


def running(store: Store, name: str) -> RunningExperiment | None:
    """Return the experiment on a model at a glance; None where none runs, or its record cannot be read."""
    try:
        now = experiments.read(store, name)
        verdict = _evidence(store, name, now)["verdict"]["text"] if now else ""
    except ApplianceError:
        return None
    if now is None:
        return None
    return RunningExperiment(now.id, now.kind, now.arms, now.shadow, now.step, len(now.plan.steps), now.since, verdict)


def last_ended(receipts: Sequence[Receipt], running: Routing | None) -> Ended | None:
    """Return how the last experiment ended, by the receipts of one model; None where none has."""
    ended: Ended | None = None
    begun: Receipt | None = None
    for receipt in receipts:
        if receipt.outcome != "done":
            continue
        if receipt.what in _BEGUN and receipt.experiment:
            begun = receipt
        elif begun and receipt.what in _OUTCOMES and _id(receipt) == _id(begun):
            ended, begun = _ended(begun, receipt, _OUTCOMES[receipt.what]), None
        elif begun and receipt.what in ("activate", "roll back", "deactivate"):
            ended, begun = _ended(begun, receipt, "ended"), None
    if begun and (running is None or _id(begun) != running.id):  # a crash came before the receipt of its end
        return _ended(begun, begun, "ended")
    return ended


def end_of(store: Store, name: str, routing: Routing) -> Ended | None:
    """Return how an experiment ended; None while it runs. What is active says so, since a receipt may be lost."""
    now = experiments.read(store, name)
    if now is not None and now.id == routing.id:
        return None
    last = last_ended([one for one in store.receipts() if one.model == name], now)
    if last is not None and last.id == routing.id and last.outcome != "ended":
        return last
    active = activation.read(store, name)
    promoted = active.active in routing.challengers
    version = active.active if promoted and active.active else routing.challengers[0]
    outcome: Outcome = "promoted" if promoted else "ended"
    return Ended(routing.id, routing.kind, version, outcome, active.since, active.why)


def described(told: ExperimentInfo) -> list[str]:
    """Return an experiment as lines for a person."""
    if told.problem and not told.running:
        return [f"the experiment of {told.model} cannot be read: {told.problem}"]
    if not told.running:
        ended = [f"the last one: {_end_in_words(told.last)}"] if told.last else []
        return [f"no experiment runs on {told.model}", *ended, f"next: {told.next}"]
    others = [arm.version for arm in told.arms if arm.version != told.base]
    others += [told.shadow.version] if told.shadow and told.shadow.version not in others else []
    lines = [f"{told.kind} {told.id} of {told.model}: {' and '.join(others)} beside {told.base}, since {told.since}"]
    if told.steps:
        shares = ", ".join(f"{100 * share:g} %" for share in told.steps)
        step = f"step {told.step} of {len(told.steps)}" if told.step else "shadow"
        lines.append(f"{step}; the steps are shadow, {shares}, active" + (" (held at each)" if told.hold else ""))
        if told.plan:
            lines.append(
                f"each step: at least {told.plan.min_requests} requests and {told.plan.min_seconds:g} s, "
                f"failures at most {100 * told.plan.margin:g} % of the requests above {told.base}'s"
            )
    lines += [f"{arm.version:<16} answers {100 * arm.share:g} % of the requests" for arm in told.arms if arm.share]
    if told.shadow:
        asked = f"{100 * told.shadow.share:g} % of the rows"
        lines.append(f"{told.shadow.version:<16} is asked {asked} beside, and its answers are sent to nobody")
    lines += [f"why: {told.why}"] * bool(told.why) + [f"problem: {told.problem}"] * bool(told.problem)
    return lines + _proved(told.evidence or {})


def _plan(plan: Plan) -> StepPlan:
    """Return what is told of a plan beside its steps."""
    return StepPlan(plan.min_requests, plan.min_seconds, plan.max_seconds, plan.margin, plan.alpha)


def _how_to_begin(store: Store, name: str) -> str:
    """Return the command that begins an experiment with the newest version that is not active."""
    versions = store.versions(name)
    try:
        active = activation.read(store, name).active
    except ApplianceError:  # its damage is told of elsewhere
        active = None
    if active is None:
        return f"appliance activate {name} {versions[-1]}"
    others = [version for version in versions if version != active]
    if not others:
        return "install a version to compare with: appliance install BUNDLE"
    return f"appliance shadow {name} {others[-1]}, or: appliance canary {name} {others[-1]}"


def _evidence(store: Store, name: str, routing: Routing) -> Mapping[str, Any]:
    """Return what is known of an experiment by now. Raises StoreError."""
    # numpy and onnxruntime take 150 ms to import: only commands that show the evidence pay for it.
    from appliance.experiments import report, step_clock

    seconds = step_clock.seconds(files.folder(store.state_dir), name, routing, within=store.state_dir)
    return report.document(store, name, routing, seconds)


def _proved(evidence: Mapping[str, Any]) -> list[str]:
    """Return the verdict, and what each test says, as lines for a person."""
    verdict = evidence.get("verdict") or {}
    tests = [f"  {one['text']}" for one in verdict.get("tests", ())]
    compared = evidence.get("comparison") or {}
    dropped = compared.get("dropped_requests", 0)
    tests += [f"  {dropped} requests were not copied to the shadow: no time or room"] * bool(dropped)
    return [f"verdict: {verdict['text']}", *tests] if verdict else []


def _end_in_words(ended: Ended) -> str:
    """Return an end as one sentence."""
    why = f": {ended.why}" if ended.why else ""
    return f"{ended.kind} {ended.id} of {ended.version}, {ended.outcome} at {ended.when}{why}"


def _ended(begun: Receipt, receipt: Receipt, outcome: Outcome) -> Ended:
    """Return the end that a receipt tells of."""
    told: Mapping[str, Any] = begun.experiment or {}
    version = receipt.version if outcome == "promoted" else begun.version
    return Ended(str(told.get("id", "")), told.get("kind", "canary"), version, outcome, receipt.when, receipt.why)


def _id(receipt: Receipt) -> object:
    return (receipt.experiment or {}).get("id")

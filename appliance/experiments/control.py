"""The operations on experiments, by command or over HTTP: begin, promote, abort, show."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from appliance import memory
from appliance.config import Config
from appliance.errors import ApplianceError, Misuse
from appliance.experiments import files
from appliance.store import activation, experiments
from appliance.store.experiments import Wish
from appliance.store.receipts import Receipt
from appliance.store.record import Activation
from appliance.store.routing_record import Arm, Kind, Plan, Routing
from appliance.store.tested import SelfTest
from appliance.store.versions import Store

STEPS = (1.0, 5.0, 25.0, 50.0)
"""Percent of the requests that a canary answers in its steps, by default."""

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
    since: str | None = None
    """When the step began: UTC, ISO 8601."""
    why: str = ""
    evidence: Mapping[str, Any] | None = None
    """Counts and results: `verdict` (action, text, tests), `arms`, and with a shadow `comparison`."""
    last: Ended | None = None
    """The last one that ended."""
    problem: str = ""
    """Why its record cannot be read; the active version answers then."""


def memory_bytes(config: Config) -> int:
    """Return what the versions of a model may take together in one process.

    `[models] max_memory_bytes`, else half of what host or cgroup has, shared by the processes: others need some too.
    """
    return config.models.max_memory_bytes or memory.limit_bytes() // 2 // config.http.processes


def key_of(text: str) -> str:
    """Return where a request's key is from, as the record has it: `header`, `caller`, else a column."""
    return text if text in ("header", "caller") else f"column:{text}"


def canary(version: str, steps: Sequence[float] = STEPS, *, key: str = "header", plan: Plan = Plan()) -> Wish:  # noqa: B008 - frozen
    """Return the wish for a canary; `steps` in percent of the requests, `plan` with all else."""
    shares = tuple(round(step / 100, 12) for step in steps)
    if not all(0 < share <= 1 for share in shares):
        found = f"the steps are {', '.join(f'{step:g}' for step in steps) or 'none'}"
        raise Misuse("begin a canary", found, "give rising shares in percent, as 1,5,25,50")
    plan = msgspec.structs.replace(plan, steps=shares)
    return Wish("canary", shadow=Arm(version, 1.0), key=key_of(key), plan=plan)


def shadow(version: str, share: float = 1.0, *, plan: Plan = Plan()) -> Wish:  # noqa: B008 - frozen
    """Return the wish for a shadow that is asked a share (0 to 1) of the rows."""
    if not 0 < share <= 1:
        raise Misuse("begin a shadow", f"its share is {share:g}", "give a share above 0, at most 1")
    return Wish("shadow", shadow=Arm(version, share), plan=plan)


def split(shares: Mapping[str, float], *, key: str = "header", plan: Plan = Plan()) -> Wish:  # noqa: B008 - frozen
    """Return the wish for a split; `shares` are {version: percent of the requests}."""
    if not all(0 < share <= 100 for share in shares.values()):
        found = f"the shares are {', '.join(f'{share:g}' for share in shares.values())}"
        raise Misuse("begin a split", found, "give each version a share above 0, together 100")
    arms = tuple(Arm(version, round(share / 100, 12)) for version, share in shares.items())
    return Wish("split", arms=arms, key=key_of(key), plan=plan)


def go_on(
    store: Store, name: str, self_test: SelfTest, *, version: str | None = None, now: bool = False, why: str = ""
) -> Activation | Routing:
    """Promote a challenger, or begin the next step of a canary that is held at each, unless it shall go live `now`.

    Returns the new record of what is active, or of the experiment. Raises as experiments.promote and advance do.
    """
    routing = experiments.read(store, name)
    if routing and routing.plan.hold and not now and version is None and routing.step < len(routing.plan.steps):
        log_e = {**routing.log_e, **_proved_so_far(store, name, routing)}  # the next step goes on from it
        return experiments.advance(store, name, routing.id, routing.step + 1, log_e=log_e, why=why)
    return experiments.promote(store, name, self_test, version=version, why=why)


def take_back(store: Store, name: str, self_test: SelfTest, *, why: str = "") -> tuple[Activation, Routing | None]:
    """Return to the version that served before: what `rollback` does. Returns the record, and an experiment that ended.

    While a canary or a split runs, that is the active version: the experiment ends, and it answers alone. Else it is
    the previous version, and a shadow ends as well. Raises as activation.roll_back does.
    """
    try:
        routing = experiments.read(store, name)
    except ApplianceError:  # a record that cannot be read routes nothing
        routing = None
    if routing is None or routing.kind == "shadow":
        return activation.roll_back(store, name, self_test, why=why), routing
    experiments.abort(store, name, experiment=routing.id, why=why or "rolled back")
    return activation.read(store, name), routing


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
        return ExperimentInfo(name, False, last=last, problem=problem)
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
        since=routing.since,
        why=routing.why,
        evidence=_evidence(store, name, routing),
        last=last,
    )


def running(store: Store, name: str) -> RunningExperiment | None:
    """Return the experiment on a model at a glance; None where none runs, or its record cannot be read."""
    try:
        now = experiments.read(store, name)
    except ApplianceError:
        return None
    if now is None:
        return None
    return RunningExperiment(now.id, now.kind, now.arms, now.shadow, now.step, len(now.plan.steps), now.since)


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
    if told.problem:
        return [f"the experiment of {told.model} cannot be read: {told.problem}"]
    if not told.running:
        ended = [f"the last one: {_end_in_words(told.last)}"] if told.last else []
        return [f"no experiment runs on {told.model}", *ended]
    others = [arm.version for arm in told.arms if arm.version != told.base]
    others += [told.shadow.version] if told.shadow and told.shadow.version not in others else []
    lines = [f"{told.kind} {told.id} of {told.model}: {' and '.join(others)} beside {told.base}, since {told.since}"]
    if told.steps:
        shares = ", ".join(f"{100 * share:g} %" for share in told.steps)
        step = f"step {told.step} of {len(told.steps)}" if told.step else "shadow"
        lines.append(f"{step}; the steps are shadow, {shares}, active" + (" (held at each)" if told.hold else ""))
    lines += [f"{arm.version:<16} answers {100 * arm.share:g} % of the requests" for arm in told.arms if arm.share]
    if told.shadow:
        asked = f"{100 * told.shadow.share:g} % of the rows"
        lines.append(f"{told.shadow.version:<16} is asked {asked} beside, and its answers are sent to nobody")
    lines += [f"why: {told.why}"] * bool(told.why)
    return lines + _proved(told.evidence or {})


def _evidence(store: Store, name: str, routing: Routing) -> Mapping[str, Any]:
    """Return what is known of an experiment by now. Raises StoreError."""
    # numpy and onnxruntime take 150 ms to import: only commands that show the evidence pay for it.
    from appliance.experiments import report

    return report.document(store, name, routing, report.age(routing.since))


def _proved_so_far(store: Store, name: str, routing: Routing) -> Mapping[str, float]:
    """Return {test: ln E of all steps until now}, by what was counted. Raises StoreError."""
    from appliance.experiments import report

    seconds, folder = report.age(routing.since), files.folder(store.state_dir)
    return report.verdict(folder, name, routing, seconds, within=store.state_dir).log_e


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

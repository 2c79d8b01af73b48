"""The operations on experiments, by command or over HTTP: begin, promote, abort."""

from collections.abc import Mapping, Sequence

import msgspec

from appliance import memory
from appliance.config import Config, ExperimentsConfig
from appliance.errors import ApplianceError, Misuse
from appliance.experiments import files
from appliance.store import activation, experiments
from appliance.store.experiments import Wish
from appliance.store.record import Activation
from appliance.store.routing_record import Arm, Plan, Routing
from appliance.store.tested import SelfTest
from appliance.store.versions import Store

STEPS = (1.0, 5.0, 25.0, 50.0)
"""Percent of the requests that a canary answers in its steps, by default."""
PLANNED = ("min_requests", "min_seconds", "max_seconds", "margin", "alpha")
"""Numbers of a plan, as `[experiments]` names them; their meaning stands there."""


def memory_bytes(config: Config) -> int:
    """Return what the versions of a model may take together in one process.

    `[models] max_memory_bytes`, else half of what host or cgroup has, shared by the processes: others need some too.
    """
    return config.models.max_memory_bytes or memory.limit_bytes() // 2 // config.http.processes


def plan_of(
    settings: ExperimentsConfig,
    *,
    hold: bool = False,
    schema_may_differ: bool = False,
    **numbers: float | None,
) -> Plan:
    """Return the plan of an experiment that begins, without its steps.

    `numbers` are its min_requests, min_seconds, max_seconds, margin and alpha; one that is None is as the settings
    have it. Raises Misuse for one that cannot be.
    """
    told = {name: getattr(settings, name) for name in PLANNED} | {
        name: number for name, number in numbers.items() if number is not None
    }
    try:
        return msgspec.convert(told | {"hold": hold, "schema_may_differ": schema_may_differ}, Plan)
    except msgspec.ValidationError as error:
        found = str(error).replace("`", "").replace("$.", "")
        raise Misuse("plan the experiment", found, "see [experiments] in docs/configuration.md") from error


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


def _proved_so_far(store: Store, name: str, routing: Routing) -> Mapping[str, float]:
    """Return {test: ln E of all steps until now}, by what was counted. Raises StoreError."""
    from appliance.experiments import report, step_clock

    folder = files.folder(store.state_dir)
    seconds = step_clock.seconds(folder, name, routing, within=store.state_dir)
    return report.verdict(folder, name, routing, seconds, within=store.state_dir).log_e

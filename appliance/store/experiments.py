"""Experiments on versions of one model: begin, next step, evidence so far, promote, abort.

Each is one replacement of one file (routing.json, for a promotion activation.json), so that a crash leaves the old
state or the new one; the receipt comes last. See routing_record.py for what a crash leaves.
"""

import itertools
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from appliance.errors import ExperimentRuns, Misuse, NotFound, NotReady, Refused
from appliance.store import activation, likeness, receipts, routing_record, trials
from appliance.store.record import Activation
from appliance.store.routing_record import MOST_ARMS, TOLERANCE, Arm, Kind, Plan, Routing
from appliance.store.tested import SelfTest, Tested, tested, unchanged
from appliance.store.versions import Store


class Wish(msgspec.Struct, frozen=True):
    """An experiment as it is asked for; see Routing for the fields."""

    kind: Kind
    arms: tuple[Arm, ...] = ()
    """Of a split: all, the active version among them. Of a canary or a shadow: none."""
    shadow: Arm | None = None
    """Of a shadow or a canary: the challenger."""
    key: str = "header"
    plan: Plan = Plan()
    max_memory_bytes: int = 0
    """What the versions of the model may take together in one process; 0: no limit."""


def path(store: Store, name: str) -> Path:
    """Return where the record of the model `name` is, or would be."""
    return routing_record.path(store.models_dir / name)


def read(store: Store, name: str) -> Routing | None:
    """Return the experiment that runs on a model, None where none does. Raises StoreError for a damaged record."""
    return routing_record.running(store.models_dir / name)


def begin(store: Store, name: str, wish: Wish, self_test: SelfTest, *, why: str = "") -> Routing:
    """Begin an experiment, after its versions passed their self-test here.

    Before that it is refused for what could not work: Misuse (shares, arms, key), NotFound (a version, an active one),
    ExperimentRuns (another one runs), InputsChanged (unless the plan lets it), Refused (there is no memory for all).
    Raises SelfTestFailed, BundleRefused, NotReady (changed meanwhile), StoreError.
    """
    tried = f"begin a {wish.kind} of {name}"
    base = _base(store, name, tried)
    routing = _made(tried, base, wish, why)
    _refuse_second(store, name, tried)
    for version in routing.challengers:
        store.folder(name, version)
    if not wish.plan.schema_may_differ:
        for version in routing.challengers:
            likeness.check(store, name, tried, routing.base, version)
    _check_column(store, name, tried, routing)
    passed = [tested(store, wish.kind, name, version, self_test) for version in routing.challengers]
    _check_memory(store, name, tried, routing, passed, wish.max_memory_bytes)
    with store.writing(tried):
        _refuse_second(store, name, tried)
        if activation.read(store, name).active != base:
            raise NotReady(tried, "another version was activated meanwhile", "see: appliance models; then repeat it")
        for one in passed:
            trials.remember(unchanged(store, one).parent, one.version, one.figures)
        routing_record.write(store.models_dir / name, routing)
        figures = {one.version: one.figures for one in passed}
        _note(store, wish.kind, name, routing, why, self_test=figures[routing.challengers[0]])
    return routing


def advance(
    store: Store,
    name: str,
    experiment: str,
    step: int,
    *,
    log_e: Mapping[str, float] | None = None,
    snapshot: Mapping[str, dict[str, float]] | None = None,
    why: str = "",
) -> Routing:
    """Begin a step of a canary, from its plan's shares. Raises NotFound (that experiment runs no more), StoreError."""
    with store.writing(f"begin step {step} of {name}"):
        now = _running(store, name, experiment, f"begin step {step}")
        if now.kind != "canary" or not 0 <= step <= len(now.plan.steps):
            found = f"{now.described} has {len(now.plan.steps)} steps" if now.plan.steps else "it has no steps"
            raise Misuse(f"begin step {step} of {name}", found, f"see: appliance experiment {name}")
        changed = msgspec.structs.replace(
            now,
            arms=_canary_arms(now.base, now.challengers[0], share_of(now.plan, step)),
            step=step,
            since=receipts.now(),
            log_e=dict(now.log_e if log_e is None else log_e),
            snapshot=dict(now.snapshot if snapshot is None else snapshot),
        )
        routing_record.write(store.models_dir / name, changed)
        _note(store, "step", name, changed, why)
    return changed


def keep_evidence(
    store: Store, name: str, experiment: str, *, log_e: Mapping[str, float], snapshot: Mapping[str, dict[str, float]]
) -> Routing:
    """Write what is known so far, so that a restart goes on with it. Raises NotFound, StoreError. No receipt."""
    with store.writing(f"keep the evidence of {name}"):
        now = _running(store, name, experiment, "keep its evidence")
        changed = msgspec.structs.replace(now, log_e=dict(log_e), snapshot=dict(snapshot))
        if changed != now:
            routing_record.write(store.models_dir / name, changed)
    return changed


def promote(
    store: Store,
    name: str,
    self_test: SelfTest,
    *,
    version: str | None = None,
    experiment: str | None = None,
    why: str = "",
    evidence: Mapping[str, Any] | None = None,
) -> Activation:
    """Make a challenger the active version, on probation, after its self-test passed here; the experiment ends.

    `version` need not be said where there is one challenger; `experiment` is the one that is meant, by default the one
    that runs. Raises NotFound (none runs), Misuse (which of several?), SelfTestFailed, BundleRefused, NotReady,
    StoreError.
    """
    now = _running(store, name, experiment, "promote")
    version = _challenger(now, name, version)
    passed = tested(store, "promote", name, version, self_test)
    with store.writing(f"promote {name} {version}"):
        now = _running(store, name, now.id, "promote")
        active = activation.go_live(store, activation.read(store, name), passed, why=why)
        _note(store, "promote", name, now, why, version=version, self_test=passed.figures, evidence=evidence)
    return active


def abort(
    store: Store,
    name: str,
    *,
    experiment: str | None = None,
    why: str = "",
    evidence: Mapping[str, Any] | None = None,
) -> Routing | None:
    """End the experiment of a model: the active version answers alone. Return what ran, None for a record of none.

    A damaged record, or one that counts for nothing, is deleted as well. Raises NotFound where there is nothing to end,
    or, where `experiment` names the one that is meant, that one runs no more; StoreError.
    """
    folder = store.models_dir / name
    with store.writing(f"abort the experiment of {name}"):
        now = routing_record.running_if_sound(folder)
        if experiment is not None:
            now = _running(store, name, experiment, "abort")
        if not routing_record.remove(folder):
            raise _none_runs(store, name, "abort")
        if now is not None:
            _note(store, "abort", name, now, why, evidence=evidence)
    return now


def share_of(plan: Plan, step: int) -> float:
    """Return a canary's share of the requests in a step; none in step 0, which is the shadow's."""
    return plan.steps[step - 1] if step else 0.0


def _base(store: Store, name: str, tried: str) -> str:
    """Return the active version. Raises NotFound where there is none to compare with."""
    active = activation.read(store, name).active if store.versions(name) else None
    if active is None:
        versions = store.versions(name)
        if not versions:
            store.folder(name, "")  # raises NotFound, naming what comes close
        raise NotFound(tried, "no version is active to compare with", f"appliance activate {name} {versions[-1]}")
    return active


def _made(tried: str, base: str, wish: Wish, why: str) -> Routing:
    """Return the record of what is asked for. Raises Misuse."""
    if wish.shadow is not None and wish.shadow.version == base:
        found = f"{base} is the active version"
        raise Misuse(tried, found, "name another installed version; see: appliance models")
    if wish.shadow is not None and wish.shadow.share <= 0:
        raise Misuse(tried, "the shadow's share is 0", "give a share above 0, at most 1")
    arms = _split_arms(tried, base, wish.arms) if wish.kind == "split" else (Arm(base, 1.0),)
    if wish.kind == "canary":
        _check_steps(tried, wish.plan.steps)
        assert wish.shadow is not None  # noqa: S101 - our own commands build it so
        arms = _canary_arms(base, wish.shadow.version, 0.0)
    return Routing(
        id=secrets.token_hex(4),
        salt=secrets.token_hex(8),
        kind=wish.kind,
        base=base,
        arms=arms,
        shadow=wish.shadow,
        key=wish.key,
        plan=wish.plan,
        since=receipts.now(),
        why=why,
    )


def _canary_arms(base: str, version: str, share: float) -> tuple[Arm, ...]:
    """Return the two arms of a canary."""
    return Arm(base, round(1 - share, 12)), Arm(version, share)


def _check_steps(tried: str, steps: Sequence[float]) -> None:
    """Raise Misuse for steps that are none, or that do not rise."""
    rising = all(one < other for one, other in itertools.pairwise(steps))
    if not steps or not rising or not 0 < steps[0] <= steps[-1] <= 1:
        found = f"the steps are {', '.join(f'{100 * step:g}' for step in steps) or 'none'}"
        raise Misuse(tried, found, "give rising shares in percent, as 1,5,25,50")


def _split_arms(tried: str, base: str, arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """Return a split's arms, the active version first. Raises Misuse."""
    versions = [arm.version for arm in arms]
    if len(arms) < 2 or len(set(versions)) < len(versions):
        raise Misuse(tried, f"its arms are {', '.join(versions) or 'none'}", "name two versions or more, each once")
    if len(arms) > MOST_ARMS:
        raise Misuse(tried, f"it has {len(arms)} arms", f"compare {MOST_ARMS} versions at once at most")
    if base not in versions:
        found = f"{base}, the active version, is not among them"
        raise Misuse(
            tried, found, "give it a share, or activate one of them first: it is the one that abort returns to"
        )
    total = sum(arm.share for arm in arms)
    if abs(total - 1) > TOLERANCE or min(arm.share for arm in arms) <= 0:
        found = f"the shares are {', '.join(f'{100 * arm.share:g}' for arm in arms)}"
        raise Misuse(tried, found, "give each version a share above 0, together 100")
    return tuple(sorted(arms, key=lambda arm: arm.version != base))


def _refuse_second(store: Store, name: str, tried: str) -> None:
    """Raise ExperimentRuns where one runs on the model."""
    now = routing_record.running_if_sound(store.models_dir / name)
    if now is not None:
        end = f"appliance promote {name}, or: appliance abort {name}"
        raise ExperimentRuns(tried, f"{now.described} runs", f"see: appliance experiment {name}; then: {end}")


def _check_column(store: Store, name: str, tried: str, routing: Routing) -> None:
    """Raise Misuse where the key is a column that no model of the experiment has."""
    column = routing.key.partition("column:")[2]
    if not column:
        return
    if routing.plan.schema_may_differ:
        raise Misuse(tried, "the key is a column, and the columns may differ", "route by header or caller")
    columns = [one for tensor in store.manifest(name, routing.base).inputs for one in tensor.columns]
    if column not in columns:
        known = ", ".join(columns[:10]) + (", ..." if len(columns) > 10 else "")
        raise Misuse(tried, f"{name} has no column {column!r}", f"name header, caller or a column: {known}")


def _check_memory(store: Store, name: str, tried: str, routing: Routing, passed: Sequence[Tested], most: int) -> None:
    """Raise Refused where the versions of the model would take more memory together than one process may use."""
    known = trials.read(store.models_dir / name).get(routing.base)
    need = (known.memory_bytes if known else 0) + sum(one.figures.get("memory_bytes") or 0 for one in passed)
    if most and need > most:
        found = f"its versions take {need} bytes of memory together, {most} are allowed"
        raise Refused(tried, found, "raise [models] max_memory_bytes, or try smaller versions")


def _running(store: Store, name: str, experiment: str | None, tried: str) -> Routing:
    """Return the experiment that runs, the named one if any. Raises NotFound, StoreError."""
    now = read(store, name)
    if now is None or experiment not in (None, now.id):
        raise _none_runs(store, name, tried, experiment)
    return now


def _none_runs(store: Store, name: str, tried: str, experiment: str | None = None) -> NotFound:
    """Return the error for a model on which no experiment, or another one, runs."""
    if not store.versions(name):
        return NotFound(f"{tried} {name}", "no such model is installed", "see: appliance models")
    found = f"experiment {experiment} has ended" if experiment else "no experiment runs on it"
    return NotFound(f"{tried} {name}", found, f"begin one: appliance canary {name} VERSION")


def _challenger(now: Routing, name: str, version: str | None) -> str:
    """Return the version to be promoted. Raises Misuse where it must be said which."""
    if version is None and len(now.challengers) == 1:
        return now.challengers[0]
    if version not in now.challengers:
        known = " or ".join(f"appliance promote {name} {one}" for one in now.challengers)
        found = f"{version} is none of its challengers" if version else f"{now.described} has several challengers"
        raise Misuse(f"promote {name}", found, known)
    return version


def _note(
    store: Store,
    what: receipts.What,
    name: str,
    routing: Routing,
    why: str,
    *,
    version: str = "",
    self_test: Mapping[str, Any] | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> None:
    """Write the receipt of a change to an experiment. Holds the lock."""
    told: dict[str, Any] = {
        "id": routing.id,
        "kind": routing.kind,
        "base": routing.base,
        "arms": {arm.version: arm.share for arm in routing.arms},
        "step": routing.step,
        "log_e": routing.log_e,
    }
    told |= {"shadow": routing.shadow.version} if routing.shadow else {}
    told |= {"evidence": dict(evidence)} if evidence else {}
    store.note(what, name, version or routing.challengers[0], why=why, self_test=self_test, experiment=told)

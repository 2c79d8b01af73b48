"""Activation and roll back: which version of a model serves.

The way back is the version that served before. One that was never marked good is no way back while a good one is: it
is passed over. Roll back uses the way up, so that a second roll back refuses instead of returning to what was left.

An experiment is bound to the version that was active when it began (routing_record.py): roll back and deactivate end
it, and activate is refused while it runs.
"""

from pathlib import Path

import msgspec

from appliance.errors import ExperimentRuns, NotFound, NotReady
from appliance.store import likeness, receipts, record, routing_record, trials
from appliance.store.marks import Mark
from appliance.store.record import Activation
from appliance.store.tested import SelfTest, Tested, tested, unchanged
from appliance.store.versions import Store

__all__ = ["Activation", "SelfTest", "activate", "deactivate", "mark_good", "path", "read", "roll_back"]


def path(store: Store, name: str) -> Path:
    """Return where the record of the model `name` is, or would be."""
    return store.models_dir / name / record.FILE


def read(store: Store, name: str) -> Activation:
    """Return the record of the model `name`; the default where none was written. Raises StoreError when damaged."""
    return record.read(store.models_dir / name)


def activate(
    store: Store,
    name: str,
    version: str,
    self_test: SelfTest,
    *,
    why: str = "",
    undecided: bool = False,
    inputs_changed: bool = False,
) -> Activation:
    """Make `version` the one that serves, after its self-test passed here; on probation until it is marked good.

    The version that is active already is tested again and stays as it is; `undecided` activates only while the model's
    mark is open at this version, so that a pull does not overtake an operator. `inputs_changed` also takes a version
    that has other inputs, outputs or labels than the active one. Returns what holds afterwards.
    Raises NotFound, BundleRefused (no key that is trusted today signed what is on disk), InputsChanged, SelfTestFailed,
    ExperimentRuns (on this model, with another version active), StoreError.
    """
    if undecided and not _is_open(store.mark(name), version):
        return read(store, name)
    store.folder(name, version)
    _refuse_experiment(store, name, version)
    passed = tested(store, "activate", name, version, self_test)
    with store.writing(f"activate {name} {version}"):
        now = read(store, name)
        if undecided and not _is_open(store.mark(name), version):
            return now
        _refuse_experiment(store, name, version)
        if not inputs_changed:
            _refuse_unlike(store, name, version, now)
        if now.active == version:
            trials.remember(unchanged(store, passed).parent, version, passed.figures)
            store.decide(name)
            return now
        activation = go_live(store, now, passed, why=why)
        store.note("activate", name, version, when=activation.since, why=why, self_test=passed.figures)
    return activation


def go_live(store: Store, now: Activation, passed: Tested, *, why: str) -> Activation:
    """Make a version that passed its self-test the active one, `now` being the record. Holds the lock; no receipt."""
    name, version = passed.name, passed.version
    folder = unchanged(store, passed).parent
    trials.remember(folder, version, passed.figures)
    store.decide(name, but=version)
    previous, previous_state = _way_back(now, version)
    activation = Activation(
        active=version, previous=previous, previous_state=previous_state, since=receipts.now(), why=why
    )
    _replace(folder, activation)
    store.decide(name)
    return activation


def mark_good(store: Store, name: str, *, why: str = "", only: str | None = None) -> Activation:
    """Take the active version's probation away.

    Raises NotFound when none is active, NotReady when it is another one than `only`, where given, StoreError.
    """
    with store.writing(f"mark {name} good"):
        now = read(store, name)
        if now.active is None:
            raise _none_active(store, name, "mark good")
        _check_active(name, now, only, f"mark {name} good")
        if now.state == "good":
            return now
        activation = msgspec.structs.replace(now, state="good")
        record.write(store.models_dir / name, activation)
        store.note("mark good", name, now.active, why=why)
    return activation


def roll_back(store: Store, name: str, self_test: SelfTest, *, why: str = "", only: str | None = None) -> Activation:
    """Return to the previous version, after its self-test passed here; it keeps the state that it had.

    There is no previous version afterwards. Raises NotFound when there is none or it was removed, BundleRefused (no key
    that is trusted today signed what is on disk), SelfTestFailed, NotReady (it was changed meanwhile, or another
    version than `only`, where given, is active), StoreError.
    """
    _check_active(name, read(store, name), only, f"roll {name} back")
    passed = tested(store, "roll back", name, _way_to(store, name, read(store, name)), self_test)
    with store.writing(f"roll {name} back"):
        now = read(store, name)
        _check_active(name, now, only, f"roll {name} back")
        if _way_to(store, name, now) != passed.version:
            raise NotReady(f"roll {name} back", "it was changed meanwhile", "see: appliance models; then repeat it")
        folder = unchanged(store, passed).parent
        trials.remember(folder, passed.version, passed.figures)
        activation = Activation(active=now.previous, state=now.previous_state, since=receipts.now(), why=why)
        store.decide(name)
        _replace(folder, activation)
        store.note("roll back", name, passed.version, when=activation.since, why=why, self_test=passed.figures)
    return activation


def deactivate(store: Store, name: str, *, why: str = "") -> Activation:
    """Let no version of `name` serve; the one that did is the way back. Raises NotFound, StoreError."""
    with store.writing(f"deactivate {name}"):
        now = read(store, name)
        if now.active is None:
            raise _none_active(store, name, "deactivate")
        activation = Activation(previous=now.active, previous_state=now.state, since=receipts.now(), why=why)
        store.decide(name)
        _replace(store.models_dir / name, activation)
        store.note("deactivate", name, now.active, why=why)
    return activation


def _check_active(name: str, now: Activation, only: str | None, tried: str) -> None:
    """Raise NotReady where another version is active than the one that is meant."""
    if only is not None and now.active != only:
        raise NotReady(tried, f"{only} is not active any more", f"see: appliance models; {now.active} is")


def _replace(folder: Path, activation: Activation) -> None:
    """Make another version the active one, which ends an experiment. Holds the lock.

    A leftover of an earlier one is deleted first: it would come to life if its base became active again.
    """
    routing_record.delete_ended(folder)
    record.write(folder, activation)
    routing_record.delete_ended(folder)


def _refuse_experiment(store: Store, name: str, version: str) -> None:
    """Raise ExperimentRuns where activating `version` would end one."""
    routing = routing_record.running_if_sound(store.models_dir / name)
    if routing is None or routing.base == version:
        return
    found = f"{routing.described} runs"
    end = f"appliance promote {name} {version}" if version in routing.challengers else f"appliance abort {name}"
    raise ExperimentRuns(f"activate {name} {version}", found, f"see: appliance experiment {name}; then: {end}")


def _refuse_unlike(store: Store, name: str, version: str, now: Activation) -> None:
    """Raise InputsChanged where `version` is not like the active one, which must be readable to be compared with."""
    if now.active not in (None, version) and likeness.is_readable(store, name, now.active):
        likeness.check(store, name, f"activate {name} {version}", now.active, version)


def _is_open(mark: Mark | None, version: str) -> bool:
    """Return whether a pull brought `version` and nobody has decided about it yet."""
    return mark is not None and mark.open and mark.version == version


def _way_back(now: Activation, version: str) -> tuple[str | None, record.State]:
    """Return the version that `version` would be rolled back to, and that one's state."""
    served = (now.active, now.state)
    before = (now.previous, now.previous_state)
    if now.active is None:
        return before if now.previous != version else (None, "probation")
    unproven = now.state == "probation" and now.previous_state == "good"
    return before if unproven and now.previous not in (None, version) else served


def _way_to(store: Store, name: str, now: Activation) -> str:
    """Return the version that roll back returns to. Raises NotFound."""
    if now.previous is None or now.previous not in store.versions(name):
        raise _no_way_back(store, name, now)
    return now.previous


def _none_active(store: Store, name: str, tried: str) -> NotFound:
    """Return the error for a model that is unknown, or of which no version serves."""
    versions = store.versions(name)
    if not versions:
        return NotFound(f"{tried} {name}", "no such model is installed", "see: appliance models")
    return NotFound(f"{tried} {name}", "no version is active", f"appliance activate {name} {versions[-1]}")


def _no_way_back(store: Store, name: str, now: Activation) -> NotFound:
    """Return the error for a model without a previous version."""
    versions = store.versions(name)
    if not versions:
        return NotFound(f"roll back {name}", "no such model is installed", "see: appliance models")
    found = f"{now.previous}, the previous version, was removed" if now.previous else "there is no previous version"
    return NotFound(f"roll back {name}", found, f"activate one by name; installed: {', '.join(versions)}")

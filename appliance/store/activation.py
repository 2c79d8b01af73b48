"""Going live and going back: which version of a model serves.

The way back is the version that served before. One that was never marked good is no way back while a good one is: it
is passed over. Roll back uses the way up, so that a second roll back refuses instead of returning to what was left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from appliance.errors import ApplianceError, BundleRefused, NotFound, NotReady
from appliance.store import receipts, record, trials
from appliance.store.marks import Mark
from appliance.store.receipts import What
from appliance.store.record import Activation
from appliance.store.versions import Store

__all__ = ["Activation", "SelfTest", "activate", "deactivate", "mark_good", "path", "read", "roll_back"]

SelfTest = Callable[[Path], msgspec.Struct]
"""Takes an installed version's folder, returns the figures for the receipt, raises SelfTestFailed."""


def path(store: Store, name: str) -> Path:
    """Return where the record of the model `name` is, or would be."""
    return store.models_dir / name / record.FILE


def read(store: Store, name: str) -> Activation:
    """Return the record of the model `name`; the default where none was written. Raises StoreError when damaged."""
    return record.read(store.models_dir / name)


def activate(
    store: Store, name: str, version: str, self_test: SelfTest, *, why: str = "", undecided: bool = False
) -> Activation:
    """Make `version` the one that serves, after its self-test passed here; on probation until it is marked good.

    The version that is active already is tested again and stays as it is; `undecided` activates only while the model's
    mark is open at this version, so that a pull does not overtake an operator. Returns what holds afterwards.
    Raises NotFound, BundleRefused (no key that is trusted today signed what is on disk), SelfTestFailed, StoreError.
    """
    if undecided and not _is_open(store.mark(name), version):
        return read(store, name)
    tested = _tested(store, "activate", name, version, self_test)
    with store.writing(f"activate {name} {version}"):
        now = read(store, name)
        if undecided and not _is_open(store.mark(name), version):
            return now
        folder = _unchanged(store, tested)
        trials.remember(folder.parent, tested.version, tested.figures)
        if now.active == version:
            store.decide(name)
            return now
        store.decide(name, but=version)
        previous, previous_state = _way_back(now, version)
        activation = Activation(
            active=version, previous=previous, previous_state=previous_state, since=receipts.now(), why=why
        )
        record.write(folder.parent, activation)
        store.decide(name)
        store.note("activate", name, version, when=activation.since, why=why, self_test=tested.figures)
    return activation


def mark_good(store: Store, name: str, *, why: str = "") -> Activation:
    """Take the active version's probation away. Raises NotFound when none is active, StoreError."""
    with store.writing(f"mark {name} good"):
        now = read(store, name)
        if now.active is None:
            raise _none_active(store, name, "mark good")
        if now.state == "good":
            return now
        activation = msgspec.structs.replace(now, state="good")
        record.write(store.models_dir / name, activation)
        store.note("mark good", name, now.active, why=why)
    return activation


def roll_back(store: Store, name: str, self_test: SelfTest, *, why: str = "") -> Activation:
    """Return to the previous version, after its self-test passed here; it keeps the state that it had.

    There is no previous version afterwards. Raises NotFound when there is none or it was removed, BundleRefused (no key
    that is trusted today signed what is on disk), SelfTestFailed, NotReady (it was changed meanwhile), StoreError.
    """
    tested = _tested(store, "roll back", name, _way_to(store, name, read(store, name)), self_test)
    with store.writing(f"roll {name} back"):
        now = read(store, name)
        if _way_to(store, name, now) != tested.version:
            raise NotReady(f"roll {name} back", "it was changed meanwhile", "see: appliance models; then repeat it")
        folder = _unchanged(store, tested)
        trials.remember(folder.parent, tested.version, tested.figures)
        activation = Activation(active=now.previous, state=now.previous_state, since=receipts.now(), why=why)
        store.decide(name)
        record.write(folder.parent, activation)
        store.note("roll back", name, tested.version, when=activation.since, why=why, self_test=tested.figures)
    return activation


def deactivate(store: Store, name: str, *, why: str = "") -> Activation:
    """Let no version of `name` serve; the one that did is the way back. Raises NotFound, StoreError."""
    with store.writing(f"deactivate {name}"):
        now = read(store, name)
        if now.active is None:
            raise _none_active(store, name, "deactivate")
        activation = Activation(previous=now.active, previous_state=now.state, since=receipts.now(), why=why)
        store.decide(name)
        record.write(store.models_dir / name, activation)
        store.note("deactivate", name, now.active, why=why)
    return activation


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


@dataclass(frozen=True, slots=True)
class _Tested:
    """A version that is trusted and passed its self-test: `digest` tells whether it is still the same."""

    name: str
    version: str
    digest: str
    figures: dict[str, Any]


def _tested(store: Store, what: What, name: str, version: str, self_test: SelfTest) -> _Tested:
    """Ask who signed an installed version, and test it; a failure is written to the receipts before it is raised.

    Must be called without the store's lock: a self-test may take long, and others have work in the store meanwhile.
    """
    folder = store.folder(name, version)
    try:
        digest = store.installed(name, version).digest
        figures: dict[str, Any] = msgspec.to_builtins(self_test(folder))
    except ApplianceError as error:
        with store.writing(f"note the refusal of {name} {version}"):
            store.note(what, name, version, outcome="refused", why=str(error))
        raise
    return _Tested(name, version, digest, figures)


def _unchanged(store: Store, tested: _Tested) -> Path:
    """Return the folder of a version, which is what was tested. Raises NotFound, BundleRefused. Holds the lock."""
    now = store.installed(tested.name, tested.version).digest
    if {now, tested.figures.get("digest") or now} != {tested.digest}:
        found = "its files were changed during the self-test"
        raise BundleRefused(f"activate {tested.name} {tested.version}", found, "repeat it, or install it again")
    return store.folder(tested.name, tested.version)


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

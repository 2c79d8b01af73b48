"""A version that was asked who signed it and passed its self-test just now, and whether it is still the same."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from appliance.errors import ApplianceError, BundleRefused
from appliance.store.receipts import What
from appliance.store.versions import Store

SelfTest = Callable[[Path], msgspec.Struct]
"""Takes an installed version's folder, returns the figures for the receipt, raises SelfTestFailed."""


@dataclass(frozen=True, slots=True)
class Tested:
    """A version that is trusted and passed its self-test: `digest` tells whether it is still the same."""

    name: str
    version: str
    digest: str
    figures: dict[str, Any]


def tested(store: Store, what: What, name: str, version: str, self_test: SelfTest) -> Tested:
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
    return Tested(name, version, digest, figures)


def unchanged(store: Store, tested: Tested) -> Path:
    """Return the folder of a version, which is what was tested. Raises NotFound, BundleRefused. Holds the lock."""
    now = store.installed(tested.name, tested.version).digest
    if {now, tested.figures.get("digest") or now} != {tested.digest}:
        found = "its files were changed during the self-test"
        raise BundleRefused(f"activate {tested.name} {tested.version}", found, "repeat it, or install it again")
    return store.folder(tested.name, tested.version)

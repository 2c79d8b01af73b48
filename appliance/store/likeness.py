"""The one rule for a version that takes other rows or gives other answers than the active one: only where it is meant.

`activate` and experiments ask it; rolling back does not, since it returns to what served before.
"""

from appliance.bundle.likeness import differences
from appliance.errors import BundleRefused, InputsChanged, NotFound
from appliance.store.versions import Store

_SHOWN = 5
HOW = "callers would be refused or misread it; if that is meant: --inputs-changed (HTTP, [pull]: inputs_changed = true)"


def check(store: Store, name: str, tried: str, base: str, version: str) -> None:
    """Raise InputsChanged where `version` has other inputs, outputs or labels than `base`.

    Raises NotFound and BundleRefused for a version that is absent or damaged.
    """
    found = differences(store.manifest(name, base), store.manifest(name, version))
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        shown = "; ".join(found[:_SHOWN])
        raise InputsChanged(tried, f"{version} differs from {base}: {shown}{more}", HOW)


def is_readable(store: Store, name: str, version: str) -> bool:
    """Return whether the manifest of an installed version can be read: one that is damaged is compared with nothing."""
    try:
        store.manifest(name, version)
    except (NotFound, BundleRefused):
        return False
    return True

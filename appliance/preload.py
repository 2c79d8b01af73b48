"""Bundles that a folder holds when the service starts: installed and activated, the newest one of each model."""

import logging
import sys
from pathlib import Path

from appliance.bundle import archive
from appliance.bundle.manifest import version_order
from appliance.errors import ApplianceError
from appliance.store import activation, versions
from appliance.store.marks import Offered
from appliance.store.tested import SelfTest
from appliance.store.versions import Store

log = logging.getLogger(__name__)


def preload(store: Store, folder: Path, self_test: SelfTest, *, inputs_changed: bool = False) -> None:
    """Install and activate of each model the newest bundle in `folder`; one that is refused is logged.

    With `inputs_changed`, also one whose inputs, outputs or labels differ from the active version's.

    What an operator went back from stays so: the folder holds the same bundle at every start.
    """
    why = f"found in {folder}"
    for path in _newest(sorted(folder.glob("*.bundle"))):
        try:
            offered = Offered(versions.digest(path), allow_older=True)
            done = store.install(path, why=why, offered=offered)
            if activation.read(store, done.name).active != done.version:
                activation.activate(
                    store, done.name, done.version, self_test, why=why, undecided=True, inputs_changed=inputs_changed
                )
        except (ApplianceError, OSError) as error:
            _not_preloaded(path, error)


def _newest(paths: list[Path]) -> list[Path]:
    """Return the file of the greatest version of each model."""
    if len(paths) < 2:
        return paths
    best: dict[str, tuple[tuple[object, ...], Path]] = {}
    for path in paths:
        try:
            with archive.opened(path, most_bytes=sys.maxsize) as bundle:
                manifest = bundle.manifest
        except (ApplianceError, OSError) as error:
            _not_preloaded(path, error)
            continue
        order = version_order(manifest.version)
        if manifest.name not in best or order > best[manifest.name][0]:
            best[manifest.name] = order, path
    return [path for _, path in best.values()]


def _not_preloaded(path: Path, error: Exception) -> None:
    log.error("bundle cannot be preloaded", extra={"bundle": path.name, "error": str(error)})

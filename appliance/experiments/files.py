"""Where the counts of experiments are, and when they are deleted: STATE_DIR/experiments/SLOT@MODEL@WHAT.KIND, flat."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from appliance import nofollow
from appliance.errors import ApplianceError, StoreError
from appliance.store import durable, experiments
from appliance.store.versions import Store

FOLDER = "experiments"
_LABELS = "labels"  # the one kind that is of versions, too, and outlives experiments


def folder(state_dir: Path) -> Path:
    """Return the folder of the counts."""
    return state_dir / FOLDER


def sweep_store(store: Store) -> None:
    """Delete the counts of experiments that have ended, and of versions that were removed."""
    running = {}
    for name in store.names():
        try:
            running[name] = experiments.read(store, name)
        except ApplianceError:  # nobody knows what runs: its counts stay
            return
    versions = {name: store.versions(name) for name in running}
    sweep(store.state_dir, {name: one.id for name, one in running.items() if one}, versions)


def sweep(state_dir: Path, running: Mapping[str, str], versions: Mapping[str, Sequence[str]]) -> None:
    """Delete what belongs to no experiment that runs ({model: id}) and to no installed version ({model: versions})."""
    for name, model, what, kind in _files(state_dir):
        identifier = what.partition(".")[0]
        keep = identifier == running.get(model) or (kind == _LABELS and what in versions.get(model, ()))
        if not keep:
            with suppress(OSError, StoreError):
                durable.delete(folder(state_dir) / name, within=state_dir)


def _files(state_dir: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield (file name, model, what it counts, kind) of each file."""
    try:
        names = list(nofollow.entries(folder(state_dir), within=state_dir))
    except (OSError, StoreError):
        return
    for name in names:
        stem, _, kind = name.rpartition(".")
        parts = stem.split("@")
        if len(parts) == 3:
            yield name, parts[1], parts[2], kind

"""How often each version is right by its labels, or how large its errors are; and which of two is right on the same
row.

The feed is one call for each label, `labelled`, in whichever process and at whatever time it comes; labels that repeat
or change are the feed's matter: it says each prediction once. Sums are in files of each process, as those of the arms.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from appliance.bundle.manifest import Label
from appliance.experiments import pairs
from appliance.experiments.evidence import Rate, Sums
from appliance.experiments.shadow import shadow_key
from appliance.monitoring import shared_cells
from appliance.monitoring.shared_cells import Layout, SharedCells
from appliance.store.routing_record import Routing

LABELLED, RIGHT, ERROR, SQUARES = range(4)
"""Cells of one version, by "ID/VERSION" of an arm or by the version: rows with a label, right ones, sums of errors."""
LAYOUT = Layout(".labels", lambda key: 4)
BOTH, ACTIVE_BETTER, CHALLENGER_BETTER = range(3)
"""Cells of an experiment's pairs: rows that both answered with a label, and where one alone was right, or nearer."""
PAIRED = Layout(".paired", lambda key: 3)
Truth = Label | float


@dataclass(frozen=True, slots=True)
class Quality:
    """What labels say of one version."""

    right: Rate
    """Of labelled rows; of numbers those without any error."""
    errors: Sums
    """Of |prediction - label|; for class labels nothing."""


@dataclass(frozen=True, slots=True)
class PairedQuality:
    """What labels say of the rows that two versions answered."""

    both: int = 0
    active_better: int = 0
    challenger_better: int = 0


class QualityFeed:
    """Takes labels and counts. Safe in any thread."""

    def __init__(
        self,
        routing_of: Callable[[str], Routing | None],
        labels_of: Callable[[str, str], Mapping[Label, int]],
        folder: Path,
        slot: int = 0,
        *,
        within: Path | None,
    ) -> None:
        """`labels_of` gives {class label: place} of a (model, version), empty for a model that answers numbers."""
        self._routing_of, self._labels_of = routing_of, labels_of
        self._folder, self._within = folder, within
        self._cells = SharedCells(folder, slot, LAYOUT, within=within)
        self._paired = SharedCells(folder, slot, PAIRED, within=within)
        self._lock = threading.Lock()

    def labelled(
        self, model: str, version: str, identifier: str, predicted: Truth, truth: Truth, arm: str = ""
    ) -> None:
        """Count the label of one row: `identifier` is its prediction's id, `predicted` what `version` answered.

        `arm` is the arm by which it answered, if any, as Prediction.arm.
        """
        places = self._labels_of(model, version)
        keys = [(model, version)]
        routing = self._routing_of(model)
        if routing is not None and arm.startswith(routing.id):
            keys.append((model, f"{routing.id}.{version}"))
        with self._lock:
            for key in keys:
                cells = self._cells.of(key)
                cells[LABELLED] += 1
                if places:
                    cells[RIGHT] += predicted == truth
                elif isfinite(error := abs(float(predicted) - float(truth))):
                    cells[RIGHT] += error == 0
                    cells[ERROR] += error
                    cells[SQUARES] += error * error
        if routing is not None and routing.shadow is not None and version == routing.base:
            self._pair(model, routing, identifier, float(places.get(truth, -2)) if places else float(truth))

    def _pair(self, model: str, routing: Routing, identifier: str, truth: float) -> None:
        """Count which of the two versions is better on a row, where both answered it."""
        key = shadow_key(model, routing)
        found = pairs.find(self._folder, key, identifier, within=self._within)
        if found is None:
            return
        active, challenger = found
        labels = bool(self._labels_of(model, routing.base))
        ours, theirs = ((one == truth) * -1.0 if labels else abs(one - truth) for one in (active, challenger))
        with self._lock:
            cells = self._paired.of(key)
            cells[BOTH] += 1
            cells[ACTIVE_BETTER] += ours < theirs
            cells[CHALLENGER_BETTER] += theirs < ours


def of_versions(folder: Path, model: str, *, within: Path | None) -> dict[str, Quality]:
    """Return {version, or ID.VERSION of an arm: what labels say of it}, over all processes."""
    found = shared_cells.sum_of_all(folder, LAYOUT, within=within)
    return {version: _quality(cells) for (name, version), cells in found.items() if name == model}


def of_pairs(folder: Path, model: str, routing: Routing, *, within: Path | None) -> PairedQuality:
    """Return what labels say of the rows that both versions answered, over all processes."""
    key = shadow_key(model, routing)
    cells = shared_cells.sum_of_all(folder, PAIRED, within=within).get(key)
    return PairedQuality(*map(int, cells)) if cells else PairedQuality()


def _quality(cells: list[float]) -> Quality:
    count = int(cells[LABELLED])
    return Quality(Rate(int(cells[RIGHT]), count), Sums(count, cells[ERROR], cells[SQUARES]))

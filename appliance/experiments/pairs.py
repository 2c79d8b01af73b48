"""The last answers of two versions to the same rows, by id, until their labels come: a ring in a file a process.

A slot has three cells: the id's hash (52 bits, so that a float64 holds it exactly; 0 for none), the active version's
answer and the challenger's, as `comparison.as_numbers` makes them. The last cell counts what was written.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from appliance.experiments.comparison import Cells
from appliance.monitoring import shared_cells
from appliance.monitoring.shared_cells import Key, Layout

PAIRS = 8192
"""Rows that a process remembers; the oldest are forgotten first."""
LAYOUT = Layout(".pairs", lambda key: 3 * PAIRS + 1)


class Writer:
    """The ring of this process; one thread writes."""

    def __init__(self, folder: Path | None, slot: int, key: Key, within: Path | None) -> None:
        self._cells = np.asarray(shared_cells.open_cells(folder, slot, key, LAYOUT, within))
        self._ring = self._cells[:-1].reshape(3, PAIRS)

    def add(self, ids: Sequence[str], active: Cells, challenger: Cells) -> None:
        """Remember the answers to some rows; `active` and `challenger` are float64 [rows]."""
        places = (int(self._cells[-1]) + np.arange(len(ids))) % PAIRS
        self._ring[0, places] = 0  # a reader never meets an id with another one's answers
        self._ring[1, places] = active
        self._ring[2, places] = challenger
        self._ring[0, places] = [mark(identifier) for identifier in ids]
        self._cells[-1] += len(ids)


def find(folder: Path, key: Key, identifier: str, *, within: Path | None) -> tuple[float, float] | None:
    """Return both versions' answers to a row, in whichever process; None for one that is forgotten or was not asked."""
    wanted = mark(identifier)
    for _, cells in shared_cells.each(folder, LAYOUT, within=within, only=key):
        ring = np.asarray(cells)[:-1].reshape(3, PAIRS)
        places = np.flatnonzero(ring[0] == wanted)
        if len(places):
            return float(ring[1, places[-1]]), float(ring[2, places[-1]])
    return None


def mark(identifier: str) -> float:
    """Return the hash of an id, above 0 and exact as a float64."""
    digest = hashlib.blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return float((int.from_bytes(digest, "big") >> 12) + 1)

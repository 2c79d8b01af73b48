"""Which columns were refused, and why.

A sensor whose values become NaN never reaches the model, so only this shows it.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

from appliance.errors import REFUSAL_REASONS, ApplianceError, InvalidInput
from appliance.monitoring.shared_cells import Key, Layout, SharedCells

MOST_COLUMNS = 1000
"""Columns of a version that are counted; of a wider one, its first."""

Refused = dict[tuple[str, str], float]
"""{(column, reason): refusals}."""

_REASONS = {reason: index for index, reason in enumerate(REFUSAL_REASONS)}


class RefusalCounters:
    """Refused requests by version, column and reason, of one process and of all that share its folder.

    A request counts once, for the column that its refusal names. Safe in any thread.
    """

    def __init__(self, folder: Path | None = None, slot: int = 0) -> None:
        """`folder` and `slot` as SharedCells has them."""
        self._places: dict[Key, dict[str, int]] = {}
        self._cells = SharedCells(folder, slot, Layout(".refused", self._size_of))
        self._lock = threading.Lock()  # for adding to cells

    def know(self, key: Key, columns: Sequence[str]) -> None:
        """Take note of a version's columns: callers must not be able to make new time series."""
        self._places[key] = {column: index for index, column in enumerate(columns[:MOST_COLUMNS])}
        self._cells.of(key)

    def failed(self, key: Key, error: ApplianceError) -> str:
        """Count a refusal, where it names a column that is known; return that column, else ""."""
        if not isinstance(error, InvalidInput) or error.reason not in _REASONS:
            return ""
        place = self._places.get(key, {}).get(error.column)
        if place is not None:
            cells = self._cells.of(key)
            with self._lock:
                cells[place * len(_REASONS) + _REASONS[error.reason]] += 1
        return error.column if place is not None else ""

    def counts(self) -> dict[Key, Refused]:
        """Return the refusals of each version so far, over all processes; zeros are left out."""
        return {key: found for key, cells in self._cells.sums().items() if (found := self._named(key, cells))}

    def _named(self, key: Key, cells: list[float]) -> Refused:
        """Return the cells of a version by column and reason."""
        width = len(_REASONS)
        return {
            (column, reason): cells[place * width + index]
            for column, place in self._places.get(key, {}).items()
            for reason, index in _REASONS.items()
            if cells[place * width + index]
        }

    def _size_of(self, key: Key) -> int:
        """Return the cells of a version; -1 for one that this process does not know."""
        return len(self._places[key]) * len(_REASONS) if key in self._places else -1

"""What the prediction log of each process dropped, and how much all of them take on disk."""

import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import StoreError
from appliance.monitoring.shared_cells import Key, Layout, SharedCells

REASONS = ("queue full", "disk")
LAYOUT = Layout(".log", lambda key: len(REASONS))


@dataclass(frozen=True, slots=True)
class LogFigures:
    """The log's figures, over all processes."""

    dropped: dict[Key, dict[str, float]]
    """{(model, version): {reason: rows}}"""
    bytes: int | None
    """None where it cannot be told."""


class LogCounters:
    """The counters of one process, and the sum over all that share its folder. Safe in any thread."""

    def __init__(self, folder: Path | None = None, slot: int = 0) -> None:
        """`folder` and `slot` as SharedCells has them."""
        self._cells = SharedCells(folder, slot, LAYOUT)
        self._lock = threading.Lock()

    def dropped(self, model: str, version: str, reason: str, rows: int) -> None:
        """Count rows that are not in the log."""
        cells = self._cells.of((model, version))
        with self._lock:
            cells[REASONS.index(reason)] += rows

    def figures(self, state_dir: Path | None) -> LogFigures:
        """Return the figures."""
        from appliance.monitoring.prediction_log import segments  # with the first scrape: few processes are asked

        size = None
        with suppress(OSError, StoreError):
            size = segments.bytes_of(state_dir) if state_dir else None
        return LogFigures(
            {key: dict(zip(REASONS, cells, strict=True)) for key, cells in self._cells.sums().items()}, size
        )

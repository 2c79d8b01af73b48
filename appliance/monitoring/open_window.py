"""The window of a version that is open: cut into blocks, so that it tells how much its rows depend on each other. Pure.

A block ends after a twentieth of the window's time, or when it has rows enough. Of twice as many blocks as are wanted,
each two neighbours become one, and blocks may then have twice the rows: a window ends with 20 to 40 blocks of
consecutive rows, however long it lasts and however many rows come.
"""

from collections.abc import Mapping

import numpy as np

from appliance.inference.binning import Table
from appliance.monitoring.drift_judge import Closed, Limits

BLOCKS = 20
LONGEST_SECONDS = 24 * 3600.0
"""Seconds after which a window is closed, even with few rows."""
_FIRST_ROWS = 25  # of a block, before the first two become one


class OpenWindow:
    """One version's window. Cells and refusals are those counted since the service began; it takes the differences."""

    def __init__(self, now: float, cells: Table, refused: Mapping[str, float]) -> None:
        """`now` is in seconds of the monotonic clock; `cells` are [Tables.size]; `refused` is by column."""
        self._blocks: list[Table] = []
        self._refusals: list[dict[str, float]] = []
        self._begin(now, cells, refused)

    def _begin(self, now: float, cells: Table, refused: Mapping[str, float]) -> None:
        """Begin with no block."""
        self._began = self._block_began = now
        self._cells = cells
        self._refused = dict(refused)
        self._blocks, self._refusals = [], []
        self._rows = 0.0
        self._least_rows = _FIRST_ROWS

    def look(self, now: float, cells: Table, refused: Mapping[str, float], tail: int, limits: Limits) -> None:
        """End the block when its time has come; `tail` is the cell of the rows."""
        rows = float(cells[tail] - self._cells[tail])
        if rows < self._least_rows and now - self._block_began < limits.window_seconds / BLOCKS:
            return
        self._end_block(now, cells, refused, rows)

    def is_due(self, now: float, cells: Table, refused: Mapping[str, float], tail: int, limits: Limits) -> bool:
        """Return whether the window is to be closed."""
        age = now - self._began
        if age < limits.window_seconds:
            return False
        return age >= LONGEST_SECONDS or self.rows(cells, refused, tail) >= limits.min_rows

    def rows(self, cells: Table, refused: Mapping[str, float], tail: int) -> float:
        """Return the rows so far, and the requests that were refused."""
        open_ = float(cells[tail] - self._cells[tail]) + sum(self._since(refused).values())
        return self._rows + open_

    def close(self, now: float, cells: Table, refused: Mapping[str, float], tail: int, ended: str) -> Closed:
        """Close the window and return it; a new one begins."""
        self._end_block(now, cells, refused, float(cells[tail] - self._cells[tail]))
        columns = sorted({column for one in self._refusals for column in one})
        by_column = {column: np.array([one.get(column, 0.0) for one in self._refusals]) for column in columns}
        closed = Closed(ended, now - self._began, np.array(self._blocks), by_column)
        self._begin(now, cells, refused)
        return closed

    def _end_block(self, now: float, cells: Table, refused: Mapping[str, float], rows: float) -> None:
        """Put what has come since the last block into one of its own."""
        since = self._since(refused)
        self._blocks.append(cells - self._cells)
        self._refusals.append(since)
        self._rows += rows + sum(since.values())
        self._cells, self._refused, self._block_began = cells, dict(refused), now
        if len(self._blocks) >= 2 * BLOCKS:
            self._blocks = [one + other for one, other in zip(self._blocks[::2], self._blocks[1::2], strict=True)]
            pairs = zip(self._refusals[::2], self._refusals[1::2], strict=True)
            self._refusals = [_sum(one, other) for one, other in pairs]
            self._least_rows *= 2

    def _since(self, refused: Mapping[str, float]) -> dict[str, float]:
        """Return the refusals since the last block, of the columns that have some."""
        found = {column: count - self._refused.get(column, 0.0) for column, count in refused.items()}
        return {column: count for column, count in found.items() if count > 0}


def _sum(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Return two blocks' refusals together."""
    return {column: one.get(column, 0.0) + other.get(column, 0.0) for column in one.keys() | other.keys()}

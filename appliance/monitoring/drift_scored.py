"""The rows of a scored file, counted for drift: a window of their own, which is put into a version's state once.

Each process counts the blocks that it scores (BlockCounter), and the one that writes adds them up in the order of the
file (RunCounts). What was counted so far is part of the run's checkpoint, so a run that goes on counts no row twice and
leaves none out. At the end the window and the run's name are written in one step, with the store's lock held: a run
that is killed just behind it finds its name there and adds nothing. A service that runs sees the file replaced, as
after `appliance drift accept`.
"""

import logging
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from appliance.drift_report import DriftReport
from appliance.errors import ApplianceError
from appliance.inference.binning import Table
from appliance.monitoring import drift_state, drift_windows
from appliance.monitoring.drift_judge import Closed, Limits
from appliance.monitoring.drift_state import DriftState
from appliance.monitoring.drift_tables import TableCounter, Tables
from appliance.monitoring.misra_gries import MisraGries
from appliance.monitoring.open_window import BLOCKS
from appliance.predictor import Prediction
from appliance.store import receipts
from appliance.store.versions import Store

log = logging.getLogger(__name__)

PIECE = 64
"""Rows that are counted together at the begin of a file, so that a small one has blocks enough to be judged."""
MOST_RUNS = 400
"""Runs whose names are kept, the last ones."""


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """What some consecutive rows come to."""

    cells: bytes = b""
    """Native float64 [blocks, Tables.size]: blocks of consecutive rows, in order."""
    refused: list[dict[str, float]] = []
    """Of each block {column: bad rows because of it}."""
    unseen: dict[str, dict[str, int]] = {}
    """{column: {category that training did not see: rows}}."""


class BlockCounter:
    """An Observer that counts the rows of a block; one for each process, for one thread."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._counted: list[Table] = []
        self._unseen: dict[str, dict[str, int]] = {}

    def predicted(self, prediction: Prediction) -> None:
        """Count rows; the first ones of a file in small pieces."""
        outputs = prediction.of_graph or prediction.outputs
        first = not prediction.places or prediction.places[0] < PIECE
        step = PIECE if first else prediction.rows
        # A counter for each block: what it counts must not depend on which process had the block before.
        counter = TableCounter(self._tables)
        for start in range(0, prediction.rows, step):
            part = slice(start, start + step)
            cells = np.zeros(self._tables.size)
            counter.add(cells, _part(prediction.inputs, part), _part(outputs, part))
            self._counted.append(cells)
        for column, found in counter.unseen.items():
            self._unseen[column] = found.counts

    def failed(
        self, model: str, version: str, error: ApplianceError, seconds: float, arm: str = "", key: str = ""
    ) -> None:
        """Nothing: bad rows are given to taken()."""

    def taken(self, bad_columns: Iterable[str]) -> bytes:
        """Return what was counted since the last call, and the bad rows by their columns ("" for none)."""
        refused: dict[str, float] = {}
        for column in bad_columns:
            if column:
                refused[column] = refused.get(column, 0.0) + 1
        if refused and not self._counted:
            self._counted.append(np.zeros(self._tables.size))
        by_block = [*({} for _ in self._counted[1:]), *([refused] if self._counted else [])]
        counts = Counts(b"".join(cells.tobytes() for cells in self._counted), by_block, self._unseen)
        self._counted, self._unseen = [], {}
        return msgspec.msgpack.encode(counts)


class RunCounts:
    """What all blocks of a run come to, in at most twice BLOCKS blocks of about as many rows."""

    def __init__(self, store: Store, limits: Limits, tables: Tables) -> None:
        self._store, self._limits, self._tables = store, limits, tables
        self._blocks: list[tuple[Table, dict[str, float]]] = []
        self._least_rows = 1.0
        self._unseen: dict[str, MisraGries] = {}
        self.report: DriftReport | None = None
        """What was found once keep() has put the window into the state."""

    def add(self, data: bytes) -> None:
        """Add what BlockCounter.taken() returned for the next block."""
        self._add(msgspec.msgpack.decode(data, type=Counts))

    def checkpoint(self) -> bytes:
        """Return all so far, for resume()."""
        unseen = {column: found.counts for column, found in self._unseen.items()}
        cells = b"".join(cells.tobytes() for cells, _ in self._blocks)
        counts = Counts(cells, [refused for _, refused in self._blocks], unseen)
        return zlib.compress(msgspec.msgpack.encode(counts), 1)

    def resume(self, data: bytes) -> None:
        """Go on with what checkpoint() returned; b"" is nothing. What is of other bins is left out."""
        try:
            counts = msgspec.msgpack.decode(zlib.decompress(data), type=Counts) if data else Counts()
        except (zlib.error, msgspec.MsgspecError) as error:
            log.error("drift counts of this run start again", extra={"error": str(error)})
            return
        if len(counts.cells) == 8 * self._tables.size * len(counts.refused):
            self._add(counts)

    def keep(self, run: str, seconds: float) -> None:
        """Put the window of the whole run into the version's state, unless `run` is there.

        `seconds` is how long the run took. A state that cannot be written is logged: no answer depends on it.
        """
        tables = self._tables
        if not self._blocks:
            return
        closed = self._closed(seconds)
        key = (tables.name, tables.version)
        empty = DriftState(drift_state.FORMAT, tables.layout)
        try:
            with self._store.writing(f"keep the drift of {key[0]} {key[1]}"):
                before = drift_state.read(self._store, key) or empty
                if before.layout != tables.layout:
                    before = empty
                if run in before.scored:
                    self.report = before.report
                    return
                after = drift_windows.with_closed(self._store, self._limits, tables, before, closed, self._unseen)
                after = msgspec.structs.replace(after, scored=[*before.scored, run][-MOST_RUNS:])
                drift_state.write(self._store, key, after)
                drift_state.prune(self._store)
        except (ApplianceError, OSError) as error:
            log.error("drift cannot be kept", extra={"model": key[0], "version": key[1], "error": str(error)})
            return
        drift_windows.tell(before.report, after.report)
        self.report = after.report

    def _closed(self, seconds: float) -> Closed:
        """Return all rows as a closed window."""
        columns = sorted({column for _, refused in self._blocks for column in refused})
        by_column = {column: np.array([one.get(column, 0.0) for _, one in self._blocks]) for column in columns}
        return Closed(receipts.now(), seconds, np.array([cells for cells, _ in self._blocks]), by_column)

    def _add(self, counts: Counts) -> None:
        """Add blocks of rows."""
        blocks = np.frombuffer(counts.cells, np.float64).reshape(-1, self._tables.size)
        for cells, refused in zip(blocks, counts.refused, strict=True):
            self._append(cells, refused)
        for column, values in counts.unseen.items():
            self._unseen.setdefault(column, MisraGries()).merge(values)

    def _append(self, cells: Table, refused: dict[str, float]) -> None:
        """Add a block, to the last one while that is small; where there are too many, have each twice as large."""
        if self._blocks and self._rows(*self._blocks[-1]) < self._least_rows:
            last, before = self._blocks[-1]
            names = before.keys() | refused.keys()
            both = {name: before.get(name, 0.0) + refused.get(name, 0.0) for name in sorted(names)}
            self._blocks[-1] = last + cells, both
        else:
            self._blocks.append((cells, refused))
        while len(self._blocks) >= 2 * BLOCKS:
            self._least_rows = 2 * max(self._least_rows, min(self._rows(*block) for block in self._blocks))
            blocks, self._blocks = self._blocks, []
            for block in blocks:
                self._append(*block)

    def _rows(self, cells: Table, refused: dict[str, float]) -> float:
        """Return the rows of a block, bad ones too."""
        return float(self._tables.rows(cells)) + sum(refused.values())


def _part(arrays: Mapping[str, Any], rows: slice) -> dict[str, Any]:
    """Return some rows of arrays."""
    return {name: array[rows] for name, array in arrays.items()}

"""Cuts, judges and keeps the windows of every version that is watched; in the first process of a service alone.

One thread calls tend(). Each change of what is kept is read, changed and written with the store's lock held, so that
`appliance drift accept` and `appliance score --observe` never work on a state that is being replaced.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from appliance.errors import ApplianceError
from appliance.inference.binning import Table
from appliance.monitoring import drift_state, drift_windows
from appliance.monitoring.drift_judge import Limits
from appliance.monitoring.drift_state import LEAST_WINDOWS, DriftState
from appliance.monitoring.drift_tables import Tables
from appliance.monitoring.misra_gries import MisraGries
from appliance.monitoring.open_window import OpenWindow
from appliance.monitoring.refusals import Refused
from appliance.monitoring.shared_cells import Key
from appliance.monitoring.unseen_board import Unseen
from appliance.store import receipts
from appliance.store.versions import Store

log = logging.getLogger(__name__)

GOOD_SECONDS = 15.0
"""Seconds between two checks whether a version with enough windows was marked good."""


class Keeper:
    """The open windows of all versions; closes and judges them."""

    def __init__(
        self,
        store: Store,
        limits: Limits,
        refused: Callable[[], Mapping[Key, Refused]] = dict,
    ) -> None:
        """`refused` returns the refusals of all processes so far."""
        self._store, self._limits, self._refused = store, limits, refused
        self._open: dict[Key, OpenWindow] = {}
        self._waiting: set[Key] = set()  # versions that have windows enough for a reference, and are not marked good
        self._looked = -GOOD_SECONDS
        self._unkept: dict[Key, DriftState] = {}  # what could not be written

    def tend(
        self, now: float, tables: Mapping[Key, Tables], sums: Mapping[Key, Sequence[float]], unseen: Unseen
    ) -> None:
        """Cut blocks, close windows that are due, and freeze the reference of a version that was marked good.

        `sums` are the cells of all processes so far; `now` is in seconds of the monotonic clock.
        """
        refused = self._refused()
        for key in self._open.keys() - tables.keys():
            del self._open[key]
            self._waiting.discard(key)
        for key, own in tables.items():
            cells = np.array(sums.get(key, ()), dtype=np.float64)
            if len(cells) == own.size:
                self._tend_one(now, key, own, cells, _by_column(refused.get(key, {})), unseen.get(key, {}))
        if now - self._looked >= GOOD_SECONDS and self._waiting:
            self._looked = now
            for key in sorted(self._waiting):
                if drift_windows.is_good(self._store, key):
                    self._change(key, tables[key], partial(drift_windows.with_reference, tables[key]))

    def _tend_one(
        self,
        now: float,
        key: Key,
        tables: Tables,
        cells: Table,
        refused: Mapping[str, float],
        unseen: Mapping[str, MisraGries],
    ) -> None:
        """Tend one version's window."""
        window = self._open.get(key)
        if window is None:
            self._open[key] = OpenWindow(now, cells, refused)
            self._note_waiting(key, drift_state.read(self._store, key))
            return
        window.look(now, cells, refused, tables.tail, self._limits)
        if window.is_due(now, cells, refused, tables.tail, self._limits):
            closed = window.close(now, cells, refused, tables.tail, receipts.now())
            judge = partial(drift_windows.with_closed, self._store, self._limits, tables)
            self._change(key, tables, lambda state: judge(state, closed, unseen))

    def _change(self, key: Key, tables: Tables, change: Callable[[DriftState], DriftState]) -> None:
        """Replace a version's state on disk. If the disk refuses, it is logged, and the state stays in memory."""
        empty = DriftState(drift_state.FORMAT, tables.layout)
        before, after = empty, None
        try:
            with self._store.writing(f"keep the drift of {key[0]} {key[1]}"):
                before = self._unkept.get(key) or drift_state.read(self._store, key) or empty
                if before.layout != tables.layout:
                    before = empty
                after = change(before)
                drift_state.write(self._store, key, after)
                self._unkept.pop(key, None)
                drift_state.prune(self._store)
        except (ApplianceError, OSError) as error:
            log.error("drift cannot be kept", extra={"model": key[0], "version": key[1], "error": str(error)})
            if after is None:
                return
            self._unkept[key] = after
        self._note_waiting(key, after)
        drift_windows.tell(before.report, after.report)

    def _note_waiting(self, key: Key, state: DriftState | None) -> None:
        """Take note of whether a version waits to be marked good."""
        if state is not None and not state.frozen and len(state.windows) >= LEAST_WINDOWS:
            self._waiting.add(key)
        else:
            self._waiting.discard(key)


def _by_column(refused: Refused) -> dict[str, float]:
    """Return refusals by column, whatever their reason."""
    found: dict[str, float] = {}
    for (column, _), count in refused.items():
        found[column] = found.get(column, 0.0) + count
    return found

"""Cuts, judges and keeps the windows of every version that is watched; in the first process of a service alone.

One thread calls tend(). Each change of what is kept is read, changed and written with the store's lock held, so that
`appliance drift accept` never works on a state that is being replaced.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
import numpy as np

from appliance.drift_report import DriftReport, UnseenValue
from appliance.errors import ApplianceError
from appliance.inference.binning import Table
from appliance.monitoring import drift_judge, drift_state
from appliance.monitoring.drift_judge import Limits
from appliance.monitoring.drift_state import LEAST_WINDOWS, MOST_WINDOWS, DriftState
from appliance.monitoring.drift_tables import Tables
from appliance.monitoring.misra_gries import MisraGries
from appliance.monitoring.open_window import OpenWindow
from appliance.monitoring.refusals import Refused
from appliance.monitoring.shared_cells import Key
from appliance.monitoring.unseen_board import Unseen
from appliance.store import activation, receipts
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
                if self._is_good(key):
                    self._change(key, tables[key], partial(self._with_reference, tables[key]))

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
            self._change(key, tables, lambda state: self._judged(tables, state, closed, unseen))

    def _judged(
        self, tables: Tables, state: DriftState, closed: drift_judge.Closed, unseen: Mapping[str, MisraGries]
    ) -> DriftState:
        """Return the state after a closed window."""
        judged = drift_judge.judged(tables, state, closed, self._limits)
        if closed.rows(tables) >= self._limits.min_rows:  # a window with few rows would be a bad reference
            judged = drift_judge.with_window(judged, closed.kept())
        if judged.report is not None:
            judged = msgspec.structs.replace(judged, report=_with_unseen(judged.report, unseen, len(judged.windows)))
        return self._with_reference(tables, judged) if self._is_good((tables.name, tables.version)) else judged

    def _with_reference(self, tables: Tables, state: DriftState) -> DriftState:
        """Return the state with the device's own reference, where it has none and there are windows enough."""
        if state.frozen or len(state.windows) < LEAST_WINDOWS:
            return state
        log.info("drift reference is frozen", extra={"model": tables.name, "version": tables.version})
        return drift_judge.frozen(tables, state, state.windows[-MOST_WINDOWS:], receipts.now())

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
        _tell(before.report, after.report)

    def _note_waiting(self, key: Key, state: DriftState | None) -> None:
        """Take note of whether a version waits to be marked good."""
        if state is not None and not state.frozen and len(state.windows) >= LEAST_WINDOWS:
            self._waiting.add(key)
        else:
            self._waiting.discard(key)

    def _is_good(self, key: Key) -> bool:
        """Return whether a version is the active one and was marked good."""
        try:
            found = activation.read(self._store, key[0])
        except (ApplianceError, OSError):
            return False
        return found.active == key[1] and found.state == "good"


def _by_column(refused: Refused) -> dict[str, float]:
    """Return refusals by column, whatever their reason."""
    found: dict[str, float] = {}
    for (column, _), count in refused.items():
        found[column] = found.get(column, 0.0) + count
    return found


def _with_unseen(report: DriftReport, unseen: Mapping[str, MisraGries], windows: int) -> DriftReport:
    """Return a report with the unseen categories, and the number of windows that are kept."""
    columns = [
        msgspec.structs.replace(column, unseen_values=_shown(unseen[column.column]))
        if column.column in unseen
        else column
        for column in report.columns
    ]
    return msgspec.structs.replace(report, columns=columns, windows=windows)


def _shown(found: MisraGries) -> list[UnseenValue]:
    """Return the unseen categories that enough rows hold."""
    return [UnseenValue(value, rows) for value, rows in found.shown()]


def _tell(before: DriftReport | None, after: DriftReport | None) -> None:
    """Write a log line where drift of a version has begun, grown, shrunk or ended."""
    state = before.state if before else ""
    if after is None or after.state == state or not {state, after.state} & {"watch", "drift"}:
        return
    drifting = [{"column": one.column, "state": one.state, "because": one.because} for one in after.drifting()[:10]]
    extra = {"model": after.model, "version": after.version, "state": after.state, "columns": drifting}
    log.log(logging.INFO if after.state in ("fine", "too few rows") else logging.WARNING, "drift", extra=extra)

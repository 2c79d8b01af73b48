"""A closed window put into a version's state: judged, kept, and with others made the device's own reference.

What the service's keeper and `appliance score --observe` do alike. Only is_good() reads the disk.
"""

import logging
from collections.abc import Mapping

import msgspec

from appliance.drift_report import DriftReport, UnseenValue
from appliance.errors import ApplianceError
from appliance.monitoring import drift_judge
from appliance.monitoring.drift_judge import Closed, Limits
from appliance.monitoring.drift_state import LEAST_WINDOWS, MOST_WINDOWS, DriftState
from appliance.monitoring.drift_tables import Tables
from appliance.monitoring.misra_gries import MisraGries
from appliance.monitoring.shared_cells import Key
from appliance.store import activation, receipts
from appliance.store.versions import Store

log = logging.getLogger(__name__)


def with_closed(
    store: Store, limits: Limits, tables: Tables, state: DriftState, closed: Closed, unseen: Mapping[str, MisraGries]
) -> DriftState:
    """Return the state after a closed window, of which `unseen` has the categories that training did not see."""
    judged = drift_judge.judged(tables, state, closed, limits)
    if closed.rows(tables) >= limits.min_rows:  # a window with few rows would be a bad reference
        judged = drift_judge.with_window(judged, closed.kept())
    if judged.report is not None:
        judged = msgspec.structs.replace(judged, report=_with_unseen(judged.report, unseen, len(judged.windows)))
    return with_reference(tables, judged) if is_good(store, (tables.name, tables.version)) else judged


def with_reference(tables: Tables, state: DriftState) -> DriftState:
    """Return the state with the device's own reference, where it has none and there are windows enough."""
    if state.frozen or len(state.windows) < LEAST_WINDOWS:
        return state
    log.info("drift reference is frozen", extra={"model": tables.name, "version": tables.version})
    return drift_judge.frozen(tables, state, state.windows[-MOST_WINDOWS:], receipts.now())


def is_good(store: Store, key: Key) -> bool:
    """Return whether a version is the active one and was marked good."""
    try:
        found = activation.read(store, key[0])
    except (ApplianceError, OSError):
        return False
    return found.active == key[1] and found.state == "good"


def tell(before: DriftReport | None, after: DriftReport | None) -> None:
    """Write a log line where drift of a version has begun, grown, shrunk or ended."""
    state = before.state if before else ""
    if after is None or after.state == state or not {state, after.state} & {"watch", "drift"}:
        return
    drifting = [{"column": one.column, "state": one.state, "because": one.because} for one in after.drifting()[:10]]
    extra = {"model": after.model, "version": after.version, "state": after.state, "columns": drifting}
    log.log(logging.INFO if after.state in ("fine", "too few rows") else logging.WARNING, "drift", extra=extra)


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

"""Judges a closed window of a version, column by column and measure by measure, and keeps the states. Pure.

Measures: the values in their bins; and, each with two bins, what is missing, beyond the fences, unseen in training, the
same as in the row before, and refused. References: training, and the device's own windows once they are frozen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from appliance.config import DriftConfig
from appliance.drift_report import STATES, ColumnReport, DriftReport
from appliance.inference.binning import Table
from appliance.monitoring import drift
from appliance.monitoring.drift import FINE, TOO_FEW, Finding, Reference, Window
from appliance.monitoring.drift_state import (
    LEAST_WINDOWS,
    MOST_DAYS,
    MOST_WINDOWS,
    DriftState,
    KeptReference,
    KeptWindow,
)
from appliance.monitoring.drift_tables import (
    EXPECTED,
    JUDGED,
    MISSING,
    REPEATS,
    SUM,
    ColumnSpec,
    Tables,
)

TRAINING, DEVICE = "training", "device"
_WORDS = {
    "values": "its values differ from {}",
    "missing": "more or fewer values are missing than in {}",
    "beyond": "values are beyond the fences more often than in {}",
    "unseen": "categories are unseen more often than in {}",
    "repeats": "values repeat more or less often than in {}",
    "refused": "requests are refused because of it more or less often than in {}",
}
_NAMES = {TRAINING: "training", DEVICE: "the device's own past"}


@dataclass(frozen=True, slots=True)
class Closed:
    """A window that was closed: cells [blocks, Tables.size], and {column: refusals [blocks]}."""

    ended: str
    seconds: float
    cells: Table
    refused: Mapping[str, Table]

    def rows(self, tables: Tables) -> float:
        """Return its rows, and the requests that were refused: a sensor that turns NaN leaves no row to count."""
        return float(self.cells[:, tables.tail].sum() + sum(found.sum() for found in self.refused.values()))

    def kept(self) -> KeptWindow:
        """Return the window as it is kept: without its blocks."""
        refused = {column: float(found.sum()) for column, found in self.refused.items() if found.sum()}
        return KeptWindow(self.ended, self.seconds, [float(cell) for cell in self.cells.sum(axis=0).round(3)], refused)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a window is drift: the `psi` above which a column is watched, and how often chance may cause an alarm."""

    psi: float
    false_alarms_a_year: float
    window_seconds: float
    min_rows: int

    @classmethod
    def of(cls, config: DriftConfig) -> "Limits":
        """Return the limits of a configuration."""
        return cls(config.psi, config.false_alarms_a_year, config.window_seconds, config.min_rows)


def measures(column: ColumnSpec, cells: Table, refused: Table) -> Iterator[tuple[str, Table]]:
    """Yield (measure, counts [..., bins]) of a column's cells [..., size] and its refusals [...]."""
    bins = cells[..., column.start : column.own]
    present = bins.sum(axis=-1)
    if column.bins > 1:
        yield "values", bins
    yield "missing", drift.two_bins(cells[..., column.own + MISSING], present + cells[..., column.own + MISSING])
    if column.fenced:
        yield "beyond", drift.two_bins(bins[..., 0] + bins[..., -1], present)
    if column.closed:
        yield "unseen", drift.two_bins(bins[..., -1], present)
    if not column.is_output:
        if column.edges is not None:
            yield "repeats", drift.two_bins(cells[..., column.own + REPEATS], present)
        yield "refused", drift.two_bins(refused, present + cells[..., column.own + MISSING] + refused)


def of_training(column: ColumnSpec, measure: str, unseen: bool) -> Reference | None:
    """Return training's reference for a measure, None where it has none.

    Outputs of rows that a model was trained on look otherwise than those of new rows, so they count only where the
    sample was `unseen`. How often values repeat in training is not known.
    """
    if measure == "repeats" or (column.is_output and not unseen) or not column.trusted:
        return None
    bins, rows = column.reference, float(column.reference.sum())
    if measure == "values":
        return Reference(bins, column.design)
    if measure == "missing":
        whole = rows / (1 - column.missing) if column.missing < 1 else rows
        return Reference(np.array([whole * column.missing, whole * (1 - column.missing)]), column.design)
    if measure == "beyond":
        outside = bins[0] + bins[-1]
        return Reference(np.array([outside, rows - outside]), column.design)
    return Reference(np.array([0.0, rows]), column.design)  # unseen and refused: none was in training


def judged(tables: Tables, state: DriftState, closed: Closed, limits: Limits) -> DriftState:
    """Return the state after a closed window: its levels and the report; the window itself is kept by `added`."""
    columns, levels = [], {}
    alpha = drift.alpha_of(limits.false_alarms_a_year, limits.window_seconds, _tests(tables))
    enough = closed.rows(tables) >= limits.min_rows
    for column in tables.columns:
        judge = _ColumnJudge(column, tables, state, closed, alpha, limits.psi if enough else None)
        columns.append(judge.report())
        levels.update(judge.levels)
    return _with_report(tables, state, closed, columns, levels)


def frozen(tables: Tables, state: DriftState, windows: Sequence[KeptWindow], now: str) -> DriftState:
    """Return the state with the device's own reference made of `windows`; what was found against the old one ends."""
    cells = np.array([window.cells for window in windows])
    reference = {}
    for column in tables.columns:
        refused = np.array([window.refused.get(column.name, 0.0) for window in windows])
        for measure, counts in measures(column, cells, refused):
            live = drift.live_reference(counts)
            training = of_training(column, measure, tables.baseline.unseen)
            furthest = drift.largest_psi(training.counts, counts) if training else 0.0
            kept = [float(count) for count in live.counts]
            reference[f"{column.name}/{measure}"] = KeptReference(
                kept, live.design, live.window_rows, live.blocks, live.largest, furthest
            )
    levels = {key: level for key, level in state.levels.items() if not key.endswith(f"/{DEVICE}")}
    return _changed(state, reference=reference, frozen=now, frozen_windows=len(windows), levels=levels, alarm_windows=0)


def with_window(state: DriftState, window: KeptWindow) -> DriftState:
    """Return the state with a window more, and with the days that the windows before it have become."""
    windows = [*state.windows, window]
    days = list(state.days)
    if days and days[-1].ended[:10] == window.ended[:10]:
        days[-1] = _together(days[-1], window)
    else:
        days.append(window)
    return _changed(state, windows=windows[-MOST_WINDOWS:], days=days[-MOST_DAYS:])


def accepted(tables: Tables, state: DriftState, now: str) -> DriftState:
    """Return the state after an operator accepted the present drift.

    Columns that differ from training are then judged against the device alone. Its reference is made again: of the
    windows since the change, or of all windows if there is no alarm. With fewer than LEAST_WINDOWS it is made later,
    when there are as many.
    """
    off = {key.rsplit("/", 2)[0] for key, (level, _) in state.levels.items() if key.endswith(TRAINING) and level}
    windows = state.windows[-state.alarm_windows :] if state.alarm_windows else state.windows
    report = state.report
    if report is not None:
        columns = [_calm(column) for column in report.columns]
        states = {column.state for column in columns}
        report = msgspec.structs.replace(report, state="fine" if "fine" in states else report.state, columns=columns)
    calm = _changed(
        state,
        accepted=sorted({*state.accepted, *off}),
        windows=windows,
        levels={},
        alarm_windows=0,
        reference={},
        frozen="",
        frozen_windows=0,
        report=report,
    )
    return frozen(tables, calm, windows, now) if len(windows) >= LEAST_WINDOWS else calm


def _calm(column: ColumnReport) -> ColumnReport:
    """Return a column's report without drift."""
    if column.state not in ("watch", "drift"):
        return column
    return msgspec.structs.replace(column, state="fine", because=[])


def _together(day: KeptWindow, window: KeptWindow) -> KeptWindow:
    """Return two windows as one."""
    cells = [one + other for one, other in zip(day.cells, window.cells, strict=True)]
    names = day.refused.keys() | window.refused.keys()
    refused = {name: day.refused.get(name, 0.0) + window.refused.get(name, 0.0) for name in sorted(names)}
    return KeptWindow(window.ended, day.seconds + window.seconds, cells, refused)


def _tests(tables: Tables) -> int:
    """Return how many tests a window comes to."""
    cells = np.zeros(tables.size)
    return sum(len(list(measures(column, cells, np.zeros(())))) for column in tables.columns)


class _ColumnJudge:
    """One column of one window against both references; `psi` is None where the window has too few rows."""

    def __init__(
        self, column: ColumnSpec, tables: Tables, state: DriftState, closed: Closed, alpha: float, psi: float | None
    ) -> None:
        self._column, self._tables, self._state = column, tables, state
        self._alpha, self._psi = alpha, psi
        self._cells = closed.cells
        self._refused = np.asarray(closed.refused.get(column.name, np.zeros(len(closed.cells))))
        self.levels: dict[str, tuple[int, int]] = {}
        self._because: list[str] = []
        self._indices: dict[str, float] = {}
        self._state_now = TOO_FEW
        for measure, blocks in measures(column, self._cells, self._refused):
            self._judge(measure, blocks)

    def report(self) -> ColumnReport:
        """Return what is told of the column."""
        column, cells = self._column, self._cells.sum(axis=0)
        bins = cells[column.start : column.own]
        present = max(1.0, float(bins.sum()))
        rows = max(1.0, present + cells[column.own + MISSING])
        numbers = column.edges is not None and bool(bins.sum())
        return ColumnReport(
            column=column.name,
            role="output" if column.is_output else "input",
            state=STATES[self._state_now],
            because=self._because,
            psi={name: round(index, 4) for name, index in self._indices.items()},
            missing=round(float(cells[column.own + MISSING] / rows), 6),
            missing_in_training=column.missing,
            beyond=round(float((bins[0] + bins[-1]) / present), 6) if column.fenced else 0.0,
            unseen=round(float(bins[-1] / present), 6) if column.closed else 0.0,
            repeats=round(float(cells[column.own + REPEATS] / present), 4) if numbers else 0.0,
            refused=int(self._refused.sum()),
            mean_shift=round(float(cells[column.own + SUM] / present), 4) if numbers and column.deviation else None,
            kolmogorov_smirnov=_ks(column, bins),
            median=_median(column, bins) if numbers else None,
        )

    def _judge(self, measure: str, blocks: Table) -> None:
        """Judge one measure, and merge its state into the column's."""
        key = f"{self._column.name}/{measure}"
        training = of_training(self._column, measure, self._tables.baseline.unseen)
        device = _of_device(self._state.reference.get(key))
        window = Window(blocks)
        if training is not None:
            if device is not None:
                furthest = self._state.reference[key].largest_from_training
                training = drift.with_spread(training, device, furthest)
            decides = self._column.name not in self._state.accepted
            self._against(TRAINING, measure, training, window, decides)
        elif measure == "values" and not self._column.is_output and self._column.reference.sum():
            self._indices[TRAINING] = drift.psi(self._column.reference, window.counts)  # shown, decides nothing
        if device is not None:
            self._against(DEVICE, measure, device, window, True)

    def _against(self, name: str, measure: str, reference: Reference, window: Window, decides: bool) -> None:
        """Judge one measure against one reference."""
        key = f"{self._column.name}/{measure}/{name}"
        if measure == "values" and window.counts.sum():
            self._indices[name] = drift.psi(reference.counts, window.counts)
        state, before = self._state.levels.get(key, (FINE, FINE))
        found = Finding(0.0, TOO_FEW) if self._psi is None else drift.judge(reference, window, self._alpha, self._psi)
        now = drift.settled(state, before, found.level)
        self.levels[key] = (now, before if found.level == TOO_FEW else found.level)
        if not decides:
            return
        if found.level != TOO_FEW or now != FINE:
            self._state_now = now if self._state_now == TOO_FEW else max(self._state_now, now)
        if now != FINE:
            self._because.append(_WORDS[measure].format(_NAMES[name]) + f" (PSI {found.psi:.2f})")


def _with_report(
    tables: Tables,
    state: DriftState,
    closed: Closed,
    columns: list[ColumnReport],
    levels: dict[str, tuple[int, int]],
) -> DriftState:
    """Return the state with the report of a window."""
    cells = closed.cells.sum(axis=0)
    states = [STATES.index(column.state) for column in columns]
    worst = max((one for one in states if one != TOO_FEW), default=TOO_FEW)
    before = state.report.state if state.report else STATES[TOO_FEW]
    unchanged = before == STATES[worst] and state.report is not None
    judged_rows = float(cells[tables.tail + JUDGED])
    report = DriftReport(
        model=tables.name,
        version=tables.version,
        state=STATES[worst],
        since=state.report.since if unchanged and state.report else closed.ended,
        window_ended=closed.ended,
        window_seconds=round(closed.seconds, 1),
        window_rows=int(cells[tables.tail]),
        windows=len(state.windows),
        device_reference=state.frozen,
        device_windows=state.frozen_windows,
        accepted=state.accepted,
        estimated_accuracy=round(float(cells[tables.tail + EXPECTED]) / judged_rows, 4) if judged_rows else None,
        warnings=_warnings(tables),
        columns=columns,
    )
    # From the window on that was the first of two: rows before it are of the time before the change.
    pending = any(max(now, last) not in (FINE, TOO_FEW) for now, last in levels.values())
    return _changed(state, levels=levels, report=report, alarm_windows=state.alarm_windows + 1 if pending else 0)


def _warnings(tables: Tables) -> list[str]:
    """Return the reasons why some columns are not judged."""
    found = []
    if tables.baseline.format == 1:
        next_step = "convert the model again for counted bins"
        found.append(f"baseline.json has format 1, whose bins were not counted; {next_step}")
        tied = [column.name for column in tables.columns if not column.trusted]
        if tied:
            found.append(f"not judged against training, since their quantiles coincide: {', '.join(tied[:10])}")
    if tables.left_out:
        found.append(f"{tables.left_out} more columns are not watched")
    return found


def _of_device(kept: KeptReference | None) -> Reference | None:
    """Return the device's own reference of a measure."""
    if kept is None:
        return None
    return Reference(np.array(kept.counts), kept.design, kept.design, kept.window_rows, kept.blocks, kept.largest)


def _ks(column: ColumnSpec, bins: Table) -> float | None:
    """Return the Kolmogorov-Smirnov distance from training at the edges of a column of numbers."""
    if column.edges is None or not bins.sum() or column.bins < 2:
        return None
    return round(drift.kolmogorov_smirnov(column.reference, bins), 4)


def _median(column: ColumnSpec, bins: Table) -> float | None:
    """Return about the median of a column of numbers; None where it lies beyond the outermost edges."""
    edges = column.edges
    if edges is None or len(edges) < 2:
        return None
    upto = np.cumsum(bins)
    place = int(np.searchsorted(upto, upto[-1] / 2))
    if not 0 < place < len(edges):
        return None
    within = (upto[-1] / 2 - upto[place - 1]) / max(1.0, bins[place])
    return float(edges[place - 1] + within * (float(edges[place]) - float(edges[place - 1])))


def _changed(state: DriftState, **changes: object) -> DriftState:
    """Return the state with some of it replaced."""
    changed: DriftState = msgspec.structs.replace(state, **changes)
    return changed

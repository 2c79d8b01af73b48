"""How rows are spread over the bins of training, column by column: now, beside training. Pure.

For people who look at a drift: drift_judge.py decides, and needs none of this.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from appliance.drift_report import ColumnReport
from appliance.inference.binning import Table
from appliance.monitoring.drift import psi
from appliance.monitoring.drift_tables import MISSING, ColumnSpec, Tables, spelled

MOST_INPUTS = 50
"""Columns of the inputs that are shown, those that are furthest from training."""
MOST_CATEGORIES = 12
"""Of a column; the others are shown as one."""
LABEL = 60
"""Characters of a category that are shown."""


class ColumnDistribution(msgspec.Struct, frozen=True, kw_only=True):
    """One column's shares, from 0 to 1, in the same bins now and in training."""

    column: str
    role: str
    """`input` or `output`."""
    state: str
    """`fine`, `watch`, `drift` or `too few rows`, as the last window was judged."""
    because: list[str]
    psi: float | None
    """Population stability index against training; null without rows."""
    edges: list[float] = []
    """Of a column of numbers: bin k lies between edge k - 1 and edge k, the outermost are open."""
    labels: list[str] = []
    """Of a column of categories: the bins' names. The last one may be "", which is all others."""
    training: list[float]
    now: list[float]
    missing: float
    missing_in_training: float


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """How the rows of a version are spread; outputs first, then inputs, those furthest from training first."""

    model: str
    version: str
    rows: int
    """Rows that were counted."""
    until: str
    """The end of the last window (UTC, ISO 8601); "" for all rows since the service started, while there is none."""
    columns: list[ColumnDistribution]
    left_out: int
    """Columns that are not shown."""


def of(tables: Tables, cells: Sequence[float], until: str, reports: Mapping[str, ColumnReport]) -> Distribution:
    """Return the distribution by the cells of some rows [Tables.size]; `reports` are by column."""
    table = np.asarray(cells, dtype=np.float64)
    found = [_column(column, table, reports.get(column.name)) for column in tables.columns]
    outputs = [one for one in found if one.role == "output"]
    inputs = sorted((one for one in found if one.role == "input"), key=_furthest)
    return Distribution(
        model=tables.name,
        version=tables.version,
        rows=int(tables.rows(table)),
        until=until,
        columns=[*outputs, *inputs][: len(outputs) + MOST_INPUTS],
        left_out=max(0, len(inputs) - MOST_INPUTS) + tables.left_out,
    )


def _furthest(column: ColumnDistribution) -> tuple[bool, bool, float]:
    """Return a sort key that puts what is in drift first, then what is furthest from training."""
    return column.state != "drift", column.state != "watch", -(column.psi or 0.0)


def _column(column: ColumnSpec, cells: Table, report: ColumnReport | None) -> ColumnDistribution:
    """Return one column's shares."""
    counts, missing = cells[column.start : column.own], float(cells[column.own + MISSING])
    present = float(counts.sum())
    training, now = _shares(column.reference), _shares(counts)
    labels: list[str] = []
    if column.edges is None:
        labels, training, now = _categories(column, training, now)
    return ColumnDistribution(
        column=column.name,
        role="output" if column.is_output else "input",
        state=report.state if report else "too few rows",
        because=report.because if report else [],
        psi=round(psi(column.reference, counts), 4) if present and column.reference.sum() else None,
        edges=[] if column.edges is None else [float(edge) for edge in column.edges],
        labels=labels,
        training=training,
        now=now,
        missing=round(missing / (present + missing), 4) if present + missing else 0.0,
        missing_in_training=round(column.missing, 4),
    )


def _categories(
    column: ColumnSpec, training: list[float], now: list[float]
) -> tuple[list[str], list[float], list[float]]:
    """Return (names, training's shares, today's shares) of the most frequent categories, the others together."""
    names = [_spelled(value) for value, _ in sorted(column.bin_of.items(), key=lambda pair: pair[1])]
    names += [""] * (len(training) - len(names))
    order = sorted(range(len(names) - 1), key=lambda place: -max(training[place], now[place]))
    kept, rest = order[:MOST_CATEGORIES], [*order[MOST_CATEGORIES:], len(names) - 1]
    others = [round(sum(shares[place] for place in rest), 4) for shares in (training, now)]
    shown = [[shares[place] for place in kept] for shares in (training, now)]
    if not any(others):
        return [names[place] for place in kept], shown[0], shown[1]
    return [*(names[place] for place in kept), ""], [*shown[0], others[0]], [*shown[1], others[1]]


def _spelled(value: object) -> str:
    return spelled(value)[:LABEL]


def _shares(counts: Table) -> list[float]:
    """Return shares with four digits; zeros of no rows."""
    return [round(float(count), 4) for count in counts / max(1.0, float(counts.sum()))]

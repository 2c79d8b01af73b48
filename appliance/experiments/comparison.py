"""How two versions' answers to the same rows compare: agreement, table of labels, differences, worst rows.

Everything that is kept is sums, in cells of one fixed layout, so that processes add up and a restart goes on; only the
worst rows are rows. Differences are in a histogram with bounds that grow by 2 %, so a quantile is within 1 % of the
true one (as DDSketch has it: Masson, Rim & Lee 2019, arXiv:1908.10693).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from appliance.arrays import Array
from appliance.bundle.manifest import Label, Manifest, Output
from appliance.inference import comparison
from appliance.monitoring.shared_cells import Layout

REQUESTS, ROWS, AGREED, ERRORS, ACTIVE_NAN, CHALLENGER_NAN, ACTIVE_SECONDS, CHALLENGER_SECONDS = range(8)
"""Cells: requests and rows that both were asked; rows alike; requests that the challenger alone could not answer;
rows where only one of the two answered NaN; run times, of the challenger in batches."""
DROPPED = 8
"""Requests that were not copied, or copied and not asked, because there was no time or room."""
TIMED_ROWS = 9
LABELS = 16
"""Class labels of the largest table; a model with more has none."""
TABLE = 10
SMALLEST, LARGEST, GROWTH = 1e-12, 1e12, 1.02
BINS = int(np.ceil(np.log(LARGEST / SMALLEST) / np.log(GROWTH)))
HISTOGRAM = TABLE + LABELS * LABELS
"""Cells of the differences: none at all, BINS between SMALLEST and LARGEST, and beyond, as where one is NaN."""
CELLS = HISTOGRAM + 1 + BINS + 1
LAYOUT = Layout(".shadow", lambda key: CELLS)
WORST = 20
QUANTILES = (0.5, 0.9, 0.99, 1.0)

Cells = NDArray[np.float64]


class WorstRow(msgspec.Struct, frozen=True):
    """A row on which two versions differ most."""

    difference: float | None
    """None where only one of the two answers is a number, or they are texts."""
    id: str
    row: dict[str, Any]
    active: Any
    challenger: Any


@dataclass(frozen=True, slots=True)
class Compared:
    """Some rows' answers beside each other, row by row."""

    alike: NDArray[np.bool_]
    """[rows]: whether the predictions are within the tolerance, labels the same."""
    difference: Cells
    """[rows]: the largest |a - b| of the probabilities, else of the prediction; infinite where only one is a number."""
    active: Cells
    """[rows]: the prediction as a number, of a class label its place; see `as_numbers`."""
    challenger: Cells
    only_active_nan: int = 0
    only_challenger_nan: int = 0


class Comparer:
    """Compares a challenger's answers with the active version's; made once for two versions."""

    def __init__(self, active: Manifest, challenger: Manifest) -> None:
        self._tolerance = active.policy.tolerance
        self._prediction = _of_role(active.outputs, "prediction") or active.outputs[0]
        self._probability = _of_role(active.outputs, "probability")
        self.labels: list[Label] = list(active.class_labels)
        self._places = {label: place for place, label in enumerate(self.labels)}

    def compare(self, active: Mapping[str, Array], challenger: Mapping[str, Array]) -> Compared | None:
        """Return how two versions' outputs for the same rows compare; None where they have no output in common."""
        name = self._prediction.name
        if name not in active or name not in challenger:
            return None
        ours, theirs = active[name], challenger[name]
        alike = ~comparison.compare(self._prediction, self._tolerance, theirs, ours).wrong
        measured = self._probability.name if self._probability else name
        pair = (active[measured], challenger[measured]) if measured in active and measured in challenger else None
        difference = _differences(*pair) if pair else np.where(alike, 0.0, np.inf)
        nan_ours, nan_theirs = _nan_rows(active), _nan_rows(challenger)
        return Compared(
            alike,
            difference,
            as_numbers(ours, self._places),
            as_numbers(theirs, self._places),
            int(np.count_nonzero(nan_ours & ~nan_theirs)),
            int(np.count_nonzero(nan_theirs & ~nan_ours)),
        )


def add(cells: Cells, compared: Compared, labels: int) -> None:
    """Add some rows to the sums; `labels` is how many class labels there are."""
    cells[ROWS] += len(compared.alike)
    cells[AGREED] += int(np.count_nonzero(compared.alike))
    cells[ACTIVE_NAN] += compared.only_active_nan
    cells[CHALLENGER_NAN] += compared.only_challenger_nan
    count_differences(cells[HISTOGRAM:], compared.difference)
    if 0 < labels <= LABELS:
        known = (compared.active >= 0) & (compared.challenger >= 0)
        places = compared.active[known].astype(int) * LABELS + compared.challenger[known].astype(int)
        np.add.at(cells, TABLE + places, 1)


def new_histogram() -> Cells:
    """Return a histogram of differences without any."""
    return np.zeros(CELLS - HISTOGRAM)


def count_differences(histogram: Cells, differences: Cells) -> None:
    """Add some rows' differences to a histogram."""
    np.add.at(histogram, _bins(differences), 1)


def quantiles(histogram: Cells) -> dict[str, float | None] | None:
    """Return {level: difference} of a histogram: within 1 %, None for one beyond all bounds; None without a row."""
    return {f"{level:g}": _quantile(histogram, level) for level in QUANTILES} if histogram.sum() else None


def as_numbers(answers: Array, places: Mapping[Label, int]) -> Cells:
    """Return predictions as float64 [rows]: of a class label its place (-1 for an unknown one), else the number itself.

    Of an answer of several numbers the first one.
    """
    flat = answers.reshape(len(answers), -1)[:, 0]
    if places:
        return np.array([places.get(label, -1) for label in flat.tolist()], np.float64)
    return flat.astype(np.float64) if flat.dtype.kind in "fiub" else np.full(len(flat), np.nan)


def report(cells: Sequence[float], labels: Sequence[Label], worst: Sequence[WorstRow] = ()) -> dict[str, Any]:
    """Return what the sums say, as a document: shares from 0 to 1, times in seconds for a row."""
    sums = np.asarray(cells, np.float64)
    rows, timed = int(sums[ROWS]), sums[TIMED_ROWS]
    document: dict[str, Any] = {
        "requests": int(sums[REQUESTS]),
        "rows": rows,
        "dropped_requests": int(sums[DROPPED]),
        "agreement": float(sums[AGREED] / rows) if rows else None,
        "errors": int(sums[ERRORS]),
        "nan": {"active": int(sums[ACTIVE_NAN]), "challenger": int(sums[CHALLENGER_NAN])},
        "difference": quantiles(sums[HISTOGRAM:]),
        "row_seconds": _times(sums, timed) if timed else None,
        "worst_rows": [msgspec.to_builtins(row) for row in worst],
    }
    if 0 < len(labels) <= LABELS:
        table = sums[TABLE:HISTOGRAM].reshape(LABELS, LABELS)[: len(labels), : len(labels)].astype(int)
        document["labels"], document["table"] = list(labels), table.tolist()
    return document


def figures(cells: Sequence[float]) -> dict[str, float]:
    """Return the first numbers of the sums, for /metrics: requests, rows, agreement (0 to 1), errors, dropped."""
    rows = cells[ROWS]
    return {
        "requests": cells[REQUESTS],
        "rows": rows,
        "agreement": cells[AGREED] / rows if rows else 0.0,
        "errors": cells[ERRORS],
        "dropped_requests": cells[DROPPED],
    }


def worst_of(rows: Sequence[WorstRow]) -> list[WorstRow]:
    """Return those of some rows on which the versions differ most, the worst first."""
    return sorted(rows, key=lambda row: (-how_far(row), row.id))[:WORST]


def how_far(row: WorstRow) -> float:
    """Return a row's difference, infinite where it has none."""
    return np.inf if row.difference is None else row.difference


def _times(sums: Cells, rows: float) -> dict[str, float]:
    """Return each version's time for a row; the challenger answers in batches, which is quicker than one by one."""
    active, challenger = float(sums[ACTIVE_SECONDS] / rows), float(sums[CHALLENGER_SECONDS] / rows)
    return {"active": active, "challenger_in_batches": challenger, "quotient": challenger / active if active else 0.0}


def _quantile(histogram: Cells, level: float) -> float | None:
    """Return a quantile of the differences, within 1 %; None where it is beyond all bounds."""
    place = int(np.searchsorted(np.cumsum(histogram), max(level * histogram.sum(), 1)))
    if place == 0:
        return 0.0
    return float(SMALLEST * GROWTH ** (place - 0.5)) if place <= BINS else None


def _bins(difference: Cells) -> NDArray[np.intp]:
    """Return the place of each difference in the histogram."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        bins = np.ceil(np.log(difference / SMALLEST) / np.log(GROWTH))
    return np.clip(np.where(np.isnan(bins), BINS + 1, bins), 0, BINS + 1).astype(np.intp)


def _differences(ours: Array, theirs: Array) -> Cells:
    """Return the largest |a - b| of each row; infinite where only one is a number, or the shapes differ."""
    if ours.shape != theirs.shape:
        return np.full(len(ours), np.inf)
    if ours.dtype.kind not in "fiub" or theirs.dtype.kind not in "fiub":
        return np.where((ours != theirs).reshape(len(ours), -1).any(axis=1), np.inf, 0.0)
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(invalid="ignore"):
        far = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    largest: Cells = np.nan_to_num(far, nan=np.inf, posinf=np.inf).reshape(len(far), -1).max(axis=1, initial=0.0)
    return largest


def _nan_rows(outputs: Mapping[str, Array]) -> NDArray[np.bool_]:
    """Return for each row whether any of its numbers is NaN."""
    rows = len(next(iter(outputs.values())))
    found = np.zeros(rows, bool)
    for array in outputs.values():
        if array.dtype.kind == "f":
            found |= np.isnan(array).reshape(rows, -1).any(axis=1)
    return found


def _of_role(outputs: Sequence[Output], role: str) -> Output | None:
    return next((output for output in outputs if output.role == role), None)

"""How far a window of rows is from a reference, and whether that is drift or chance. Pure: sums in, verdict out.

Two conditions must hold for an alarm, in two windows running. The population stability index must be large (the change
matters), and chance must not explain it (the change is real). The second asks how many rows tell as much as one
independent row (the design effect), since a sensor's readings resemble the ones before them.

Sources: PSI and its distribution: Yurdakul (2018), Statistical Properties of Population Stability Index. Design
effects: Rao and Scott (1981), JASA 76. F to a normal: Paulson (1942), Annals of Mathematical Statistics 13. Estimated
performance: NannyML's CBPE, docs/how_it_works/performance_estimation.rst. How they were tried: benchmarks/drift.py.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.inference.binning import Table, design_effect

FINE, WATCH, DRIFT, TOO_FEW = 0, 1, 2, 3
"""The states of a column. WATCH: the index is above `psi`; DRIFT: above twice of it. TOO_FEW: nothing can be said."""
LEAST_BLOCKS = 5
"""Blocks of rows below which a window says nothing of its own design effect."""
HOURS_A_YEAR = 8760
_EMPTY = 0.5
_ROUNDED = 2.0  # variance of a count that is rounded to a multiple of 5: (5 * 5 - 1) / 12


def shares(table: Table) -> Table:
    """Return the shares of counts [bins]; an empty bin counts as half a row, or an index would be infinite."""
    filled = np.maximum(table, _EMPTY)
    result: Table = filled / filled.sum()
    return result


def psi(reference: Table, window: Table) -> float:
    """Return the population stability index of counts [bins]: sum of (q - p) ln(q / p)."""
    p, q = shares(reference), shares(window)
    return float(((q - p) * np.log(q / p)).sum())


def chi_square(reference: Table, window: Table, design: float, reference_design: float) -> float:
    """Return X2 of counts [bins] for as many rows as the design effects leave: about chi-square, bins - 1 degrees."""
    p, q = shares(reference), shares(window)
    rows, reference_rows = window.sum(), reference.sum()
    if rows == 0 or reference_rows == 0:
        return 0.0
    return float(rows * ((q - p) ** 2 / p).sum() / (design + reference_design * rows / reference_rows))


def is_beyond_chance(statistic: float, bins: int, blocks: float, alpha: float) -> bool:
    """Return whether X2 is beyond the 1 - alpha quantile of F, the design effects being estimated from `blocks`.

    The degrees are bins - 1 and (blocks - 1) (bins - 1) / 3; the latter is a cautious choice, tried by simulation.
    """
    first = bins - 1
    second = (blocks - 1) * first / 3
    if first < 1 or second <= 0 or statistic <= 0:
        return False
    return math.erfc(paulson(statistic / first, first, second) / math.sqrt(2)) / 2 < alpha


def paulson(f: float, first: float, second: float) -> float:
    """Return about the normal quantile that has the probability of `f` under F with `first` and `second` degrees.

    Far out it is too small, so that an alarm is never bolder than it says: 4.4e-6 for 3.8e-6 (13 and 82 degrees).
    """
    root = math.cbrt(f)
    a, b = 2 / (9 * first), 2 / (9 * second)
    return ((1 - b) * root - (1 - a)) / math.sqrt(a + b * root * root)


def alpha_of(false_alarms_a_year: float, window_seconds: float, tests: int) -> float:
    """Return the probability of a false alarm in one window and test (Bonferroni over windows and tests)."""
    windows = HOURS_A_YEAR * 3600 / window_seconds
    return min(0.5, false_alarms_a_year / (windows * max(1, tests)))


@dataclass(frozen=True, slots=True)
class Reference:
    """What a window is measured against: counts [bins], and how far windows stray from them by chance."""

    counts: Table
    design: float = 1.0
    """Of the counts: how many of their rows tell as much as one independent row."""
    window_design: float = 0.0
    """Of a window, where the reference knows it better than the window itself: from windows of the past; 0: it does
    not.
    """
    window_rows: float = 0.0
    """Rows of such a window."""
    blocks: float = 0.0
    """Windows from which `window_design` is known."""
    largest: float = 0.0
    """PSI of the past window that was furthest away: an alarm needs more."""

    @property
    def tells(self) -> bool:
        """Whether there is anything to compare with."""
        return len(self.counts) > 1 and bool(self.counts.sum() > 0)


@dataclass(frozen=True, slots=True)
class Window:
    """Counts [blocks, bins] of the blocks of rows that a window has."""

    blocks: Table

    @property
    def counts(self) -> Table:
        """Counts [bins] of all rows."""
        summed: Table = self.blocks.sum(axis=0)
        return summed

    @property
    def filled(self) -> int:
        """Blocks that have rows."""
        return int((self.blocks.sum(axis=1) > 0).sum())


@dataclass(frozen=True, slots=True)
class Finding:
    """How far one window is from one reference: the index, and the state by this window alone."""

    psi: float
    level: int


def judge(reference: Reference, window: Window, alpha: float, least_psi: float) -> Finding:
    """Return how far a window is from a reference.

    WATCH is above `least_psi`, DRIFT above twice that, where chance does not explain it.
    """
    if not reference.tells or window.counts.sum() == 0:
        return Finding(0.0, TOO_FEW)
    index = psi(reference.counts, window.counts)
    if index <= max(least_psi, reference.largest):
        return Finding(index, FINE)
    design, blocks = _window_design(reference, window)
    if blocks < LEAST_BLOCKS:
        return Finding(index, TOO_FEW)
    own = reference.design + _ROUNDED * len(reference.counts) / reference.counts.sum()
    statistic = chi_square(reference.counts, window.counts, design, own)
    if not is_beyond_chance(statistic, len(reference.counts), blocks, alpha):
        return Finding(index, FINE)
    return Finding(index, DRIFT if index > 2 * least_psi else WATCH)


def settled(state: int, before: int, now: int) -> int:
    """Return a column's state after a window of level `now`, `before` being the level of the window before.

    It changes when two windows in a row say the same.
    """
    if now == TOO_FEW:
        return state
    before = FINE if before == TOO_FEW else before
    state = FINE if state == TOO_FEW else state
    return max(min(before, now), min(state, max(before, now)))


def live_reference(windows: Table) -> Reference:
    """Return the reference that windows of the past make, counts [windows, bins]: their spread is the honest design."""
    counts: Table = windows.sum(axis=0)
    filled = windows[windows.sum(axis=1) > 0]
    if not len(filled):
        return Reference(counts)
    spread = design_effect(filled)
    rows = float(counts.sum() / len(filled))
    return Reference(counts, spread, spread, rows, len(filled), largest_psi(counts, filled))


def largest_psi(reference: Table, windows: Table) -> float:
    """Return the index of the window [windows, bins] that is furthest from a reference."""
    return max((psi(reference, one) for one in windows if one.sum()), default=0.0)


def with_spread(training: Reference, live: Reference, largest: float) -> Reference:
    """Return training's reference, with chance measured on the host's own windows.

    Chance is their spread, and their largest distance from training so far.
    """
    return Reference(training.counts, training.design, live.window_design, live.window_rows, live.blocks, largest)


def two_bins(hits: NDArray[Any], rows: NDArray[Any]) -> Table:
    """Return counts [..., 2] of rows that something holds of, and of the others."""
    return np.stack([hits, np.maximum(rows - hits, 0)], axis=-1).astype(float)


def expected_accuracy(top: NDArray[Any], upto: Table, right: Table) -> float:
    """Return the sum of the calibrated top probabilities [rows], by bins that end at `upto` and are `right` so often.

    Divided by the rows it is the accuracy to be expected (CBPE). It sees shifted inputs, never a changed relation
    between inputs and truth.
    """
    place = np.minimum(np.searchsorted(upto, top), len(upto) - 1)
    return float(right[place].sum())


def kolmogorov_smirnov(reference: Table, window: Table) -> float:
    """Return the largest distance of the cumulative shares at the edges; it is only shown."""
    p, q = reference / max(1.0, reference.sum()), window / max(1.0, window.sum())
    return float(np.abs(np.cumsum(p - q)).max())


def _window_design(reference: Reference, window: Window) -> tuple[float, float]:
    """Return the design effect of a window, and of how many blocks it is known."""
    own = design_effect(window.blocks)
    if not reference.window_design:
        return own, window.filled
    # Of more rows than the past windows had, each tells less: the effect grows as (rows - 1) times a correlation.
    larger = max(1.0, float(window.counts.sum()) / max(1.0, reference.window_rows))
    past = 1 + (reference.window_design - 1) * larger
    return past, reference.blocks

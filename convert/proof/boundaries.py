"""Rows at which a model changes its answer, searched for between rows of the sample that it answers differently."""

import zlib
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from convert.model.arrays import Array, Mask
from convert.model.schema import Limits, Schema
from convert.proof.rows import MOST_CELLS, SEED, Batch, decimals

Ask = Callable[[pd.DataFrame], Mapping[str, Array]]

PAIRS = 48
MOST_JUMPS = 512
SECTIONS = 16  # parts that a stretch is cut into at once: one call with more rows costs less than several calls
_STEPS = 15  # 16 ** 14 > 2 ** 53: then the ends are neighbouring float64
_FEW_SECTIONS = 4  # for many stretches at once, where the rows cost more than the calls; 4 ** 15 = 2 ** 30
_ROUNDINGS = 4  # of float32, of the column's value
_ASIDE = 2.0**-10  # share of the stretch between both rows: about as near to the boundary as readings come by chance
_CLOSE = 2.0**-18  # nearer than half of a tolerance of 1e-5, which float32 inputs have to keep


def search(schema: Schema, limits: Limits, answers: Ask) -> list[Batch]:
    """Return rows beside the boundaries between `answers`, the same rounded as readings are, and rows on them.

    Between two rows either all numbers change or one of them. This stretch is cut into sections; the first section at
    whose end the answer differs from that of the start is cut again, and so on (bisection in more than two parts).
    If `answers` raises for a row on the way, the search ends without rows.
    """
    stretch = _Stretch.between_rows(schema, limits, answers)
    try:
        low, high = stretch.narrowed(np.arange(PAIRS) % 4 < 2)
    except Exception:  # noqa: BLE001 - a model is other people's code: what it raises is its refusal
        return []
    if not len(low):
        return []
    continuous = stretch.differs_by_rounding(low, high)
    away = stretch.aside(high, _ASIDE)
    steps = [low[~continuous], high[~continuous]]
    ties = [low[continuous], high[continuous]]
    batches = [
        Batch(
            "boundaries",
            "beside where the answer changes, by 2^-10 of the way between two rows",
            _joined([stretch.aside(low, -_ASIDE), away]),
        ),
        Batch(
            "close boundaries",
            "the same by 2^-18 of the way",
            _joined([stretch.aside(low, -_CLOSE), stretch.aside(high, _CLOSE)]),
        ),
        Batch(
            "rounded boundaries",
            "the same, rounded to the decimals of the columns",
            stretch.rounded(away),
        ),
        Batch("steps", "whole numbers between which the answer changes", _joined(steps)),
        Batch("ties", "float64 neighbours between which the answer changes", _joined(ties), _joined(ties[::-1])),
    ]
    return [batch for batch in batches if len(batch.frame)]


def jumps(schema: Schema, limits: Limits, answers: Ask) -> list[Batch]:
    """Return rows just beside where the numbers of an answer jump along one column: trees' thresholds, edges of bins.

    The rows reach the split, whatever steps lie before the trees, since their answers differ. They lie a few roundings
    of float32 beside it, where each side has one right answer. If `answers` raises, the search ends without rows.
    """
    pairs = min(MOST_JUMPS, max(PAIRS, MOST_CELLS // len(schema.columns) // (2 * _FEW_SECTIONS)))
    stretch = _Stretch.between_rows(schema, limits, answers, pairs, alone=True)
    try:
        low, high = stretch.narrowed(np.zeros(pairs, dtype=bool), _FEW_SECTIONS)
    except Exception:  # noqa: BLE001 - a model is other people's code: what it raises is its refusal
        return []
    drawn = "either side of where the answer jumps along a column (a threshold, a bin's edge), float32 roundings aside"
    beside = Batch("jumps", drawn, _joined([stretch.roundings_aside(low, -1), stretch.roundings_aside(high, 1)]))
    return [beside] if len(low) else []


class _Stretch:
    """The way from some rows (`start`) to others (`end`) that the model answers differently."""

    def __init__(self, start: pd.DataFrame, end: pd.DataFrame, whole: dict[str, bool], answers: Ask) -> None:
        self.start, self.end = start, end
        self.whole = whole
        self.answers = answers

    @classmethod
    def between_rows(
        cls, schema: Schema, limits: Limits, answers: Ask, pairs: int = PAIRS, alone: bool = False
    ) -> "_Stretch":
        """Return stretches between random rows of the sample: half of them along all numbers, half along one.

        `alone` lets all of them run along one.
        """
        rng = np.random.default_rng(SEED)
        whole = {
            column.name: column.kind == "int64"
            for column in schema.columns
            if column.kind in ("float", "int64") and column.name not in limits.categories
        }
        picked = rng.integers(0, len(schema.frame), (2, pairs))
        start, other = (schema.frame.iloc[rows].reset_index(drop=True) for rows in picked)
        chosen = rng.integers(0, max(1, len(whole)), pairs)
        end = {}
        for name in start:
            own, far = start[name].to_numpy(), other[name].to_numpy()
            if name in whole:
                moves = np.isfinite(own.astype("float64")) & np.isfinite(far.astype("float64"))
                moves &= ((np.arange(pairs) % 2 == 0) & (not alone)) | (chosen == list(whole).index(str(name)))
                own = np.where(moves, far, own)
            end[name] = pd.Series(own, dtype=start[name].dtype)
        return cls(start, pd.DataFrame(end), whole, answers)

    def narrowed(self, follows: Mask, sections: int = SECTIONS) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return both ends of each stretch, narrowed to where the answer changes; those without a change are left out.

        `follows` says for each stretch whether the first output is compared, else the last.
        """
        wanted = self._followed(self.start, follows)
        differ = _unlike(self._followed(self.end, follows), wanted)
        self.start, self.end = (rows[differ].reset_index(drop=True) for rows in (self.start, self.end))
        low, high, wanted, follows = self.start, self.end, wanted[differ], follows[differ]
        for _ in range(_STEPS if len(low) else 0):
            parts = [self._between(low, high, index / sections) for index in range(sections + 1)]
            inner = self._followed(pd.concat(parts[1:-1], ignore_index=True), np.tile(follows, sections - 1))
            changed = _unlike(inner, np.tile(wanted, (sections - 1, 1))).reshape(sections - 1, -1)
            first = np.vstack([changed, np.ones((1, len(low)), dtype=bool)]).argmax(axis=0)
            low, high = _picked(parts, first), _picked(parts, first + 1)
        return self._jumps(low, high, follows) if len(low) else (low, high)

    def _jumps(self, low: pd.DataFrame, high: pd.DataFrame, follows: Mask) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the ends between which the answer jumps, and keep their stretches."""
        one, other = self._followed(low, follows), self._followed(high, follows)
        kept = _unlike(one, other) & ~np.isclose(one, other, rtol=1e-6, atol=1e-6, equal_nan=True).all(axis=1)
        self.start, self.end = (rows[kept].reset_index(drop=True) for rows in (self.start, self.end))
        return low[kept].reset_index(drop=True), high[kept].reset_index(drop=True)

    def differs_by_rounding(self, low: pd.DataFrame, high: pd.DataFrame) -> Mask:
        """Return where the ends differ in floats alone: between two whole numbers there is no rounding."""
        steps = [low[n].to_numpy() != high[n].to_numpy() for n, is_whole in self.whole.items() if is_whole]
        return ~np.any(steps, axis=0) if steps else np.ones(len(low), dtype=bool)

    def aside(self, rows: pd.DataFrame, share: float) -> pd.DataFrame:
        """Return rows moved by a share of their stretch, towards its end or, below 0, its start."""
        return self._moved(rows, {name: share * self._length(name) for name in self.whole})

    def roundings_aside(self, rows: pd.DataFrame, sign: int) -> pd.DataFrame:
        """Return rows moved by a few roundings of float32, on along their stretch where `sign` is 1, else back."""
        by = {}
        for name, is_whole in self.whole.items():
            size = np.abs(rows[name].to_numpy(dtype="float64"))
            step = 0.0 if is_whole else _ROUNDINGS * np.spacing(size.astype("float32"))
            by[name] = sign * np.sign(self._length(name)) * step
        return self._moved(rows, by)

    def rounded(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return rows rounded to the decimals that the columns of the sample have."""
        rows = rows.copy()
        for name, is_whole in self.whole.items():
            places = None if is_whole else decimals(self.start[name].to_numpy())
            if places is not None:
                rows[name] = rows[name].round(places)
        return rows

    def _followed(self, rows: pd.DataFrame, first: Mask) -> Array:
        """Return the answer [rows, numbers] to follow: the first output where `first`, else the last.

        Labels change at decision boundaries, probabilities and numbers at every threshold of a tree.
        """
        answers = [numbered(answer) for answer in self.answers(rows).values()]
        width = max(answers[0].shape[1], answers[-1].shape[1])
        one, other = (np.pad(a, ((0, 0), (0, width - a.shape[1]))) for a in (answers[0], answers[-1]))
        return np.where(first[:, None], one, other)

    def _length(self, name: str) -> Array:
        return np.asarray(self.end[name].to_numpy(dtype="float64") - self.start[name].to_numpy(dtype="float64"))

    def _between(self, low: pd.DataFrame, high: pd.DataFrame, share: float) -> pd.DataFrame:
        if share in (0.0, 1.0):
            return high if share else low
        lengths = {n: high[n].to_numpy(dtype="float64") - low[n].to_numpy(dtype="float64") for n in self.whole}
        return self._moved(low, {name: share * length for name, length in lengths.items()})

    def _moved(self, rows: pd.DataFrame, by: dict[str, Array]) -> pd.DataFrame:
        columns = {}
        for name in rows:
            values, dtype = rows[name], rows[name].dtype
            if name in by:
                moved = values.to_numpy(dtype="float64") + np.nan_to_num(by[str(name)])
                values = pd.Series(np.floor(moved) if self.whole[str(name)] else moved, dtype=dtype)
            columns[name] = values
        return pd.DataFrame(columns)


def numbered(answer: Array) -> Array:
    """Return an answer as float64 [rows, numbers], texts as numbers that stay the same from call to call."""
    flat = np.asarray(answer).reshape(len(answer), -1)
    if flat.dtype.kind in "OUS":
        texts, index = np.unique(flat.astype(str), return_inverse=True)
        flat = np.array([zlib.crc32(text.encode()) for text in texts])[index].reshape(flat.shape)
    return flat.astype("float64")


def _unlike(one: Array, other: Array) -> Mask:
    """Return for each row whether two answers differ; NaN is like NaN."""
    return np.asarray(((one != other) & ~(np.isnan(one) & np.isnan(other))).any(axis=1))


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True)


def _picked(parts: list[pd.DataFrame], index: Array) -> pd.DataFrame:
    """Return row i of `parts[index[i]]`."""
    stacked = pd.concat(parts, ignore_index=True)
    return stacked.iloc[index * len(parts[0]) + np.arange(len(index))].reset_index(drop=True)

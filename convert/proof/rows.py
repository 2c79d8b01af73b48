"""The rows a proof is made of: the sample, rows around it, at its edges, and beyond what training saw."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from convert.model.arrays import Array, Mask
from convert.model.schema import Column, Limits, Schema

SEED = 20240611
MOST_SAMPLE_ROWS = 20_000
MOST_CELLS = 2_000_000  # of one kind of rows: a wide table is proved with fewer rows
DRAWN_ROWS = 1_000
ROWS_PER_COLUMN = 16
MOST_MIDPOINTS = 4_000
UNSEEN_TEXTS = ("never seen in training", "", "ünsèen Ω", "UNSEEN-2, again.", " ", "nan", "None")
SCALES = (1e6, 1e-6)
ALWAYS = (0.0, 1.0, -1.0)
"""Values tried in every column of numbers, beside -0.0: a step may treat them specially."""
MOST_LISTED = 256  # of the allowed values of a column
MOST_TOGETHER = 256
_SPECIAL_ROWS = 4  # of the sample for each special value; ROWS_PER_COLUMN for those of every column
_WHOLE = 2.0**62
WHOLE_NUMBERS = (float(2**24 + 1), 1_700_000_001.0)  # the first that float32 cannot hold; a day in 2023 as Unix time


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one kind, and a text that says how they were drawn.

    `beside` holds for each row a neighbour that differs by one float64 rounding. The original may answer it
    differently; then both answers are right.
    """

    kind: str
    drawn: str
    frame: pd.DataFrame
    beside: pd.DataFrame | None = None

    def kept(self, mask: Mask) -> "Batch":
        """Return the batch with the rows of `mask` alone."""
        if mask.all():
            return self
        beside = None if self.beside is None else self.beside[mask].reset_index(drop=True)
        return Batch(self.kind, self.drawn, self.frame[mask].reset_index(drop=True), beside)


def draw(
    schema: Schema,
    limits: Limits,
    thresholds: Mapping[str, tuple[Array, Array]],
    specials: Mapping[str, list[Any]] | None = None,
    least: float = 0.0,
) -> list[Batch]:
    """Return the proof's rows; the same arguments and SEED give the same rows.

    `thresholds` are {column: values at which a tree splits, and for each the row of the sample that comes there},
    `specials` {column: values that a step may treat specially}. Only values that `limits` lets in are
    drawn, since the device refuses the others; for numbers nearer to 0 than `least`, 0 is drawn.
    """
    rng = np.random.default_rng(SEED)
    sample = schema.frame
    if len(sample) > MOST_SAMPLE_ROWS:
        sample = sample.iloc[np.sort(rng.choice(len(sample), MOST_SAMPLE_ROWS, replace=False))]
    drawer = _RowDrawer(schema, limits, rng, least)
    batches = [
        Batch("sample", f"the sample's rows, at most {MOST_SAMPLE_ROWS}", sample.reset_index(drop=True)),
        drawer.changed("noise", "numbers moved by normal noise of a tenth of their deviation", _noise),
        drawer.changed("rounded", "the same, rounded to the decimals that the column has", _rounded_noise),
        drawer.changed("shuffled", "each column shuffled by itself", _shuffled),
        drawer.changed("float32 neighbours", "the next float32 above or below", _neighbour("float32")),
        drawer.changed("float64 neighbours", "the next float64 above or below", _neighbour("float64")),
        drawer.edges(),
        drawer.on_thresholds(thresholds),
        drawer.midpoints(),
        drawer.magnitudes(),
        *drawer.singled_out(specials or {}),
        *drawer.special(),
    ]
    return [batch for batch in batches if len(batch.frame)]


def with_values(schema: Schema, values: Mapping[str, list[Any]]) -> pd.DataFrame:
    """Return rows of the sample, one for each value in turn, with that value in its column."""
    total = sum(map(len, values.values()))
    picked = np.arange(total) % len(schema.frame)
    columns = {column.name: schema.frame[column.name].to_numpy()[picked] for column in schema.columns}
    start = 0
    for name, own in values.items():
        columns[name][start : start + len(own)] = own
        start += len(own)
    # Built at once: assigning to a wide table column by column takes minutes. The dtype is given, since pandas would
    # turn objects into its own text type, in which None becomes NaN.
    return pd.DataFrame({name: pd.Series(array, dtype=array.dtype) for name, array in columns.items()})


def decimals(values: Array) -> int | None:
    """Return how many decimals the finite values are written with, or None when more than six."""
    finite = values[np.isfinite(values)].astype("float64")[:1_000]
    for places in range(7):
        if np.allclose(np.round(finite, places), finite, rtol=1e-9 if values.dtype == np.float64 else 1e-6, atol=0):
            return places
    return None


def whole(value: float) -> int:
    """Return a number rounded, and kept within int64."""
    return round(min(max(value, -_WHOLE), _WHOLE))


class _RowDrawer:
    """Draws batches from one sample; columns that take only certain values keep to them."""

    def __init__(self, schema: Schema, limits: Limits, rng: np.random.Generator, least: float) -> None:
        self.schema = schema
        self.limits = limits
        self.rng = rng
        self.least = least
        self.count = max(50, min(DRAWN_ROWS, MOST_CELLS // len(schema.columns)))

    def changed(self, kind: str, drawn: str, change: Callable[[Array, np.random.Generator], Array]) -> Batch:
        """Return rows drawn from the sample, each column changed by `change` where it may be."""
        picked = self.rng.integers(0, len(self.schema.frame), self.count)
        columns = {}
        for column in self.schema.columns:
            values = self.schema.frame[column.name].to_numpy()[picked]
            free = column.name not in self.limits.categories
            changed = change(values, self.rng) if free else values
            if self.least and changed.dtype.kind == "f":
                changed = np.where(np.abs(changed) < self.least, 0.0, changed)
            columns[column.name] = _fitting(column, changed, values.dtype)
        return Batch(kind, drawn, pd.DataFrame(columns))

    def edges(self) -> Batch:
        """Return rows with a column, or all of them, at the sample's least and greatest values and beyond."""
        levels = {column.name: self._levels(column) for column in self.schema.columns}
        rows = max(4, min(self.count, 4 * len(levels)))
        frame = _resized(self.schema.frame, rows + 104)
        for index, column in enumerate(self.schema.columns):
            values, own = frame[column.name].to_numpy().copy(), levels[column.name]
            if len(own):
                values[:rows][index * 4 % rows : index * 4 % rows + 4] = np.resize(own, 4)
                values[rows : rows + 4] = np.resize(own, 4)
                values[rows + 4 :] = self.rng.choice(own, 100)
            frame[column.name] = _fitting(column, values, self.schema.frame[column.name].dtype)
        return Batch("edges", "columns at least, greatest, and half the range beyond either", frame)

    def on_thresholds(self, thresholds: Mapping[str, tuple[Array, Array]]) -> Batch:
        """Return rows that come to a split of a tree, on its threshold or next to it as float32 or float64."""
        splits = [(name, value, row) for name, own in thresholds.items() for value, row in zip(*own, strict=True)]
        most = max(self.count, MOST_CELLS // len(self.schema.columns) // 4)
        splits = [splits[index] for index in self.rng.permutation(len(splits))[:most]]
        frame = self.schema.frame.iloc[[row for _, _, row in splits]].reset_index(drop=True)
        for name in thresholds:
            rows = np.array([index for index, split in enumerate(splits) if split[0] == name], dtype=int)
            values = np.array([splits[index][1] for index in rows], dtype="float64")
            near = [values, values.astype("float32").astype("float64")]
            near += [change(values, self.rng) for change in (_neighbour("float32"), _neighbour("float64"))]
            column = frame[name].to_numpy().copy()
            column[rows] = np.choose(np.arange(len(values)) % len(near), near)
            frame[name] = column
        return Batch("thresholds", "a column on the threshold of a split that the row comes to, or next to it", frame)

    def midpoints(self) -> Batch:
        """Return rows of the sample with one column halfway to the next greater value that the sample has of it.

        A tree splits there, whatever single-column steps lie before it: the row reaches the split between both values,
        and lies exactly on it. A graph that rounds differently sends it to the other side.
        """
        columns = [c for c in self.schema.columns if c.kind in ("float", "int64")]
        columns = [c for c in columns if c.name not in self.limits.categories]
        share = min(MOST_MIDPOINTS, MOST_CELLS // len(self.schema.columns)) // max(1, len(columns))
        parts = [self._halfway(column, share) for column in columns if share]
        frame = pd.concat(parts, ignore_index=True) if parts else self.schema.frame.iloc[:0]
        return Batch("midpoints", "a column halfway to the next greater value of the sample", frame)

    def _halfway(self, column: Column, most: int) -> pd.DataFrame:
        """Return at most `most` rows of the sample, drawn by chance."""
        values = self.schema.frame[column.name].to_numpy().astype("float64")
        levels = np.unique(values[np.isfinite(values)])
        rows = self.rng.permutation(np.flatnonzero(np.isfinite(values) & (values < levels.max(initial=-np.inf))))[:most]
        following = levels[np.searchsorted(levels, values[rows], side="right")]
        frame = self.schema.frame.iloc[rows].reset_index(drop=True)
        middle = values[rows] / 2 + following / 2
        middle = np.floor(middle) if column.kind == "int64" else middle
        frame[column.name] = _fitting(column, middle, self.schema.frame[column.name].dtype)
        return frame

    def magnitudes(self) -> Batch:
        """Return rows with a column a million times larger or smaller, or a whole number that float32 cannot hold."""
        free = [column for column in self.schema.columns if column.name not in self.limits.categories]
        free = [column for column in free if column.kind in ("float", "int64")]
        frame = self._each(free, self._scaled)
        drawn = "a column times 1e6 and 1e-6, beyond 2^24, and as Unix time"
        return Batch("magnitudes", drawn, frame)

    def _scaled(self, column: Column) -> list[Any]:
        values = self.schema.frame[column.name].to_numpy()
        finite = values[np.isfinite(values)].astype("float64")
        scaled = [float(value * scale) for value in finite[self.rng.permutation(len(finite))[:2]] for scale in SCALES]
        return [*WHOLE_NUMBERS, *(map(whole, scaled) if column.kind == "int64" else scaled)]

    def _levels(self, column: Column) -> Array:
        """Return the edge values of a column: of numbers least, greatest and beyond; of others all there are."""
        values = self.schema.frame[column.name].to_numpy()
        if column.kind in ("string", "bool") or column.name in self.limits.categories:
            return cast(Array, pd.unique(values[~pd.isna(values)]))
        finite = values[np.isfinite(values)].astype("float64")
        if not len(finite):
            return np.array([])
        least, greatest = float(finite.min()), float(finite.max())
        reach = (greatest - least) / 2 or max(1.0, abs(greatest)) / 2
        return np.array([least, greatest, least - reach, greatest + reach])

    def singled_out(self, specials: Mapping[str, list[Any]]) -> list[Batch]:
        """Return rows with a column at 0, -0.0, 1, -1 or one of its `specials`, then with several columns so."""
        levels = {c.name: self._specials(c, specials.get(c.name, [])) for c in self.schema.columns if c.kind != "bool"}
        levels = {name: values for name, values in levels.items() if values}
        most = max(1, MOST_CELLS // len(self.schema.columns) // max(1, len(levels)))
        each = {name: _repeated(values, most) for name, values in levels.items()}
        drawn = "a column at 0, -0.0, 1, -1, or where a step does something of its own (fill values, edges, categories)"
        return [
            Batch("special values", drawn, with_values(self.schema, each)),
            Batch("special combinations", "the same in several columns, or in all", self._together(levels)),
        ]

    def _specials(self, column: Column, own: list[Any]) -> list[Any]:
        if column.name in self.limits.categories:
            listed = self.limits.categories[column.name]
            return listed[:: max(1, len(listed) // MOST_LISTED)]
        if column.kind == "string":
            return [text for text in own if isinstance(text, str)]
        numbers = [float(value) for value in own if isinstance(value, int | float) and np.isfinite(value)]
        if column.kind == "int64":
            numbers = [near for value in numbers for near in (np.floor(value), np.ceil(value))]
            return list(dict.fromkeys(map(whole, [*ALWAYS, *numbers])))
        return [*ALWAYS, -0.0, *(value for value in dict.fromkeys(numbers) if value not in ALWAYS)]

    def _together(self, levels: Mapping[str, list[Any]]) -> pd.DataFrame:
        """Return rows with half of the columns special, then with all numbers at 0, at 1 and at -1."""
        rows = min(self.count, MOST_TOGETHER)
        frame = _resized(self.schema.frame, rows + len(ALWAYS) * ROWS_PER_COLUMN)
        for column in self.schema.columns:
            own = levels.get(column.name)
            if not own:
                continue
            values = frame[column.name].to_numpy().copy()
            chosen = np.flatnonzero(self.rng.random(rows) < 0.5)
            values[chosen] = [own[index] for index in self.rng.integers(0, len(own), len(chosen))]
            if column.kind != "string" and column.name not in self.limits.categories:
                values[rows:] = np.repeat(ALWAYS, ROWS_PER_COLUMN)
            frame[column.name] = pd.Series(values, dtype=frame[column.name].dtype)
        return frame if levels else frame.iloc[:0]

    def special(self) -> list[Batch]:
        """Return rows with missing values, infinity and unseen texts in the columns that take them."""
        missing = [column for column in self.schema.columns if column.name in self.limits.missing]
        infinite = [column for column in self.schema.columns if column.name in self.limits.infinite]
        texts = [column for column in self.schema.columns if column.kind == "string"]
        texts = [column for column in texts if column.name not in self.limits.categories]
        return [
            Batch("missing", "a column missing, then some columns at once", self._gaps(missing)),
            Batch("infinite", "a column infinite", self._each(infinite, lambda column: [np.inf, -np.inf])),
            Batch("unseen", "a text that the sample lacks", self._each(texts, self._unseen)),
        ]

    def _unseen(self, column: Column) -> list[Any]:
        known = set(self.schema.frame[column.name])
        return [text for text in UNSEEN_TEXTS if text not in known]

    def _gaps(self, columns: list[Column]) -> pd.DataFrame:
        single = self._each(columns, lambda column: [column.null] * ROWS_PER_COLUMN)
        if len(columns) < 2:
            return single
        several = _resized(self.schema.frame, 64)
        for column in columns:
            gaps = self.rng.random(64) < 0.3
            several.loc[gaps, column.name] = column.null
        return pd.concat([single, several], ignore_index=True)

    def _each(self, columns: list[Column], values: Callable[[Column], list[Any]]) -> pd.DataFrame:
        """Return rows for each column in turn with each of its values, as many as one kind may have."""
        most = max(1, MOST_CELLS // len(self.schema.columns) // max(1, len(columns)))
        return with_values(self.schema, {column.name: values(column)[:most] for column in columns})


def _repeated(values: list[Any], most: int) -> list[Any]:
    """Return each value as often as it is to be asked, those of every column oftener, at most `most` in all."""
    often = [value for value in values if value in ALWAYS]
    if len(values) > most:
        return values[:most]
    repeated = [value for value in often for _ in range(ROWS_PER_COLUMN)]
    repeated += [value for value in values if value not in ALWAYS for _ in range(_SPECIAL_ROWS)]
    return repeated if len(repeated) <= most else values


def _resized(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Return `rows` rows of the sample, from its start and over again."""
    return frame.iloc[np.arange(rows) % len(frame)].reset_index(drop=True)


def _fitting(column: Column, values: Array, dtype: Any) -> "pd.Series[Any]":
    """Return values in the column's dtype; integers are rounded and kept within int64."""
    if column.kind == "int64" and values.dtype.kind == "f":
        values = np.clip(np.round(values), -_WHOLE, _WHOLE)
    with np.errstate(over="ignore"):
        return pd.Series(values.astype(dtype), name=column.name, dtype=dtype)


def _noise(values: Array, rng: np.random.Generator) -> Array:
    if values.dtype.kind == "O":
        return np.where(rng.random(len(values)) < 0.1, rng.permutation(values), values)
    if values.dtype.kind == "b":
        return values ^ (rng.random(len(values)) < 0.1)
    numbers = values.astype("float64")
    finite = numbers[np.isfinite(numbers)]
    deviation = float(finite.std()) if len(finite) else 0.0
    return numbers + rng.normal(0.0, 0.1 * (deviation or 1.0), len(numbers))


def _rounded_noise(values: Array, rng: np.random.Generator) -> Array:
    if values.dtype.kind != "f":
        return _noise(values, rng)
    places = decimals(values)
    moved = _noise(values, rng)
    return moved if places is None else np.round(moved, places)


def _shuffled(values: Array, rng: np.random.Generator) -> Array:
    return rng.permutation(values)


def _neighbour(dtype: str) -> Callable[[Array, np.random.Generator], Array]:
    """Return a change that moves floats to the next value of `dtype`, up or down."""

    def change(values: Array, rng: np.random.Generator) -> Array:
        if values.dtype.kind != "f":
            return values
        towards = np.where(rng.random(len(values)) < 0.5, -np.inf, np.inf).astype(dtype)
        with np.errstate(over="ignore"):
            return np.asarray(np.nextafter(values.astype(dtype), towards).astype("float64"))

    return change

"""Rows on either side of every split of the graph's trees: each node, branch and leaf shows what it answers.

A threshold that differs from the original's by a little parts other rows only between both; by chance hardly a row lies
there. The graph itself says where it turns, whatever library the trees are of.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from onnx import load_from_string

from appliance.errors import ApplianceError
from convert.model.arrays import Array, Mask
from convert.model.schema import Limits, Schema
from convert.proof.candidate import Candidate
from convert.proof.graph_trees import Ensemble, Inputs, ensembles
from convert.proof.rows import MOST_CELLS, SEED, Batch

MOST_ROWS = 20_000  # of splits to stand on; each takes a row on either side
_ROWS_PER_SPLIT = 6  # beyond a split some rows come to like leaves on either side
_ROWS_LED = 2_000  # of the sample, through every tree, to see which splits they come to
_ROWS_PROBED = 4  # to see which columns move a feature
_MANY = 64  # rows at a split, of which so many are drawn at random
_HALVINGS = 44  # of the range of a column; what is left is a float32 rounding of it
_ROUNDINGS = 4  # of float32, by which a row stands aside where the graph computes before it compares


@dataclass(frozen=True, slots=True)
class _Split:
    """A split to stand on: a row that comes to it, and what must be set in the row for it to come there.

    `bound` is the greatest number of the split's feature on its lower side, of those that come to the split: where an
    earlier split lets none beyond, the threshold itself shows nothing.
    """

    ensemble: int
    feature: int
    bound: float
    row: int
    moved: dict[str, float]
    turn: int
    """How many rows stand on the same split before it."""


def of(candidate: Candidate, limits: Limits) -> "Splits | None":
    """Return the splits of a graph's trees; None for a graph without, or one that refuses what is asked to see them."""
    model = load_from_string(candidate.onnx)
    found = ensembles(model)
    if not found:
        return None
    try:
        return Splits(candidate, limits, found, Inputs(model, [one.tensor for one in found]))
    except (ApplianceError, ValueError):  # the graph or the device's schema refuses what is drawn
        return None


class Splits:
    """The sample's rows as the graph's trees see them, and which column moves which feature.

    Raises ApplianceError or ValueError where the graph refuses the sample's rows.
    """

    def __init__(self, candidate: Candidate, limits: Limits, found: list[Ensemble], inputs: Inputs) -> None:
        self.candidate, self.limits, self.found, self.inputs = candidate, limits, found, inputs
        schema: Schema = candidate.schema
        self.rng = np.random.default_rng(SEED)
        picked = np.sort(self.rng.permutation(len(schema.frame))[:_ROWS_LED])
        self.rows = schema.frame.iloc[picked].reset_index(drop=True)
        self.seen = self._fed(self.rows)
        self.whole = {
            column.name: column.kind == "int64"
            for column in schema.columns
            if column.kind in ("float", "int64") and column.name not in limits.categories
        }
        # {(ensemble, feature): column}: as it is, and computed of it alone
        self.plain: dict[tuple[int, int], str] = {}
        self.driven: dict[tuple[int, int], str] = {}
        self._probe()

    def thresholds(self) -> dict[str, Array]:
        """Return {column: where trees split it}, of columns that go into the trees as they are."""
        found: dict[str, list[Array]] = {}
        for (index, feature), name in self.plain.items():
            ensemble = self.found[index]
            found.setdefault(name, []).append(ensemble.threshold[ensemble.ordered & (ensemble.feature == feature)])
        return {name: np.unique(np.concatenate(own).astype("float64")) for name, own in found.items()}

    def batches(self) -> list[Batch]:
        """Return rows on either side of the splits; none where the graph refuses what is drawn.

        Where a column goes into the trees as it is, the rows stand on the threshold and on the next number; where
        something is computed of a single column before, they stand a few roundings of float32 aside.
        """
        try:
            return self._batches()
        except (ApplianceError, ValueError):  # the graph or the device's schema refuses what is drawn
            return []

    def _batches(self) -> list[Batch]:
        most = min(MOST_ROWS, MOST_CELLS // max(1, len(self.rows.columns)) // 2)
        splits = list(self._reached(most))
        if len(splits) > most:  # first one row for each split, then a second one, as far as they go
            turns = np.array([one.turn for one in splits])
            order = np.lexsort((self.rng.permutation(len(splits)), turns))
            splits = [splits[index] for index in np.sort(order[:most])]
        plain = [one for one in splits if self._key(one) in self.plain]
        driven = [one for one in splits if self._key(one) in self.driven]
        batches = [
            Batch("splits", "on either side of a split of the graph's trees, as near as numbers are", self._on(plain)),
            Batch("splits aside", "the same by float32 roundings, where it computes before", self._aside(driven)),
        ]
        return [batch for batch in batches if len(batch.frame)]

    def _key(self, one: _Split) -> tuple[int, int]:
        return one.ensemble, one.feature

    def _fed(self, rows: pd.DataFrame) -> list[Array]:
        """Return for each ensemble what its trees take, float64 [rows, features]."""
        fed = self.inputs.of(self.candidate.feeds(rows, self.limits))
        return [fed[one.tensor].astype("float64") for one in self.found]

    def _probe(self) -> None:
        """Find which features are a column as it is, and which are computed of one column alone."""
        if not self.whole:
            return
        few = self.rows.iloc[np.arange(_ROWS_PROBED) % len(self.rows)].reset_index(drop=True)
        parts = []
        for name in self.whole:
            values = self.rows[name].to_numpy()
            finite = values[np.isfinite(values.astype("float64"))]
            if len(finite):
                far = np.array([finite.min(), finite.max()])[np.arange(_ROWS_PROBED) % 2]
                parts.append(few.assign(**{name: pd.Series(far, dtype=few[name].dtype)}))
            else:
                parts.append(few)
        before, after = self._fed(few), self._fed(pd.concat(parts, ignore_index=True))
        names = list(self.whole)
        for ensemble, (base, fed, seen) in enumerate(zip(before, after, self.seen, strict=True)):
            same = (fed.reshape(len(names), len(few), -1) == base) | np.isnan(base)
            moves = ~same.all(axis=1)  # [columns, features]
            for feature in np.flatnonzero(moves.sum(axis=0) == 1):
                name = names[int(moves[:, feature].argmax())]
                own = self.rows[name].to_numpy(dtype="float64")
                fed_plain = (own, own.astype("float32").astype("float64"))  # as it is, or as float32 inputs take it
                plain = any(np.array_equal(one, seen[:, feature], equal_nan=True) for one in fed_plain)
                (self.plain if plain else self.driven)[ensemble, int(feature)] = name

    def _reached(self, most: int) -> Iterator[_Split]:
        """Yield every split that some row comes to, or that a row can be moved to by its plain columns.

        Of a large forest the trees are taken in any order, until about `most` splits are found: walking all of them
        would take longer than asking the rows.
        """
        splits = sum(int(ensemble.ordered.sum()) for ensemble in self.found)
        turns = min(_ROWS_PER_SPLIT, max(1, -(-most // max(1, splits))))
        trees = [(index, int(root)) for index, ensemble in enumerate(self.found) for root in ensemble.roots]
        if splits > most:
            trees = [trees[place] for place in self.rng.permutation(len(trees))]
        reached = 0
        for index, root in trees:
            for one in self._of_tree(index, root, turns):
                reached += not one.turn
                yield one
            if reached >= most:
                return

    def _of_tree(self, index: int, root: int, turns: int) -> Iterator[_Split]:
        ensemble, seen = self.found[index], self.seen[index]
        waiting: list[tuple[int, Array, dict[int, tuple[float, float]]]] = [(root, np.arange(len(seen)), {})]
        visits, leaves = [], np.zeros(len(seen), dtype=int)  # the last split that a row comes to, and its side there
        while waiting:
            split, here, within = waiting.pop()
            if split < 0:
                continue
            visits.append((split, here, within))
            goes = ensemble.goes_yes(split, seen[here, int(ensemble.feature[split])])
            below, above = _parted(ensemble, split, within)
            for child, rows, reach in ((ensemble.no, here[~goes], above), (ensemble.yes, here[goes], below)):
                waiting.append((int(child[split]), rows, reach))
                leaves[rows] = 2 * split + (child is ensemble.yes)
        for split, here, within in visits:
            if ensemble.ordered[split]:
                yield from self._standing(index, split, here, leaves, within, turns)

    def _standing(
        self, index: int, split: int, here: Array, leaves: Array, within: dict[int, tuple[float, float]], turns: int
    ) -> Iterator[_Split]:
        """Yield so many rows for a split: some of `here`, then others moved there by their columns.

        Rows of different leaves come first: where one row's leaves on both sides are alike, another's are not.
        """
        feature = int(self.found[index].feature[split])
        low, high = within.get(feature, (-np.inf, np.inf))
        bound = min(max(self.found[index].last_before(split), low), high)
        if not np.isfinite(bound):
            return
        few = len(here) < _MANY
        some = here[self.rng.permutation(len(here)) if few else self.rng.integers(0, len(here), _MANY)]
        first = np.zeros(len(some), dtype=bool)
        first[np.unique(leaves[some], return_index=True)[1]] = True
        own = np.concatenate([some[first], some[~first]])[: max(1, 2 * turns // 3)]
        for turn, row in enumerate(own):
            yield _Split(index, feature, bound, int(row), {}, turn)
        for turn in range(len(own), turns):
            row = int(self.rng.integers(len(self.rows)))
            moved = self._moved(index, row, within)
            if moved is not None:
                yield _Split(index, feature, bound, row, moved, turn)

    def _moved(self, index: int, row: int, within: dict[int, tuple[float, float]]) -> dict[str, float] | None:
        """Return what to set in a row of the sample so that each feature lies `within`; None where it cannot be."""
        moved = {}
        for feature, (low, high) in within.items():
            if low < self.seen[index][row, feature] <= high:
                continue
            name = self.plain.get((index, feature))
            inside = _inside(low, high, self.whole[name]) if name else None
            if name is None or inside is None:
                return None
            moved[name] = inside
        return moved

    def _taken(self, splits: list[_Split]) -> pd.DataFrame:
        """Return the splits' rows, each moved to where it comes to its split."""
        rows = self.rows.iloc[[one.row for one in splits]].reset_index(drop=True)
        moved: dict[str, tuple[list[int], list[float]]] = {}
        for place, one in enumerate(splits):
            for name, value in one.moved.items():
                places, values = moved.setdefault(name, ([], []))
                places.append(place)
                values.append(value)
        for name, (places, values) in moved.items():
            column = rows[name].to_numpy().copy()
            column[places] = values
            rows[name] = column
        return rows

    def _on(self, splits: list[_Split]) -> pd.DataFrame:
        """Return two rows for each split: the last number on its lower side, and the first on its upper."""
        rows = self._taken(splits)
        names = np.array([self.plain[self._key(one)] for one in splits])
        bounds = np.array([one.bound for one in splits])
        last, first = np.zeros(len(splits)), np.zeros(len(splits))
        for name in np.unique(names):
            own = names == name
            kind = "int64" if self.whole[str(name)] else str(self.candidate.float_type)
            last[own] = _held(kind, bounds[own])
            first[own] = _following(kind, last[own])
        return pd.concat([self._with(rows, names, last), self._with(rows, names, first)], ignore_index=True)

    def _aside(self, splits: list[_Split]) -> pd.DataFrame:
        """Return two rows for each split, either side of where its feature passes the threshold as its column moves.

        Found by bisection of the range that the sample has of the column, and half of it beyond; a feature that does
        not pass its threshold there has no rows.
        """
        if not splits:
            return self.rows.iloc[:0]
        rows = self._taken(splits)
        names = np.array([self.driven[self._key(one)] for one in splits])
        low, high = np.zeros(len(splits)), np.zeros(len(splits))
        for name in np.unique(names):
            values = self.rows[name].to_numpy(dtype="float64")
            finite = values[np.isfinite(values)]
            reach = (finite.max() - finite.min()) / 2 or 1.0
            low[names == name], high[names == name] = finite.min() - reach, finite.max() + reach
        first, last = self._sides(rows, splits, names, low), self._sides(rows, splits, names, high)
        for _ in range(_HALVINGS):
            middle = low + (high - low) / 2
            like_low = self._sides(rows, splits, names, middle) == first
            low, high = np.where(like_low, middle, low), np.where(like_low, high, middle)
        step = _ROUNDINGS * np.spacing(np.maximum(np.abs(low), np.abs(high)).astype("float32")).astype("float64")
        passes = first != last
        sides = [self._with(rows, names, low - step), self._with(rows, names, high + step)]
        return pd.concat([side[passes] for side in sides], ignore_index=True)

    def _sides(self, rows: pd.DataFrame, splits: list[_Split], names: Array, values: Array) -> Mask:
        """Return for each row, with its column at `values`, whether its split's feature is at most the bound."""
        found = np.zeros(len(splits))
        of, features = (np.array([getattr(one, name) for one in splits]) for name in ("ensemble", "feature"))
        for index, fed in enumerate(self._fed(self._with(rows, names, values))):
            own = np.flatnonzero(of == index)
            found[own] = fed[own, features[own]]
        return np.asarray(found <= np.array([one.bound for one in splits]))

    def _with(self, rows: pd.DataFrame, names: Array, values: Array) -> pd.DataFrame:
        """Return rows, each with one of its columns, `names`, at the number in `values`."""
        moved = {}
        for name in np.unique(names):
            own = rows[name].to_numpy().copy()
            placed = np.floor(values[names == name]) if self.whole[name] else values[names == name]
            own[names == name] = placed.astype(own.dtype)
            moved[str(name)] = pd.Series(own, dtype=rows[name].dtype)
        return rows.assign(**moved)


def _held(kind: str, bounds: Array) -> Array:
    """Return the greatest numbers up to `bounds` that an input of this type holds."""
    if kind == "int64":
        return np.floor(bounds)
    if kind != "float32":
        return bounds
    single = bounds.astype("float32")
    is_above = single.astype("float64") > bounds
    return np.where(is_above, np.nextafter(single, np.float32(-np.inf)), single).astype("float64")


def _following(kind: str, values: Array) -> Array:
    """Return the next greater numbers that an input of this type holds."""
    if kind == "int64":
        return values + 1.0
    dtype = np.float32 if kind == "float32" else np.float64
    return np.asarray(np.nextafter(values.astype(dtype), dtype(np.inf)).astype("float64"))


def _parted(
    ensemble: Ensemble, split: int, within: dict[int, tuple[float, float]]
) -> tuple[dict[int, tuple[float, float]], dict[int, tuple[float, float]]]:
    """Return between which numbers (above the first, at most the second) each feature lies at `yes` and at `no`."""
    feature = int(ensemble.feature[split])
    low, high = within.get(feature, (-np.inf, np.inf))
    if not ensemble.ordered[split]:
        nowhere = within | {feature: (np.nan, np.nan)}  # no number is within: a row has to come there by itself
        return nowhere, nowhere
    last = ensemble.last_before(split)
    lower, upper = within | {feature: (low, min(high, last))}, within | {feature: (max(low, last), high)}
    return (lower, upper) if ensemble.goes_yes(split, np.array([last]))[0] else (upper, lower)


def _inside(low: float, high: float, is_whole: bool) -> float | None:
    """Return a number above `low` and at most `high`; None for none."""
    if np.isfinite(low) and np.isfinite(high):
        value = low + (high - low) / 2
    elif np.isfinite(high):
        value = high - abs(high) / 2
    elif np.isfinite(low):
        value = low + abs(low) / 2 + 1.0
    else:
        return None
    value = float(np.floor(value)) if is_whole else value
    value = high if not low < value <= high else value
    return value if low < value <= high and (not is_whole or value == np.floor(value)) else None

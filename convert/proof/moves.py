"""Knows to which values one column of a row may be moved, in search of a row on which graph and original differ."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from appliance.bundle.manifest import TensorType
from convert.model.arrays import Array
from convert.model.schema import Column, Limits, Schema
from convert.proof.rows import ALWAYS, MOST_LISTED, UNSEEN_TEXTS, whole

_SMALLEST = 54  # halvings of half a deviation: about one float64 further
_LARGE = 6  # as many of every second step
_BESIDE = (0.0, 2.0**-52, 2.0**-23, 2.0**-21, 2.0**-12)  # of a threshold's size, by which a row stands beside it
_HALF = 0.5 - 2.0**-20  # of the way to the next float32; at exactly half, rounding takes the even one
_MOST_SWEPT = 64  # values of a column, each in a row of its own

Move = Callable[[Array, np.random.Generator], Array]


@dataclass(frozen=True, slots=True)
class ColumnMoves:
    """One column: {name of a move: function that moves its values [rows]}, and values that are worth a row each.

    `within` keeps numbers [rows] where they may be; a column that holds no numbers has none.
    """

    moves: Mapping[str, Move]
    swept: list[Any]
    within: Callable[[Array], Array] = lambda values: values
    is_number: bool = False


def of(
    schema: Schema,
    limits: Limits,
    float_type: TensorType,
    specials: Mapping[str, list[Any]],
    thresholds: Mapping[str, Array],
    least: float = 0.0,
) -> dict[str, ColumnMoves]:
    """Return {column: its moves}; a column that can only have one value is left out.

    `specials` are {column: values that a step may treat specially}, `thresholds` {column: where trees split}. Numbers
    stay within the sample's range and half of it beyond, and numbers nearer to 0 than `least` become 0.
    """
    found = {}
    for column in schema.columns:
        values = schema.frame[column.name].to_numpy()
        own = specials.get(column.name, [])
        if column.kind == "bool":
            moves = ColumnMoves({"other category": lambda given, rng: ~given}, [])
        elif column.kind == "string" or column.levels or column.name in limits.categories:
            moves = _listed(column, values, limits, own)
        else:
            numbers = _Numbers(column, values, float_type, own, thresholds.get(column.name, np.zeros(0)), least)
            moves = ColumnMoves(numbers.moves(), numbers.swept(), numbers.within, True)
        if column.name in limits.missing:
            gap = {"missing": _to([column.null])}
            moves = replace(moves, moves={**moves.moves, **gap}, swept=[*moves.swept, column.null])
        if moves.moves:
            found[column.name] = moves
    return found


def _listed(column: Column, values: Array, limits: Limits, specials: list[Any]) -> ColumnMoves:
    """Return the moves of a column of texts, or of numbers that may only be those listed."""
    # The rarest first: where few rows of the sample hold a value, few show what it does.
    counted = Counter(values[~pd.isna(values)].tolist())
    known = sorted(counted, key=counted.__getitem__)
    allowed = limits.categories.get(column.name) or list(column.levels)
    if allowed:
        known = [value for value in known if value in set(allowed)]
        known += [value for value in allowed if value not in set(known)][:MOST_LISTED]
    else:
        known += [text for text in specials if isinstance(text, str) and text not in set(known)]
    moves: dict[str, Move] = {"other category": _to(known)} if len(known) > 1 else {}
    if not allowed and column.kind == "string":
        moves["unseen"] = _to([text for text in UNSEEN_TEXTS if text not in set(known)])
    return ColumnMoves(moves, known[:_MOST_SWEPT])


def _to(choices: list[Any]) -> Move:
    def move(values: Array, rng: np.random.Generator) -> Array:
        picked = np.empty(len(values), dtype=object)
        picked[:] = [choices[index] for index in rng.integers(0, len(choices), len(values))]
        return picked

    return move


class _Numbers:
    """The moves of a column of numbers."""

    def __init__(
        self,
        column: Column,
        values: Array,
        float_type: TensorType,
        specials: list[Any],
        thresholds: Array,
        least: float,
    ) -> None:
        self.is_whole = column.kind == "int64"
        self.narrow = float_type == "float32" and not self.is_whole and values.dtype == np.float64
        self.least = least
        finite = values[np.isfinite(values.astype("float64"))]
        self.own = np.unique(finite) if len(finite) else np.zeros(1, dtype=values.dtype)
        exact = self.own.astype("float64")
        reach = (exact[-1] / 2 - exact[0] / 2) or max(1.0, abs(exact[0])) / 2
        self.low, self.high = exact[0] - reach, exact[-1] + reach
        self.deviation = float(finite.astype("float64").std()) if len(finite) else 0.0
        self.deviation = self.deviation or max(1.0, abs(exact[0])) / 2
        numbers = [float(value) for value in specials if isinstance(value, int | float) and np.isfinite(value)]
        self.specials = np.array([*ALWAYS, *numbers])
        self.thresholds = thresholds[(thresholds > self.low) & (thresholds < self.high)]

    def moves(self) -> dict[str, Move]:
        found: dict[str, Move] = {
            "step": self._step,
            "zero": self._zero,
            "own value": lambda values, rng: rng.choice(self.own, len(values)),
            "sign": lambda values, rng: self.within(-self._known(values, rng)),
            "special": lambda values, rng: self._fitting(rng.choice(self.specials, len(values))),
        }
        if len(self.thresholds):
            found["threshold"] = self._beside
        if self.narrow:
            found["halfway"] = self._halfway
        return found

    def swept(self) -> list[Any]:
        """Return exact zeros, and the values that steps treat specially."""
        zeros: list[Any] = [0] if self.is_whole else [0.0, -0.0]
        fitting = self._fitting(np.unique(self.specials)).tolist()
        return [*zeros, *(value for value in dict.fromkeys(fitting) if value != 0)][:_MOST_SWEPT]

    def _known(self, values: Array, rng: np.random.Generator) -> Array:
        """Return the values as float64, gaps and infinities replaced by values of the sample."""
        given = values.astype("float64")
        return np.where(np.isfinite(given), given, rng.choice(self.own, len(values)).astype("float64"))

    def _fitting(self, values: Array) -> Array:
        """Return numbers as the column holds them."""
        if self.is_whole:
            return np.array([whole(value) for value in values], dtype="int64")
        return np.where(np.abs(values) < self.least, 0.0, values) if self.least else values

    def within(self, values: Array) -> Array:
        """Return numbers kept within the sample's range and half of it beyond, as the column holds them."""
        return self._fitting(np.clip(values, self.low, self.high))

    def _step(self, values: Array, rng: np.random.Generator) -> Array:
        """Return values moved by half a deviation, or by one of its halves down to one rounding."""
        known = self._known(values, rng)
        sign = rng.choice([-1.0, 1.0], len(values))
        often = rng.integers(1, rng.choice([_LARGE, _SMALLEST], len(values)))
        size = self.deviation * 2.0**-often
        moved = known + sign * (np.maximum(np.ceil(size), 1.0) if self.is_whole else size)
        return self.within(np.where(moved == known, np.nextafter(known, sign * np.inf), moved))

    def _zero(self, values: Array, rng: np.random.Generator) -> Array:
        return self._fitting(np.where(rng.random(len(values)) < 0.5, 0.0, -0.0))

    def _beside(self, values: Array, rng: np.random.Generator) -> Array:
        """Return numbers on the threshold of a split, or roundings beside it."""
        chosen = rng.choice(self.thresholds, len(values))
        share = rng.choice(_BESIDE, len(values)) * rng.choice([-1.0, 1.0], len(values))
        moved = chosen + share * np.abs(chosen)
        return self.within(np.floor(moved) + rng.integers(0, 2, len(values)) if self.is_whole else moved)

    def _halfway(self, values: Array, rng: np.random.Generator) -> Array:
        """Return numbers almost halfway to the next float32: there float32 inputs lose most."""
        single = self._known(values, rng).astype(np.float32)
        towards = rng.choice([-np.inf, np.inf], len(values)).astype(np.float32)
        following = np.nextafter(single, towards).astype("float64")
        return self.within(single.astype("float64") + _HALF * (following - single))

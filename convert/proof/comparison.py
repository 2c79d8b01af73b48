"""Compares answers of the original and of the graph, batch by batch, and keeps the sums."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from appliance.bundle.manifest import Label, Task, Tolerance
from appliance.errors import ApplianceError, ConversionRefused, InvalidInput
from convert.model.arrays import Answers, Array, Mask
from convert.model.original import Role
from convert.model.schema import Limits
from convert.proof import differences, near_ties
from convert.proof.candidate import Candidate
from convert.proof.certificate import OutputParity, RowKind, WorstRow
from convert.proof.differences import Difference
from convert.proof.rows import Batch

WORST_ROWS = 5
FAR = frozenset({"edges", "magnitudes", "infinite"})
"""Kinds of rows that lie beyond what the sample holds."""
SEARCHED = "searched"
"""The kind of the rows that the falsifier asks."""
ELSEWHEN = "another time"
"""The kind of the rows that the original is asked again, under another clock."""
_BY_ROUNDING = FAR | {"ties", SEARCHED}
"""Kinds of rows where rounding may decide what the original answers. On a tree's thresholds it does not: there a graph
that turns one rounding early is wrong."""
_AS_GIVEN = frozenset({"sample", "alone", "trial", ELSEWHEN})
"""Kinds of rows where the original's answers stand as they are, whatever rounding errors are in them."""
_ONE_BY_ONE = 8


class Oracle(Protocol):
    """The side that is right: the original model, or answers written down."""

    @property
    def methods(self) -> Mapping[str, str]:
        """{output name: method that answers it}."""

    @property
    def roles(self) -> Mapping[str, Role]:
        """{output name: which part of a prediction it is}."""

    @property
    def task(self) -> Task:
        """What the model does."""

    @property
    def class_labels(self) -> list[Label]:
        """The label of each column of the probabilities; empty where there are none."""

    def answers(self, frame: pd.DataFrame) -> Answers:
        """Return {output name: array [rows, ...]}."""

    def equivalents(self, frame: pd.DataFrame) -> list[Answers]:
        """Return what the same formula answers with fewer rounding errors, each as `answers` does."""

    def shares_drawn(self, frame: pd.DataFrame) -> Array | None:
        """Return the probabilities [rows, labels] whose rounding errors may draw a label, None for most models."""


@dataclass(slots=True)
class _Total:
    """What one output came to so far; `farthest` are rows that passed, with the share of the tolerance they took.

    `share` is the largest of all rows, infinite where a label differs.
    """

    absolute: float = 0.0
    relative: float = 0.0
    ulp: float = 0.0
    flips: int = 0
    off: int = 0
    ties: int = 0
    matched_neighbour: int = 0
    farthest: list[tuple[float, WorstRow]] = field(default_factory=list)
    share: float = 0.0

    def add(self, difference: Difference) -> None:
        """Add a batch's differences."""
        self.absolute = max(self.absolute, difference.absolute)
        self.relative = max(self.relative, difference.relative)
        self.ulp = max(self.ulp, difference.ulp)
        self.share = max(self.share, float(difference.share.max(initial=0.0)))
        self.flips += difference.flips
        self.off += int(difference.off.sum())


@dataclass(frozen=True, slots=True)
class Compared:
    """The original's answers to a batch, and how much of the tolerance each row took [rows]; beyond 1 it is off."""

    answers: Answers
    share: NDArray[np.float64]


class ParityComparison:
    """One comparison under way: batch by batch, with the sums of all of them."""

    def __init__(self, original: Oracle, candidate: Candidate, tolerance: Tolerance) -> None:
        self.original = original
        self.candidate = candidate
        self.tolerance = tolerance
        self._totals = {name: _Total() for name in original.methods}
        self._off: list[WorstRow] = []
        self._off_by_kind: Counter[str] = Counter()
        self.first_off: pd.DataFrame | None = None
        """The first row that was off, as a table of one row."""
        self.by_rounding: set[str] = set()
        """Kinds of rows on some of which rounding decided: such answers may be others on another processor."""

    @property
    def passed(self) -> bool:
        """Whether nothing was off so far."""
        return not any(total.off for total in self._totals.values())

    @property
    def share(self) -> float:
        """How much of the tolerance the farthest number took so far, infinite where a label differed."""
        return max((total.share for total in self._totals.values()), default=0.0)

    def outputs(self) -> list[OutputParity]:
        """Return the sums by output."""
        methods = self.original.methods
        return [
            OutputParity(
                output=name,
                method=methods[name],
                largest_absolute=total.absolute,
                largest_relative=total.relative,
                label_flips=total.flips,
                rows_off=total.off,
                near_ties=total.ties,
                near_ties_turned=total.matched_neighbour,
                largest_ulp=total.ulp,
                largest_share=total.share if np.isfinite(total.share) else None,
            )
            for name, total in self._totals.items()
        ]

    def worst(self) -> list[WorstRow]:
        """Return the first rows that were off; where none was, those whose numbers were farthest, farthest first."""
        near = [pair for total in self._totals.values() for pair in total.farthest]
        near.sort(key=lambda pair: -pair[0])
        return self._off or [row for _, row in near[:WORST_ROWS]]

    def kind(self, batch: Batch, by_original: int = 0, by_graph: int = 0, not_asked: int = 0) -> RowKind:
        """Return what a batch that was compared came to; so many rows beside it were refused."""
        rows = len(batch.frame) + by_original + by_graph
        off = self._off_by_kind[batch.kind]
        return RowKind(batch.kind, batch.drawn, rows, by_original, off, by_graph, not_asked)

    def agrees(self, frame: pd.DataFrame, limits: Limits) -> bool:
        """Return whether both sides answer these rows alike, without keeping the sums."""
        trial = ParityComparison(self.original, self.candidate, self.tolerance)
        try:
            trial.compare(Batch("trial", "", frame), limits)
        except ApplianceError:
            return False
        return trial.passed

    def compare(self, batch: Batch, limits: Limits, expected: Answers | None = None) -> Compared:
        """Compare one batch with `expected`, by default the original's answers."""
        expected = self.original.answers(batch.frame) if expected is None else expected
        found = self._ask(batch, limits)
        beside = {} if batch.beside is None else self.original.answers(batch.beside)
        nearest, tied, difference = {}, {}, {}
        for name, answer in expected.items():
            _check_shape(name, answer, found[name])
            nearest[name], tied[name] = answer, np.zeros(len(answer), dtype=bool)
            if beside:
                nearest[name], tied[name] = self._nearest(name, answer, beside[name], found[name])
            difference[name] = self._difference(name, nearest[name], found[name])
        off = _any_off(difference)
        if batch.kind not in _AS_GIVEN and 0 < off.sum() <= near_ties.MOST_ROWS:
            nearest = self._around(batch, np.flatnonzero(off), nearest, found, tied, limits)
            difference = {name: self._difference(name, answer, found[name]) for name, answer in nearest.items()}
        for name, answer in nearest.items():
            self._totals[name].add(difference[name])
            self._remember(name, batch, answer, found[name], difference[name])
        self._off_by_kind[batch.kind] += int(_any_off(difference).sum())
        return Compared(expected, np.max([one.share for one in difference.values()], axis=0))

    def compare_one_by_one(self, batch: Batch, limits: Limits) -> RowKind:
        """Compare a few rows sent alone: a graph may have learnt the size of a batch."""
        drawn = "first rows of the sample, each sent by itself"
        alone = Batch("alone", drawn, batch.frame.iloc[:_ONE_BY_ONE].reset_index(drop=True))
        for index in range(len(alone.frame)):
            self.compare(Batch(alone.kind, drawn, alone.frame.iloc[index : index + 1].reset_index(drop=True)), limits)
        return self.kind(alone)

    def _ask(self, batch: Batch, limits: Limits) -> Answers:
        try:
            return self.candidate.answers(batch.frame, limits)
        except InvalidInput as error:
            tried = f"ask the ONNX graph with {batch.kind} rows as {self.candidate.float_type}"
            raise ConversionRefused(tried, error.found, "give a sample that the model takes as a whole") from error

    def _nearest(self, name: str, expected: Any, beside: Any, found: Any) -> tuple[Any, Mask]:
        """Return the original's answers, in near-ties those to the rows beside where the graph gives these.

        Also return which rows are near-ties.
        """
        tied = self._difference(name, expected, beside).off
        matched_neighbour = (
            tied & self._difference(name, expected, found).off & ~self._difference(name, beside, found).off
        )
        self._totals[name].ties += int(tied.sum())
        self._totals[name].matched_neighbour += int(matched_neighbour.sum())
        nearest = expected.copy()
        nearest[matched_neighbour] = beside[matched_neighbour]
        return nearest, tied

    def _around(
        self,
        batch: Batch,
        rows: NDArray[np.intp],
        expected: Answers,
        found: Answers,
        tied: Mapping[str, Mask],
        limits: Limits,
    ) -> Answers:
        """Return `expected`, in near-ties among `rows` with what the original answers one rounding further.

        Where rounding decides little, only what the original's formula gives with fewer rounding errors counts.
        Those that are `tied` were counted already.
        """
        those = batch.frame.iloc[rows]
        around, wider_ulp, narrow, shares = [], [], [], None
        try:
            if batch.kind in _BY_ROUNDING:
                around = [self.original.answers(moved) for moved in near_ties.moved(those, limits)]
                wider_ulp = [self.original.answers(moved) for moved in near_ties.moved_wider_ulp(those, limits)]
                shares = self.original.shares_drawn(those)
            if batch.kind == SEARCHED and self._rounds_scores(expected):
                narrow = [self.original.answers(near_ties.as_float32(those, limits))]
            wider_ulp += self.original.equivalents(those)
        except Exception:  # noqa: BLE001 - a model is other people's code: what it refuses around a row is no answer
            return expected
        close = self._is_close_to_a_boundary(expected, rows) if batch.kind == SEARCHED else None
        nearest = {}
        for name, answer in expected.items():
            own, given = answer[rows], found[name][rows]
            if _is_exact(self.original.roles[name], own, self.original.task):
                closest = own.copy()
                if shares is not None and own.ndim == 1:
                    drawn = near_ties.drawn(own, given, self.original.class_labels, shares)
                    closest[drawn] = given[drawn]
                if close is not None:
                    closest[close] = given[close]
                for other in [*around, *narrow]:
                    equal = ~self._difference(name, other[name], given).off
                    closest[equal] = other[name][equal]
            else:
                closest = near_ties.nearest(given, own, [answers[name] for answers in [*around, *wider_ulp]])
                closest = np.clip(closest, 0, 1) if self.original.roles[name] == "probability" else closest
            matched_neighbour = self._difference(name, own, given).off & ~self._difference(name, closest, given).off
            self._totals[name].ties += int((matched_neighbour & ~tied[name][rows]).sum())
            self._totals[name].matched_neighbour += int(matched_neighbour.sum())
            if matched_neighbour.any():
                self.by_rounding.add(batch.kind)
            nearest[name] = answer.astype(closest.dtype)
            nearest[name][rows[matched_neighbour]] = closest[matched_neighbour]
        return nearest

    def _rounds_scores(self, expected: Answers) -> bool:
        """Return whether float32 inputs may turn a label at its boundary, since numbers beside it show how near it is.

        A search stands as near to a boundary as it likes; the numbers are held to the tolerance there too.
        """
        exact = [_is_exact(self.original.roles[name], own, self.original.task) for name, own in expected.items()]
        return self.candidate.float_type == "float32" and any(exact) and not all(exact)

    def _is_close_to_a_boundary(self, expected: Answers, rows: NDArray[np.intp]) -> Mask | None:
        """Return where float32 inputs may turn a label: its two largest numbers, or its score and 0, are equal within
        the tolerance. None where there are no such inputs or numbers.
        """
        if not self._rounds_scores(expected):
            return None
        numbers = [answer for name, answer in expected.items() if self.original.roles[name] in ("probability", "score")]
        if not numbers or numbers[-1].dtype.kind != "f":
            return None
        score = numbers[-1][rows].reshape(len(rows), -1)
        if score.shape[1] == 1:
            return np.asarray(np.abs(score[:, 0]) <= self.tolerance.absolute)
        second, first = np.sort(score, axis=1)[:, -2:].T
        return np.asarray(first - second <= self.tolerance.absolute + self.tolerance.relative * np.abs(first))

    def _difference(self, name: str, expected: Any, found: Any) -> Difference:
        if _is_exact(self.original.roles[name], expected, self.original.task):
            return differences.labels(expected, found)
        return differences.numbers(expected, found, self.tolerance)

    def _remember(self, name: str, batch: Batch, expected: Any, found: Any, difference: Difference) -> None:
        """Keep the first rows that are off, and of each output those that come nearest to it."""

        def shown(index: int) -> WorstRow:
            row = {str(key): _json(value) for key, value in batch.frame.iloc[index].items()}
            return WorstRow(name, batch.kind, row, _json(expected[index]), _json(found[index]))

        self._off += [shown(index) for index in np.flatnonzero(difference.off)[: WORST_ROWS - len(self._off)]]
        if self.first_off is None and difference.off.any():
            self.first_off = batch.frame.iloc[[int(difference.off.argmax())]].reset_index(drop=True)
        total = self._totals[name]
        bar = total.farthest[-1][0] if len(total.farthest) == WORST_ROWS else 0.0
        for index in np.argsort(-difference.share, kind="stable")[:WORST_ROWS]:
            if difference.share[index] > bar and not difference.off[index]:
                total.farthest.append((float(difference.share[index]), shown(index)))
        total.farthest = sorted(total.farthest, key=lambda pair: -pair[0])[:WORST_ROWS]


def _any_off(difference: Mapping[str, Difference]) -> Mask:
    """Return the rows on which any output is off."""
    return np.asarray(np.any([one.off for one in difference.values()], axis=0))


def _check_shape(name: str, expected: Any, found: Any) -> None:
    if expected.shape != found.shape:
        shapes = f"{name} has the shape {list(found.shape)}, the original's {list(expected.shape)}"
        raise ConversionRefused("compare the ONNX graph with the original", shapes, "choose another estimator")


def _is_exact(role: Role, expected: Any, task: Task) -> bool:
    """Return whether an output is a label, to be equal, rather than a number, to be near."""
    return expected.dtype.kind in "OUSb" or (role == "prediction" and task not in ("regression", "transformation"))


def _json(value: Any) -> Any:
    """Return a value as JSON has it, exactly."""
    if isinstance(value, np.ndarray):
        return [_json(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if value is None or value is pd.NA or value != value else value

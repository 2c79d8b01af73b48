"""The gate: the original model and the ONNX graph answer the same rows, and one report says how far apart they are."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from appliance.bundle.manifest import Task, TensorType, Tolerance
from appliance.errors import ApplianceError, ConversionRefused, InvalidInput, Misuse, ParityFailed
from convert import boundaries, differences, near_ties
from convert.candidate import Candidate
from convert.differences import Apart
from convert.limits import settle
from convert.original import Answers, Mask, Original, role, taken
from convert.rows import SEED, Batch, draw
from convert.schema import Limits

WORST_ROWS = 5
FAR = frozenset({"edges", "magnitudes", "infinite"})
"""Kinds of rows that lie beyond what the sample holds."""
_BY_ROUNDING = FAR | {"ties"}
"""Kinds of rows where rounding may decide what the original answers. On a tree's thresholds it does not: there a graph
that turns one rounding early is wrong."""
_ONE_BY_ONE = 8
_SLIGHT = 1e-3  # a relative difference up to which rounding may be to blame


class Kind(msgspec.Struct, frozen=True):
    """Rows of one kind: how they were drawn, how many were tried, refused by the original itself, and off.

    `not_asked` more were drawn among rows that the original refuses, and left out: to part them takes a call for each.
    """

    kind: str
    drawn: str
    rows: int
    refused_by_original: int
    rows_off: int = 0
    refused_by_graph: int = 0
    """Rows that the original answers as chance has it, and that the graph refuses with the reason."""
    not_asked: int = 0


class OutputParity(msgspec.Struct, frozen=True):
    """How far one output is from the original's; differences are over numbers, flips over labels.

    `largest_ulp` is in units in the last place of the type that the graph answers in.
    """

    output: str
    method: str
    largest_absolute: float
    largest_relative: float
    label_flips: int
    rows_off: int
    near_ties: int = 0
    """Rows where the original itself answers otherwise one rounding (ULP) of an input further."""
    near_ties_turned: int = 0
    """Those of them where the graph gives the answer that the original gives one rounding further."""
    largest_ulp: float = 0.0


class WorstRow(msgspec.Struct, frozen=True):
    """One row on which an output is off, or where none is one that is farthest; null stands for a missing value."""

    output: str
    kind: str
    row: dict[str, Any]
    original: Any
    onnx: Any


class Attempt(msgspec.Struct, frozen=True):
    """One floating-point type that was tried, and what came of it."""

    float_type: TensorType
    outcome: str


class Parity(msgspec.Struct, frozen=True):
    """parity.json: the certificate that a graph answers as the original did, or the reason why not."""

    passed: bool
    float_type: TensorType
    why: str
    seed: int
    tolerance: Tolerance
    kinds: list[Kind]
    outputs: list[OutputParity]
    worst: list[WorstRow]
    notes: list[str]
    attempts: list[Attempt]
    libraries: dict[str, str]

    @property
    def rows(self) -> int:
        """All rows that were compared."""
        return sum(kind.rows - kind.refused_by_original - kind.refused_by_graph for kind in self.kinds)


class Answering(Protocol):
    """The side that is right: the original model, or answers written down."""

    @property
    def methods(self) -> Mapping[str, str]:
        """{output name: method that answers it}."""

    @property
    def task(self) -> Task:
        """What the model does."""

    def answers(self, frame: pd.DataFrame) -> Answers:
        """Return {output name: array [rows, ...]}."""


class Proof(msgspec.Struct, frozen=True):
    """A report with what it rests on: the limits it holds under, and the rows with the original's answers."""

    report: Parity
    limits: Limits
    evidence: list[tuple[Batch, Answers]]


def check_tolerance(tolerance: Tolerance | None) -> Tolerance:
    """Return the tolerance to prove under, the default for None; raise Misuse for one under which anything passes."""
    tolerance = tolerance or Tolerance()
    if not (0 <= tolerance.absolute < 1 and 0 <= tolerance.relative < 1):  # NaN is neither
        found = f"{tolerance.absolute:g} absolute and {tolerance.relative:g} relative are not both from 0 to below 1"
        raise Misuse("use the tolerance", found, "give small numbers, as Tolerance(absolute=1e-4, relative=1e-4)")
    return tolerance


def prove(
    original: Original, candidate: Candidate, limits: Limits, tolerance: Tolerance, libraries: dict[str, str]
) -> Proof:
    """Return the proof of `candidate` under `limits`, passed or not.

    Numbers pass when |a - b| <= absolute + relative * |b|, b being the original's; labels, texts and integers when
    they are equal. Raises ConversionRefused when the graph cannot answer the rows at all.
    """
    judge = Judge(original, candidate, tolerance)
    limits, notes = settle(limits, original.schema, judge.agrees)
    evidence, kinds = [], []
    drawn = draw(original.schema, limits, original.thresholds())
    found = boundaries.search(original.schema, limits, original.answers)
    if original.turns:
        found += boundaries.jumps(original.schema, limits, original.last_answer)
    for batch in [*drawn, *found]:
        answered, refused, not_asked = _those(batch, original.taken)
        tied = 0
        if batch.kind != "sample":
            answered, tied, unsure = _those(answered, partial(_untied, candidate, limits))
            not_asked += unsure
        if len(answered.frame):
            answers = judge.compare(answered, limits)
            # A device tests itself with rows that have one right answer.
            evidence += [(answered, answers)] if answered.beside is None else []
        kinds.append(judge.kind(answered, refused, tied, not_asked))
    kinds.append(judge.compare_one_by_one(evidence[0][0], limits))
    report = Parity(
        passed=judge.passed,
        float_type=candidate.float_type,
        why="",
        seed=SEED,
        tolerance=tolerance,
        kinds=kinds,
        outputs=judge.outputs(),
        worst=judge.worst(),
        notes=notes,
        attempts=[],
        libraries=libraries,
    )
    return Proof(report, limits, evidence)


def _those(batch: Batch, taken: Callable[[pd.DataFrame], tuple[Mask, Mask]]) -> tuple[Batch, int, int]:
    """Return the batch's rows that are `taken`, how many are refused, and how many were not asked."""
    (mask, asked), beside = taken(batch.frame), None
    if batch.beside is not None:
        also_taken, also_asked = taken(batch.beside)
        mask, asked = mask & also_taken, asked & also_asked
        beside = batch.beside[mask].reset_index(drop=True)
    those = Batch(batch.kind, batch.drawn, batch.frame[mask].reset_index(drop=True), beside)
    return those, int((asked & ~mask).sum()), int((~asked).sum())


def _untied(candidate: Candidate, limits: Limits, frame: pd.DataFrame) -> tuple[Mask, Mask]:
    """Return for each row whether the graph does not refuse it for a tie that the original breaks by chance."""

    def is_untied(rows: pd.DataFrame) -> bool:
        try:
            candidate.answers(rows, limits)
        except InvalidInput as error:
            return near_ties.REFUSED_TIE not in error.found
        return True

    if near_ties.REFUSED_TIE.encode() in candidate.onnx:
        return taken(is_untied, frame)
    return np.ones(len(frame), dtype=bool), np.ones(len(frame), dtype=bool)


def failure(report: Parity) -> ParityFailed:
    """Return the error for a report that did not pass: the outputs, the worst row, and what to try."""
    off = [output for output in report.outputs if output.rows_off]
    parts = [
        f"{o.output} is off on {o.rows_off} of {report.rows} rows ({o.label_flips} label flips, "
        f"largest difference {o.largest_absolute:.3g} absolute, {o.largest_relative:.3g} relative)"
        for o in off
    ]
    for worst in report.worst:
        parts.append(f"{worst.kind} row {_short(worst.row)}: original {worst.original}, ONNX {worst.onnx}")
    return ParityFailed("prove that the ONNX graph answers as the original", "\n  ".join(parts), _advice(report, off))


def _advice(report: Parity, off: list[OutputParity]) -> str:
    """Return what to do about outputs that are off."""
    kinds = {kind.kind for kind in report.kinds if kind.rows_off}
    if kinds and kinds <= FAR:
        wider = (
            ""
            if any(output.label_flips for output in off)
            else ", or state a wider --tolerance if such values never come"
        )
        return (
            f"only rows far beyond the sample are off ({', '.join(sorted(kinds))}): scale or clip such columns in the "
            f"pipeline{wider}"
        )
    if any(output.label_flips or output.largest_relative > _SLIGHT for output in off):
        return "choose another estimator or simpler settings: docs/coverage.md lists what converts exactly"
    return "state a wider --tolerance if such differences do no harm, or train on fewer, scaled columns"


@dataclass(slots=True)
class _Total:
    """What one output came to so far; `farthest` are rows that passed, with the share of the tolerance they took."""

    absolute: float = 0.0
    relative: float = 0.0
    ulp: float = 0.0
    flips: int = 0
    off: int = 0
    ties: int = 0
    turned: int = 0
    farthest: list[tuple[float, WorstRow]] = field(default_factory=list)

    def add(self, apart: Apart) -> None:
        """Add a batch's differences."""
        self.absolute = max(self.absolute, apart.absolute)
        self.relative = max(self.relative, apart.relative)
        self.ulp = max(self.ulp, apart.ulp)
        self.flips += apart.flips
        self.off += int(apart.off.sum())


class Judge:
    """Compares answers batch by batch and keeps the sums."""

    def __init__(self, original: Answering, candidate: Candidate, tolerance: Tolerance) -> None:
        self.original = original
        self.candidate = candidate
        self.tolerance = tolerance
        self._totals = {name: _Total() for name in original.methods}
        self._off: list[WorstRow] = []
        self._off_by_kind: Counter[str] = Counter()

    @property
    def passed(self) -> bool:
        """Whether nothing was off so far."""
        return not any(total.off for total in self._totals.values())

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
                near_ties_turned=total.turned,
                largest_ulp=total.ulp,
            )
            for name, total in self._totals.items()
        ]

    def worst(self) -> list[WorstRow]:
        """Return the first rows that were off; where none was, those whose numbers were farthest, farthest first."""
        near = [pair for total in self._totals.values() for pair in total.farthest]
        near.sort(key=lambda pair: -pair[0])
        return self._off or [row for _, row in near[:WORST_ROWS]]

    def kind(self, batch: Batch, by_original: int = 0, by_graph: int = 0, not_asked: int = 0) -> Kind:
        """Return what a batch that was compared came to; so many rows beside it were refused."""
        rows = len(batch.frame) + by_original + by_graph
        off = self._off_by_kind[batch.kind]
        return Kind(batch.kind, batch.drawn, rows, by_original, off, by_graph, not_asked)

    def agrees(self, frame: pd.DataFrame, limits: Limits) -> bool:
        """Return whether both sides answer these rows alike, without keeping the sums."""
        trial = Judge(self.original, self.candidate, self.tolerance)
        try:
            trial.compare(Batch("trial", "", frame), limits)
        except ApplianceError:
            return False
        return trial.passed

    def compare(self, batch: Batch, limits: Limits) -> Answers:
        """Compare one batch, and return the original's answers."""
        expected = self.original.answers(batch.frame)
        found = self._ask(batch, limits)
        beside = {} if batch.beside is None else self.original.answers(batch.beside)
        nearest, apart = {}, {}
        for name, answer in expected.items():
            _check_shape(name, answer, found[name])
            nearest[name] = self._nearest(name, answer, beside[name], found[name]) if beside else answer
            apart[name] = self._apart(name, nearest[name], found[name])
        off = _any_off(apart)
        if batch.kind in _BY_ROUNDING and 0 < off.sum() <= near_ties.MOST_ROWS:
            nearest = self._around(batch.frame, np.flatnonzero(off), nearest, found, limits)
            apart = {name: self._apart(name, answer, found[name]) for name, answer in nearest.items()}
        for name, answer in nearest.items():
            self._totals[name].add(apart[name])
            self._remember(name, batch, answer, found[name], apart[name])
        self._off_by_kind[batch.kind] += int(_any_off(apart).sum())
        return expected

    def compare_one_by_one(self, batch: Batch, limits: Limits) -> Kind:
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

    def _nearest(self, name: str, expected: Any, beside: Any, found: Any) -> Any:
        """Return the original's answers, in near-ties those to the rows beside where the graph gives these."""
        tied = self._apart(name, expected, beside).off
        turned = tied & self._apart(name, expected, found).off & ~self._apart(name, beside, found).off
        self._totals[name].ties += int(tied.sum())
        self._totals[name].turned += int(turned.sum())
        nearest = expected.copy()
        nearest[turned] = beside[turned]
        return nearest

    def _around(
        self, frame: pd.DataFrame, rows: NDArray[np.intp], expected: Answers, found: Answers, limits: Limits
    ) -> Answers:
        """Return `expected`, in near-ties among `rows` with what the original answers one rounding further."""
        try:
            around = [self.original.answers(moved) for moved in near_ties.moved(frame.iloc[rows], limits)]
        except Exception:  # noqa: BLE001 - a model is other people's code: what it refuses around a row is no answer
            return expected
        nearest = {}
        for name, answer in expected.items():
            own, given, others = answer[rows], found[name][rows], [answers[name] for answers in around]
            if _is_exact(name, own, self.original.task):
                closest = own.copy()
                for other in others:
                    equal = ~self._apart(name, other, given).off
                    closest[equal] = other[equal]
            else:
                closest = near_ties.nearest(given, own, others)
            turned = self._apart(name, own, given).off & ~self._apart(name, closest, given).off
            self._totals[name].ties += int(turned.sum())
            self._totals[name].turned += int(turned.sum())
            nearest[name] = answer.astype(closest.dtype)
            nearest[name][rows[turned]] = closest[turned]
        return nearest

    def _apart(self, name: str, expected: Any, found: Any) -> Apart:
        if _is_exact(name, expected, self.original.task):
            return differences.labels(expected, found)
        return differences.numbers(expected, found, self.tolerance)

    def _remember(self, name: str, batch: Batch, expected: Any, found: Any, apart: Apart) -> None:
        """Keep the first rows that are off, and of each output those that come nearest to it."""

        def shown(index: int) -> WorstRow:
            row = {str(key): _json(value) for key, value in batch.frame.iloc[index].items()}
            return WorstRow(name, batch.kind, row, _json(expected[index]), _json(found[index]))

        self._off += [shown(index) for index in np.flatnonzero(apart.off)[: WORST_ROWS - len(self._off)]]
        total = self._totals[name]
        bar = total.farthest[-1][0] if len(total.farthest) == WORST_ROWS else 0.0
        for index in np.argsort(-apart.share, kind="stable")[:WORST_ROWS]:
            if apart.share[index] > bar and not apart.off[index]:
                total.farthest.append((float(apart.share[index]), shown(index)))
        total.farthest = sorted(total.farthest, key=lambda pair: -pair[0])[:WORST_ROWS]


def _any_off(apart: Mapping[str, Apart]) -> Mask:
    """Return the rows on which any output is off."""
    return np.asarray(np.any([one.off for one in apart.values()], axis=0))


def _check_shape(name: str, expected: Any, found: Any) -> None:
    if expected.shape != found.shape:
        shapes = f"{name} has the shape {list(found.shape)}, the original's {list(expected.shape)}"
        raise ConversionRefused("compare the ONNX graph with the original", shapes, "choose another estimator")


def _is_exact(name: str, expected: Any, task: Task) -> bool:
    """Return whether an output is a label, to be equal, rather than a number, to be near."""
    return expected.dtype.kind in "OUSb" or (
        role(name) == "prediction" and task not in ("regression", "transformation")
    )


def _json(value: Any) -> Any:
    """Return a value as JSON has it, exactly."""
    if isinstance(value, np.ndarray):
        return [_json(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if value is None or value is pd.NA or value != value else value


def _short(row: dict[str, Any]) -> str:
    shown = ", ".join(f"{name}={value!r}" for name, value in list(row.items())[:8])
    return "{" + shown + (", ..." if len(row) > 8 else "") + "}"

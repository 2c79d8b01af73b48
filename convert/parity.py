"""The gate: the original model and the ONNX graph answer the same rows, and one report says how far apart they are."""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from appliance.bundle.manifest import Task, TensorType, Tolerance
from appliance.errors import ApplianceError, ConversionRefused, InvalidInput, ParityFailed
from convert import boundaries
from convert.candidate import Candidate
from convert.limits import settle
from convert.original import Answers, Original, role
from convert.rows import SEED, Batch, draw
from convert.schema import Limits

Mask = NDArray[np.bool_]
WORST_ROWS = 5
_ONE_BY_ONE = 8


class Kind(msgspec.Struct, frozen=True):
    """Rows of one kind: how they were drawn, how many were tried, and how many the original itself refused."""

    kind: str
    drawn: str
    rows: int
    refused_by_original: int


class OutputParity(msgspec.Struct, frozen=True):
    """How far one output is from the original's; differences are over numbers, flips over labels."""

    output: str
    method: str
    largest_absolute: float
    largest_relative: float
    label_flips: int
    rows_off: int
    near_ties: int = 0
    """Rows beside a boundary where the graph gives the answer that the original gives one rounding further."""


class WorstRow(msgspec.Struct, frozen=True):
    """One row on which an output is off, with both answers; null stands for a missing value."""

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
        return sum(kind.rows - kind.refused_by_original for kind in self.kinds)


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
    for batch in [*drawn, *boundaries.search(original.schema, limits, original.answers)]:
        taken = _taken(original, batch)
        kinds.append(Kind(batch.kind, batch.drawn, len(batch.frame), len(batch.frame) - len(taken.frame)))
        if len(taken.frame):
            answers = judge.compare(taken, limits)
            # A device tests itself with rows that have one right answer.
            evidence += [(taken, answers)] if taken.beside is None else []
    kinds.append(judge.compare_one_by_one(evidence[0][0], limits))
    report = Parity(
        passed=judge.passed,
        float_type=candidate.float_type,
        why="",
        seed=SEED,
        tolerance=tolerance,
        kinds=kinds,
        outputs=judge.outputs(),
        worst=judge.worst[:WORST_ROWS],
        notes=notes,
        attempts=[],
        libraries=libraries,
    )
    return Proof(report, limits, evidence)


def _taken(original: Original, batch: Batch) -> Batch:
    """Return the batch's rows that the original answers."""
    mask, beside = original.taken(batch.frame), None
    if batch.beside is not None:
        mask &= original.taken(batch.beside)
        beside = batch.beside[mask].reset_index(drop=True)
    return Batch(batch.kind, batch.drawn, batch.frame[mask].reset_index(drop=True), beside)


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
    flips = any(output.label_flips for output in off)
    next_step = (
        "skl2onnx converts this model wrongly; choose another estimator or simpler settings, or report it there"
        if flips or any(output.largest_relative > 1e-3 for output in off)
        else "state a wider --tolerance if such differences do no harm, or train on fewer, scaled columns"
    )
    return ParityFailed("prove that the ONNX graph answers as the original", "\n  ".join(parts), next_step)


class Judge:
    """Compares answers batch by batch and keeps the sums."""

    def __init__(self, original: Answering, candidate: Candidate, tolerance: Tolerance) -> None:
        self.original = original
        self.candidate = candidate
        self.tolerance = tolerance
        self.totals = {name: [0.0, 0.0, 0, 0, 0] for name in original.methods}
        self.worst: list[WorstRow] = []

    @property
    def passed(self) -> bool:
        """Whether nothing was off so far."""
        return not any(total[3] for total in self.totals.values())

    def outputs(self) -> list[OutputParity]:
        """Return the sums by output."""
        methods = self.original.methods
        return [
            OutputParity(name, methods[name], float(a), float(r), int(flips), int(off), int(ties))
            for name, (a, r, flips, off, ties) in self.totals.items()
        ]

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
        for name, answer in expected.items():
            _check_shape(name, answer, found[name])
            nearest = self._nearest(name, answer, beside[name], found[name]) if beside else answer
            self._add(name, batch, nearest, found[name])
        return expected

    def compare_one_by_one(self, batch: Batch, limits: Limits) -> Kind:
        """Compare a few rows sent alone: a graph may have learnt the size of a batch."""
        alone = Kind("alone", "first rows of the sample, each sent by itself", min(_ONE_BY_ONE, len(batch.frame)), 0)
        for index in range(alone.rows):
            row = batch.frame.iloc[index : index + 1].reset_index(drop=True)
            self.compare(Batch(alone.kind, alone.drawn, row), limits)
        return alone

    def _ask(self, batch: Batch, limits: Limits) -> Answers:
        try:
            return self.candidate.answers(batch.frame, limits)
        except InvalidInput as error:
            tried = f"ask the ONNX graph with {batch.kind} rows as {self.candidate.float_type}"
            raise ConversionRefused(tried, error.found, "give a sample that the model takes as a whole") from error

    def _nearest(self, name: str, expected: Any, beside: Any, found: Any) -> Any:
        """Return the original's answers, in near-ties those to the rows beside, and count these."""
        tied = self._off(name, expected, found) & ~self._off(name, beside, found)
        self.totals[name][4] += int(tied.sum())
        nearest = expected.copy()
        nearest[tied] = beside[tied]
        return nearest

    def _off(self, name: str, expected: Any, found: Any) -> Mask:
        if _is_exact(name, expected, self.original.task):
            return _as_rows(_plain(expected) != _plain(found))
        return _difference(expected, found, self.tolerance)[0]

    def _add(self, name: str, batch: Batch, expected: Any, found: Any) -> None:
        total = self.totals[name]
        if _is_exact(name, expected, self.original.task):
            off = _as_rows(_plain(expected) != _plain(found))
            total[2] += int(off.sum())
        else:
            off, absolute, relative = _difference(expected, found, self.tolerance)
            total[0], total[1] = max(total[0], absolute), max(total[1], relative)
        total[3] += int(off.sum())
        for index in np.flatnonzero(off)[: WORST_ROWS - len(self.worst)]:
            row = {str(key): _json(value) for key, value in batch.frame.iloc[index].items()}
            self.worst.append(WorstRow(name, batch.kind, row, _json(expected[index]), _json(found[index])))


def _check_shape(name: str, expected: Any, found: Any) -> None:
    if expected.shape != found.shape:
        shapes = f"{name} has the shape {list(found.shape)}, the original's {list(expected.shape)}"
        raise ConversionRefused("compare the ONNX graph with the original", shapes, "choose another estimator")


def _is_exact(name: str, expected: Any, task: Task) -> bool:
    """Return whether an output is a label, to be equal, rather than a number, to be near."""
    return expected.dtype.kind in "OUSb" or (
        role(name) == "prediction" and task not in ("regression", "transformation")
    )


def _difference(expected: Any, found: Any, tolerance: Tolerance) -> tuple[Mask, float, float]:
    """Return which rows are off, and the largest absolute and relative difference; NaN equals NaN."""
    if found.dtype.kind not in "fiub":
        return np.ones(len(expected), dtype=bool), float("inf"), float("inf")
    expected, found = expected.astype("float64"), found.astype("float64")
    with np.errstate(invalid="ignore", divide="ignore"):
        same = (expected == found) | (np.isnan(expected) & np.isnan(found))
        absolute = np.where(same, 0.0, np.abs(expected - found))
        absolute = np.where(np.isnan(absolute), np.inf, absolute)
        relative = np.where(same | (expected == 0), 0.0, absolute / np.abs(expected))
        off = absolute > tolerance.absolute + tolerance.relative * np.where(same, 0.0, np.abs(expected))
    off |= np.isinf(absolute)
    return _as_rows(off), float(absolute.max(initial=0.0)), float(np.nanmax(relative, initial=0.0))


def _plain(answer: Any) -> Any:
    """Return labels in a dtype that compares by value."""
    return answer.astype(str) if answer.dtype.kind in "OUS" else answer


def _as_rows(off: Any) -> Mask:
    return np.asarray(off.reshape(len(off), -1).any(axis=1))


def _json(value: Any) -> Any:
    """Return a value as JSON has it, exactly."""
    if isinstance(value, np.ndarray):
        return [_json(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if value is None or value != value else value


def _short(row: dict[str, Any]) -> str:
    shown = ", ".join(f"{name}={value!r}" for name, value in list(row.items())[:8])
    return "{" + shown + (", ..." if len(row) > 8 else "") + "}"

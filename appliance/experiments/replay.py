"""Runs another version on logged rows, offline, and compares its answers with the logged ones.

Compared by the rule of tolerance (inference/comparison.py), never by bits: answers in a batch differ from those of one
row in their last digits. Differences, and the test on labels, are those of a shadow's comparison: of the rows on which
one version alone is right (of numbers: nearer), each falls to either with probability 1/2 where they are alike
(evidence.py).
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.arrays import Array
from appliance.bundle.manifest import Output
from appliance.errors import InvalidInput
from appliance.experiments.comparison import WORST, count_differences, new_histogram, quantiles
from appliance.experiments.evidence import ALPHA, log_evidence
from appliance.inference import comparison
from appliance.inference.values import to_values
from appliance.inference.version import LoadedVersion
from appliance.labels import Truth, as_number, like
from appliance.monitoring.prediction_log import lines
from appliance.monitoring.prediction_log.export import Logged, label_of
from appliance.monitoring.prediction_log.lines import Header, Label
from appliance.response import response_format

BATCH = 1024
"""Rows in one batch."""
MOST_CLASSES = 50
"""Of the table of labels."""

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Truths:
    """How both versions did on rows with a label."""

    rows: int = 0
    logged_right: float = 0.0
    """Of numbers the sum of |error|, as below."""
    replayed_right: float = 0.0
    logged_better: int = 0
    """Rows on which one alone is right, or nearer."""
    replayed_better: int = 0

    def as_dict(self, *, numbers: bool) -> dict[str, Any]:
        """Return it for programs."""
        if not self.rows:
            return {"rows": 0}
        name = "mean_absolute_error" if numbers else "accuracy"
        evidence = log_evidence(self.logged_better, self.replayed_better, 0.5)
        proved = evidence >= -math.log(ALPHA) and self.logged_better != self.replayed_better
        better = "replayed" if self.replayed_better > self.logged_better else "logged"
        return {
            "rows": self.rows,
            "logged": {name: self.logged_right / self.rows, "better_rows": self.logged_better},
            "replayed": {name: self.replayed_right / self.rows, "better_rows": self.replayed_better},
            "log_evidence": evidence,
            "better": better if proved else None,
        }


@dataclass(slots=True)
class Replayed:
    """What a replay came to."""

    model: str
    version: str
    classes: list[Any]
    rows: int = 0
    alike: int = 0
    same_version: int = 0
    """Rows that this very version had answered."""
    same_version_differs: int = 0
    """Those of them beyond the tolerance: then this host computes differently than before."""
    refused: int = 0
    """Rows that this version does not take."""
    first_refusal: str = ""
    skipped: dict[str, int] = field(default_factory=dict)
    """Rows that could not be replayed, by reason."""
    table: dict[tuple[Any, Any], int] = field(default_factory=dict)
    """{(logged class, replayed class): rows}"""
    differences: Floats = field(default_factory=new_histogram)
    """How many rows differ by how much, see experiments.comparison."""
    worst: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)
    truths: Truths = field(default_factory=Truths)

    def as_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        known = self.classes if len(self.classes) <= MOST_CLASSES else []
        return {
            "model": self.model,
            "version": self.version,
            "rows": self.rows,
            "agreement": self.alike / self.rows if self.rows else None,
            "same_version": {"rows": self.same_version, "beyond_tolerance": self.same_version_differs},
            "refused": {"rows": self.refused, "first": self.first_refusal},
            "skipped": self.skipped,
            "difference": quantiles(self.differences),
            "labels": known,
            "table": [[self.table.get((one, other), 0) for other in known] for one in known],
            "worst_rows": [row for _, _, row in sorted(self.worst, key=lambda one: (-one[0], one[1]))],
            "truth": self.truths.as_dict(numbers=not self.classes),
        }


def replay(
    rows: Iterable[Logged], version: LoadedVersion, labels: dict[str, list[Label]], result: Replayed
) -> Iterator[dict[str, Any]]:
    """Ask `version` logged rows again; yield each row's comparison, and add all of them to `result`."""
    form = response_format(version)
    asked = [one for one in version.manifest.outputs if one.name in form.outputs]
    for _, same in groupby(_replayable(rows, result), key=lambda one: id(one.header)):
        while batch := list(islice(same, BATCH)):
            for part, answers in _answers(version, batch[0].header, batch, form.outputs, result):
                yield from _compared(version, asked, part, answers, labels, result)


def _replayable(rows: Iterable[Logged], result: Replayed) -> Iterator[Logged]:
    """Yield the rows that stand in the log as they were sent."""
    for logged in rows:
        why = ""
        if not logged.header.inputs or logged.row.x is None:
            why = "rows are not kept ([log.predictions] inputs)"
        elif logged.header.policy:
            changed = ", ".join(f"{name} = {word}" for name, word in sorted(logged.header.policy.items()))
            why = f"columns are not kept as they were sent: {changed}"
        elif logged.row.cut:
            why = "a long text was cut"
        elif not len(logged.row.x) == len(logged.header.columns) == len(logged.header.types):
            why = "the row is damaged"
        if why:
            result.skipped[why] = result.skipped.get(why, 0) + 1
        else:
            yield logged


def _answers(
    version: LoadedVersion, header: Header, batch: Sequence[Logged], names: Sequence[str], result: Replayed
) -> Iterator[tuple[Sequence[Logged], dict[str, Array]]]:
    """Yield (rows, outputs) of a batch; where rows are refused, by halves, until what is refused stands alone."""
    try:
        feeds = version.schema.from_rows(_rows(version, header, batch))
        answers = version.session.run(feeds, list(names))
    except InvalidInput as error:
        if len(batch) == 1:
            result.refused += 1
            result.first_refusal = result.first_refusal or str(error)
            return
        middle = len(batch) // 2
        yield from _answers(version, header, batch[:middle], names, result)
        yield from _answers(version, header, batch[middle:], names, result)
        return
    yield batch, dict(zip(names, answers, strict=True))


def _rows(version: LoadedVersion, header: Header, batch: Sequence[Logged]) -> list[Any]:
    """Return a batch as rows that the version's schema reads: lists where it has the same columns, else objects."""
    numbers = [place for place, kind in enumerate(header.types) if kind not in ("string", "bool")]
    rows = []
    for logged in batch:
        row = list(logged.row.x or [])
        if "inf" in row or "-inf" in row:
            for place in numbers:
                row[place] = lines.number(row[place])
        rows.append(row)
    if header.columns == version.schema.columns:
        return rows
    known = set(version.schema.columns)
    return [{name: value for name, value in zip(header.columns, row, strict=True) if name in known} for row in rows]


def _compared(
    version: LoadedVersion,
    outputs: Sequence[Output],
    batch: Sequence[Logged],
    answers: dict[str, Array],
    labels: dict[str, list[Label]],
    result: Replayed,
) -> Iterator[dict[str, Any]]:
    """Add the comparison of some rows to the result, and yield it row by row."""
    form = response_format(version)
    alike, within, difference = np.ones(len(batch), bool), np.ones(len(batch), bool), np.zeros(len(batch))
    for output in outputs:
        then = _then(output, form, batch)
        fits = [place for place, one in enumerate(then) if one is not None]
        if not fits:
            continue
        near, far = _distance(version, output, answers[output.name][fits], [then[place] for place in fits])
        within[fits] &= near
        if output.name == form.prediction:
            alike[fits] = near
        difference[fits] = np.maximum(difference[fits], far)
    now = to_values(answers[form.prediction])
    count_differences(result.differences, difference)
    for place, logged in enumerate(batch):
        flags = bool(alike[place]), bool(within[place])
        yield _row(version, logged, now[place], flags, float(difference[place]), labels, result)


def _row(
    version: LoadedVersion,
    logged: Logged,
    now: Any,
    flags: tuple[bool, bool],
    difference: float,
    labels: dict[str, list[Label]],
    result: Replayed,
) -> dict[str, Any]:
    """Add one row to the result and return its comparison.

    `flags`: whether the prediction is the same, and whether all outputs are, within the tolerance.
    """
    alike, within = flags
    row, then = logged.row, logged.row.y
    result.rows += 1
    result.alike += alike
    if logged.header.version == version.version:
        result.same_version += 1
        result.same_version_differs += not within
    if result.classes and not isinstance(then, list):
        result.table[then, now] = result.table.get((then, now), 0) + 1
    made = {
        "_id": row.id, "_time": row.t, "_version": logged.header.version, "_logged": then, "_replayed": now,
        "_difference": difference, "_alike": alike,
    }  # fmt: skip
    if difference > 0 or not alike:
        entry = (difference, -result.rows, made)
        (heapq.heappush if len(result.worst) < WORST else heapq.heappushpop)(result.worst, entry)
    label = label_of(labels, row) if labels else None
    if label is not None and then is not None:
        _judge(result, then, now, label.label)
    return made | ({"_label": label.label if label else None} if labels else {})


def _judge(result: Replayed, then: Any, now: Any, label: Truth) -> None:
    """Count which of two answers is right, or nearer."""
    truths = result.truths
    if result.classes:
        truth = like(label, result.classes)
        ours, theirs = float(then == truth), float(now == truth)
        logged_better, replayed_better = ours > theirs, theirs > ours
    else:
        number = as_number(label)
        ours, theirs = abs(as_number(lines.number(then)) - number), abs(as_number(now) - number)
        if not (math.isfinite(ours) and math.isfinite(theirs)):
            return
        logged_better, replayed_better = ours < theirs, theirs < ours
    truths.rows += 1
    truths.logged_right += ours
    truths.replayed_right += theirs
    truths.logged_better += logged_better
    truths.replayed_better += replayed_better


def _then(output: Output, form: Any, batch: Sequence[Logged]) -> list[Any]:
    """Return what the log has of an output, None for a row where it was not asked for."""
    if output.name == form.probability:
        return [one.row.p for one in batch]
    return [one.row.s if output.name == form.score else one.row.y for one in batch]


def _distance(
    version: LoadedVersion, output: Output, now: Array, then: Sequence[Any]
) -> tuple[NDArray[np.bool_], Floats]:
    """Return for each row whether an output is within the tolerance of what was logged, and the largest |a - b|."""
    if now.dtype.kind != "f":
        same = np.array([one == other for one, other in zip(to_values(now), then, strict=True)])
        # Where there are probabilities, they say by how much two labels differ.
        alone = all(one.role != "probability" for one in version.manifest.outputs)
        return same, np.where(same, 0.0, np.inf) if alone else np.zeros(len(same))
    try:
        expected = np.array([_numbers(one) for one in then], np.float64).reshape(now.shape)
    except (ValueError, TypeError):  # another number of classes, or another kind of answer
        return np.zeros(len(now), bool), np.full(len(now), np.inf)
    # Logged with the digits of its own type: converted back to that type, it is exactly the number of the answer.
    expected = expected.astype(now.dtype).astype(np.float64)
    far = comparison.distances(now.astype(np.float64), expected, version.manifest.policy.tolerance)
    rows = len(now)
    near: NDArray[np.bool_] = ~np.any((far.excess > 0).reshape(rows, -1), axis=1)
    largest: Floats = (
        np.nan_to_num(far.difference, nan=np.inf, posinf=np.inf).reshape(rows, -1).max(axis=1, initial=0.0)
    )
    return near, largest


def _numbers(value: Any) -> Any:
    """Return logged numbers, nested or not, as numbers."""
    return [_numbers(one) for one in value] if isinstance(value, list) else lines.number(value)

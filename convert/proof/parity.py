"""The gate: asks the original model and the ONNX graph the same rows, and reports how far their answers differ."""

from collections.abc import Callable
from typing import Any

import msgspec

from appliance.bundle.manifest import Tolerance
from appliance.errors import Misuse, ParityFailed
from convert.model.arrays import Answers
from convert.model.original import Original
from convert.model.schema import Limits, Schema
from convert.proof import falsifier, searched_rows
from convert.proof.both_sides import BothSides
from convert.proof.candidate import Candidate
from convert.proof.certificate import Diverged, OutputParity, Parity, Search
from convert.proof.comparison import FAR, ParityComparison
from convert.proof.limits import settle
from convert.proof.rows import SEED, Batch
from convert.proof.searched_rows import Costly

MARGIN = 0.5
"""The share of the tolerance that float32 inputs may take on a proof's rows: other rows may round worse."""
THIN = 50
"""A sample of fewer rows is said to be thin."""
_NAMES_SHOWN = 8
_SLIGHT = 1e-3  # a relative difference up to which rounding may be to blame


class Proof(msgspec.Struct, frozen=True):
    """A report, the limits under which it holds, its rows with the original's answers, and the first row that is off.

    That is a table of one row, or None.
    """

    report: Parity
    limits: Limits
    evidence: list[tuple[Batch, Answers]]
    first_off: Any = None


def check_tolerance(tolerance: Tolerance | None) -> Tolerance:
    """Return the tolerance of the proof, the default for None; raise Misuse for one that proves nothing."""
    tolerance = tolerance or Tolerance()
    if not (0 <= tolerance.absolute < 1 and 0 <= tolerance.relative < 1):  # NaN is neither
        found = f"{tolerance.absolute:g} absolute and {tolerance.relative:g} relative are not both from 0 to below 1"
        raise Misuse("use the tolerance", found, "give small numbers, as Tolerance(absolute=1e-4, relative=1e-4)")
    return tolerance


def prove(
    original: Original,
    candidate: Candidate,
    limits: Limits,
    tolerance: Tolerance,
    libraries: dict[str, str],
    searched: int = falsifier.MOST_ROWS,
    proved: Callable[[int, int], None] = lambda done, total: None,
) -> Proof:
    """Return the proof of `candidate` under `limits`, passed or not.

    Numbers pass when |a - b| <= absolute + relative * |b|, b being the original's; labels, texts and integers when
    they are equal. Where all drawn rows pass, about `searched` more are searched for those that do not. `proved`
    hears of the rows proved and of all that are to be proved. Raises ConversionRefused when the graph cannot answer the
    rows at all.
    """
    comparison = ParityComparison(original, candidate, tolerance)
    limits, notes = settle(limits, original.schema, comparison.agrees)
    sides = BothSides(original, candidate, limits, tolerance)
    evidence, kinds, costly = [], [], Costly()
    most = MARGIN if candidate.float_type == "float32" else 1.0
    batches = sides.batches()
    done, total = 0, sum(len(batch.frame) for batch in batches) + searched
    for batch in batches:
        proved(done, total)
        done += len(batch.frame)
        rows = sides.answered(batch)
        if len(rows.batch.frame):
            compared = comparison.compare(rows.batch, limits)
            costly.add(rows.batch, compared.share)
            # The device's self-test needs rows that have one right answer.
            sure = batch.beside is None and batch.kind not in comparison.by_rounding
            evidence += [(rows.batch, compared.answers)] if sure else []
        kinds.append(comparison.kind(rows.batch, rows.refused, rows.tied, rows.not_asked))
    kinds.append(comparison.compare_one_by_one(evidence[0][0], limits))
    found = None
    # Labels of several targets come without numbers that tell a near-tie, which a search would find.
    several = original.task == "classification" and not original.class_labels
    if comparison.passed and comparison.share <= most and not several:
        kinds += searched_rows.elsewhen(sides, comparison)
        begin = costly.rows(original.schema.frame)
        found, kind = searched_rows.search(
            sides, comparison, begin, most, searched, lambda rows: proved(min(done + rows, total), total)
        )
        kinds.append(kind)
    report = Parity(
        passed=comparison.passed and comparison.share <= most,
        float_type=candidate.float_type,
        why="",
        seed=SEED,
        tolerance=tolerance,
        kinds=kinds,
        outputs=comparison.outputs(),
        worst=comparison.worst(),
        notes=[*of_sample(original.schema), *notes, *little_left(comparison), *_of_search(found)],
        attempts=[],
        libraries=libraries,
        search=found,
    )
    return Proof(report, limits, evidence, comparison.first_off)


def of_sample(table: Schema) -> list[str]:
    """Return notes on a sample that shows little: few rows, or columns that hold one value."""
    notes = []
    if len(table.frame) < THIN:
        notes.append(
            f"the sample has {len(table.frame)} rows, under {THIN}: rows around it show little of what comes; give more"
        )
    constant = [column.name for column in table.columns if table.frame[column.name].nunique(dropna=False) < 2]
    if constant:
        shown = ", ".join(constant[:_NAMES_SHOWN]) + (", ..." if len(constant) > _NAMES_SHOWN else "")
        notes.append(
            f"{len(constant)} of {len(table.columns)} columns hold one value in the sample: {shown}; what the model "
            "makes of others was tried with values near it alone"
        )
    return notes


def _of_search(found: Search | None) -> list[str]:
    """Return a note where a search ended by the clock: on a quicker machine the certificate would be another one."""
    if found is None or found.stopped != "seconds":
        return []
    return [
        f"the search for the worst row ended after {falsifier.MOST_SECONDS:g} processor seconds, at {found.rows} of "
        f"{found.most_rows} rows: how far it comes depends on the machine, and so does this certificate"
    ]


def little_left(comparison: ParityComparison) -> list[str]:
    """Return a note where rows come so near to the tolerance that other rows may exceed it."""
    if not comparison.passed or comparison.share <= MARGIN:
        return []
    return [
        f"the farthest number takes {comparison.share:.0%} of the tolerance: rows that were not asked may be beyond it"
    ]


def shortfall(report: Parity) -> str:
    """Return in a few words why a report did not pass."""
    if any(output.rows_off for output in report.outputs):
        return "answers otherwise than the original"
    shares = [output.largest_share for output in report.outputs if output.largest_share is not None]
    return f"takes {max(shares):.0%} of the tolerance, and may take {MARGIN:.0%}: rows that were not tried may be off"


def failure(report: Parity) -> ParityFailed:
    """Return the error for a report that did not pass: the outputs, the worst row, and what to try."""
    off = [output for output in report.outputs if output.rows_off]
    if not off:
        return ParityFailed("prove the graph with float32 inputs", f"it {shortfall(report)}", _advice(report, off))
    parts = [
        f"{o.output} is off on {o.rows_off} of {report.rows} rows ({o.label_flips} label flips, "
        f"largest difference {o.largest_absolute:.3g} absolute, {o.largest_relative:.3g} relative)"
        for o in off
    ]
    for worst in report.worst:
        parts.append(f"{worst.kind} row {_short(worst.row)}: original {worst.original}, ONNX {worst.onnx}")
    if report.diverged is not None:
        parts.append(_from_step(report.diverged))
    return ParityFailed("prove that the ONNX graph answers as the original", "\n  ".join(parts), _advice(report, off))


def _from_step(diverged: Diverged) -> str:
    """Return which step the answers differ from, and what both sides have after it."""
    named = f"{diverged.step!r} ({diverged.estimator})"
    if not diverged.places:
        return f"both sides agree after all steps before {named}: the answers to the first row differ from that step on"
    values = ", ".join(
        f"value {place} is {one!r} in the original and {other!r} in ONNX"
        for place, one, other in zip(diverged.places, diverged.original, diverged.onnx, strict=True)
    )
    return f"the answers to the first row differ from the step {named} on: after it {values}"


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


def _short(row: dict[str, Any]) -> str:
    shown = ", ".join(f"{name}={value!r}" for name, value in list(row.items())[:8])
    return "{" + shown + (", ..." if len(row) > 8 else "") + "}"

"""Fresh rows around a model's sample, asked of the original and of the graph that `appliance convert` made of it."""

import time
from collections import Counter
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd

from appliance.bundle.manifest import Tolerance
from appliance.errors import InvalidInput
from convert import build
from convert.model.original import Original
from convert.model.schema import Limits
from convert.proof import candidate, differences, near_ties
from convert.proof.limits import probe
from convert.proof.rows import decimals

ROWS = 20_000
BLOCK = 500  # rows asked at once: a row that a graph refuses costs no more than its block's
GRAPH_TIME_LIMIT = 600.0  # seconds: on a busy machine the whole case's limit of processor time comes first
_MOVED = (0.1, 0.5)  # of a column's deviation
_TOLERANCE = Tolerance()

State = Literal["asked", "refused", "failed"]


class Found(msgspec.Struct, frozen=True):
    """What a model came to: its inputs' type, the rows asked, those beyond the tolerance, and labels that differ.

    `share` is the largest share of the tolerance that any number took, in the proof and over the fresh rows.
    """

    title: str
    state: State
    float_type: str = ""
    rows: int = 0
    refused: int = 0
    beyond: int = 0
    flips: int = 0
    near_ties: int = 0
    share: float = 0.0
    reason: str = ""


def asked(title: str, model: Any, sample: Any, rows: int = ROWS, seconds: float = np.inf) -> Found:
    """Return what a trained model comes to that is converted with `sample` and asked so many fresh rows.

    After so many processor `seconds` no more blocks are asked. Raises what `convert_model` raises.
    """
    conversion = build.convert_model(model, sample, time_limit=GRAPH_TIME_LIMIT)
    original = build.original_of(model, sample)
    float_type = conversion.parity.float_type
    made = candidate.build(conversion.onnx, original, original.answers(original.schema.frame.iloc[:5]), float_type)
    limits = probe(original)
    sums: Counter[str] = Counter()
    share = 0.0
    rng = np.random.default_rng(7)
    end = time.process_time() + seconds
    for start in range(0, rows, BLOCK):
        if time.process_time() > end:
            break
        frame = _fresh(original, limits, rng, start // BLOCK, min(BLOCK, rows - start))
        block, farthest = _compared(original, made, limits, frame)
        sums += block
        share = max(share, farthest)
    return Found(title, "asked", float_type, *(sums[k] for k in ("rows", "refused", "beyond", "flips", "ties")), share)


def _fresh(original: Original, limits: Limits, rng: np.random.Generator, block: int, rows: int) -> pd.DataFrame:
    """Return rows around the sample's: every second block rounded to the column's decimals."""
    sample = original.schema.frame
    picked = rng.integers(0, len(sample), rows)
    columns = {}
    for column in original.schema.columns:
        values = sample[column.name].to_numpy()
        own = values[picked]
        if column.kind == "float" and column.name not in limits.categories and not column.levels:
            own = _moved(values, own, rng, _MOVED[block // 2 % len(_MOVED)], block % 2 == 1)
        elif column.kind == "int64" and column.name not in limits.categories:
            own = values[rng.integers(0, len(values), rows)]
        columns[column.name] = pd.Series(own, dtype=values.dtype)
    return pd.DataFrame(columns)


def _moved(values: Any, own: Any, rng: np.random.Generator, by: float, rounded: bool) -> Any:
    finite = values[np.isfinite(values)]
    moved = own + rng.normal(0, by * (float(finite.std()) or 1.0), len(own))
    moved = np.abs(moved) if len(finite) and (finite >= 0).all() else moved
    places = decimals(values)
    return np.round(moved, places) if rounded and places is not None else moved


def _compared(
    original: Original, made: candidate.Candidate, limits: Limits, frame: pd.DataFrame
) -> tuple[Counter[str], float]:
    """Return the sums over one block, and the largest share of the tolerance."""
    kept, _ = original.taken(frame)
    frame = frame[kept].reset_index(drop=True)
    sums = Counter(refused=int((~kept).sum()))
    try:
        found = made.answers(frame, limits)
    except InvalidInput:
        alone = [_alone(made, limits, frame.iloc[i : i + 1]) for i in range(len(frame))]
        sums["refused"] += sum(one is None for one in alone)
        frame = frame[[one is not None for one in alone]].reset_index(drop=True)
        found = made.answers(frame, limits)
    if not len(frame):
        return sums, 0.0
    expected = original.answers(frame)
    sums["rows"] = len(frame)
    beyond, share = np.zeros(len(frame), dtype=bool), 0.0
    for name, answer in expected.items():
        if _is_label(original, name, answer):
            apart = differences.labels(answer, found[name]).off
            near = apart & (
                _near_tie(original, expected, len(frame)) | _turns(original, limits, frame, name, found[name], apart)
            )
            sums["ties"] += int(near.sum())
            sums["flips"] += int((apart & ~near).sum())
        else:
            apart_by = differences.numbers(answer, found[name], _TOLERANCE)
            beyond |= apart_by.off
            share = max(share, float(apart_by.share.max(initial=0.0)))
    sums["beyond"] = int(beyond.sum())
    return sums, share


def _is_label(original: Original, name: str, answer: Any) -> bool:
    is_number = answer.dtype.kind == "f" and original.task in ("regression", "transformation")
    return answer.dtype.kind in "OUSb" or (original.methods[name] == "predict" and not is_number)


def _alone(made: candidate.Candidate, limits: Limits, row: pd.DataFrame) -> Any:
    try:
        return made.answers(row, limits)
    except InvalidInput:
        return None


def _near_tie(original: Original, expected: Any, rows: int) -> Any:
    """Return where the original's two largest scores, or its score and 0, are within the tolerance of each other."""
    scores = [answer for name, answer in expected.items() if original.methods[name] != "predict"]
    if not scores or scores[0].dtype.kind != "f":
        return np.zeros(rows, dtype=bool)
    score = scores[0].reshape(rows, -1)
    if score.shape[1] == 1:
        return np.abs(score[:, 0]) <= _TOLERANCE.absolute
    first, second = np.sort(score, axis=1)[:, :-3:-1].T
    return first - second <= _TOLERANCE.absolute + _TOLERANCE.relative * np.abs(first)


def _turns(original: Original, limits: Limits, frame: pd.DataFrame, name: str, found: Any, apart: Any) -> Any:
    """Return where the original itself gives the graph's label with its inputs one float64 further."""
    turned, rows = np.zeros(len(frame), dtype=bool), np.flatnonzero(apart)
    for moved in near_ties.moved(frame.iloc[rows].reset_index(drop=True), limits) if len(rows) else []:
        turned[rows] |= ~differences.labels(original.answers(moved)[name], found[rows]).off
    return turned

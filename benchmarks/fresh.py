"""Runs graphs, with the inputs that `appliance convert` chose, on many rows that no proof used.

    python -m benchmarks.fresh [--rows 20000] [--all] [--sample N] [--json FILE] [NAME ...]

The models are those of the coverage table on default options (`--all`: and all its options) and those of
benchmarks/fresh_cases.py. Each is trained, converted and proved, and asked rows drawn around its training rows: moved
by a tenth and by half of a column's deviation, with all digits and with as many decimals as the column has, and gaps
where it was trained with gaps. Counted are rows beyond the tolerance, and labels that differ: near-ties are those where
the original's two largest scores are within the tolerance of each other, or where it gives the other label itself with
its inputs one float64 further.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd

from appliance.bundle.manifest import Tolerance
from appliance.errors import ApplianceError, InvalidInput
from benchmarks import fresh_cases
from benchmarks.coverage_cases import Case, cases
from benchmarks.coverage_data import Data, draw
from benchmarks.coverage_measure import GRAPH_TIME_LIMIT, fitted
from convert import build
from convert.model.original import Original
from convert.model.schema import Limits
from convert.proof import candidate, differences, near_ties
from convert.proof.limits import probe
from convert.proof.rows import decimals

TIME_LIMIT = 900  # processor seconds for each model
BLOCK = 500  # rows asked at once: a row that a graph refuses costs no more than its block's
_MOVED = (0.1, 0.5)  # of a column's deviation
_TOLERANCE = Tolerance()

Make = Callable[[], tuple[Any, Data]]
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


def main() -> None:
    """Measure and print a line for each model that is off, and the sums."""
    parser = argparse.ArgumentParser(description="How many fresh rows are beyond the tolerance, by model.")
    parser.add_argument("names", nargs="*", help="only models whose title begins so")
    parser.add_argument("--rows", type=int, default=20_000, help="fresh rows for each model (default: 20000)")
    parser.add_argument("--all", action="store_true", help="every set of options of the coverage table too")
    parser.add_argument("--json", type=Path, help="file of outcomes; those in it are not measured again")
    given = parser.parse_args()
    wanted = {title: make for title, make in jobs(given.all).items() if _is_asked(title, given.names)}
    earlier = _earlier(given.json)
    found = [one for title, one in earlier.items() if title in wanted]
    waiting = [title for title in wanted if title not in earlier]
    for title in waiting:
        one = _in_child(title, wanted[title], given.rows)
        found.append(one)
        if given.json is not None:
            with given.json.open("ab") as file:
                file.write(msgspec.json.encode(one) + b"\n")
        print(f"\r{len(found)} of {len(wanted)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print("\n".join(_lines(found)))


def _is_asked(title: str, names: list[str]) -> bool:
    return not names or any(title.startswith(name) for name in names)


def jobs(every: bool) -> dict[str, Make]:
    """Return {title: what trains the model}; `every` adds all options of the coverage table."""
    chosen = [case for case in cases() if every or case.default]
    return fresh_cases.made() | {f"{case.estimator}({case.options}), {case.data}": _trained(case) for case in chosen}


def _trained(case: Case) -> Make:
    def make() -> tuple[Any, Data]:
        data = draw(case.data)
        return fitted(case.model, data), data

    return make


def _earlier(file: Path | None) -> dict[str, Found]:
    if file is None or not file.exists():
        return {}
    read = [msgspec.json.decode(line, type=Found) for line in file.read_bytes().splitlines()]
    return {one.title: one for one in read}


def _lines(found: list[Found]) -> list[str]:
    asked = [one for one in found if one.state == "asked"]
    kinds = Counter(one.float_type for one in asked)
    off = [one for one in asked if one.beyond or one.flips]
    lines = [
        f"{one.title}: {one.float_type} inputs, {one.beyond} of {one.rows} rows beyond the tolerance "
        f"(at most {one.share:.3g} times), {one.flips} labels"
        for one in sorted(off, key=lambda one: -one.share)
    ]
    widest = max((one for one in asked if one not in off), key=lambda one: one.share, default=None)
    if widest is not None:
        lines.append(f"nearest to the tolerance of the others: {widest.title}, {widest.share:.2g} of it")
    lines.append(
        f"{len(asked)} graphs ({kinds['float32']} with float32 inputs, {kinds['float64']} with float64), "
        f"{sum(one.rows for one in asked):,} rows: {len(off)} graphs are off, {sum(one.beyond for one in off)} rows "
        f"beyond the tolerance, {sum(one.flips for one in off)} other labels, "
        f"{sum(one.near_ties for one in asked)} labels at near-ties, "
        f"{sum(one.refused for one in asked)} rows refused"
    )
    states = Counter(one.state for one in found)
    lines.append(f"not asked: {states['refused']} refused by convert, {states['failed']} not measured")
    return lines


def _in_child(title: str, make: Make, rows: int) -> Found:
    """Return what a model came to, measured in a child: converters once registered stay registered."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(title, make, rows, sender))
    child.start()
    sender.close()
    try:
        return msgspec.json.decode(receiver.recv_bytes(), type=Found)
    except EOFError:
        return Found(title, "failed", reason="out of time or ended")
    finally:
        child.join()


def _measure(title: str, make: Make, rows: int, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_LIMIT, TIME_LIMIT))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # converters complain there at length
    warnings.simplefilter("ignore")
    try:
        model, data = make()
        sample = pd.DataFrame({"texts": data.rows}) if isinstance(data.rows, list) else data.rows
        found = asked(title, model, sample, rows)
    except (ApplianceError, ValueError) as error:
        found = Found(title, "refused", reason=str(error).splitlines()[0])
    except Exception as error:  # noqa: BLE001 - a model that cannot be trained must not end the others
        found = Found(title, "failed", reason=f"{type(error).__name__}: {error}"[:200])
    sender.send_bytes(msgspec.json.encode(found))


def asked(title: str, model: Any, sample: Any, rows: int) -> Found:
    """Return what a trained model comes to that is converted with `sample` and asked so many fresh rows.

    Raises what `convert_model` raises.
    """
    conversion = build.convert_model(model, sample, time_limit=GRAPH_TIME_LIMIT)
    original = build.original_of(model, sample)
    float_type = conversion.parity.float_type
    made = candidate.build(conversion.onnx, original, original.answers(original.schema.frame.iloc[:5]), float_type)
    limits = probe(original)
    sums: Counter[str] = Counter()
    share = 0.0
    rng = np.random.default_rng(7)
    for start in range(0, rows, BLOCK):
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


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"in {time.monotonic() - started:.0f} s")

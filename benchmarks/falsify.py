"""Plants faults in graphs and counts how many the falsifier finds, with none of the proof's other rows.

    python -m benchmarks.falsify [--trials 20] [--rows 4000] [--json FILE]

Planted are: one threshold of a forest's thousands moved by a thousandth, at a split drawn for each trial; two weights
of an encoder swapped, of a category that the sample has once; a decision at exactly 0 turned; float32 inputs for
neighbours. A trial without a fault shows that nothing is found where there is nothing. `splits` are the rows on either
side of the graph's splits, `searched` the moves, from the sample alone; each is tried by itself.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pandas as pd
from onnx import numpy_helper
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer, OneHotEncoder, StandardScaler

from appliance.bundle.manifest import Tolerance
from convert import build, convert_model
from convert.converters import skl2onnx_graph
from convert.model.original import Original
from convert.proof import candidate, searched_rows
from convert.proof.both_sides import BothSides
from convert.proof.comparison import ParityComparison
from convert.proof.limits import probe

_TOLERANCE = Tolerance()
_MOVED = 1.001


class Found(msgspec.Struct, frozen=True):
    """What became of some trials with one kind of fault."""

    fault: str
    trials: int
    by_splits: int
    by_search: int
    found: int
    rows: int
    cpu_seconds: float


def main() -> None:
    """Plant and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.falsify", description=__doc__)
    parser.add_argument("--trials", type=int, default=20, help="for each kind of fault (default: 20)")
    parser.add_argument("--rows", type=int, default=4_000, help="rows of each search (default: 4000)")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'fault':58} {'trials':>6} {'splits':>6} {'moves':>6} {'found':>6} {'rows':>6} {'CPU s':>6}")
    lines = []
    for title, planted in _faults(given.trials):
        line = _tried(title, planted, given.rows)
        counts = f"{line.trials:6} {line.by_splits:6} {line.by_search:6} {line.found:6}"
        print(f"{title:58} {counts} {line.rows:6} {line.cpu_seconds:6.1f}", flush=True)
        lines.append(line)
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(lines)) + b"\n")


def _tried(title: str, planted: Iterator[tuple[Original, candidate.Candidate]], rows: int) -> Found:
    """Return how many of the planted faults were found; rows and processor seconds are of one search on average."""
    trials = splits = searched = found = asked = 0
    seconds = 0.0
    for original, made in planted:
        by_splits = _by_splits(original, made)
        started = time.process_time()
        by_search, count = _by_search(original, made, rows)
        seconds += time.process_time() - started
        trials, splits, searched = trials + 1, splits + by_splits, searched + by_search
        found, asked = found + (by_splits or by_search), asked + count
    return Found(title, trials, splits, searched, found, asked // max(1, trials), seconds / max(1, trials))


def _sides(original: Original, made: candidate.Candidate) -> tuple[BothSides, ParityComparison]:
    return BothSides(original, made, probe(original), _TOLERANCE), ParityComparison(original, made, _TOLERANCE)


def _by_splits(original: Original, made: candidate.Candidate) -> bool:
    sides, comparison = _sides(original, made)
    for batch in sides.splits.batches() if sides.splits else []:
        rows = sides.answered(batch)
        if len(rows.batch.frame):
            comparison.compare(rows.batch, sides.limits)
    return not comparison.passed


def _by_search(original: Original, made: candidate.Candidate, rows: int) -> tuple[bool, int]:
    sides, comparison = _sides(original, made)
    found, _ = searched_rows.search(sides, comparison, original.schema.frame.iloc[:0], 1.0, rows)
    return found.stopped == "found", found.rows


def _faults(trials: int) -> Iterator[tuple[str, Iterator[tuple[Original, candidate.Candidate]]]]:
    x, y = _readings()
    forest = RandomForestClassifier(30, random_state=0).fit(x, y > y.mean())
    boosted = make_pipeline(StandardScaler(), GradientBoostingRegressor(random_state=0, n_estimators=200)).fit(x, y)
    histogram = HistGradientBoostingRegressor(random_state=0, max_iter=110).fit(x, y)
    for model in (forest, boosted, histogram):
        yield f"one threshold x 1.001, {_name(model)}", _moved_thresholds(model, x, trials)
    yield "a category of one row swapped with another", _swapped_categories(trials)
    yield "what lies at exactly 0 taken for above it", _turned_zeros(trials)
    yield "float32 inputs before neighbours", _narrow_neighbours(trials)
    yield "none, forest", _untouched(RandomForestClassifier(30, random_state=0), x, y > y.mean())
    yield "none, LogisticRegression", _untouched(LogisticRegression(max_iter=500), x, y > y.mean())


def _name(model: Any) -> str:
    return type(model[-1] if hasattr(model, "steps") else model).__name__


def _readings() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    x = rng.normal(20, 5, (700, 8)).round(2)
    return x, x[:, 0] * x[:, 1] + np.sin(x[:, 2]) * 5 + rng.normal(size=700)


def _made(original: Original, content: bytes, float_type: Any) -> candidate.Candidate:
    answers = original.answers(original.schema.frame.iloc[:5])
    return candidate.build(content, original, answers, float_type)


def _untouched(model: Any, x: Any, y: Any) -> Iterator[tuple[Original, candidate.Candidate]]:
    original = build.original_of(model.fit(x, y), x)
    conversion = convert_model(model, x)
    yield original, _made(original, conversion.onnx, conversion.parity.float_type)


def _moved_thresholds(model: Any, x: Any, trials: int) -> Iterator[tuple[Original, candidate.Candidate]]:
    original, conversion = build.original_of(model, x), convert_model(model, x)
    graph = onnx.load_from_string(conversion.onnx)
    (node,) = [node for node in graph.graph.node if node.op_type == "TreeEnsemble"]
    tensor = next(attribute for attribute in node.attribute if attribute.name == "nodes_splits").t
    before = numpy_helper.to_array(tensor)
    done = 0
    for index in np.random.default_rng(5).permutation(len(before)):
        values = before.copy()
        values[index] *= _MOVED
        if values[index] != before[index] and done < trials:
            done += 1
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            yield original, _made(original, graph.SerializeToString(), conversion.parity.float_type)


def _swapped_categories(trials: int) -> Iterator[tuple[Original, candidate.Candidate]]:
    """The graph is that of a model whose weight of the rare category is another's."""
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        kinds = [f"kind {i:02}" for i in range(60)]
        table = pd.DataFrame({"kind": rng.choice(kinds[:-1], 500), "x": rng.normal(size=500).round(2)})
        table.loc[499, "kind"] = kinds[-1]
        encoder = ColumnTransformer([("o", OneHotEncoder(handle_unknown="ignore"), ["kind"])], remainder="passthrough")
        right, wrong = (make_pipeline(encoder, Ridge()).fit(table, rng.normal(size=500)) for _ in range(2))
        wrong[-1].coef_ = right[-1].coef_.copy()
        wrong[-1].intercept_ = right[-1].intercept_
        wrong[-1].coef_[[trial, 59]] = wrong[-1].coef_[[59, trial]]
        yield _of_another(right, wrong, table.iloc[:499])


def _turned_zeros(trials: int) -> Iterator[tuple[Original, candidate.Candidate]]:
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        x = rng.uniform(1, 9, (200, 10)).round(2)
        right, wrong = (
            make_pipeline(Binarizer(threshold=threshold), Ridge()).fit(x, x[:, 0]) for threshold in (0.0, -5e-324)
        )
        for model in (right, wrong):
            model[-1].coef_ = np.where(np.arange(10) == trial % 10, 1.0, 0.0)
        wrong[-1].intercept_ = right[-1].intercept_
        yield _of_another(right, wrong, x)


def _of_another(right: Any, wrong: Any, sample: Any) -> tuple[Original, candidate.Candidate]:
    original = build.original_of(right, sample)
    conversion = convert_model(wrong, sample)
    return original, _made(original, conversion.onnx, conversion.parity.float_type)


def _narrow_neighbours(trials: int) -> Iterator[tuple[Original, candidate.Candidate]]:
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        x = rng.normal(size=(300, 6))
        original = build.original_of(KNeighborsRegressor().fit(x, x[:, 0] + x[:, 1]), x)
        limits = probe(original)
        rows = original.schema.frame.iloc[:5]
        feeds = candidate.feeds(original.schema, rows, "float32", limits)
        inputs = original.schema.inputs("float32", limits)
        content = skl2onnx_graph.convert(original, inputs, "float32", feeds, original.answers(rows), 600.0)
        yield original, _made(original, content, "float32")


if __name__ == "__main__":
    main()

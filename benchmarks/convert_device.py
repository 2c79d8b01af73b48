"""Times graphs of ours and plain skl2onnx's of the same models, where both are right, as the device runs them."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, SVR

from appliance.inference.session import Session
from benchmarks.coverage_cases import Case, cases
from benchmarks.coverage_data import Data, draw
from benchmarks.coverage_measure import Route, fitted, graph, is_right, register, tensors
from convert.converters import float32_inputs
from convert.model import schema

BATCHES = (1, 500)
FLOAT_TYPES = ("float32", "float64")
_REPEATS = 5
_SECONDS = 0.005  # of each timing at least
_LARGE_ROWS = 1_500


class Pair(msgspec.Struct, frozen=True):
    """A model's two graphs: the input type in which each was right first, and processor microseconds a run by rows."""

    title: str
    ours: str
    plain: str
    ours_us: dict[int, float]
    plain_us: dict[int, float]

    def ratio(self, rows: int) -> float:
        """Return how much longer ours takes."""
        return self.ours_us[rows] / self.plain_us[rows]


def measured(only: list[str]) -> list[Pair]:
    """Return a pair for each model that both convert rightly; `only` are estimators by name, all if none are named."""
    found = []
    chosen = [job for job in _jobs() if not only or job[0].partition("(")[0] in only]
    for number, (title, make) in enumerate(chosen):
        print(f"\r{number + 1} of {len(chosen)} models", end="", file=sys.stderr, flush=True)
        ours, plain = (_in_child(make, route) for route in ("ours", "plain"))
        if ours and plain:
            found.append(pair(title, ours, plain))
    print(file=sys.stderr)
    return found


class Timed(msgspec.Struct, frozen=True):
    """A graph that answers rightly, and for each batch size the rows that it is timed with."""

    content: bytes
    float_type: str
    feeds: dict[int, list[tuple[str, str, list[int], bytes]]]


def _jobs() -> Iterator[tuple[str, Callable[[], tuple[Any, Data]]]]:
    """Yield (title, what trains the model): the defaults of the coverage table, then models of an ordinary size."""
    for case in cases():
        if case.default:
            yield f"{case.estimator}({case.options}), 90 x 5", partial(_small, case)
    for title, make in _LARGE.items():
        yield f"{title}, {_LARGE_ROWS} rows of training", make


def _small(case: Case) -> tuple[Any, Data]:
    data = draw(case.data)
    return fitted(case.model, data), data


def _classes(model: Any, columns: int = 20, classes: int = 3) -> tuple[Any, Data]:
    x, y = make_classification(_LARGE_ROWS, columns, n_informative=8, n_classes=classes, random_state=0)
    return model.fit(x.round(2), y), Data(x.round(2), y, x[:300].round(2) + 0.01)


def _numbers(model: Any, columns: int = 20) -> tuple[Any, Data]:
    x, y = make_regression(_LARGE_ROWS, columns, noise=5, random_state=0)
    return model.fit(x.round(2), y), Data(x.round(2), y, x[:300].round(2) + 0.01)


def _table(final: Any) -> tuple[Any, Data]:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({f"n{i}": rng.normal(20, 5, _LARGE_ROWS).round(1) for i in range(6)})
    table["place"] = rng.choice(["north", "south", "east"], _LARGE_ROWS).astype(object)
    table["shift"] = rng.choice(["a", "b"], _LARGE_ROWS).astype(object)
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = make_column_transformer(
        (numbers, [f"n{i}" for i in range(6)]), (OneHotEncoder(handle_unknown="ignore"), ["place", "shift"])
    )
    y = (table["n0"] + 3 * (table["place"] == "east") > 21).astype(int)
    model = make_pipeline(columns, final).fit(table, y)
    return model, Data(table, y, table.sample(200, random_state=1).reset_index(drop=True))


_LARGE: dict[str, Callable[[], tuple[Any, Data]]] = {
    "RandomForestClassifier(100 trees, 2 classes)": lambda: _classes(RandomForestClassifier(random_state=0), 30, 2),
    "RandomForestClassifier(100 trees, 3 classes)": lambda: _classes(RandomForestClassifier(random_state=0)),
    "RandomForestRegressor(100 trees)": lambda: _numbers(RandomForestRegressor(random_state=0)),
    "GradientBoostingClassifier(3 classes)": lambda: _classes(GradientBoostingClassifier(random_state=0)),
    "HistGradientBoostingClassifier(2 classes)": lambda: _classes(HistGradientBoostingClassifier(), 20, 2),
    "IsolationForest(100 trees)": lambda: _classes(IsolationForest(random_state=0)),
    "SVC(3 classes)": lambda: _classes(SVC()),
    "SVC(2 classes)": lambda: _classes(SVC(), 20, 2),
    "SVR()": lambda: _numbers(SVR()),
    "KNeighborsClassifier()": lambda: _classes(KNeighborsClassifier()),
    "MLPClassifier(100)": lambda: _classes(MLPClassifier(max_iter=30, random_state=0)),
    "Pipeline(StandardScaler, LogisticRegression)": lambda: _classes(
        make_pipeline(StandardScaler(), LogisticRegression())
    ),
    "Pipeline(ColumnTransformer, LogisticRegression)": lambda: _table(LogisticRegression()),
    "Pipeline(ColumnTransformer, forest)": lambda: _table(RandomForestClassifier(50, random_state=0)),
}


def _in_child(make: Callable[[], tuple[Any, Data]], route: Route) -> Timed | None:
    """Return the graph of a route, made in a child process: converters once registered stay registered."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_make, args=(make, route, sender))
    child.start()
    sender.close()
    try:
        return msgspec.msgpack.decode(receiver.recv_bytes(), type=Timed | None)
    except EOFError:
        return None
    finally:
        child.join()


def _make(make: Callable[[], tuple[Any, Data]], route: Route, sender: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # converters complain there at length
    sender.send_bytes(msgspec.msgpack.encode(_right(make, route)))


def _right(make: Callable[[], tuple[Any, Data]], route: Route) -> Timed | None:
    """Return the graph of the first input type that answers fresh rows as scikit-learn does, None where none does."""
    try:
        model, data = make()
    except Exception:  # noqa: BLE001 - what cannot be trained is not compared
        return None
    if route == "ours":
        register()
    for float_type in FLOAT_TYPES[1:] if route == "ours" and kept_from(model, data) else FLOAT_TYPES:
        if is_right(model, data, float_type, route):
            content = graph(model, data.fresh, float_type, route)
            return timeable(content, data, float_type)
    return None


def timeable(content: bytes, data: Data, float_type: str) -> Timed:
    """Return a graph with the rows it is timed with."""
    return Timed(content, float_type, {rows: _feeds(content, data.fresh, float_type, rows) for rows in BATCHES})


def kept_from(model: Any, data: Data) -> str:
    """Return the step that keeps a model from float32 inputs in `appliance convert`, or ""."""
    if isinstance(data.rows, list):
        return ""
    return float32_inputs.kept_from(model, schema.infer(model, data.rows).columns)


def _feeds(content: bytes, fresh: Any, float_type: str, rows: int) -> list[tuple[str, str, list[int], bytes]]:
    """Return `rows` rows as tensors that can cross to another process."""
    repeated = fresh[:1] if rows == 1 else _repeated(fresh, rows)
    found = tensors(Session(content).inputs, repeated, float_type)
    return [(name, _dtype(a), list(a.shape), _packed(a)) for name, a in found.items()]


def _repeated(fresh: Any, rows: int) -> Any:
    if isinstance(fresh, list):
        return (fresh * (rows // len(fresh) + 1))[:rows]
    index = np.arange(rows) % len(fresh)
    return fresh.iloc[index].reset_index(drop=True) if isinstance(fresh, pd.DataFrame) else fresh[index]


def _dtype(array: Any) -> str:
    return "string" if array.dtype.kind in "OU" else str(array.dtype)


def _packed(array: Any) -> bytes:
    return msgspec.msgpack.encode(array.reshape(-1).tolist()) if array.dtype.kind in "OU" else array.tobytes()


def _unpacked(feeds: list[tuple[str, str, list[int], bytes]]) -> dict[str, Any]:
    return {
        name: np.array(msgspec.msgpack.decode(content), dtype=object).reshape(shape)
        if dtype == "string"
        else np.frombuffer(content, dtype=dtype).reshape(shape)
        for name, dtype, shape, content in feeds
    }


def pair(title: str, ours: Timed, plain: Timed) -> Pair:
    """Time both in turns, so that a disturbance of the machine meets them alike; the quickest turn counts."""
    sessions = [Session(one.content) for one in (ours, plain)]
    found: dict[int, list[float]] = {}
    for rows in BATCHES:
        feeds = [_unpacked(one.feeds[rows]) for one in (ours, plain)]
        times: list[list[float]] = [[], []]
        for _ in range(_REPEATS):
            for place, session in enumerate(sessions):
                times[place].append(_timed(session, feeds[place]))
        found[rows] = [1e6 * min(own) for own in times]
    by_rows = [{rows: both[place] for rows, both in found.items()} for place in (0, 1)]
    return Pair(title, ours.float_type, plain.float_type, *by_rows)


def _timed(session: Session, feeds: dict[str, Any]) -> float:
    """Return the processor seconds of a run: the session has no threads but the caller's, whatever others do."""
    runs, spent = 1, 0.0
    while spent < _SECONDS:
        start = time.thread_time()
        for _ in range(runs):
            session.run(feeds)
        spent = time.thread_time() - start
        runs = runs if spent >= _SECONDS else 2 * runs
    return spent / runs

"""Asks one model and its graph the same fresh rows, the graph made by our converters or by skl2onnx alone."""

import warnings
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd
import skl2onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.base import clone, is_classifier, is_regressor

from appliance.errors import ConversionRefused, InvalidInput
from appliance.inference.session import Session
from benchmarks import fresh_rows
from benchmarks.coverage_cases import Case
from benchmarks.coverage_data import Data, draw
from benchmarks.fresh_rows import Found
from convert.converters.narrowing import narrow
from convert.converters.skl2onnx_graph import OWN_CONVERTERS, TARGET_OPSET
from convert.model.schema import text_of_null
from convert.model.steps import last_step

Route = Literal["ours", "plain"]
Verdict = Literal["exact", "wrong", "refused", "fails"]
FRESH_SECONDS = 90.0
"""Of processor time for the fresh rows of a model: the slowest are asked fewer."""
TOLERANCE = 1e-5  # absolute, and of the number's size
_PLAIN_OPSET = {"": 21, "ai.onnx.ml": 3}  # the newest that skl2onnx's own converters write
_BEST_FIRST: tuple[Verdict, ...] = ("exact", "wrong", "fails", "refused")


class Outcome(msgspec.Struct, frozen=True):
    """What a route came to: the largest difference of numbers (None: there were none), labels that differ, a reason.

    `refused` is what the converter says it cannot do; `fails` is a graph that does not load, or no answer at all.
    `unserved` is why `appliance convert` takes no such model for all that its graph is right. `asked` is what fresh
    rows near the sample came to, where it takes it.
    """

    verdict: Verdict
    largest: float | None = None
    flips: int = 0
    reason: str = ""
    unserved: str = ""
    asked: Found | None = None


def measure(case: Case, route: Route, *, proved: bool = False) -> Outcome:
    """Return the better outcome, of float64 and float32 inputs.

    `proved`: and whether `appliance convert` takes it, and what fresh_rows.ROWS rows come to that its graph is asked.
    """
    warnings.simplefilter("ignore")
    data = draw(case.data)
    model = fitted(case.model, data)
    if route == "ours":
        register()
    outcomes: list[Outcome] = []
    for float_type in ("float64", "float32"):
        outcomes.append(_outcome(model, data, float_type, route))
        if outcomes[-1].verdict == "exact" or not _has_floats(data.fresh):
            break
    best = min(outcomes, key=lambda outcome: _BEST_FIRST.index(outcome.verdict))
    if proved and best.verdict == "exact":
        asked, unserved = _served(model, data)
        best = msgspec.structs.replace(best, unserved=unserved, asked=asked)
    return best


def fitted(model: Any, data: Data) -> Any:
    """Return a copy of the model, trained."""
    model = clone(model) if hasattr(model, "get_params") else model
    return model.fit(data.rows) if data.answers is None else model.fit(data.rows, data.answers)


def register() -> None:
    """Put our converters in the place of skl2onnx's, in this process."""
    for module in OWN_CONVERTERS:
        module.register()


def is_right(model: Any, data: Data, float_type: str, route: Route) -> bool:
    """Return whether the route's graph answers fresh rows as the model does."""
    return _outcome(model, data, float_type, route).verdict == "exact"


def _served(model: Any, data: Data) -> tuple[Found | None, str]:
    """Return what fresh rows of a model come to where `appliance convert` takes it, proof and all, else why not."""
    if isinstance(data.rows, list) and not isinstance(data.rows[0], str):
        return None, ""  # no table that could be given
    sample = pd.DataFrame({"texts": data.rows}) if isinstance(data.rows, list) else data.rows
    try:
        return fresh_rows.asked(type(model).__name__, model, sample, seconds=FRESH_SECONDS), ""
    except (ConversionRefused, InvalidInput) as error:
        return None, f"{error.found.splitlines()[0]}; {error.next_step}"


def _outcome(model: Any, data: Data, float_type: str, route: Route) -> Outcome:
    try:
        content = graph(model, data.fresh, float_type, route)
    except ConversionRefused as error:
        return Outcome("refused", reason=f"{error.found}; {error.next_step}")
    except Exception as error:  # noqa: BLE001 - converters raise every kind there is
        return Outcome("fails", reason=_first_line(error))
    try:
        session = Session(content)
        found = session.run(tensors(session.inputs, data.fresh, float_type))
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        return Outcome("fails", reason=_first_line(error))
    return _compared(model, data.fresh, found)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def graph(model: Any, rows: Any, float_type: str, route: Route) -> bytes:
    """Return the route's graph for inputs as `rows` are, floats as `float_type`; raises what the converters raise."""
    arguments = {"initial_types": _types(rows, float_type)}
    arguments["target_opset"] = TARGET_OPSET if route == "ours" else _PLAIN_OPSET
    last = last_step(model)
    options = {id(step): {"zipmap": False} for step in (model, last)} if is_classifier(model) else None
    try:
        made = skl2onnx.convert_sklearn(model, options=options, **arguments)
    except NameError:  # some classifiers have no ZipMap, and so no such option
        made = skl2onnx.convert_sklearn(model, **arguments)
    if route == "ours":
        narrow(made)
    return bytes(made.SerializeToString())


def _types(rows: Any, float_type: str) -> list[tuple[str, Any]]:
    number = DoubleTensorType if float_type == "float64" else FloatTensorType
    if isinstance(rows, pd.DataFrame):
        by_kind = {"O": StringTensorType, "i": Int64TensorType, "b": Int64TensorType}
        return [(name, by_kind.get(values.dtype.kind, number)([None, 1])) for name, values in rows.items()]
    if isinstance(rows, list):
        return [("texts", StringTensorType([None, 1]))]
    return [("features", number([None, *rows.shape[1:]]))]


def _has_floats(rows: Any) -> bool:
    return not isinstance(rows, list)


def tensors(names: Iterable[str], rows: Any, float_type: str) -> dict[str, Any]:
    """Return rows as the graph's inputs, which are `names`."""
    if isinstance(rows, list):
        return {"texts": np.array(rows, dtype=object).reshape(-1, 1)}
    if not isinstance(rows, pd.DataFrame):
        return {"features": rows.astype(float_type)}
    columns = [_column(rows[name], float_type) for name in rows.columns]
    return dict(zip(names, columns, strict=True))


def _column(values: "pd.Series[Any]", float_type: str) -> Any:
    if values.dtype == object:
        return np.array([text_of_null(v) if v is None or v != v else v for v in values], dtype=object).reshape(-1, 1)
    return values.to_numpy().reshape(-1, 1).astype("int64" if values.dtype.kind in "ib" else float_type)


def _compared(model: Any, rows: Any, found: list[Any]) -> Outcome:
    """Return how the graph's answers differ from scikit-learn's float64 answers to the same rows."""
    largest, flips, right = None, 0, True
    for (method, expected), given in zip(_expected(model, rows), found, strict=False):
        expected = np.asarray(expected.toarray() if hasattr(expected, "toarray") else expected)
        given = _shaped(np.asarray(given), expected)
        if given.shape != expected.shape:
            return Outcome("wrong", reason=f"{method} of shape {given.shape}")
        if expected.dtype.kind in "OUS" or (method == "predict" and not is_regressor(model)):
            flips += int((expected.astype(str) != given.astype(expected.dtype).astype(str)).sum())
            continue
        apart = _apart(expected.astype(float), given.astype(float))
        largest = max(largest or 0.0, float(apart.max(initial=0.0)))
        right = right and bool((apart <= TOLERANCE * (1 + np.abs(np.nan_to_num(expected.astype(float))))).all())
    if largest == np.inf:
        return Outcome("wrong", flips=flips, reason="NaN or infinity on one side only")
    return Outcome("exact" if right and not flips else "wrong", largest, flips)


def _expected(model: Any, rows: Any) -> list[tuple[str, Any]]:
    """Return what the model answers, in the order of a graph's outputs."""
    for only in ("transform", "score_samples"):
        if hasattr(model, only) and not hasattr(model, "predict"):
            return [(only, getattr(model, only)(rows))]
    second = [name for name in ("predict_proba", "decision_function") if hasattr(model, name)][:1]
    answers = [(method, getattr(model, method)(rows)) for method in ("predict", *second)]
    return [answer for answer in answers if not isinstance(answer[1], list)]  # a table for each of several outputs


def _shaped(given: Any, expected: Any) -> Any:
    """Return a graph's answer in the original's shape: a column for a vector, one of a two-class score's two signs."""
    if given.size == expected.size and 1 in (given.ndim, expected.ndim):
        return given.reshape(expected.shape)
    if expected.ndim == 1 and given.ndim == 2 and given.shape[1] == 2:
        return given[:, int(np.abs(given - expected[:, None]).sum(axis=0).argmin())]
    return given


def _apart(expected: Any, given: Any) -> Any:
    """Return absolute differences; two NaN and two equal infinities are 0 apart, one of a kind infinitely."""
    same = (expected == given) | (np.isnan(expected) & np.isnan(given))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.nan_to_num(np.abs(expected - given), nan=np.inf, posinf=np.inf))

"""The routes of a model's columns: what may be filled in, example rows, and how rows are spread beside training."""

import math
from typing import Any

import msgspec
import numpy as np

from appliance.bundle.baseline import PROBABILITIES, Baseline, Categories, Numbers
from appliance.bundle.manifest import Category, Input, TensorType
from appliance.errors import ApplianceError, NotFound
from appliance.inference.version import LoadedVersion
from appliance.monitoring.distribution import Distribution
from appliance.rest.http_types import Context, Request, Response, encode_json, json_response
from appliance.rest.routes import Route

MOST_EXAMPLES = 10
MOST_CATEGORIES = 100
_LOW, _MEDIAN, _HIGH = (PROBABILITIES.index(level) for level in (0.01, 0.5, 0.99))


class ColumnHint(msgspec.Struct, kw_only=True):
    """One column, and what training had in it; literals are JSON texts, so that no digit is lost."""

    name: str
    type: TensorType
    missing: bool
    """Whether null is a value that the model takes."""
    required: bool
    """Whether a row must name it."""
    closed: bool
    """Whether the model takes nothing but `categories`."""
    categories: list[Category] = []
    """Values that the model takes, or that training had, the most frequent first; 100 at most."""
    low: float | None = None
    """98 % of training's values lie from `low` to `high`; null where it is not known."""
    high: float | None = None
    typical: str
    """A literal: training's median or most frequent value; where nothing is known, some value of the type."""


class Columns(msgspec.Struct):
    """The columns of the version that serves, in the order of a row that is given as a list."""

    model: str
    version: str
    columns: list[ColumnHint]


class Examples(msgspec.Struct):
    """Rows of the bundle, each as literals (JSON texts) in the columns' order."""

    model: str
    version: str
    rows: list[list[str]]


def _columns(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with the columns."""
    loaded = context.predictor.route(variables["name"])
    return json_response(Columns(loaded.name, loaded.version, hints(loaded)))


def hints(loaded: LoadedVersion) -> list[ColumnHint]:
    """Return what is known of a version's columns, in their order."""
    baseline = _baseline(loaded)
    return [_hint(tensor, name, baseline) for tensor in loaded.manifest.inputs for name in tensor.columns]


def _examples(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with rows of the bundle. They may be of the training data, so they are an administrator's business."""
    loaded = context.predictor.route(variables["name"])
    feeds = loaded.example_feeds(MOST_EXAMPLES)
    rows: list[list[str]] = [[] for _ in range(MOST_EXAMPLES)]
    for tensor in loaded.manifest.inputs:
        array = feeds[tensor.name].reshape(MOST_EXAMPLES, -1)
        for row, values in zip(rows, array, strict=True):
            row += [_literal(value, tensor) for value in values]
    return json_response(Examples(loaded.name, loaded.version, list(map(list, dict.fromkeys(map(tuple, rows))))))


def _distribution(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with how the rows of the version that serves are spread. Raises NotFound where it is not watched."""
    loaded = context.predictor.route(variables["name"])
    found = context.distribution(loaded.name, loaded.version)
    if found is None:
        next_step = "convert the model again, or set [drift] enabled"
        raise NotFound(
            f"show the distribution of {loaded.name}", "its bundle has no baseline, or drift is off", next_step
        )
    return json_response(found)


def _baseline(loaded: LoadedVersion) -> Baseline | None:
    """Return what training looked like, None where it is not known."""
    try:
        return loaded.baseline
    except ApplianceError:
        return None


def _hint(tensor: Input, name: str, baseline: Baseline | None) -> ColumnHint:
    """Return what is known of a column."""
    summary = baseline.inputs.get(name) if baseline else None
    hint = ColumnHint(
        name=name,
        type=tensor.type,
        missing=tensor.missing,
        required=tensor.required,
        closed=bool(tensor.categories),
        categories=list(tensor.categories or [])[:MOST_CATEGORIES],
        typical=_some(tensor),
    )
    if isinstance(summary, Numbers) and summary.quantiles:
        hint.low, hint.high = summary.quantiles[_LOW], summary.quantiles[_HIGH]
        hint.typical = _number(summary.quantiles[_MEDIAN], tensor)
    elif isinstance(summary, Categories) and summary.counts:
        known = sorted(summary.counts, key=lambda text: -summary.counts[text])
        if not hint.categories and tensor.type == "string":
            hint.categories = list(known[:MOST_CATEGORIES])
        hint.typical = _category(known[0], tensor)
    return hint


def _category(text: str, tensor: Input) -> str:
    """Return a baseline's category as a literal of a column's type."""
    if tensor.categories:
        same = [one for one in tensor.categories if str(one).lower() == text.lower() or one == text]
        return encode_json(same[0] if same else tensor.categories[0]).decode()
    if tensor.type == "string":
        return encode_json(text).decode()
    return text if text in ("true", "false") else _number(float(text), tensor)


def _some(tensor: Input) -> str:
    """Return some value that a column takes."""
    if tensor.categories:
        return encode_json(tensor.categories[0]).decode()
    return {"string": '""', "bool": "false"}.get(tensor.type, "0")


def _number(value: float, tensor: Input) -> str:
    """Return a number of training as a literal with few digits, a whole one for a whole-number type."""
    if not math.isfinite(value):
        return "0"
    return repr(float(f"{value:.6g}")) if tensor.type.startswith("float") else str(round(value))


def _literal(value: Any, tensor: Input) -> str:
    """Return a value of a tensor as JSON: the shortest text that gives the same number of its type."""
    if tensor.type == "string":
        return "null" if tensor.missing and value == tensor.missing_text else encode_json(str(value)).decode()
    if tensor.type == "bool":
        return "true" if value else "false"
    if not tensor.type.startswith("float"):
        return str(int(value))
    if not np.isfinite(value):
        return "null" if np.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return str(value)


ROUTES = (
    Route("GET", "/models/{name}/columns", _columns, "A model's columns, and what training had in them",
          response_type=Columns),
    Route("GET", "/models/{name}/examples", _examples, "Example rows of the bundle", scope="admin",
          response_type=Examples),
    Route("GET", "/models/{name}/distribution", _distribution, "How rows are spread now, beside training",
          response_type=Distribution),
)  # fmt: skip

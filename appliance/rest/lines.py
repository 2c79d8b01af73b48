"""Bodies and answers of one row a line: CSV, and JSON lines (jsonlines.org), as SageMaker's containers have them.

A body's Content-Type says what it is, Accept in which form the answer goes; every other value means JSON.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar

import numpy as np

from appliance.arrays import Array
from appliance.budget import CSV_WORST, LIST, VALUE, WORST, csv_cost, json_cost
from appliance.errors import InvalidInput
from appliance.inference.json_output import LARGE
from appliance.inference.quality import RowQuality
from appliance.inference.tensors import Feeds
from appliance.inference.values import kind_of, to_values
from appliance.inference.version import LoadedVersion
from appliance.response import ResponseFormat, response_format
from appliance.rest.csv_body import read_csv
from appliance.rest.http_types import JSON, Context, Request, Response, encode_json
from appliance.rest.json_body import decode_lines

V = TypeVar("V")
Form = Literal["csv", "json lines"]
Line = list[V] | dict[str, V | list[V] | dict[str, V]] | V  # type: ignore[misc]  # msgspec takes it
"""One line: a row as a list or an object, {"features": ROW}, or the value of a model of one column."""

FORMS: dict[str, Form] = {
    "text/csv": "csv",
    "application/jsonlines": "json lines",
    "application/x-jsonlines": "json lines",
    "application/jsonl": "json lines",
    "application/x-ndjson": "json lines",
}
MEDIA: dict[Form, str] = {"csv": "text/csv; charset=utf-8", "json lines": "application/jsonlines"}
LINE = 64
"""Bytes that a line of an answer has beside its values at most."""

JSON_TYPES = frozenset({"", JSON, "application/x-www-form-urlencoded"})
"""Content-Types that clients send with JSON, told apart from lines without a look at their parts."""
JSON_ACCEPTS = frozenset({"", "*/*", JSON})
"""The Accept values of clients that want JSON, likewise."""

_FEATURES = "features"
_FLOATS = {float("inf"): "inf", float("-inf"): "-inf"}


def media_type(content_type: str) -> tuple[str, dict[str, str]]:
    """Return a media type and its parameters (RFC 9110, 8.3), in lower case."""
    media, *rest = content_type.lower().split(";")
    parameters = (part.partition("=") for part in rest)
    return media.strip(), {name.strip(): value.strip().strip('"') for name, _, value in parameters}


def read_lines(
    context: Context, request: Request, version: LoadedVersion, form: Form, parameters: dict[str, str]
) -> Feeds:
    """Return the feeds of a body of `form`; `parameters` are those of its Content-Type. Raises InvalidInput, TooLarge.

    The body is released afterwards.
    """
    if form == "csv":
        columns = read_csv(request.body(csv_cost, CSV_WORST), version.schema, parameters, context.limits)
        return version.schema.from_columns(columns)
    if parameters.get("charset", "utf-8") != "utf-8":
        raise InvalidInput("read the body", "JSON lines have another charset", "send UTF-8 (RFC 8259, 8.1)")
    body = request.body(_lines_cost, WORST)
    rows, typed = decode_lines(body, Line, version.schema.value_type, context.limits)
    context.limits.check_rows(len(rows))
    return version.schema.from_rows(_plain_rows(rows, version.schema.columns), typed=typed)


def form_wanted(accept: str) -> Form | None:
    """Return the form of lines that Accept (RFC 9110, 12.5.1) prefers, None for JSON."""
    best, form = 0.0, None
    for item in accept.split(","):
        media, parameters = media_type(item)
        found = FORMS.get(media)
        if found or media in (JSON, "application/*", "*/*"):
            quality = _quality(parameters.get("q", "1"))
            if quality > best:
                best, form = quality, found
    return form


def asks_quality(request: Request) -> bool:
    """Return whether the query asks for the quality of each row. Raises InvalidInput for neither true nor false."""
    return "quality=" in request.environ.get("QUERY_STRING", "") and _flag(request, "quality")


def answer_lines(
    context: Context, request: Request, version: LoadedVersion, feeds: Feeds, form: Form, asked: bool
) -> Response:
    """Run the model and answer in lines: of CSV the prediction, of JSON {"prediction": ...}.

    With `?probability=true` the probabilities too, where the model has some: columns behind the prediction, in the
    order of the class labels; {"probability": {label: p}}. `?header=true` names the columns of CSV first. Where it is
    `asked` for, each row's quality, in CSV its flag alone, as the last column; JSON has it also where it is
    configured.
    """
    shape = response_format(version)
    probability = shape.probability if _flag(request, "probability") else None
    header = _flag(request, "header")
    rows = len(next(iter(feeds.values())))
    request.claim_answer((shape.row_bytes + LINE) * rows, rows)
    names = [shape.prediction, *([probability] if probability else [])]
    prediction = context.predictor.run(version, feeds, names, started=request.started, keys=request.keys, quality=asked)
    arrays, quality = [prediction.outputs[name] for name in names], prediction.quality
    first = [_header(arrays, shape, asked)] if header and form == "csv" else []
    if asked and form == "csv" and quality:
        arrays.append(np.array([one.flag for one in quality], dtype=object))
    blocks = (_csv(arrays) if form == "csv" else _json_lines(arrays, shape, quality)) if rows else iter(())
    return Response(b"".join([*first, *blocks]), 200, MEDIA[form])


def _lines_cost(body: bytes) -> int:
    """Return the bytes that JSON lines take at most: a line may be a value, which becomes a row of its own."""
    return json_cost(body) + (VALUE + LIST) * body.count(b"\n")


def _plain_rows(lines: list[Any], columns: Sequence[str]) -> list[Any]:
    """Return lines as rows: {"features": ROW} is ROW, and a value the row of a model of one column."""
    wrapped = _FEATURES not in columns
    rows = []
    for index, line in enumerate(lines):
        row = line[_FEATURES] if wrapped and isinstance(line, dict) and line.keys() == {_FEATURES} else line
        if not isinstance(row, (list, dict)):
            row = [row]
        nested = [value for value in row.values() if isinstance(value, (list, dict))] if isinstance(row, dict) else []
        if nested:
            found = f"row {index} holds {kind_of(nested[0])}"
            raise InvalidInput("read the rows", found, "send plain values by column name")
        rows.append(row)
    return rows


def _quality(text: str) -> float:
    """Return a weight of Accept, 0 for what is none."""
    return float(text) if re.fullmatch(r"[01](\.\d{0,3})?", text) else 0.0


def _flag(request: Request, name: str) -> bool:
    """Return a field of the query that is true or false."""
    value = request.query.get(name, "false").lower()
    if value not in ("true", "false"):
        raise InvalidInput("read the query", f"{name} is {value[:40]!r}", f"say {name}=true or leave it out")
    return value == "true"


def _header(arrays: list[Array], shape: ResponseFormat, quality: bool) -> bytes:
    """Return the names of the columns as a line of CSV."""
    prediction, *probability = (_flat(array).shape[1] for array in arrays)
    names = ["prediction"] if prediction == 1 else [f"prediction_{index}" for index in range(prediction)]
    for width in probability:
        labels: Sequence[object] = shape.labels if len(shape.labels) == width else range(width)
        names += [f"probability_{label}" for label in labels]
    return _csv_text([[*names, "quality"] if quality else names])


def _csv(arrays: list[Array]) -> Iterator[bytes]:
    """Yield blocks of CSV: the arrays' values of each row beside each other."""
    flat = [_flat(array) for array in arrays]
    for first, last in _blocks(flat):
        parts = [array[first:last].tolist() for array in flat]
        yield _csv_text([[_cell(value) for part in row for value in part] for row in zip(*parts, strict=True)])


def _csv_text(rows: list[list[str]]) -> bytes:
    """Return rows as CSV (RFC 4180, but for lines that end with LF, as SageMaker's do)."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    """Return a value as /predict writes it; NaN and infinity, which JSON has not, as read_csv reads them."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and (value != value or value in _FLOATS):
        return _FLOATS.get(value, "nan")
    return encode_json(value).decode()


def _json_lines(arrays: list[Array], shape: ResponseFormat, quality: Sequence[RowQuality] | None) -> Iterator[bytes]:
    """Yield blocks of JSON lines."""
    for first, last in _blocks(arrays):
        values: list[list[Any]] = [to_values(arrays[0][first:last])]
        keys = ["prediction", "probability"][: len(arrays)]
        values += [shape.labelled(array[first:last]) for array in arrays[1:]]
        if quality is not None:
            keys.append("quality")
            values.append(list(quality[first:last]))
        lines = [encode_json(dict(zip(keys, row, strict=True))) for row in zip(*values, strict=True)]
        yield b"\n".join([*lines, b""])


def _flat(array: Array) -> Array:
    """Return an output as [rows, values]."""
    return array.reshape(len(array), -1)


def _blocks(arrays: list[Array]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of parts of the rows of so many values that other threads have their turn."""
    rows = len(arrays[0])
    step = max(1, LARGE // max(1, sum(array.size for array in arrays) // rows))
    for first in range(0, rows, step):
        yield first, min(first + step, rows)

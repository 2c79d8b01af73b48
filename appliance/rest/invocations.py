"""Prediction calls of MLflow and SageMaker (/invocations), and of Vertex AI, which names its own paths.

Sources: MLflow's scoring server, SageMaker's and Vertex AI's container contracts.
"""

import re
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from appliance import __version__
from appliance.budget import WORST, json_cost
from appliance.errors import InvalidInput
from appliance.inference.tensors import Feeds
from appliance.inference.values import Scalar, quoted
from appliance.inference.version import LoadedVersion
from appliance.rest.csv_body import text_of
from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.instances import (
    Parameters,
    Predictions,
    answer_predictions,
    from_instances,
    is_numbered,
    quality_of,
)
from appliance.rest.json_body import decode_values
from appliance.rest.lines import (
    FORMS,
    JSON_ACCEPTS,
    answer_lines,
    asks_quality,
    form_wanted,
    media_type,
    read_lines,
)
from appliance.rest.problems import UnsupportedMedia, mlflow_json
from appliance.rest.routed import settled, version_for
from appliance.rest.routes import AT_LEAST_ONE, Route

V = TypeVar("V")
FORM = '{"instances": [ROW, ...]}, dataframe_split, dataframe_records or inputs, or a list of rows'
"""What to send, for who sent something else."""


class Split(msgspec.Struct, Generic[V], forbid_unknown_fields=True):
    """A pandas table in the orientation `split`; the index is not used."""

    data: list[list[V]]
    columns: list[str | int] | None = None
    index: list[Scalar] | None = None


class InvocationOf(msgspec.Struct, Generic[V], forbid_unknown_fields=True):
    """Exactly one of MLflow's four forms; `params` (MLflow) and `parameters` (Vertex AI) have `quality` alone."""

    dataframe_split: Split[V] | UnsetType = UNSET
    dataframe_records: list[dict[str, V]] | UnsetType = UNSET
    instances: list[V | list[V] | dict[str, V]] | UnsetType = UNSET
    inputs: list[V | list[V] | dict[str, V]] | dict[str, list[V | list[V]]] | UnsetType = UNSET
    params: Parameters | None = None
    parameters: Parameters | None = None


ListOf = list[V | list[V] | dict[str, V]]
"""SageMaker's bare list: of rows, or of one row's values."""

_LIST = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[")


class Table(Split[Scalar]):
    """A pandas table in the orientation `split`; the index is not used."""

    data: Annotated[list[list[Scalar]], AT_LEAST_ONE]


class Invocation(InvocationOf[Scalar]):
    """Exactly one of MLflow's four forms; `params` (MLflow) and `parameters` (Vertex AI) have `quality` alone."""

    dataframe_split: Table | UnsetType = UNSET
    dataframe_records: Annotated[list[dict[str, Scalar]], AT_LEAST_ONE] | UnsetType = UNSET
    instances: Annotated[list[Scalar | list[Scalar] | dict[str, Scalar]], AT_LEAST_ONE] | UnsetType = UNSET
    inputs: (
        Annotated[list[Scalar | list[Scalar] | dict[str, Scalar]], AT_LEAST_ONE]
        | dict[str, Annotated[list[Scalar | list[Scalar]], AT_LEAST_ONE]]
        | UnsetType
    ) = UNSET


INVOCATION: Any = Invocation | Annotated[ListOf[Scalar], AT_LEAST_ONE]


class Ping(msgspec.Struct):
    """Whether predictions are answered."""

    ready: bool


def invoke(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer JSON in one of MLflow's forms or as a bare list, CSV or JSON lines, with the named or default model.

    Raises InvalidInput, TooLarge, UnsupportedMedia for another Content-Type, NotFound for an unknown model,
    NotReady without an active one.
    """
    version = version_for(context, request, variables.get("name"))
    media, parameters = media_type(request.header("Content-Type"))
    quality = asks_quality(request)
    if media in ("application/json", ""):
        body = _json_body(request, parameters.get("charset", "utf-8"))
        kind = ListOf if _LIST.match(body) else InvocationOf
        sent, typed = decode_values(body, kind, version.schema.value_type, context.limits, FORM)
        if kind is ListOf:
            feeds = _from_list(context, version, sent, typed)
        else:
            quality = any([quality, quality_of(sent.params), quality_of(sent.parameters)])
            feeds = _feeds(context, version, sent, typed)
        del body, sent
    elif media in FORMS:
        feeds = read_lines(context, request, version, FORMS[media], parameters)
    else:
        known = f"application/json or {', '.join(FORMS)}"
        raise UnsupportedMedia("read the body", f"Content-Type is {media}", f"send {known}")
    if request.routed is not None:
        version = settled(request, version, feeds)
    if (accept := request.environ.get("HTTP_ACCEPT", "")) not in JSON_ACCEPTS and (form := form_wanted(accept)):
        return answer_lines(context, request, version, feeds, form, quality)
    return answer_predictions(context, request, version, feeds, quality)


def _from_list(context: Context, version: LoadedVersion, rows: list[Any], typed: bool) -> Feeds:
    """Return the feeds of a bare list (SageMaker): of rows, or of one row's values."""
    if len(version.schema.columns) > 1 and rows and not isinstance(rows[0], (list, dict)):
        rows = [rows]
    return from_instances(context, version, rows, typed)


def _feeds(context: Context, version: LoadedVersion, sent: InvocationOf[Any], typed: bool) -> Feeds:
    """Return the feeds of the one form that was sent."""
    forms = ("dataframe_split", "dataframe_records", "instances", "inputs")
    given = [form for form in forms if getattr(sent, form) is not UNSET]
    if len(given) != 1:
        found = f"it has {' and '.join(given) or 'none of them'}"
        raise InvalidInput("read the body", found, f"send exactly one of {', '.join(forms)}")
    if isinstance(sent.dataframe_split, Split):
        return _from_split(context, version, sent.dataframe_split, typed)
    if isinstance(sent.inputs, dict):
        return _from_named(context, version, sent.inputs, typed)
    return from_instances(context, version, getattr(sent, given[0]), typed)


def _from_split(context: Context, version: LoadedVersion, split: Split[Any], typed: bool) -> Feeds:
    """Return the feeds of a table in the orientation `split`, its columns by name unless they are only numbered."""
    context.limits.check_rows(len(split.data))
    names = None if split.columns is None else [str(column) for column in split.columns]
    if names is None or is_numbered(names, version.schema.columns):
        return version.schema.from_rows(split.data, typed=typed)
    if len(set(names)) != len(names):
        raise InvalidInput("read the columns", "a name stands twice", "name each column once")
    for index, row in enumerate(split.data):
        if len(row) != len(names):
            found = f"row {index} has {len(row)} values for {len(names)} columns"
            raise InvalidInput("read the rows", found, "send one value for each column")
    values = [list(column) for column in zip(*split.data, strict=True)] or [[] for _ in names]
    return version.schema.from_columns(dict(zip(names, values, strict=True)), typed=typed)


def _from_named(context: Context, version: LoadedVersion, inputs: dict[str, list[Any]], typed: bool) -> Feeds:
    """Return the feeds of values by column name, or of rows by the name of the one input."""
    for values in inputs.values():
        context.limits.check_rows(len(values))
    schema = version.schema
    tensor = schema.inputs[0].name
    if list(inputs) == [tensor] and tensor not in schema.columns:
        return schema.from_rows(inputs[tensor], typed=typed)
    columns = {name: [_single(name, value) for value in values] for name, values in inputs.items()}
    return schema.from_columns(columns, typed=typed)


def _single(name: str, value: Any) -> Any:
    """Return a column's value that may be wrapped in a list of its own."""
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise InvalidInput(f"read the column {quoted(name)}", f"a row has {len(value)} values", "send one for each row")
    return value[0]


def _json_body(request: Request, charset: str) -> bytes:
    """Return a JSON body in the encoding that JSON has (RFC 8259, 8.1), whatever its charset says."""
    if charset == "utf-8":
        return request.body()
    # Beside it, the same as a text and as UTF-8.
    return text_of(request.body(lambda body: json_cost(body) + 6 * len(body), WORST + 6), charset).encode()


def _ping(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer 200 when predictions are answered, 503 when not."""
    ready = context.readiness.look().ready
    return json_response(Ping(ready), 200 if ready else 503)


def _version(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer the appliance's version as text."""
    return Response(__version__.encode(), content_type="text/plain")


ROUTES = (
    Route(
        "POST",
        "/invocations",
        invoke,
        "Predict (MLflow, SageMaker, Vertex AI)",
        problem=mlflow_json,
        hot=True,
        request_type=INVOCATION,
        lines=True,
        named="/models/NAME/invoke",
        response_type=Predictions,
    ),
    Route("GET", "/ping", _ping, "Whether predictions are answered (MLflow, SageMaker)", "none", response_type=Ping),
    Route("GET", "/health", _ping, "Whether predictions are answered (MLflow)", "none", response_type=Ping),
    Route("GET", "/version", _version, "The appliance's version (MLflow)", problem=mlflow_json, media="text/plain"),
)

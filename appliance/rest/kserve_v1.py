"""KServe's v1 calls under /v1, and TensorFlow Serving's, which have the same paths and one more with a version.

Sources: KServe's v1 data plane and its get_predict_input(), TensorFlow Serving's RESTful API (api_rest.md).
"""

from dataclasses import replace
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from appliance.errors import InvalidInput, NotReady
from appliance.inference.tensors import Feeds
from appliance.inference.values import Scalar
from appliance.inference.version import LoadedVersion
from appliance.rest.http_types import Context, Handler, Request, Response, json_response
from appliance.rest.instances import Parameters, Predictions, answer_predictions, from_instances, quality_of
from appliance.rest.json_body import decode_values
from appliance.rest.lines import asks_quality
from appliance.rest.problems import error_json
from appliance.rest.routed import version_for
from appliance.rest.routes import AT_LEAST_ONE, Route

V = TypeVar("V")
FORM = '{"instances": [ROW, ...]}, a ROW being a list of values or an object by column name'
"""What to send, for who sent something else."""

_SIGNATURE = "serving_default"  # TensorFlow's name of the graph that predicts


class InstancesOf(msgspec.Struct, Generic[V], forbid_unknown_fields=True):
    """Rows as `instances`, or as KServe's `inputs`, which may also be tables: {column: [value, ...]}."""

    instances: list[V | list[V] | dict[str, V]] | UnsetType = UNSET
    inputs: list[V | list[V | dict[str, V]] | dict[str, V | list[V]]] | UnsetType = UNSET
    parameters: Parameters | None = None
    signature_name: str | None = None


class Instances(InstancesOf[Scalar]):
    """Rows as `instances`, or as KServe's `inputs`, which may also be tables: {column: [value, ...]}."""

    instances: Annotated[list[Scalar | list[Scalar] | dict[str, Scalar]], AT_LEAST_ONE] | UnsetType = UNSET
    inputs: (
        Annotated[list[Scalar | list[Scalar | dict[str, Scalar]] | dict[str, Scalar | list[Scalar]]], AT_LEAST_ONE]
        | UnsetType
    ) = UNSET


class ModelList(msgspec.Struct):
    """The models that serve."""

    models: list[str]


class ModelState(msgspec.Struct):
    """Whether a model answers."""

    name: str
    ready: bool


def predict_instances(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer `{"instances": [...]}` or `{"inputs": [...]}`, whatever the Content-Type.

    Raises InvalidInput, TooLarge, NotFound for an unknown model, NotReady when none is active.
    """
    version = version_for(context, request, variables["name"], variables.get("version"))
    sent, typed = decode_values(request.body(), InstancesOf, version.schema.value_type, context.limits, FORM)
    quality = asks_quality(request) or quality_of(sent.parameters)
    if sent.signature_name not in (None, _SIGNATURE):
        found = f"signature_name is {sent.signature_name[:40]!r}"
        raise InvalidInput("read the body", found, f"leave it out or send {_SIGNATURE}: a model has one graph")
    if (sent.instances is UNSET) is (sent.inputs is UNSET):
        found = "it has neither" if sent.inputs is UNSET else "it has both"
        raise InvalidInput("read the body", found, "send exactly one of instances, inputs")
    if sent.inputs is UNSET:
        feeds = from_instances(context, version, sent.instances, typed)
    else:
        feeds = _from_inputs(context, version, sent.inputs, typed)
    del sent
    return answer_predictions(context, request, version, feeds, quality)


def _from_inputs(context: Context, version: LoadedVersion, inputs: list[Any], typed: bool) -> Feeds:
    """Return the feeds of rows, or of tables one behind the other as KServe's server joins them.

    A table is {column: [value, ...]} or a list of objects. A column that one of them lacks is missing in its rows,
    where the model takes a missing value.
    """
    if not any(map(_is_table, inputs)):
        return from_instances(context, version, inputs, typed)
    columns: dict[str, list[Any]] = {name: [] for name in version.schema.may_lack}
    count = 0
    for place, table in enumerate(inputs):
        parts = [table] if isinstance(table, dict) else table
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise InvalidInput("read the inputs", f"input {place} is no table, others are", "send one form for all")
        for part in parts:
            rows = _height(place, part)
            context.limits.check_rows(count + rows)
            for name, values in part.items():
                column = columns.setdefault(name, [])
                column += [None] * (count - len(column)) if name in version.schema.may_lack else []
                column += values if isinstance(values, list) else [values]
            count += rows
    for name in version.schema.may_lack:
        columns[name] += [None] * (count - len(columns[name]))
    return version.schema.from_columns(columns, typed=typed)


def _is_table(one: Any) -> bool:
    """Return whether an input is a table, and not a row."""
    if isinstance(one, dict):
        return any(isinstance(value, list) for value in one.values())
    return isinstance(one, list) and bool(one) and isinstance(one[0], dict)


def _height(place: int, table: dict[str, Any]) -> int:
    """Return the number of rows of a table or of an object, which is one."""
    heights = {len(values) if isinstance(values, list) else 1 for values in table.values()}
    if len(heights) > 1:
        raise InvalidInput("read the inputs", f"columns of input {place} differ in length", "send one value a row")
    return heights.pop() if heights else 0


def _models(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer the names of the models that serve."""
    return json_response(ModelList([served.name for served in context.models.served() if served.loaded]))


def _model(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer 200 when a model serves, 503 when not, 404 when it is not installed."""
    try:
        context.models.get(variables["name"], variables.get("version"))
    except NotReady:
        return json_response(ModelState(variables["name"], False), 503)
    return json_response(ModelState(variables["name"], True))


def _predict(path: str, summary: str) -> Route:
    """Return the route of one path to predict_instances."""
    route = Route("POST", f"{path}:predict", predict_instances, summary, problem=error_json, hot=True)
    return replace(route, request_type=Instances, response_type=Predictions)


def _get(path: str, handler: Handler, summary: str, response_type: Any) -> Route:
    """Return a route that tells of models."""
    return Route("GET", path, handler, summary, problem=error_json, response_type=response_type)


_MODEL, _VERSION = "/v1/models/{name}", "/v1/models/{name}/versions/{version}"

ROUTES = (
    _predict(_MODEL, "Predict (KServe v1, TensorFlow Serving)"),
    _predict(_VERSION, "Predict with one version (TensorFlow Serving)"),
    _get("/v1/models", _models, "Models that serve (KServe v1)", ModelList),
    _get(_MODEL, _model, "Whether a model serves (KServe v1)", ModelState),
    _get(_VERSION, _model, "Whether a version serves", ModelState),
)

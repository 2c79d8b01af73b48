"""The Open Inference Protocol v2 under /v2: all its routes, and the calls that describe the server and its models.

Source: the Open Inference Protocol (REST). Answers but infer's are never compressed: Triton's asyncio client says that
it takes gzip and then does not unpack it.
"""

from dataclasses import replace

import msgspec

from appliance import __version__
from appliance.bundle.manifest import Input, Output
from appliance.errors import NotReady
from appliance.openinference.request import InferRequest
from appliance.openinference.response import InferAnswer
from appliance.openinference.tensors import NAMES
from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.infer import ask, infer
from appliance.rest.problems import error_json
from appliance.rest.routes import Route
from appliance.rest.triton import EXTENSION_ROUTES, EXTENSIONS, v2_route

_INFER_EXTENSIONS = ["binary_tensor_data", "classification"]
PLATFORM = "onnx_onnxv1"


class ServerLive(msgspec.Struct):
    """The process answers."""

    live: bool


class ServerReady(msgspec.Struct):
    """Whether predictions are answered."""

    ready: bool


class ServerMetadata(msgspec.Struct):
    """What answers here, and which extensions of the protocol it knows."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(msgspec.Struct):
    """A tensor that a model takes or gives; -1 in `shape` is the number of rows."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """A model's tensors and installed versions."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(msgspec.Struct):
    """Whether a model, or one version of it, answers."""

    name: str
    ready: bool


class ModelNames(msgspec.Struct):
    """The models that are installed."""

    models: list[str]


def _live(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer as long as the process does; clients read the body."""
    return json_response(ServerLive(True))


def _ready(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer 200 or 503."""
    ready = context.readiness.look().ready
    return json_response(ServerReady(ready), 200 if ready else 503)


def _server(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer what this server is."""
    return json_response(ServerMetadata("appliance", __version__, [*_INFER_EXTENSIONS, *EXTENSIONS]))


def _models(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer the names of all models."""
    return json_response(ModelNames(context.store.names()))


def _model(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer a model's tensors."""
    manifest = context.models.get(variables["name"], variables.get("version")).manifest
    versions = context.store.versions(manifest.name)
    inputs, outputs = [[_tensor(tensor) for tensor in tensors] for tensors in (manifest.inputs, manifest.outputs)]
    return json_response(ModelMetadata(manifest.name, versions, PLATFORM, inputs, outputs))


def _model_ready(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer 200 or 503; 404 for a model or version that is not installed."""
    try:
        context.models.get(variables["name"], variables.get("version"))
    except NotReady:
        return json_response(ModelReady(variables["name"], False), 503)
    return json_response(ModelReady(variables["name"], True))


def _infer(path: str) -> Route:
    """Return the route of one path to the infer call."""
    route = Route("POST", f"/v2{path}/infer", infer, "Predict (Open Inference)", problem=error_json, hot=True, ask=ask)
    return replace(route, request_type=InferRequest, response_type=InferAnswer)


def _tensor(tensor: Input | Output) -> TensorMetadata:
    """Return a tensor in the protocol's words."""
    return TensorMetadata(tensor.name, NAMES[tensor.type], tensor.shape)


_MODEL, _VERSION = "/models/{name}", "/models/{name}/versions/{version}"

ROUTES = (
    _infer(_MODEL),
    _infer(_VERSION),
    v2_route("GET", "/health/live", _live, "Whether the process answers", ServerLive, "none"),
    v2_route("GET", "/health/ready", _ready, "Whether predictions are answered", ServerReady, "none"),
    *(v2_route("GET", path, _server, "Server metadata", ServerMetadata) for path in ("", "/")),
    v2_route("GET", "/models", _models, "Names of the models", ModelNames),
    *(
        v2_route("GET", f"{of}{path}", handler, summary, response_type)
        for of in (_MODEL, _VERSION)
        for path, handler, summary, response_type in (
            ("", _model, "Model metadata", ModelMetadata),
            ("/ready", _model_ready, "Whether a model answers", ModelReady),
        )
    ),
    *EXTENSION_ROUTES,
)

"""SageMaker's multi-model container: load, unload and list models, invoke one.

Source: "Build Your Own Container for SageMaker AI Multi-Model Endpoints". Load and unload are activate and deactivate
of the store, as Triton's are; a model is installed beforehand, from its bundle. Listing is admin.py's GET /models.
"""

import msgspec

from appliance.errors import Refused
from appliance.rest.admin import ModelInfo, one_model
from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.instances import Predictions
from appliance.rest.invocations import INVOCATION, invoke
from appliance.rest.json_body import decode
from appliance.rest.problems import mlflow_json
from appliance.rest.routes import Route
from appliance.rest.triton import activate_some, deactivate


class LoadRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`model_name` is an installed model; `url` (where SageMaker unpacked its own file) is not read."""

    model_name: str
    url: str = ""


def _load(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Activate a model's version: the one that did last, else the newest. Raises Refused (409) when one is active."""
    name = decode(request.body(), LoadRequest, context.limits).model_name
    if not activate_some(context, name, None, "SageMaker load"):
        raise Refused(f"load {name}", "it is loaded already", "DELETE it first, or leave it")
    return json_response(one_model(context, name))


def _unload(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Let no version of a model serve."""
    name = variables["name"]
    deactivate(context, name, "SageMaker unload")
    return json_response(one_model(context, name))


ROUTES = (
    Route("POST", "/models/{name}/invoke", invoke, "Predict with a model's active version (SageMaker multi-model)",
          problem=mlflow_json, hot=True, request_type=INVOCATION, response_type=Predictions, lines=True),
    Route("POST", "/models", _load, "Activate a model's version (SageMaker multi-model)", scope="admin",
          request_type=LoadRequest, response_type=ModelInfo),
    Route("DELETE", "/models/{name}", _unload, "Let no version of a model serve (SageMaker multi-model)",
          scope="admin", response_type=ModelInfo),
)  # fmt: skip

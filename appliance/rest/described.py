"""Routes and the types of their bodies as an OpenAPI 3.1 document (spec.openapis.org/oas/v3.1.1).

Nothing here is written by hand: each route of the table is described by the types that decode and encode it.
"""

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from appliance import __version__
from appliance.rest import dashboard, examples
from appliance.rest.http_types import JSON
from appliance.rest.problems import Problem, error_json, mlflow_json, problem_json
from appliance.rest.routed import HEADER as EXPERIMENT
from appliance.rest.routed import LONGEST_KEY
from appliance.rest.routes import Route

Json = dict[str, Any]


class ProblemDetails(msgspec.Struct):
    """What went wrong (RFC 9457), in three parts for a person."""

    type: str
    title: str
    status: int
    detail: str
    tried: str
    found: str
    next: str


class ErrorText(msgspec.Struct):
    """What went wrong."""

    error: str


class MlflowError(msgspec.Struct):
    """What went wrong, as MLflow's scoring server says it."""

    error_code: str
    message: str


_PROBLEMS: dict[Problem, tuple[type, str]] = {
    problem_json: (ProblemDetails, "application/problem+json"),
    error_json: (ErrorText, "application/json"),
    mlflow_json: (MlflowError, "application/json"),
}
_TEXT: Json = {"type": "string"}
_ROUTING_KEY: Json = {
    "name": "X-Routing-Key",
    "in": "header",
    "description": "While an experiment runs: requests with the same key are answered by the same version.",
    "schema": {"type": "string", "maxLength": LONGEST_KEY},
}
_ARM: Json = {
    EXPERIMENT: {"description": "While an experiment runs: ID/VERSION that answered.", "schema": {"type": "string"}}
}
_TAGS = (
    ("/v2", "Open Inference Protocol v2"),
    ("/v1", "KServe v1"),
    ("/health", "Health"),
    ("/dashboard", "Dashboard"),
)


def document(routes: Sequence[Route]) -> Json:
    """Return the OpenAPI document of `routes`."""
    kinds = [kind for route in routes for kind in (route.request_type, route.response_type) if kind is not None]
    kinds += [kind for kind, _ in _PROBLEMS.values()] + [dashboard.Alive]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for component in components.values():
        if "description" in component:
            component["description"] = inspect.cleandoc(component["description"])
    by_kind = {id(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: Json = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_kind)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Edge inference appliance",
            "version": __version__,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Where the service has a tokens file."}
            },
        },
    }


def _operation(route: Route, schemas: dict[int, Json]) -> Json:
    """Return the Operation Object of one route."""
    operation: Json = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [_tag(route.path)],
        "parameters": _parameters(route),
        "responses": _responses(route, schemas),
        # An empty requirement beside the other: without a tokens file none is needed.
        "security": [] if route.scope == "none" else [{"token": [route.scope]}, {}],
    }
    if route.request_type is not None:
        content = {"application/json": _media(schemas[id(route.request_type)], examples.request(route))}
        if route.lines:
            content |= {media: _media(_TEXT, example) for media, example in examples.LINES.items()}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _responses(route: Route, schemas: dict[int, Json]) -> Json:
    """Return the Responses Object: the answer, and the protocol's words for every error."""
    text = _TEXT if route.media.startswith("text/") else {}
    schema = schemas[id(route.response_type)] if route.response_type is not None else text
    content = {route.media: _media(schema, examples.answer(route))}
    if route.lines:
        content |= {media: _media(_TEXT, example) for media, example in examples.ANSWERED_LINES.items()}
    if route.path == "/":  # a browser asks for the page, a client whether the service lives
        content[JSON] = _media(schemas[id(dashboard.Alive)], {"status": "alive"})
    kind, media = _PROBLEMS[route.problem]
    problem: Json = {"schema": schemas[id(kind)]}
    responses: Json = {
        "200": {"description": "Done", "content": content} | ({"headers": _ARM} if _is_routed(route) else {}),
        "default": {"description": "Refused; the status and the text say why", "content": {media: problem}},
    }
    if route.method == "GET" and route.response_type is not None:  # a health call answers 503 in the form of its 200
        answer: Json = {"schema": schema}
        either: Json = {route.media: answer, media: problem}
        if route.media == media:
            either = {media: {"schema": {"anyOf": [answer["schema"], problem["schema"]]}}}
        responses["503"] = {"description": "Not ready", "content": either}
    return responses


def _media(schema: Json, example: Any) -> Json:
    """Return the Media Type Object of a schema, with an example where there is one."""
    described: Json = {"schema": schema} if schema else {}
    return described if example is None else described | {"example": example}


def _parameters(route: Route) -> list[Json]:
    """Return the Parameter Objects of a path's variables, and of what a query may ask of lines."""
    names = re.findall(r"\{(\w+)\}", route.path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    asked = examples.QUERY.items() if route.lines else ()
    flag = {"type": "boolean", "default": False}
    parameters += [_ROUTING_KEY] if _is_routed(route) else []
    return parameters + [{"name": name, "in": "query", "description": says, "schema": flag} for name, says in asked]


def _is_routed(route: Route) -> bool:
    """Return whether an experiment may choose the version that answers."""
    return route.hot and "{version}" not in route.path


def _operation_id(route: Route) -> str:
    """Return a name for generated clients: `post_models_name_predict`."""
    words = re.findall(r"[A-Za-z0-9]+", route.path)
    words += ["slash"] if words and route.path.endswith("/") else []
    return "_".join([route.method.lower(), *words]) if words else f"{route.method.lower()}_root"


def _tag(path: str) -> str:
    """Return the group of a path."""
    return next((tag for prefix, tag in _TAGS if path.startswith(prefix)), "Appliance")

"""/models/NAME/openapi.json: the calls of one model, with its own columns, types, categories and an example row.

The example is no row of anybody's: each column has training's typical value (see columns.py), and the model has
answered it. It is asked of the graph alone, so it is counted and logged nowhere.
"""

import copy
from collections.abc import Sequence

import msgspec

from appliance.bundle.manifest import Input
from appliance.errors import InvalidInput
from appliance.inference.tensors import Feeds
from appliance.inference.values import to_values
from appliance.inference.version import LoadedVersion
from appliance.openinference.tensors import NAMES
from appliance.predictor import Prediction
from appliance.response import response_format
from appliance.rest import columns, kserve_v1, openinference, predict
from appliance.rest.columns import ColumnHint
from appliance.rest.described import Json, document
from appliance.rest.http_types import Context, Request, Response, encode_json, json_response
from appliance.rest.routes import Route

_CALLS = (*predict.ROUTES, *openinference.ROUTES, *kserve_v1.ROUTES)
_RANGES = {f"{sign}int{bits}": bits for sign in ("", "u") for bits in (8, 16, 32, 64)}


def describe(version: LoadedVersion) -> Json:
    """Return the OpenAPI document of a model's prediction calls, by the version given."""
    routes = [route for route in _CALLS if route.hot and "{name}" in route.path and "{version}" not in route.path]
    made = copy.deepcopy(document([route.at(route.path.replace("{name}", version.name)) for route in routes]))
    hints = columns.hints(version)
    row = {hint.name: msgspec.json.decode(hint.typical) for hint in hints}
    schemas = made["components"]["schemas"]
    schemas["Row"], schemas["RowList"] = _row(version, hints, row), _row_list(version, hints, row)
    either = [{"$ref": "#/components/schemas/Row"}, {"$ref": "#/components/schemas/RowList"}]
    many = {"type": "array", "minItems": 1, "items": {"anyOf": either}}
    schemas["PredictRequest"]["properties"]["features"] = {"anyOf": [*either, many]}
    schemas["Instances"]["properties"]["instances"] = many
    schemas["InferInput"] = {"anyOf": [_tensor(tensor) for tensor in version.manifest.inputs]}
    made["info"] |= {"title": f"Model {version.name}", "version": version.version}
    _give_examples(made["paths"], version, row)
    return made


def _row(version: LoadedVersion, hints: Sequence[ColumnHint], row: Json) -> Json:
    """Return the schema of a row by column name."""
    return {
        "title": "Row",
        "description": "One row by column name.",
        "type": "object",
        "properties": {hint.name: _column(hint) for hint in hints},
        "required": [hint.name for hint in hints if hint.name not in version.schema.may_lack],
        "additionalProperties": False,
        "examples": [row],
    }


def _row_list(version: LoadedVersion, hints: Sequence[ColumnHint], row: Json) -> Json:
    """Return the schema of a row in the columns' order."""
    return {
        "title": "RowList",
        "description": f"One row in the columns' order: {', '.join(version.schema.columns)}.",
        "type": "array",
        "prefixItems": [_column(hint) for hint in hints],
        "items": False,
        "minItems": len(hints),
        "maxItems": len(hints),
        "examples": [list(row.values())],
    }


def _column(hint: ColumnHint) -> Json:
    """Return the schema of one column's values."""
    kind = {"string": "string", "bool": "boolean"}.get(hint.type)
    kind = kind or ("integer" if hint.type in _RANGES else "number")
    schema: Json = {"type": [kind, "null"] if hint.missing else kind, "examples": [msgspec.json.decode(hint.typical)]}
    if hint.type in _RANGES:
        bits = _RANGES[hint.type]
        unsigned = hint.type.startswith("u")
        schema |= {
            "minimum": 0 if unsigned else -(2 ** (bits - 1)),
            "maximum": 2 ** (bits if unsigned else bits - 1) - 1,
        }
    if hint.closed:
        schema["enum"] = [*hint.categories, *([None] if hint.missing else [])]
    elif hint.low is not None:
        schema["description"] = f"{hint.type}; 98 % of training's values lie from {hint.low:g} to {hint.high:g}."
    return schema


def _tensor(tensor: Input) -> Json:
    """Return the schema of one tensor of Open Inference."""
    sizes = ["rows", *(str(size) for size in tensor.shape[1:])]
    return {
        "title": tensor.name,
        "description": f"Columns: {', '.join(tensor.columns)}. Shape: [{', '.join(sizes)}].",
        "type": "object",
        "properties": {
            "name": {"const": tensor.name},
            "datatype": {"const": NAMES[tensor.type]},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "data": {"type": "array", "items": {}},
            "parameters": {"type": ["object", "null"]},
        },
        "required": ["name", "shape", "datatype"],
    }


def _give_examples(paths: Json, version: LoadedVersion, row: Json) -> None:
    """Put the example row and what the model answers to it into each call."""
    name = version.name
    try:
        feeds = version.schema.from_rows([row])
    except InvalidInput:  # its baseline does not tell a value that it takes
        for path in paths.values():
            for body in (path["post"]["requestBody"], path["post"]["responses"]["200"]):
                for media in body["content"].values():
                    media.pop("example", None)
        return
    form = response_format(version)
    outputs = dict(zip(form.outputs, version.session.run(feeds, form.outputs), strict=True))
    answered = Prediction(name, version.version, feeds, outputs, 1, "", "", 0.0, 0.0, 0.0)
    answer = msgspec.to_builtins(form.answer(answered))
    tensor = {"name": form.prediction, "shape": list(outputs[form.prediction].shape)}
    kinds = {output.name: NAMES[output.type] for output in version.manifest.outputs}
    inferred = tensor | {"datatype": kinds[form.prediction], "data": outputs[form.prediction].reshape(-1).tolist()}
    given = {
        f"/models/{name}/predict": ({"features": [row]}, answer),
        f"/v1/models/{name}:predict": ({"instances": [row]}, {"predictions": answer["prediction"]}),
        f"/v2/models/{name}/infer": (
            {"inputs": _tensors(version, feeds), "outputs": [{"name": form.prediction}]},
            {"model_name": name, "model_version": version.version, "outputs": [inferred]},
        ),
    }
    for path, (asked, told) in given.items():
        call = paths[path]["post"]
        for body, example in ((call["requestBody"], asked), (call["responses"]["200"], told)):
            lines = [media for media in body["content"] if media != "application/json"]
            for media in lines:
                body["content"][media].pop("example", None)  # those of make run's model
            body["content"]["application/json"]["example"] = msgspec.json.decode(encode_json(example))


def _tensors(version: LoadedVersion, feeds: Feeds) -> list[Json]:
    """Return feeds of one row as tensors of an infer request."""
    return [
        {
            "name": tensor.name,
            "datatype": NAMES[tensor.type],
            "shape": list(feeds[tensor.name].shape),
            "data": to_values(feeds[tensor.name].reshape(-1)),
        }
        for tensor in version.manifest.inputs
    ]


def _openapi(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with the document of the version that serves. Raises NotFound, NotReady."""
    return json_response(describe(context.predictor.route(variables["name"])))


ROUTES = (Route("GET", "/models/{name}/openapi.json", _openapi, "The calls of one model, with its own columns"),)

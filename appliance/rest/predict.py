"""The appliance's own prediction call: rows by name or by order, answers with labels, model and version."""

from dataclasses import replace
from typing import Annotated, Generic, TypeVar

import msgspec

from appliance.budget import SMALL
from appliance.inference.tensors import Feeds
from appliance.inference.values import Scalar
from appliance.inference.version import LoadedVersion
from appliance.response import PredictAnswer, as_rows, response_format
from appliance.rest.http_types import Asked, Context, Request, Response
from appliance.rest.json_body import decode_values
from appliance.rest.lines import (
    FORMS,
    JSON_ACCEPTS,
    JSON_TYPES,
    answer_lines,
    asks_quality,
    form_wanted,
    media_type,
    read_lines,
)
from appliance.rest.routed import settled, version_for
from appliance.rest.routes import AT_LEAST_ONE, Route

V = TypeVar("V")
FORM = '{"features": ROW} or {"features": [ROW, ...]}, a ROW being a list of values or an object by column name'
"""What to send, for who sent something else."""


class Rows(msgspec.Struct, Generic[V], forbid_unknown_fields=True):
    """One row or many: a row is a list in the model's column order or an object by column name."""

    features: list[V | list[V] | dict[str, V]] | dict[str, V]
    quality: bool = False
    """Whether the answer says how far to trust each row."""


class PredictRequest(Rows[Scalar]):
    """One row or many: a row is a list in the model's column order or an object by column name."""

    features: Annotated[list[Scalar | list[Scalar] | dict[str, Scalar]], AT_LEAST_ONE] | dict[str, Scalar]


def predict(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer `{"features": ROW | [ROW, ...]}`, or CSV or JSON lines where the Content-Type says so.

    Raises InvalidInput, TooLarge, NotFound for an unknown model or version, NotReady when none is active.
    """
    version = version_for(context, request, variables.get("name"), variables.get("version"))
    if (content_type := request.environ.get("CONTENT_TYPE", "")) not in JSON_TYPES:
        media, parameters = media_type(content_type)
        if media in FORMS:
            feeds = read_lines(context, request, version, FORMS[media], parameters)
            return _answer(context, request, version, feeds, asks_quality(request))
    feeds, quality = _read(context, request, version)
    return _answer(context, request, version, feeds, quality)


def ask(context: Context, request: Request, variables: dict[str, str]) -> Asked | None:
    """Read a request as predict() does; None for one that is not JSON both ways, or wants quality or much memory."""
    version = version_for(context, request, variables.get("name"))
    environ = request.environ
    if request.routed is not None or environ.get("CONTENT_TYPE", "") not in JSON_TYPES:
        return None
    if environ.get("HTTP_ACCEPT", "") not in JSON_ACCEPTS:
        return None
    feeds, quality = _read(context, request, version)
    form = response_format(version)
    if quality or len(next(iter(feeds.values()))) * form.row_bytes > SMALL:
        return None
    return Asked(version, feeds, form.outputs, lambda prediction: Response(form.to_json(prediction)))


def _read(context: Context, request: Request, version: LoadedVersion) -> tuple[Feeds, bool]:
    """Return the feeds of a JSON body, and whether the quality of its rows is asked for."""
    sent, typed = decode_values(request.body(), Rows, version.schema.value_type, context.limits, FORM)
    rows = as_rows(sent.features)
    context.limits.check_rows(len(rows))
    return version.schema.from_rows(rows, typed=typed), sent.quality or asks_quality(request)


def _answer(context: Context, request: Request, version: LoadedVersion, feeds: Feeds, quality: bool) -> Response:
    """Run the model and answer in the form that is asked for."""
    if request.routed is not None:
        version = settled(request, version, feeds)
    if (accept := request.environ.get("HTTP_ACCEPT", "")) not in JSON_ACCEPTS and (wanted := form_wanted(accept)):
        return answer_lines(context, request, version, feeds, wanted, quality)
    form = response_format(version)
    count = len(next(iter(feeds.values())))
    request.claim_answer(count * form.row_bytes, count)
    prediction = context.predictor.run(
        version, feeds, form.outputs, started=request.started, keys=request.keys, quality=quality
    )
    return Response(form.to_json(prediction))


def _call(path: str, summary: str) -> Route:
    """Return the route of one path to `predict`."""
    route = Route("POST", path, predict, summary, hot=True, lines=True)
    return replace(route, request_type=PredictRequest, response_type=PredictAnswer, ask=ask)


ROUTES = (
    replace(_call("/predict", "Predict with the default model"), named="/models/NAME/predict"),
    _call("/models/{name}/predict", "Predict with a model's active version"),
    _call("/models/{name}/versions/{version}/predict", "Predict with one version"),
)

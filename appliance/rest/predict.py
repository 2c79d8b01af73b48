"""The appliance's own prediction call: rows by name or by order, answers with labels, model and version."""

from typing import Generic, TypeVar

import msgspec

from appliance.inference.values import Scalar
from appliance.response import PredictAnswer, as_rows, response_format
from appliance.rest.http_types import Context, Request, Response
from appliance.rest.json_body import decode_values
from appliance.rest.routes import Route

V = TypeVar("V")


class Rows(msgspec.Struct, Generic[V], forbid_unknown_fields=True):
    """One row or many: a row is a list in the model's column order or an object by column name."""

    features: list[V | list[V] | dict[str, V]] | dict[str, V]


class PredictRequest(Rows[Scalar]):
    """One row or many: a row is a list in the model's column order or an object by column name."""


def predict(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer `{"features": ROW | [ROW, ...]}`.

    Raises InvalidInput, TooLarge, NotFound for an unknown model or version, NotReady when none is active.
    """
    version = context.predictor.route(variables.get("name"), variables.get("version"))
    sent, typed = decode_values(request.body(), Rows, version.schema.value_type, context.limits)
    rows = as_rows(sent.features)
    context.limits.check_rows(len(rows))
    feeds = version.schema.from_rows(rows, typed=typed)
    form = response_format(version)
    count = len(rows)
    del sent, rows  # of a large body they take more than all that follows
    request.claim_answer(count * form.row_bytes, count)
    prediction = context.predictor.run(version, feeds, form.outputs, started=request.started)
    return Response(form.to_json(prediction))


def _call(path: str, summary: str) -> Route:
    """Return the route of one path to `predict`."""
    return Route("POST", path, predict, summary, hot=True, request_type=PredictRequest, response_type=PredictAnswer)


ROUTES = (
    _call("/predict", "Predict with the default model"),
    _call("/models/{name}/predict", "Predict with a model's active version"),
    _call("/models/{name}/versions/{version}/predict", "Predict with one version"),
)

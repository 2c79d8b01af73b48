"""The appliance's own prediction call: rows by name or by order, answers with labels, model and version."""

from typing import Generic, TypeVar

import msgspec

from appliance.inference.values import Scalar
from appliance.rest.exchange import Answer, Context, Request
from appliance.rest.json_body import check_rows, decode_values
from appliance.rest.routes import Route
from appliance.wording import PredictAnswer, as_rows, wording_of

V = TypeVar("V")


class Rows(msgspec.Struct, Generic[V], forbid_unknown_fields=True):
    """One row or many: a row is a list in the model's column order or an object by column name."""

    features: list[V | list[V] | dict[str, V]] | dict[str, V]


class PredictRequest(Rows[Scalar]):
    """One row or many: a row is a list in the model's column order or an object by column name."""


def predict(context: Context, request: Request, variables: dict[str, str]) -> Answer:
    """Answer `{"features": ROW | [ROW, ...]}`.

    Raises InvalidInput, TooLarge, NotFound for an unknown model or version, NotReady when none is active.
    """
    version = context.predictor.route(variables.get("name"), variables.get("version"))
    sent, typed = decode_values(request.body(), Rows, version.schema.value_type, context.config)
    rows = as_rows(sent.features)
    check_rows(len(rows), context.config)
    feeds = version.schema.from_rows(rows, typed=typed)
    wording = wording_of(version)
    count = len(rows)
    del sent, rows  # of a large body they take more than all that follows
    request.claim_answer(count * wording.row_bytes, count)
    prediction = context.predictor.run(version, feeds, wording.outputs, started=request.started)
    return Answer(wording.written(prediction))


def _call(path: str, summary: str) -> Route:
    """Return the route of one path to `predict`."""
    return Route("POST", path, predict, summary, hot=True, takes=PredictRequest, gives=PredictAnswer)


ROUTES = (
    _call("/predict", "Predict with the default model"),
    _call("/models/{name}/predict", "Predict with a model's active version"),
    _call("/models/{name}/versions/{version}/predict", "Predict with one version"),
)

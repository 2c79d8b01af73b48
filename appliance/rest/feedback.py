"""The routes of labels, and of the quality that they show: how often a model is right."""

from typing import Any

import msgspec

from appliance import labels
from appliance.errors import InvalidInput, NotReady
from appliance.labels import Truth
from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.routes import Route


class LabelOfRow(msgspec.Struct):
    """The truth about one row."""

    id: str
    """The id of the prediction, ID.ROW; ID alone means its first row."""
    label: Truth
    time: float | str | None = None
    """When it became known: Unix time or ISO 8601; by default now."""


class Feedback(msgspec.Struct):
    """Labels of some rows."""

    labels: list[LabelOfRow]


class Taken(msgspec.Struct):
    """How many labels are in the log now; they are joined with their predictions within seconds."""

    taken: int


class QualityReport(msgspec.Struct):
    """A model's quality by its labels; coverage first. Each window is of one version and arm (null: all arms)."""

    model: str
    labels: dict[str, int]
    """Labels by outcome: matched, repeated, changed, late, unknown, waiting."""
    standings: list[dict[str, Any]]
    """{version, state, since, because}: whether its labels are worse than its past."""
    windows: list[dict[str, Any]]


def _feedback(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Keep labels; answers once they are on disk."""
    name = variables["name"]
    context.predictor.route(name)
    if context.take_labels is None:
        raise NotReady(f"take labels of {name}", "predictions are not logged", "set [log.predictions] enabled")
    found = labels.of_document(_document(request.body()))
    context.take_labels(name, found, "http")
    return json_response(Taken(len(found)), 202)


def _quality(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with what labels say of a model."""
    name = variables["name"]
    if not context.store.versions(name):
        context.store.folder(name, "")  # raises NotFound, naming what comes close
    return json_response(context.quality(name))


def _document(body: bytes) -> Any:
    """Return a body that is JSON, or JSON lines."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        failure = error
    try:
        return msgspec.json.Decoder().decode_lines(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        next_step = 'send {"labels": [{"id": "ID.ROW", "label": LABEL}]}'
        raise InvalidInput("read the labels", str(failure), next_step) from failure


ROUTES = (
    Route("POST", "/models/{name}/feedback", _feedback, "Add labels: the true values of predicted rows",
          request_type=Feedback, response_type=Taken),
    Route("GET", "/models/{name}/quality", _quality, "What labels say of a model", response_type=QualityReport),
)  # fmt: skip

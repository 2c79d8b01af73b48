"""The prediction log over HTTP: where its chains end, and a model's last answers."""

import msgspec

from appliance.errors import InvalidInput
from appliance.monitoring.prediction_log.recent import RecentAnswers
from appliance.rest.history import installed
from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.routes import Route

FEW, MOST = "20", 100
"""Answers that are shown by default, and at most."""


class LogHead(msgspec.Struct):
    """Where one writer's chain ends; kept elsewhere it pins all that was written before."""

    model: str
    version: str
    slot: int
    segment: int
    seal: int
    chain: str
    t: float
    """Unix time of the seal."""


class LogHeads(msgspec.Struct):
    """The head of every writer of the prediction log."""

    heads: list[LogHead]


def _head(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with the heads."""
    return json_response({"heads": context.log_heads()})


def _answers(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with a model's last answers, as the log keeps them: callers' rows are an administrator's business."""
    asked = request.query.get("limit", FEW)
    if not asked.isdecimal() or not 0 < int(asked[:9]) <= MOST:
        raise InvalidInput("read the query", f"the limit {asked[:40]!r} is none", f"say a number from 1 to {MOST}")
    return json_response(context.recent(installed(context, variables["name"]), int(asked)))


ROUTES = (
    Route("GET", "/log/head", _head, "Where the chains of the prediction log end", response_type=LogHeads),
    Route("GET", "/models/{name}/answers", _answers, "A model's last answers, as the prediction log keeps them",
          scope="admin", response_type=RecentAnswers),
)  # fmt: skip

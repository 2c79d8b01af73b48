"""The routes of what was: requests over time, and what was done to a model."""

from typing import Any

import msgspec

from appliance.errors import InvalidInput
from appliance.monitoring.history_ring import SPANS, Series
from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.routes import Route
from appliance.store.receipts import Receipt

MOST_RECEIPTS = 100


class Histories(msgspec.Struct):
    """The history of every model."""

    models: list[Series]


class Receipts(msgspec.Struct):
    """What was done to a model, the latest first; the last 100."""

    model: str
    receipts: list[dict[str, Any]]


def _histories(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with the history of every model."""
    span = _span(request)
    return json_response(Histories([context.history(name, span) for name in context.store.names()]))


def _history(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with one model's history."""
    return json_response(context.history(installed(context, variables["name"]), _span(request)))


def _receipts(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with what was done to a model."""
    name = installed(context, variables["name"])
    own = [_told(one) for one in context.store.receipts() if one.model == name]
    return json_response(Receipts(name, own[: -MOST_RECEIPTS - 1 : -1]))


def installed(context: Context, name: str) -> str:
    """Return the name of a model that is installed. Raises NotFound, naming what comes close."""
    if not context.store.versions(name):
        context.store.folder(name, "")
    return name


def _span(request: Request) -> str:
    """Return the span that is asked for. Raises InvalidInput."""
    span = request.query.get("span", "hour")
    if span not in SPANS:
        raise InvalidInput("read the query", f"the span {span[:40]!r} is unknown", f"say {', '.join(SPANS)}")
    return span


def _told(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt without an experiment's evidence, which may be long."""
    told: dict[str, Any] = msgspec.to_builtins(receipt)
    if isinstance(told.get("experiment"), dict):
        told["experiment"].pop("evidence", None)
    return told


ROUTES = (
    Route("GET", "/history", _histories, "Requests of every model over an hour, a day or a month",
          response_type=Histories),
    Route("GET", "/models/{name}/history", _history, "Requests of a model over an hour, a day or a month",
          response_type=Series),
    Route("GET", "/models/{name}/receipts", _receipts, "What was done to a model", response_type=Receipts),
)  # fmt: skip

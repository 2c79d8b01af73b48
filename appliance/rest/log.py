"""The prediction log over HTTP: where its chains end."""

import msgspec

from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.routes import Route


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


ROUTES = (
    Route("GET", "/log/head", _head, "Where the chains of the prediction log end", response_type=LogHeads),
)  # fmt: skip

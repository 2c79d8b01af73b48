"""The routes of health: whether the process lives, and whether predictions are answered (see readiness.py)."""

import msgspec

from appliance.readiness import Ready
from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.routes import Route


class Live(msgspec.Struct):
    """The process answers."""

    live: bool = True


def _live(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer as long as the process does."""
    return json_response(Live())


def _ready(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer 200 or 503."""
    found = context.readiness.look()
    return json_response(found, 200 if found.ready else 503)


ROUTES = (
    Route("GET", "/health/live", _live, "Whether the process answers", scope="none", response_type=Live),
    Route("GET", "/health/ready", _ready, "Whether predictions are answered", scope="none", response_type=Ready),
)

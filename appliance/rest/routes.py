"""The one table of routes: the bare path, Flask and openapi.json are all made from it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from appliance.config import HttpConfig
from appliance.rest.http_types import Ask, Handler
from appliance.rest.problems import Problem, problem_json

AT_LEAST_ONE = msgspec.Meta(min_length=1)
"""Says in openapi.json what the schema of the model refuses, with more words than a decoder has."""
Scope = Literal["none", "predict", "admin"]


@dataclass(frozen=True, slots=True)
class Route:
    """One path and method, what answers it and what openapi.json says of it.

    `path` has variables in braces: `/models/{name}/predict`. `hot` routes are answered in front of Flask.
    `request_type` and `response_type` are the types (msgspec) of the JSON bodies, None where there is no body or it is
    not JSON.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    summary: str
    scope: Scope = "predict"
    problem: Problem = problem_json
    hot: bool = False
    request_type: Any = None
    response_type: Any = None
    media: str = "application/json"
    ask: Ask | None = None
    """Reads a request of a `hot` route that may share a run with others; None: none does."""
    named: str = ""
    """The path that does the same for a model that it names, where this one names none."""
    lines: bool = False
    """Whether it also takes and gives CSV and JSON lines, see lines.py."""

    def at(self, path: str) -> "Route":
        """Return the same route under another path."""
        return replace(self, path=path)

    @property
    def pattern(self) -> re.Pattern[str]:
        """The path as a regular expression with named groups; a variable ends at `/` and, before a colon, at it."""
        parts = re.split(r"\{(\w+)\}", self.path)
        expression = "".join(
            f"(?P<{part}>[^/]+?)" if index % 2 else re.escape(part) for index, part in enumerate(parts)
        )
        return re.compile(expression)


def extra_routes(config: HttpConfig, routes: Sequence[Route]) -> list[Route]:
    """Return copies of the routes that the configuration wants under one more path (Vertex AI's `AIP_*`)."""
    wanted = {"/health/ready": config.health_route, "/invocations": config.predict_route}
    known = {(route.method, route.path) for route in routes}
    return [
        route.at(wanted[route.path])
        for route in routes
        if wanted.get(route.path) and (route.method, wanted[route.path]) not in known
    ]


def hot_routes(routes: Sequence[Route]) -> list[Route]:
    """Return the routes that are answered in front of Flask."""
    return [route for route in routes if route.hot]

"""The HTTP status of each error, and its body in each protocol."""

from collections.abc import Callable

from appliance.errors import (
    ApplianceError,
    Forbidden,
    Misuse,
    NotAllowed,
    NotFound,
    NotReady,
    Overloaded,
    Refused,
    StoreError,
    TooLarge,
)
from appliance.rest.http_types import Response, encode_json

# The most special first: an error has the status of the first class that it is an instance of.
_STATUSES: tuple[tuple[type[ApplianceError], int], ...] = (
    (TooLarge, 413),
    (Misuse, 400),
    (Forbidden, 403),
    (NotAllowed, 401),
    (NotFound, 404),
    (Overloaded, 503),
    (NotReady, 503),
    (Refused, 409),
    (StoreError, 500),
    (ApplianceError, 500),
)

LONGEST = 2000
"""The most characters of each part of an error: a request may have a name of megabytes."""

REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict",
    413: "Content Too Large", 415: "Unsupported Media Type", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}  # fmt: skip

Problem = Callable[[int, ApplianceError], Response]
"""(status, error) -> the error response of one protocol."""


def status_of(error: ApplianceError) -> int:
    """Return the HTTP status of `error`."""
    given = getattr(error, "status", None)  # a rest-only error (see UnsupportedMedia) names its own
    if isinstance(given, int):
        return given
    return next(status for kind, status in _STATUSES if isinstance(error, kind))


class UnsupportedMedia(Misuse):
    """A body of a content type that the route does not read."""

    status = 415


class Unsupported(Misuse):
    """A part of the protocol that is not implemented."""

    status = 501


class WrongMethod(Misuse):
    """The path is known, but not with this method."""

    status = 405


def start_of(answer: Response) -> tuple[str, list[tuple[str, str]]]:
    """Return the status line and all headers of an answer, as WSGI's start_response() takes them."""
    headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body))), *answer.headers]
    return f"{answer.status} {REASONS.get(answer.status, 'Error')}", headers


def problem_json(status: int, error: ApplianceError) -> Response:
    """Return RFC 9457's problem details: the error form of our own routes."""
    details = {
        "type": "about:blank",
        "title": REASONS.get(status, "Error"),
        "status": status,
        "detail": _cut(str(error)),
        "tried": _cut(error.tried),
        "found": _cut(error.found),
        "next": _cut(error.next_step),
    }
    return Response(encode_json(details), status, "application/problem+json", _headers(status))


def error_json(status: int, error: ApplianceError) -> Response:
    """Return {"error": text}: Open Inference, KServe v1 and Vertex."""
    return Response(encode_json({"error": _cut(str(error))}), status, headers=_headers(status))


def mlflow_json(status: int, error: ApplianceError) -> Response:
    """Return {"error_code", "message"}: MLflow's scoring server."""
    code = "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR"
    return Response(encode_json({"error_code": code, "message": _cut(str(error))}), status, headers=_headers(status))


def form_for(path: str) -> Problem:
    """Return the error form that clients of `path` read, for errors outside of any route."""
    if path.startswith(("/v1/", "/v2/")) or path == "/v2":
        return error_json
    return mlflow_json if path in ("/invocations", "/ping", "/version") else problem_json


def _cut(text: str) -> str:
    """Return a text, its middle left out where it is too long."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} … {text[-half:]}"


def _headers(status: int) -> tuple[tuple[str, str], ...]:
    """Return the headers that a status asks for."""
    return {401: (("WWW-Authenticate", "Bearer"),), 503: (("Retry-After", "1"),)}.get(status, ())

"""Cross-Origin Resource Sharing: which other sites' pages may read answers (fetch.spec.whatwg.org, "CORS protocol")."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from appliance.errors import ConfigError

EVERY = "*"
"""Stands for every origin."""

_EXPOSED = "X-Request-Id, X-Experiment, Inference-Header-Content-Length, Retry-After, traceparent, tracestate"
_MAX_AGE = "600"  # seconds for which a browser need not ask again

StartResponse = Callable[..., Any]
Headers = list[tuple[str, str]]


class Origins:
    """The origins whose pages may ask."""

    def __init__(self, origins: Iterable[str]) -> None:
        """Raises ConfigError for what is no origin (RFC 6454)."""
        self._known = frozenset(_checked(origin) for origin in origins)

    def __contains__(self, origin: object) -> bool:
        return origin in self._known or EVERY in self._known

    def preflight(self, environ: dict[str, Any]) -> bool:
        """Return whether a request only asks whether another may be sent."""
        return environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ

    def allow(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a preflight request: with the CORS headers if its origin is allowed, else without them."""
        headers: Headers = self.headers(environ)
        if len(headers) > 1:
            asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
            headers += [("Access-Control-Allow-Methods", "GET, POST, DELETE"), ("Access-Control-Max-Age", _MAX_AGE)]
            headers += [("Access-Control-Allow-Headers", asked)] if asked.isprintable() and asked else []
            if environ.get("HTTP_ACCESS_CONTROL_REQUEST_PRIVATE_NETWORK") == "true":
                headers.append(("Access-Control-Allow-Private-Network", "true"))
        start_response("204 No Content", [*headers, ("Content-Length", "0")])
        return [b""]

    def telling(self, environ: dict[str, Any], start_response: StartResponse) -> StartResponse:
        """Return start_response() that also tells the browser whether the page may read the answer."""
        more = self.headers(environ)

        def start(status: str, headers: Headers, *rest: Any) -> Any:
            return start_response(status, [*headers, *more], *rest)

        return start

    def headers(self, environ: dict[str, Any]) -> Headers:
        """Return the fields of every answer: the origin, where it may; a cache has to keep them apart."""
        origin = environ.get("HTTP_ORIGIN", "")
        if not origin or origin not in self:
            return [("Vary", "Origin")]
        told = [("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", _EXPOSED)]
        return [("Vary", "Origin"), *told]


def _checked(origin: str) -> str:
    """Return an origin. Raises ConfigError for what is none."""
    try:
        parts = urlsplit(origin)
        valid = parts.scheme in ("http", "https") and parts.hostname and origin == f"{parts.scheme}://{parts.netloc}"
        valid = valid and "@" not in parts.netloc and origin == origin.lower()
    except ValueError:
        valid = False
    if origin != EVERY and not valid:
        next_step = 'write it as the browser does: "https://app.example", with a port if it has one, without a path'
        raise ConfigError("[http] origins", f"{origin[:80]!r} is no origin", next_step)
    return origin

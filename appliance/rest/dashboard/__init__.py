"""The page for people: static files of this folder, which ask the same routes as everybody else."""

import functools
from pathlib import Path
from typing import Literal

import msgspec

from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.routes import Route

_FOLDER = Path(__file__).parent
_HEADERS = (
    # Nothing that the page shows can make it load or send anything elsewhere.
    ("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-cache"),
)
_VARY = (("Vary", "Accept"),)
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/dashboard/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/dashboard/style.css": ("style.css", "text/css; charset=utf-8"),
    "/dashboard/icon.svg": ("icon.svg", "image/svg+xml"),
}


class Alive(msgspec.Struct):
    """The service lives."""

    status: Literal["alive"] = "alive"


def _file(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with the file of the request's path."""
    name, media = _FILES[request.path]
    if request.path == "/" and "text/html" not in request.header("Accept"):
        return json_response(Alive(), headers=_VARY)  # KServe v1's clients ask here whether the server lives
    return Response(_content(name), content_type=media, headers=_HEADERS + _VARY)


@functools.cache
def _content(name: str) -> bytes:
    """Return a file of this folder; read when first asked for, since most services are never looked at."""
    return (_FOLDER / name).read_bytes()


ROUTES = tuple(
    Route("GET", path, _file, f"The dashboard: {name}", scope="none", media=media.partition(";")[0])
    for path, (name, media) in _FILES.items()
)

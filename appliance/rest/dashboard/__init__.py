"""The page for people: static files of this folder, which ask the same routes as everybody else."""

import functools
from pathlib import Path
from typing import Literal

import msgspec

from appliance.errors import NotFound
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
_MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",  # the texts, a file for each language
}


class Alive(msgspec.Struct):
    """The service lives."""

    status: Literal["alive"] = "alive"


def _page(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with the page."""
    if "text/html" not in request.header("Accept"):
        return json_response(Alive(), headers=_VARY)  # KServe v1's clients ask here whether the server lives
    return _answer("index.html")


def _file(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with a file of the page. Raises NotFound."""
    name = variables["file"]
    if name not in names():
        raise NotFound(f"find {request.told_path}", "the dashboard has no such file", "see /")
    return _answer(name)


def _answer(name: str) -> Response:
    """Return a file of this folder as an answer."""
    return Response(_content(name), content_type=_MEDIA[Path(name).suffix], headers=_HEADERS + _VARY)


@functools.cache
def names() -> frozenset[str]:
    """Return the names of the page's files: those of this folder that a browser reads."""
    return frozenset(path.name for path in _FOLDER.iterdir() if path.suffix in _MEDIA)


@functools.cache
def _content(name: str) -> bytes:
    """Return a file of this folder; read when first asked for, since most services are never looked at."""
    return (_FOLDER / name).read_bytes()


ROUTES = (
    Route("GET", "/", _page, "The dashboard", scope="none", media="text/html"),
    Route("GET", "/dashboard/{file}", _file, "A file of the dashboard", scope="none", media="text/javascript"),
)

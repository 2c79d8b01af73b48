"""/docs: openapi.json for people, to read and to try. Swagger UI shows it, which the extra `docs` brings.

Its files are served from here, by our own routes: nothing is loaded from elsewhere, and nothing of it is imported.
"""

import functools
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from appliance import extras
from appliance.errors import NotFound
from appliance.rest.http_types import Context, Request, Response, compress
from appliance.rest.routes import Route

EXTRA = "docs"
_PACKAGE = "flask-swagger-ui"
_FOLDER = Path(__file__).parent
_SECURITY = (
    # Swagger UI draws its icons from data: URLs. It needs no inline style and no eval.
    ("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
     "frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)  # fmt: skip
_OWN = {
    "/docs/start.js": ("start.js", "text/javascript; charset=utf-8"),
    "/docs/style.css": ("style.css", "text/css; charset=utf-8"),
}
_VIEWER = {
    "/docs/swagger-ui.js": ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    "/docs/swagger-ui.css": ("swagger-ui.css", "text/css; charset=utf-8"),
}


def _page(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with the page; without the extra, with how to get it."""
    if _viewer() is None:
        text = _read("absent.html").replace("{how_to_get}", extras.how_to_get(EXTRA))
    else:
        text = _read("index.html").replace("{version}", version(_PACKAGE))
    headers = (*_SECURITY, ("Cache-Control", "no-cache"))
    return Response(text.encode(), content_type="text/html; charset=utf-8", headers=headers)


def _own_file(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with a file of this folder."""
    name, media = _OWN[request.path]
    return Response(_read(name).encode(), content_type=media, headers=(*_SECURITY, ("Cache-Control", "no-cache")))


def _viewer_file(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with a file of Swagger UI, which the page asks for by its version. Raises NotFound without the extra."""
    folder = _viewer()
    if folder is None:
        raise NotFound(f"read {request.told_path}", f"the extra {EXTRA} is not installed", extras.how_to_get(EXTRA))
    name, media = _VIEWER[request.path]
    # Read each time: 2 MB that one person looks at now and then are not worth their memory.
    headers = (*_SECURITY, ("Cache-Control", "max-age=86400"))
    answer = Response((folder / name).read_bytes(), content_type=media, headers=headers)
    return compress(answer, request.header("Accept-Encoding"))


@functools.cache
def _viewer() -> Path | None:
    """Return the folder of Swagger UI's files, None without the extra."""
    found = None if extras.lacking(EXTRA) else find_spec("flask_swagger_ui")
    places = found.submodule_search_locations if found else None
    return Path(places[0]) / "dist" if places else None


@functools.cache
def _read(name: str) -> str:
    """Return a file of this folder; read when first asked for, since most services are never looked at."""
    return (_FOLDER / name).read_text(encoding="utf-8")


ROUTES = (
    Route("GET", "/docs", _page, "This document for people, to read and to try", scope="none", media="text/html"),
    *(
        Route("GET", path, handler, f"Of that page: {name}", scope="none", media=media.partition(";")[0])
        for files, handler in ((_OWN, _own_file), (_VIEWER, _viewer_file))
        for path, (name, media) in files.items()
    ),
)

"""The WSGI application: hot routes on a bare path, all others through Flask, both from the one table of routes."""

import functools
import itertools
import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from appliance import trace_context
from appliance.budget import SMALL
from appliance.errors import ApplianceError, NoDefaultModel, NotFound, Overloaded
from appliance.predictor import request_id
from appliance.rest import together
from appliance.rest.cors import Origins
from appliance.rest.http_types import Authorize, Context, Environ, Request, Response, body_limit
from appliance.rest.problems import WrongMethod, form_for, start_of, status_of
from appliance.rest.routed import HEADER as EXPERIMENT
from appliance.rest.routes import Route, extra_routes, hot_routes
from appliance.rest.server.group import Together

if TYPE_CHECKING:
    from flask import Flask

_JUDGED = ("AUTHORIZATION", "HOST", "ORIGIN", "SEC_FETCH_SITE")
"""The header fields that decide who the caller is."""

MOST_ID = 128
"""Characters of a caller's request id that count."""

log = logging.getLogger(__name__)

A = TypeVar("A")
StartResponse = Callable[..., Any]


class App:
    """Answers requests by the table of routes (WSGI, PEP 3333)."""

    def __init__(
        self, context: Context, routes: Sequence[Route], authorize: Authorize, *, log_requests: bool = False
    ) -> None:
        self.context: Context = context
        self.routes = tuple(routes)
        self.authorize = authorize
        self._log_requests = log_requests
        origins = context.config.origins
        self._origins = Origins(origins) if origins else None
        self._tells_ids = context.predictor.logs
        self._body_limit = body_limit(context.limits, context.budget)
        self._hot = [(route.pattern, route) for route in hot_routes(routes)]
        self._match = functools.lru_cache(maxsize=256)(self._find)
        self._flask: Flask | None = None
        self._making = threading.Lock()
        self.together = Together(self.shares_runs, self._answer_together)
        # A random prefix and a number: as unique as a random id for each request, and without a system call for each.
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        if self._origins is not None:
            if self._origins.preflight(environ):
                return self._origins.allow(environ, start_response)
            start_response = self._origins.telling(environ, start_response)
        found = self._match(environ["PATH_INFO"]) if environ["REQUEST_METHOD"] == "POST" else None
        if found is None:
            answers: Iterable[bytes] = self.flask(environ, start_response)
            return answers
        request = Request(environ, self._body_limit, self.context.budget)
        answer = self.answer(found[0], request, found[1])
        start_response(*start_of(answer))
        return [answer.body]

    def direct(self, environ: Environ, content: bytes) -> Response:
        """Answer a request that is_small(), POST, with its whole body `content`, which is not compressed; see Direct.

        `environ` lacks what differs between two requests with the same head; nothing here changes it.
        """
        found = self._match(environ["PATH_INFO"])
        assert found is not None  # noqa: S101 - is_small() has said so
        answer = self.answer(found[0], Request(environ, self._body_limit, self.context.budget, content), found[1])
        return answer if self._origins is None else answer.with_headers(*self._origins.headers(environ))

    def shares_runs(self, path: str) -> bool:
        """Return whether POST requests to `path` that wait at the same time share a run: together() answers them."""
        models = self.context.models
        if not models.batching or (found := self._match(path)) is None:
            return False
        route, variables = found
        return route.ask is not None and "version" not in variables and self._model(variables) in models.batching

    def _answer_together(self, sent: Sequence[tuple[Environ, bytes]]) -> list[Response]:
        """Answer requests as direct() does, all to one path that shares_runs()."""
        requests = [Request(environ, self._body_limit, self.context.budget, content) for environ, content in sent]
        found = self._match(requests[0].path)
        assert found is not None  # noqa: S101 - shares_runs() has said so
        answers = together.answers(self, *found, requests)
        if self._origins is None:
            return answers
        pairs = zip(answers, sent, strict=True)
        return [answer.with_headers(*self._origins.headers(environ)) for answer, (environ, _) in pairs]

    def is_small(self, path: str) -> bool:
        """Return whether a request to `path` may run on the loop's thread: a prediction by a version that is loaded.

        If answers wait for the log, none may: waiting answers are written in one batch.
        """
        return self._match(path) is not None and "/versions/" not in path and not self.context.predictor.waits

    def admit(self, command: str, path: str, headers: Mapping[str, str], length: int | None) -> ApplianceError | None:
        """Return the error that refuses a request before its body arrives, None for no error.

        `length` is None for a body in chunks. An unauthorised caller is refused before a byte of the body is kept. The
        whole request is checked again later.
        """
        routes = [route for route in self.routes if route.method == command and route.pattern.fullmatch(path)]
        if not routes and (length is None or length > SMALL):
            told = Request({"REQUEST_METHOD": command, "PATH_INFO": path}, 0).told_path
            return NotFound(f"{command} {told}", "nothing here takes such a body", "see /openapi.json for all paths")
        given = {f"HTTP_{name}": headers[name] for name in _JUDGED if name in headers}
        try:
            request = Request({"REQUEST_METHOD": command, "PATH_INFO": path, **given}, 0)
            self.authorize(request, routes[0].scope if routes else "none")
        except ApplianceError as error:
            return error
        return None

    def answer(self, route: Route, request: Request, variables: dict[str, str]) -> Response:
        """Return the answer of one route; the boundary where every error becomes an answer."""
        token = request_id.set(self.id_of(request))
        traced = trace_context.begin(request.environ) if "HTTP_TRACEPARENT" in request.environ else None
        try:
            answer = self.finished(request, self.attempt(route, request, variables, route.handler))
            return answer if traced is None else answer.with_headers(*traced.fields)
        finally:
            if traced is not None:
                trace_context.end()
            if request.held:
                request.release()
            request_id.reset(token)

    def id_of(self, request: Request) -> str:
        """Return the id of a request: the caller's, else a new one."""
        return request.environ.get("HTTP_X_REQUEST_ID", "")[:MOST_ID] or f"{self._prefix}-{next(self._numbers)}"

    def finished(self, request: Request, answer: Response) -> Response:
        """Return an answer with the headers that every route's has, and log it; with the request's id set."""
        if self._log_requests:
            extra = {"method": request.method, "path": request.told_path, "status": answer.status}
            log.info("request", extra=extra | {"seconds": round(request.seconds(), 6)})
        if request.environ.get("HTTP_X_REQUEST_ID") or answer.status >= 500 or self._tells_ids:
            answer = answer.with_headers(("X-Request-Id", request_id.get()))
        routed = request.routed
        if routed is not None and routed.loaded is not None:
            answer = answer.with_headers((EXPERIMENT, routed.loaded.arm))
        return answer

    def attempt(
        self, route: Route, request: Request, variables: dict[str, str], handler: Callable[..., A]
    ) -> A | Response:
        """Return what a handler gives, or the error in the form of the route's protocol; with the request's id set."""
        try:
            self.authorize(request, route.scope)
            return handler(self.context, request, variables)
        except ApplianceError as error:
            if route.named and isinstance(error, NoDefaultModel):
                error.next_step = f"name one: POST {route.named}; or set [models] default"
            failure, status = error, status_of(error)
        except MemoryError:
            log.exception("no memory for a request", extra={"path": request.told_path})
            failure = Overloaded("answer the request", "there is no memory left", "send fewer rows at once")
            status = status_of(failure)
        except Exception:  # an error that a handler does not expect must not end the connection without an answer
            log.exception("request failed unexpectedly", extra={"path": request.told_path})
            next_step = f"see the log for request id {request_id.get()}"
            failure, status = ApplianceError("answer the request", "an unexpected error", next_step), 500
        if route.hot:
            self._tell(request, variables, failure)
        _let_go(failure)
        return route.problem(status, failure)

    def _tell(self, request: Request, variables: dict[str, str], failure: ApplianceError) -> None:
        """Tell the observers of a prediction that was not made, and by which arm where one was chosen."""
        failed, seconds = self.context.predictor.failed, request.seconds()
        loaded = request.routed.loaded if request.routed is not None else None
        if loaded is not None:
            failed(loaded.name, loaded.version, failure, seconds, loaded.arm, request.keys[0])
            return
        model = self._model(variables)
        failed(model, variables.get("version", ""), failure, seconds)

    def _model(self, variables: dict[str, str]) -> str:
        """Return the model that a path means, "" where it names none and there is no default."""
        return variables.get("name") or self.context.models.default

    def _find(self, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the hot route that `path` means, with its variables."""
        for pattern, route in self._hot:
            if match := pattern.fullmatch(path):
                # A WSGI path is latin-1 of the bytes that were sent, a name is UTF-8 (PEP 3333).
                sent = {name: value.encode("latin-1") for name, value in match.groupdict().items()}
                return route, {name: value.decode("utf-8", "replace") for name, value in sent.items()}
        return None

    @property
    def flask(self) -> "Flask":
        """The Flask application of all routes, made on first use: its import takes longer than a prediction's start."""
        if self._flask is None:
            with self._making:
                if self._flask is None:
                    self._flask = _flask_app(self)
        return self._flask


def _let_go(failure: BaseException | None) -> None:
    """Drop what an error's tracebacks hold, which may be a body of megabytes, now and not when the collector comes."""
    for _ in range(10):
        if failure is None:
            return
        failure.__traceback__ = None
        failure = failure.__cause__ or failure.__context__


def create_app(context: Context, routes: Sequence[Route], authorize: Authorize, *, log_requests: bool = False) -> App:
    """Return the application; the routes that Vertex AI names by its own paths are added to `routes`."""
    return App(context, (*routes, *extra_routes(context.config, routes)), authorize, log_requests=log_requests)


def _flask_app(app: App) -> "Flask":
    """Return a Flask application with every route of the table."""
    from flask import Flask, request
    from flask import Response as FlaskResponse

    flask = Flask("appliance", static_folder=None)
    flask.url_map.merge_slashes = False  # else a double slash is answered by a redirection, to the Host that was sent

    def respond(answer: Response) -> FlaskResponse:
        response = FlaskResponse(answer.body, start_of(answer)[0], content_type=answer.content_type)
        response.headers.extend(answer.headers)
        return response

    most = body_limit(app.context.limits, app.context.budget)

    def view(route: Route) -> Callable[..., FlaskResponse]:
        def answer(**variables: str) -> FlaskResponse:
            return respond(app.answer(route, Request(request.environ, most, app.context.budget), variables))

        return answer

    for route in app.routes:
        rule = re.sub(r"\{(\w+)\}", r"<\1>", route.path)
        name = f"{route.method} {route.path}"
        flask.add_url_rule(rule, name, view(route), methods=[route.method], provide_automatic_options=False)

    @flask.before_request
    def refuse_first() -> FlaskResponse | None:
        """Refuse a request without a route, after the same authorisation.

        So a caller learns nothing about routes that it may not use.
        """
        if request.url_rule is not None:
            return None  # its route does
        scopes = {route.scope for route in app.routes if route.pattern.fullmatch(request.path)}
        try:
            app.authorize(Request(request.environ, 0), "predict" if scopes and "none" not in scopes else "none")
        except ApplianceError as error:
            return respond(form_for(request.path)(status_of(error), error))
        return None

    @flask.errorhandler(404)
    def unknown_path(error: Any) -> FlaskResponse:
        problem = NotFound(f"find {request.path}", "there is no such path", "see /openapi.json for all of them")
        return respond(form_for(request.path)(404, problem))

    @flask.errorhandler(405)
    def wrong_method(error: Any) -> FlaskResponse:
        allowed = ", ".join(sorted(set(error.valid_methods or ()) - {"OPTIONS", "HEAD"}))
        problem = WrongMethod(f"{request.method} {request.path}", "the path has another method", f"use {allowed}")
        response = respond(form_for(request.path)(405, problem))
        response.headers["Allow"] = allowed
        return response

    return flask

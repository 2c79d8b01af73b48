"""Requests that wait at the same time and are answered by one run of the model.

Nobody waits for more of them: what the loop, or a thread, finds waiting is taken together. Only for a version that
gains by it (inference/batching.py), only for JSON and Open Inference requests by the active version, and never where an
experiment runs. Each request is authorised, read, refused, logged and told by itself; a run that is refused is repeated
for each one alone, so that a bad row harms no other.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol, TypeVar

import msgspec
import numpy as np

from appliance import trace_context
from appliance.errors import ApplianceError
from appliance.predictor import Prediction, request_id
from appliance.rest.http_types import Asked, Context, Request, Response
from appliance.rest.routes import Route

T = TypeVar("T")
Variables = dict[str, str]

MOST_REQUESTS = 64
MOST_ROWS = 256
"""Of one run."""


class Answering(Protocol):
    """What is asked of the application (app.py) for each request."""

    @property
    def context(self) -> Context:
        """What handlers work with."""

    def id_of(self, request: Request) -> str:
        """Return the id of a request."""

    def attempt(
        self, route: Route, request: Request, variables: Variables, handler: Callable[[Context, Request, Variables], T]
    ) -> T | Response:
        """Return what a handler gives, or the answer that tells its error."""

    def finished(self, request: Request, answer: Response) -> Response:
        """Return an answer with the headers that every route's has."""


class _Turn:
    """One of the requests, with its own id, authorisation and errors."""

    def __init__(self, app: Answering, route: Route, variables: Variables, request: Request) -> None:
        self._app, self._route, self._variables = app, route, variables
        self.request = request
        self.id = app.id_of(request)
        environ = request.environ
        parent = environ.get("HTTP_TRACEPARENT")
        self.trace = trace_context.read(parent, environ.get("HTTP_TRACESTATE", "")) if parent else None

    def attempt(self, handler: Callable[[Context, Request, Variables], T]) -> T | Response:
        """Return what a handler gives, or the answer that tells its error."""
        with self._answered():
            return self._app.attempt(self._route, self.request, self._variables, handler)

    def alone(self) -> Response:
        """Return the answer as if the request had come alone."""
        return self.attempt(self._route.handler)

    def end(self, answer: Response) -> Response:
        """Return the answer with the headers that every route's has."""
        with self._answered():
            answer = self._app.finished(self.request, answer)
        if self.request.held:
            self.request.release()
        return answer if self.trace is None else answer.with_headers(*self.trace.fields)

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        """Have its id and trace on what is logged."""
        token = request_id.set(self.id)
        if self.trace is not None:
            trace_context.begin_batch({"": self.trace})
        try:
            yield
        finally:
            if self.trace is not None:
                trace_context.end()
            request_id.reset(token)


def answers(app: Answering, route: Route, variables: Variables, requests: Sequence[Request]) -> list[Response]:
    """Return the answers to requests of one path whose route may `ask`, in their order."""
    assert route.ask is not None  # noqa: S101 - App.shares_runs() has said so
    turns = [_Turn(app, route, variables, request) for request in requests]
    read = [turn.attempt(route.ask) for turn in turns]
    done: dict[int, Response] = {place: one for place, one in enumerate(read) if isinstance(one, Response)}
    asked = {place: one for place, one in enumerate(read) if isinstance(one, Asked)}
    for places in _groups(asked):
        predictions = _run_together(app.context, [turns[one] for one in places], [asked[one] for one in places])
        for place, prediction in zip(places, predictions, strict=False):  # those without one run alone
            done[place] = turns[place].attempt(partial(_respond, asked[place].respond, prediction))
    return [turn.end(done[place] if place in done else turn.alone()) for place, turn in enumerate(turns)]


def _groups(asked: dict[int, Asked]) -> Iterator[list[int]]:
    """Yield the places of those that one run can answer: of one version, the same outputs, MOST_ROWS together."""
    open_: dict[tuple[int, tuple[str, ...]], tuple[list[int], int]] = {}
    for place, one in asked.items():
        key, rows = (id(one.version), tuple(one.outputs)), _rows_of(one)
        places, before = open_.get(key, ([], 0))
        if places and before + rows > MOST_ROWS:
            yield places
            places, before = [], 0
        places.append(place)
        open_[key] = places, before + rows
    for places, _ in open_.values():
        yield places


def _run_together(context: Context, turns: Sequence[_Turn], asked: Sequence[Asked]) -> Iterable[Prediction]:
    """Return each one's prediction, made by one run; none where each has to run alone, as where one is refused."""
    if len(asked) == 1:
        return []
    first, rows = asked[0], [_rows_of(one) for one in asked]
    feeds = {name: np.concatenate([one.feeds[name] for one in asked]) for name in first.feeds}
    ids = [one.request or turn.id for one, turn in zip(asked, turns, strict=True)]
    shared_by = list(zip(ids, rows, strict=True))
    started = sum(turn.request.started for turn in turns) / len(turns)  # so that the sum of their times is right
    traces = {name: turn.trace for name, turn in zip(ids, turns, strict=True) if turn.trace}
    if traces:
        trace_context.begin_batch(traces)
    try:
        whole = context.predictor.run(first.version, feeds, first.outputs, started=started, shared_by=shared_by)
    except ApplianceError:
        return []
    finally:
        if traces:
            trace_context.end()
    return _parts(whole)


def _parts(whole: Prediction) -> Iterator[Prediction]:
    """Yield the predictions of the requests that share a run."""
    first = 0
    for request, rows in whole.shared_by:
        last = first + rows
        yield msgspec.structs.replace(
            whole,
            inputs={name: array[first:last] for name, array in whole.inputs.items()},
            outputs={name: array[first:last] for name, array in whole.outputs.items()},
            rows=rows,
            request_id=request,
            shared_by=(),
            quality=None if whole.quality is None else whole.quality[first:last],
            of_graph=None,
        )
        first = last


def _respond(
    respond: Callable[[Prediction], Response],
    prediction: Prediction,
    context: Context,
    request: Request,
    variables: Variables,
) -> Response:
    """Return the answer of a prediction; in a handler's shape."""
    return respond(prediction)


def _rows_of(asked: Asked) -> int:
    """Return how many rows a request has."""
    return len(next(iter(asked.feeds.values())))

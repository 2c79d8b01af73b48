"""The routes of experiments: show, begin, promote, abort."""

from collections.abc import Callable

import msgspec

from appliance.config import ExperimentsConfig
from appliance.config.section import Fraction, NotNegativeSeconds, Positive, Seconds
from appliance.errors import InvalidInput, Misuse
from appliance.experiments import control, info
from appliance.experiments.info import ExperimentInfo
from appliance.rest.http_types import Context, Request, Response, encode_json, json_response
from appliance.rest.json_body import decode
from appliance.rest.routes import Route
from appliance.store import experiments
from appliance.store.experiments import Wish
from appliance.store.routing_record import Kind

_MADE_HERE = "asked for over HTTP"


class ExperimentRequest(msgspec.Struct, forbid_unknown_fields=True):
    """An experiment to begin: a shadow or a canary has a `version`, a split has `shares`."""

    kind: Kind
    version: str = ""
    share: float = 1.0
    """Of a shadow: the share of the rows that it gets, from 0 to 1."""
    steps: tuple[float, ...] = control.STEPS
    """Of a canary: percent of the requests, one for each step."""
    hold: bool = False
    """Of a canary: whether each step waits for a promotion."""
    shares: dict[str, float] = {}
    """Of a split: {version: percent of the requests}, together 100."""
    min_requests: Positive | None = None
    """Of a canary: requests that a step takes at least; without it, and so on, as `[experiments]` has it."""
    min_seconds: NotNegativeSeconds | None = None
    """Of a canary: seconds that a step takes at least."""
    max_seconds: Seconds | None = None
    """Of a canary: seconds after which a step with too little traffic is called inconclusive."""
    margin: Fraction | None = None
    """Of a canary: by how much its failure rate may be above the active version's, from 0 to 1."""
    alpha: Fraction | None = None
    """The chance, of each test, that it is ever taken back although the versions are alike."""
    key: str = "header"
    """`header`, `caller`, or a column of the rows."""
    inputs_changed: bool = False
    """Whether the versions may have different inputs, outputs or labels."""
    schema_may_differ: bool = False
    """The name of `inputs_changed` before 1.0.0."""
    why: str = _MADE_HERE


class PromoteRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Which challenger, if there are several; `now` skips the remaining steps of a held canary."""

    version: str | None = None
    now: bool = False
    why: str = _MADE_HERE


class AbortRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Why the experiment is ended."""

    why: str = _MADE_HERE


def _experiment(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with the experiment on a model."""
    return json_response(info.info(context.store, variables["name"]))


def _begin(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Begin an experiment."""
    asked = decode(request.body(), ExperimentRequest, context.limits)
    wish = msgspec.structs.replace(_wish(asked, context.experiments), max_memory_bytes=context.experiment_bytes)
    name = variables["name"]
    key = (f"begin a {asked.kind} of", name, encode_json(wish).decode())  # the same request joins the one that runs
    return _change(context, key, lambda: experiments.begin(
        context.store, name, wish, context.self_test, why=asked.why
    ))  # fmt: skip


def _promote(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Make the challenger the active version, or begin a held canary's next step."""
    asked = decode(request.body() or b"{}", PromoteRequest, context.limits)
    name = variables["name"]
    return _change(context, ("promote", name), lambda: control.go_on(
        context.store, name, context.self_test, version=asked.version, now=asked.now, why=asked.why
    ))  # fmt: skip


def _abort(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """End the experiment."""
    asked = decode(request.body() or b"{}", AbortRequest, context.limits)
    name = variables["name"]
    return _change(context, ("abort", name), lambda: experiments.abort(context.store, name, why=asked.why))


def _wish(asked: ExperimentRequest, settings: ExperimentsConfig) -> Wish:
    """Return what is asked for, the rest as `settings` have it. Raises InvalidInput, Misuse."""
    if (asked.kind == "split") is bool(asked.version) or (asked.kind == "split") is not bool(asked.shares):
        found = (
            "it names neither" if not (asked.version or asked.shares) else f"that is not how a {asked.kind} is named"
        )
        next_step = 'send {"kind": "canary", "version": "2.0.0"}, or {"kind": "split", "shares": {"1.0.0": 90, ...}}'
        raise InvalidInput("read the body", found, next_step)
    numbers = {name: getattr(asked, name) for name in control.PLANNED}
    may_differ = asked.inputs_changed or asked.schema_may_differ
    plan = control.plan_of(settings, hold=asked.hold, schema_may_differ=may_differ, **numbers)
    try:
        if asked.kind == "split":
            return control.split(asked.shares, key=asked.key, plan=plan)
        if asked.kind == "shadow":
            return control.shadow(asked.version, asked.share, plan=plan)
        return control.canary(asked.version, asked.steps, key=asked.key, plan=plan)
    except Misuse as error:
        raise InvalidInput("read the body", error.found, error.next_step) from error


def _change(context: Context, what: tuple[str, ...], change: Callable[[], object]) -> Response:
    """Change the store, follow it at once in this process, and answer with the experiment as it now is."""
    name = what[1]
    if not context.store.versions(name):
        context.store.folder(name, "")  # raises NotFound, naming what comes close
    context.changes.run(what, change)
    context.models.refresh()
    return json_response(info.info(context.store, name))


ROUTES = (
    Route("GET", "/models/{name}/experiment", _experiment,
          "The experiment on a model, and what is known so far", response_type=ExperimentInfo),
    Route("POST", "/models/{name}/experiment", _begin, "Begin a shadow, a canary or a split, after its self-tests",
          scope="admin", request_type=ExperimentRequest, response_type=ExperimentInfo),
    Route("POST", "/models/{name}/experiment/promote", _promote, "Make the challenger the active version",
          scope="admin", response_type=ExperimentInfo),
    Route("POST", "/models/{name}/experiment/abort", _abort, "End the experiment: the active version answers alone",
          scope="admin", response_type=ExperimentInfo),
)  # fmt: skip

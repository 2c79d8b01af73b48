"""The route of the service at a glance: whether it answers rightly, what should be looked at, what each model does."""

import math
import platform
import socket
import time

import msgspec

from appliance import __version__, alarms
from appliance.alarms import Alarm, Level
from appliance.drift_report import DriftSummary
from appliance.errors import ApplianceError
from appliance.experiments import info, probation_record
from appliance.experiments.info import RunningExperiment
from appliance.experiments.probation_record import Probation
from appliance.monitoring.history_ring import quantile
from appliance.monitoring.last_failures import LastFailure
from appliance.predictor import Counts
from appliance.repository import Served
from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.routes import Route
from appliance.store import activation
from appliance.store.activation import Activation
from appliance.store.record import State

_STARTED = time.monotonic()  # about the start of this process: this module is imported once, at the start


class VersionCounts(msgspec.Struct):
    """What was asked of one version since the service started; times are sums in seconds of answered requests."""

    model: str
    version: str
    requests: int
    failures: int
    caller_failures: int
    """Of the failures, those by the caller's fault (4xx)."""
    service_failures: int
    """Those by this host's fault (5xx)."""
    rows: int
    request_seconds: float
    run_seconds: float
    p50_seconds: float | None
    """Half of the answered requests took at most so long; null before the first."""
    p99_seconds: float | None
    last: float
    """Unix time of the last prediction, 0 before it."""


class ModelAtAGlance(msgspec.Struct):
    """What one model does now; all that is known of it: /models/{name}."""

    name: str
    active: str | None
    """The version that the store wants to serve."""
    serving: str | None
    """The version that does serve in the process that answered."""
    state: State | None
    """Whether the active version was marked good; null when none is active."""
    previous: str | None
    """The version that roll back returns to."""
    since: str
    why: str
    problem: str
    """Why the active version does not serve, or why it should not (nobody who is trusted signed it); "" when it may."""
    experiment: RunningExperiment | None
    """What runs on it; see /models/{name}/experiment."""
    probation: Probation | None
    """This host's verdict on the active version; null when none is active."""
    drift: DriftSummary | None
    """Of the version that serves; null where it is not watched. See /models/{name}/drift."""


class Status(msgspec.Struct):
    """The service at a glance."""

    program: str
    host: str
    platform: str
    uptime_seconds: float
    """Of the process that answered."""
    ready: bool
    reasons: list[str]
    """Why it is not ready."""
    level: Level
    """The worst of the alarms: green without one."""
    alarms: list[Alarm]
    """What somebody should look at, the worst first, each with what to do."""
    tokens: bool
    """Whether callers need a token."""
    logged: bool
    """Whether predictions are logged, so that /models/{name}/answers has some."""
    models: list[ModelAtAGlance]
    counts: list[VersionCounts]
    last_failures: list[LastFailure]


def _status(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with the service at a glance."""
    found = context.readiness.look()
    raised = context.alarms(found)
    served = {model.name: model for model in context.models.served()}
    return json_response(
        Status(
            program=__version__,
            host=socket.gethostname(),
            platform=f"{platform.system()} {platform.machine()}",
            uptime_seconds=round(time.monotonic() - _STARTED, 3),
            ready=found.ready,
            reasons=found.reasons,
            level=alarms.level(raised),
            alarms=raised,
            tokens=bool(context.config.tokens_file) and context.config.auth == "tokens",
            logged=context.take_labels is not None,
            models=[glance(context, name, served.get(name)) for name in context.store.names()],
            counts=[_counts(*key, counts) for key, counts in sorted(context.counts().items())],
            last_failures=context.last_failures(),
        )
    )


def glance(context: Context, name: str, served: Served | None) -> ModelAtAGlance:
    """Return what one model does; damaged files are its `problem`, and leave the others shown."""
    problem = str(served.problem) if served and served.problem else ""
    try:
        now = activation.read(context.store, name)
    except ApplianceError as error:
        now, problem = Activation(), str(error)
    serving = served.loaded.version if served and served.loaded else None
    drift = context.drift(name, serving) if serving else None
    return ModelAtAGlance(
        name=name,
        active=now.active,
        serving=serving,
        state=now.state if now.active else None,
        previous=now.previous,
        since=now.since,
        why=now.why,
        problem=problem,
        experiment=info.running(context.store, name),
        probation=probation_record.described(context.store.state_dir, name, now),
        drift=drift.summary() if drift else None,
    )


def _counts(model: str, version: str, counts: Counts) -> VersionCounts:
    """Return one version's counts."""
    return VersionCounts(
        model=model,
        version=version,
        requests=counts.successes + counts.failures,
        failures=counts.failures,
        caller_failures=counts.caller_failures,
        service_failures=counts.service_failures,
        rows=counts.rows,
        request_seconds=counts.request_seconds,
        run_seconds=counts.run_seconds,
        p50_seconds=_quantile(counts, 0.5),
        p99_seconds=_quantile(counts, 0.99),
        last=counts.last,
    )


def _quantile(counts: Counts, level: float) -> float | None:
    """Return a quantile of the request times, None before the first."""
    found = quantile(counts.buckets, level)
    return None if math.isnan(found) else found


ROUTES = (Route("GET", "/status", _status, "The service at a glance", response_type=Status),)

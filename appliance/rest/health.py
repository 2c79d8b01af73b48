"""Whether the process lives, and whether it answers rightly right now: a real self-test inference, not a flag."""

import threading
import time
from weakref import WeakKeyDictionary

import msgspec

from appliance.errors import ApplianceError
from appliance.live import LoadedVersion, Served
from appliance.rest.exchange import Answer, Context, Request, json_answer
from appliance.rest.routes import Route
from appliance.store import activation

LEAST_AGE = 1.0
"""Seconds for which a self-test's result is good."""
SHARE = 0.02
"""Of one core that self-tests may take at most, however often a load balancer asks: a slow one is good for longer."""


class Live(msgspec.Struct):
    """The process answers."""

    live: bool = True


class ModelHealth(msgspec.Struct, omit_defaults=True):
    """One model's part of the answer."""

    ready: bool
    version: str | None = None
    """The version that serves."""
    reason: str = ""
    """Why it is not ready."""


class Ready(msgspec.Struct):
    """Whether predictions are answered; `reasons` is empty when they are."""

    ready: bool
    reasons: list[str]
    models: dict[str, ModelHealth]


def is_ready(context: Context) -> tuple[bool, Ready]:
    """Return whether every model that the store wants active is loaded here and passed its self-test just now.

    Not ready either: while the service stops, and with no active model, since nothing could be answered.
    """
    reasons: list[str] = []
    models: dict[str, ModelHealth] = {}
    try:
        models = _models(context)
    except ApplianceError as error:
        reasons.append(str(error))
    reasons += [f"{name}: {health.reason}" for name, health in models.items() if not health.ready]
    if not models and not reasons:
        reasons.append("no model is active; activate one: appliance activate NAME VERSION")
    if context.stopping():
        reasons.append("the service is stopping")
    return not reasons, Ready(not reasons, reasons, models)


def _live(context: Context, request: Request, variables: dict[str, str]) -> Answer:
    """Answer as long as the process does."""
    return json_answer(Live())


def _ready(context: Context, request: Request, variables: dict[str, str]) -> Answer:
    """Answer 200 or 503."""
    ready, details = is_ready(context)
    return json_answer(details, 200 if ready else 503)


ROUTES = (
    Route("GET", "/health/live", _live, "Whether the process answers", scope="none", gives=Live),
    Route("GET", "/health/ready", _ready, "Whether predictions are answered", scope="none", gives=Ready),
)


def _models(context: Context) -> dict[str, ModelHealth]:
    """Return the health of every model that has an active version in the store, read now: an activation of a moment ago
    must not be answered for by the version before it. Raises StoreError.
    """
    served = {model.name: model for model in context.predictor.models.served()}
    wanted = {name: activation.read(context.store, name).active for name in context.store.names()}
    return {name: _health(version, served.get(name)) for name, version in wanted.items() if version is not None}


def _health(wanted: str, served: Served | None) -> ModelHealth:
    """Return the health of a model whose active version is `wanted`."""
    loaded = served.loaded if served else None
    version = loaded.version if loaded else None
    if served and served.problem and served.wanted in (wanted, None):
        return ModelHealth(False, version, str(served.problem))
    if loaded is None or version != wanted:
        return ModelHealth(False, version, f"version {wanted} is not loaded yet")
    reason = _self_tests.reason(loaded)
    return ModelHealth(not reason, version, reason)


class _SelfTests:
    """The last self-test of each loaded version, run again when it is too old."""

    def __init__(self) -> None:
        """Begin with none."""
        self._results: WeakKeyDictionary[LoadedVersion, tuple[float, str]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def reason(self, version: LoadedVersion) -> str:
        """Return why `version` fails its self-test, "" when it passes."""
        with self._lock:  # held while it runs: many askers need one test
            good_until, reason = self._results.get(version, (0.0, ""))
            begun = time.monotonic()
            if begun >= good_until:
                reason = _failure(version)
                taken = time.monotonic() - begun
                self._results[version] = (begun + max(LEAST_AGE, taken / SHARE), reason)
        return reason


_self_tests = _SelfTests()


def _failure(version: LoadedVersion) -> str:
    """Run the self-test; return what failed, "" for nothing."""
    try:
        version.self_test()
    except ApplianceError as error:
        return str(error)
    return ""

"""Whether the process lives, and whether it answers rightly right now: a real self-test inference, not a flag."""

import time

import msgspec
from msgspec import UNSET, UnsetType

from appliance.errors import ApplianceError
from appliance.mqtt_state import MqttState
from appliance.repository import Served
from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.routes import Route
from appliance.store import activation, condition

SILENT_SECONDS = 15.0
"""After which the MQTT door, which reports every second, is said to be silent."""


class Live(msgspec.Struct):
    """The process answers."""

    live: bool = True


class ModelHealth(msgspec.Struct, omit_defaults=True):
    """One model's part of the answer."""

    ready: bool
    version: str | None = None
    """The version that serves."""
    wanted: str | None = None
    """The version that the store wants, where another one serves."""
    reason: str = ""
    """Why it is not ready, why another version serves than the store wants, or why the one that serves should not."""


class MqttHealth(msgspec.Struct):
    """The MQTT door's part of the answer; its problems do not take the HTTP door out."""

    connected: dict[str, bool]
    """Whether each broker (local, upstream) is connected."""
    problems: list[str]
    """What keeps messages from being answered or answers from being sent."""
    waiting: int
    """Answers on disk that no broker has acknowledged."""


class Ready(msgspec.Struct):
    """Whether predictions are answered; `reasons` is empty when they are."""

    ready: bool
    reasons: list[str]
    models: dict[str, ModelHealth]
    warnings: list[str]
    """What does not keep predictions from being answered, and wants mending, as a read-only state folder."""
    mqtt: MqttHealth | UnsetType = UNSET


def is_ready(context: Context) -> tuple[bool, Ready]:
    """Return whether every model that the store wants active has a version here that passed its self-test just now.

    The version before counts while the next one loads, and when that cannot be loaded: it answers, and to take the host
    out would make an outage of what is none. Not ready: while the service stops, and with no active model.
    """
    reasons: list[str] = []
    models: dict[str, ModelHealth] = {}
    try:
        models = _models(context)
    except ApplianceError as error:
        reasons.append(str(error))
    served = {model.name for model in context.models.served()}
    others = any(health.ready for health in models.values())
    for name, health in models.items():
        # One that was activated a moment ago is loaded in the next; the others need no pause for it.
        if not health.ready and (name in served or not others):
            reasons.append(f"{name}: {health.reason}")
    if not models and not reasons:
        reasons.append("no model is active; activate one: appliance activate NAME VERSION")
    if context.stopping():
        reasons.append("the service is stopping")
    mqtt = context.mqtt()
    warning = condition.look(context.store.state_dir).warning
    warnings = [warning] if warning else []
    return not reasons, Ready(not reasons, reasons, models, warnings, UNSET if mqtt is None else _mqtt(mqtt))


def _live(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer as long as the process does."""
    return json_response(Live())


def _ready(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer 200 or 503."""
    ready, details = is_ready(context)
    return json_response(details, 200 if ready else 503)


ROUTES = (
    Route("GET", "/health/live", _live, "Whether the process answers", scope="none", response_type=Live),
    Route("GET", "/health/ready", _ready, "Whether predictions are answered", scope="none", response_type=Ready),
)


def _models(context: Context) -> dict[str, ModelHealth]:
    """Return the health of every model that has an active version in the store, read now. Raises StoreError."""
    served = {model.name: model for model in context.models.served()}
    wanted = {name: activation.read(context.store, name).active for name in context.store.names()}
    return {name: _health(version, served.get(name)) for name, version in wanted.items() if version is not None}


def _health(wanted: str, served: Served | None) -> ModelHealth:
    """Return the health of a model whose active version is `wanted`."""
    loaded = served.loaded if served else None
    problem = str(served.problem) if served and served.problem else ""
    if loaded is None:
        return ModelHealth(False, None, wanted, problem or f"version {wanted} is not loaded yet")
    failed = loaded.failure()
    if loaded.version == wanted:
        return ModelHealth(not failed, wanted, None, failed or problem)
    return ModelHealth(not failed, loaded.version, wanted, failed or problem or f"version {wanted} is not loaded yet")


def _mqtt(state: MqttState) -> MqttHealth:
    """Return the health of the MQTT door by its last report."""
    age = time.monotonic() - state.updated
    silent = [f"no report for {age:.0f} seconds"] if age > SILENT_SECONDS else []
    return MqttHealth(state.connected, [*silent, *state.problems], state.waiting)

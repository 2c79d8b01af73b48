"""What keeps this process from answering rightly: a real self-test inference, not a flag. Knows no transport."""

import time
from collections.abc import Callable

import msgspec
from msgspec import UNSET, UnsetType

from appliance.errors import ApplianceError
from appliance.mqtt_state import MqttState
from appliance.repository import ModelRepository, Served
from appliance.store import activation, condition
from appliance.store.versions import Store

SILENT_SECONDS = 15.0
"""After which the MQTT listener, which reports every second, is said to be silent."""


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
    """MQTT's part of the answer; its problems do not stop HTTP from being ready."""

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


class Readiness:
    """Asked by health routes, by the watchdog, and by whoever else wants to know. Safe in any thread."""

    def __init__(
        self,
        models: ModelRepository,
        store: Store,
        *,
        stopping: Callable[[], bool] = lambda: False,
        mqtt: Callable[[], MqttState | None] = lambda: None,
    ) -> None:
        """`stopping`: whether the service finishes; `mqtt`: what the MQTT listener last reported, None for nothing."""
        self._models = models
        self._store = store
        self._stopping = stopping
        self._mqtt = mqtt

    def look(self) -> Ready:
        """Return whether every model that the store wants active has a version here that passed its self-test just now.

        The version before counts while the next one loads, and when that cannot be loaded: it answers, and to take the
        host out would make an outage of what is none. Not ready: while the service stops, and with no active model.
        """
        reasons: list[str] = []
        models: dict[str, ModelHealth] = {}
        try:
            models = self._health()
        except ApplianceError as error:
            reasons.append(str(error))
        served = {model.name for model in self._models.served()}
        others = any(health.ready for health in models.values())
        for name, health in models.items():
            # One that was activated a moment ago is loaded in the next; the others need no pause for it.
            if not health.ready and (name in served or not others):
                reasons.append(f"{name}: {health.reason}")
        if not models and not reasons:
            reasons.append("no model is active; activate one: appliance activate NAME VERSION")
        if self._stopping():
            reasons.append("the service is stopping")
        mqtt = self._mqtt()
        warning = condition.look(self._store.state_dir).warning
        warnings = [warning] if warning else []
        return Ready(not reasons, reasons, models, warnings, UNSET if mqtt is None else _mqtt_health(mqtt))

    def failure(self) -> str:
        """Return which version that serves fails its self-test and why, "" for none; whatever the store says."""
        for served in self._models.served():
            if served.loaded and (failure := served.loaded.failure()):
                return f"{served.name} {served.loaded.version}: {failure}"
        return ""

    def _health(self) -> dict[str, ModelHealth]:
        """Return the health of every model that has an active version in the store, read now. Raises StoreError."""
        served = {model.name: model for model in self._models.served()}
        wanted = {name: activation.read(self._store, name).active for name in self._store.names()}
        return {
            name: _model_health(version, served.get(name)) for name, version in wanted.items() if version is not None
        }


def _model_health(wanted: str, served: Served | None) -> ModelHealth:
    """Return the health of a model whose active version is `wanted`."""
    loaded = served.loaded if served else None
    problem = str(served.problem) if served and served.problem else ""
    if loaded is None:
        return ModelHealth(False, None, wanted, problem or f"version {wanted} is not loaded yet")
    failed = loaded.failure()
    if loaded.version == wanted:
        return ModelHealth(not failed, wanted, None, failed or problem)
    return ModelHealth(not failed, loaded.version, wanted, failed or problem or f"version {wanted} is not loaded yet")


def _mqtt_health(state: MqttState) -> MqttHealth:
    """Return the health of the MQTT listener by its last report."""
    age = time.monotonic() - state.updated
    silent = [f"no report for {age:.0f} seconds"] if age > SILENT_SECONDS else []
    return MqttHealth(state.connected, [*silent, *state.problems], state.waiting)

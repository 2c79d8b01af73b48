"""What somebody should look at on this host: each alarm in words, with what to do. Pure.

One list, for the dashboard's header and whoever else shows it. `red`: rows are not answered, or not rightly; `amber`:
they are, and something wants mending.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import msgspec

from appliance.drift_report import DriftSummary
from appliance.readiness import ModelHealth, Ready
from appliance.store.condition import Condition
from appliance.store.receipts import Receipt

Level = Literal["green", "amber", "red"]
LEVELS: Sequence[Level] = ("green", "amber", "red")

SHORT_BYTES, SCARCE_BYTES = 512 * 1024**2, 64 * 1024**2
"""Free space below which the disk is short (amber), and below which the next install or log may fail (red)."""
TAKEN_BACK_DAYS = 7
"""Days for which a version that was taken back is told, unless something newer was done to its model."""
LEAST_FAILURES = 10
"""Requests of callers that failed before that is told: somebody may try the API by hand."""
SHOWN_COLUMNS = 5


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of alarm: texts with {values} in braces."""

    level: Level
    found: str
    next: str


KINDS: dict[str, Kind] = {
    "nothing active": Kind(
        "amber",
        "No model is active, so nothing is answered.",
        "Install and activate one: appliance install BUNDLE, then appliance activate NAME VERSION.",
    ),
    "stopping": Kind("amber", "The service is stopping.", "Nothing: running requests are answered to their end."),
    "store": Kind("red", "The state folder cannot be read: {reason}.", "See: appliance doctor."),
    "self-test": Kind(
        "red",
        "{model} {version} fails its self-test, so its answers cannot be trusted: {reason}.",
        "Go back to the version before: appliance rollback {model}. Then check this host: appliance doctor.",
    ),
    "not loaded": Kind(
        "red",
        "{model} is not answered: version {wanted} cannot be loaded ({reason}).",
        "Wait a few seconds; if it stays, go back: appliance rollback {model}.",
    ),
    "other version": Kind(
        "amber",
        "{model} is answered by {version}, although {wanted} was activated: {reason}.",
        "Activate a version that can be loaded, or go back: appliance rollback {model}.",
    ),
    "not trusted": Kind(
        "amber",
        "{model} {version} answers, although it should not: {reason}.",
        "Install a version that a trusted key signed, or go back: appliance rollback {model}.",
    ),
    "broker": Kind(
        "red",
        "The MQTT broker ({broker}) is not connected: {reason}. Answers that wait on disk: {waiting}.",
        "Check that the broker runs and can be reached from here; nothing that was taken is lost meanwhile.",
    ),
    "mqtt": Kind(
        "amber",
        "MQTT: {reason}.",
        "See: appliance doctor, and the page on connecting a plant broker.",
    ),
    "state folder": Kind(
        "red",
        "{reason}: nothing can be installed, activated or rolled back.",
        "Make the folder writable or free some space; see: appliance doctor.",
    ),
    "read-only": Kind(
        "amber",
        "{reason}: nothing can be installed, activated or rolled back.",
        "Nothing, if that is meant; else mount the folder writable.",
    ),
    "disk short": Kind(
        "amber",
        "The disk of the state folder has {free} MiB left.",
        "Free some space: appliance remove NAME VERSION, or a smaller [log.predictions] max_bytes.",
    ),
    "disk scarce": Kind(
        "red",
        "The disk of the state folder has only {free} MiB left.",
        "Free some space now: appliance remove NAME VERSION, or a smaller [log.predictions] max_bytes.",
    ),
    "drift": Kind(
        "amber",
        "{model} {version}: rows no longer look as in training or as they did on this host ({columns}).",
        "Check the sensors and sources of these columns. "
        "If the change is meant: appliance drift accept {model} --why REASON.",
    ),
    "probation": Kind(
        "red",
        "{model} {version} fails its probation and could not be taken back: {reason}.",
        "Activate a version that works: appliance activate {model} VERSION.",
    ),
    "taken back": Kind(
        "amber",
        "{model} {version} was taken back on {when}: {reason}.",
        "Nothing at once: the version before answers. Find the cause before you try it again.",
    ),
    "service failures": Kind(
        "amber",
        "{failures} of {requests} requests to {model} failed in the last 15 minutes by this host's fault.",
        "See the service's log, and: appliance doctor.",
    ),
    "caller failures": Kind(
        "amber",
        "{failures} of {requests} requests to {model} were refused in the last 15 minutes: they do not fit the model.",
        "Compare what is sent with the model's columns; the last reason stands at the model.",
    ),
}
"""Every alarm. The dashboard's other languages say the same by these names."""


class Alarm(msgspec.Struct, frozen=True):
    """One thing that somebody should look at."""

    level: Level
    kind: str
    """One of KINDS."""
    model: str
    """Which model it is about, "" for the whole host."""
    values: dict[str, str]
    """What the texts name."""
    found: str
    next: str
    """What to do."""


@dataclass(frozen=True, slots=True)
class Failures:
    """How many requests to a model failed of late."""

    requests: int
    caller: int
    service: int


@dataclass(frozen=True, slots=True)
class Seen:
    """All that alarms are raised by."""

    ready: Ready
    condition: Condition
    drift: Mapping[str, tuple[str, DriftSummary]] = field(default_factory=dict)
    """{model: (version, its drift)}"""
    failures: Mapping[str, Failures] = field(default_factory=dict)
    failing: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """{model: (version, why)} of versions that fail their probation, and that nothing can be gone back from."""
    taken_back: Sequence[Receipt] = ()
    """See taken_back()."""


def of(seen: Seen) -> list[Alarm]:
    """Return the alarms, the worst first."""
    found = [*_readiness(seen.ready), *_mqtt(seen.ready), *_disk(seen.condition), *_models(seen)]
    return sorted(found, key=lambda one: -LEVELS.index(one.level))


def level(alarms: Sequence[Alarm]) -> Level:
    """Return the worst level, green without an alarm."""
    return max((one.level for one in alarms), key=LEVELS.index, default="green")


def taken_back(receipts: Sequence[Receipt], now: str) -> list[Receipt]:
    """Return the receipts of versions that this host took back by itself, which nothing newer has overtaken.

    `receipts` are the oldest first; `now` is as receipts.now() gives it.
    """
    latest: dict[str, Receipt] = {}
    for one in receipts:
        if one.outcome != "done" or one.what in ("install", "remove", "cut log", "erase", "accept drift"):
            continue
        if _by_itself(one):
            latest[one.model] = one
        else:
            latest.pop(one.model, None)
    return [one for one in latest.values() if _days(one.when, now) < TAKEN_BACK_DAYS]


def _readiness(ready: Ready) -> Iterator[Alarm]:
    """Yield what keeps models from being answered rightly."""
    known = {f"{name}: {health.reason}" for name, health in ready.models.items()}
    for reason in ready.reasons:
        if reason.startswith("no model is active"):
            yield _alarm("nothing active")
        elif reason == "the service is stopping":
            yield _alarm("stopping")
        elif reason not in known:
            yield _alarm("store", reason=reason)
    for name, health in ready.models.items():
        yield from _health(name, health, f"{name}: {health.reason}" in ready.reasons)


def _health(name: str, health: ModelHealth, counts: bool) -> Iterator[Alarm]:
    """Yield what is wrong with one model; one that was activated just now has a moment, so it does not count yet."""
    about = {"reason": _phrase(health.reason), "version": health.version or "", "wanted": health.wanted or ""}
    if not health.ready and health.version:
        yield _alarm("self-test", name, **about)
    elif not health.ready and counts:
        yield _alarm("not loaded", name, **about)
    elif health.ready and health.wanted and not health.reason.endswith("is not loaded yet"):
        yield _alarm("other version", name, **about)
    elif health.ready and not health.wanted and health.reason:
        yield _alarm("not trusted", name, **about)


def _mqtt(ready: Ready) -> Iterator[Alarm]:
    """Yield brokers that are not connected, and what else hinders messages."""
    mqtt = ready.mqtt
    if isinstance(mqtt, msgspec.UnsetType):
        return
    problems = list(mqtt.problems)
    for broker, connected in mqtt.connected.items():
        if not connected:
            reason = problems.pop(0) if problems else "it does not answer"
            yield _alarm("broker", broker=broker, reason=_phrase(reason), waiting=str(mqtt.waiting))
    for problem in problems:
        yield _alarm("mqtt", reason=_phrase(problem))


def _disk(condition: Condition) -> Iterator[Alarm]:
    """Yield what is wrong with the state folder."""
    if condition.hindrance:
        yield _alarm("read-only" if condition.read_only else "state folder", reason=condition.hindrance)
    elif condition.free_bytes is not None and condition.free_bytes < SHORT_BYTES:
        kind = "disk scarce" if condition.free_bytes < SCARCE_BYTES else "disk short"
        yield _alarm(kind, free=str(condition.free_bytes // 1024**2))


def _models(seen: Seen) -> Iterator[Alarm]:
    """Yield drift, versions that were taken back, and failures."""
    for name, (version, drift) in seen.drift.items():
        if drift.state == "drift":
            more = len(drift.columns) - SHOWN_COLUMNS
            columns = ", ".join(drift.columns[:SHOWN_COLUMNS]) + (f", +{more}" if more > 0 else "")
            yield _alarm("drift", name, version=version, columns=columns)
    for name, (version, why) in seen.failing.items():
        yield _alarm("probation", name, version=version, reason=_phrase(why))
    for one in seen.taken_back:
        yield _alarm("taken back", one.model, version=_taken(one), when=one.when, reason=_phrase(one.why))
    for name, lately in seen.failures.items():
        told = {"requests": str(lately.requests)}
        if lately.service:
            yield _alarm("service failures", name, failures=str(lately.service), **told)
        if lately.caller >= LEAST_FAILURES and 2 * lately.caller > lately.requests:
            yield _alarm("caller failures", name, failures=str(lately.caller), **told)


def _alarm(kind: str, model: str = "", **values: str) -> Alarm:
    """Return an alarm in words."""
    named = {"model": model, **values} if model else values
    told = KINDS[kind]
    return Alarm(told.level, kind, model, named, told.found.format(**named), told.next.format(**named))


def _phrase(text: str) -> str:
    """Return a text that a full stop can follow."""
    return text.strip().rstrip(".")


def _by_itself(receipt: Receipt) -> bool:
    """Return whether this host took a version back, and not a person: its judge gives evidence, or says probation."""
    told: Mapping[str, Any] = receipt.experiment or {}
    if receipt.what == "abort":
        return "evidence" in told
    return receipt.what == "roll back" and receipt.why.startswith("probation of ")


def _taken(receipt: Receipt) -> str:
    """Return the version that was taken back."""
    if receipt.what == "abort":
        return receipt.version
    return receipt.why.removeprefix("probation of ").partition(":")[0]


def _days(since: str, now: str) -> float:
    """Return the days between two moments as receipts.now() gives them; endless where one cannot be read."""
    try:
        return abs((datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds()) / 86400
    except (ValueError, TypeError):
        return float("inf")

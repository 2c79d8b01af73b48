"""Sparkplug B payloads (`payload = "sparkplug"`): metrics by name or alias, put together to one row a device.

Source: Eclipse Sparkplug 3.0.0, sections 4 (topics) and 6.4 (payload; its protobuf schema's field numbers are those
below). The library `protobuf` reads it.

A device says in its birth which metrics it has, under which aliases and with which values, and later only what changed
(report by exception). So the last value of each metric is kept in memory, by device, and a data message is answered
with the row that it makes of them. Births and deaths are not answered: a birth resets a device, a death ends it. After
a start of ours nothing is known of a device before its next birth; what its messages lack is then told as absent.

Threads: all of it is for the loop's thread.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from appliance import extras
from appliance.config import SubscriptionConfig
from appliance.errors import ConfigError
from appliance.mqtt.bad_message import BadMessage, too_large
from appliance.mqtt.codec import Call, Codec, message_id

MOST_METRICS = 100_000
"""Values that are kept of all devices together; the device that was silent longest is forgotten first."""
MOST_DEVICES = 10_000
"""Devices, and edge nodes, of which something is known."""
MOST_IN_ONE = 10_000
"""Metrics of one message."""
LONGEST_NAME = 256
"""Characters of a metric's name."""

_NAMESPACE = "spBv1.0"
_BIRTHS, _DEATHS, _DATA = ("NBIRTH", "DBIRTH"), ("NDEATH", "DDEATH"), ("NDATA", "DDATA")
_SIGNED = {1: 8, 2: 16, 3: 32, 4: 64}  # datatype -> bits: sent as unsigned numbers, in two's complement
_TRIED = "read the Sparkplug payload"


class Metric(NamedTuple):
    """One metric of a payload; `value` is None for null, and for what is no number, boolean or text."""

    name: str
    alias: int | None
    value: Any
    historical: bool


@dataclass(slots=True)
class _Device:
    """What is known of one device, or of the edge node itself."""

    values: dict[str, Any] = field(default_factory=dict)


class SparkplugCodec(Codec):
    """Reads Sparkplug B; its answers are JSON."""

    def __init__(self, config: SubscriptionConfig, **limits: Any) -> None:
        """Raises ConfigError where the library is absent, and for settings that have no meaning here."""
        if config.at:
            place = f"[[mqtt.subscriptions]] {config.topic!r} at"
            raise ConfigError(place, 'it has no meaning with payload = "sparkplug"', "name metrics in fields")
        super().__init__(config, **limits)
        _payload_class()
        self._wanted = frozenset(config.fields.values())
        self._devices: OrderedDict[tuple[str, ...], _Device] = OrderedDict()  # (group, edge node[, device])
        self._aliases: dict[tuple[str, ...], dict[int, str]] = {}  # (group, edge node) -> alias -> name
        self._kept = 0

    def read(self, topic: str, payload: bytes, correlation: bytes = b"") -> Call:
        """Return what a message asks; no rows where it asks nothing. Raises BadMessage."""
        if len(payload) > self._max_bytes:
            raise too_large(len(payload), self._max_bytes)
        kind, place = _place(topic)
        row = self._row(kind, place, [] if kind in _DEATHS else metrics(payload))
        if row is None:
            return Call("")
        identifier = self._id(row) or message_id(topic, payload, correlation)
        echo = self._echo(row, len(payload)) if self._config.echo else {}
        return Call(identifier, [row], None, echo)

    def document(self, payload: bytes) -> Any:
        """Return a message's own metrics, by name, else by alias. Raises BadMessage."""
        return {key: one.value for one in metrics(payload) for key in _keys(one, one.name)}

    def _row(self, kind: str, place: tuple[str, ...], found: list[Metric]) -> dict[str, Any] | None:
        """Take note of a message of a device; return the row that it makes, None where it makes none."""
        if kind in _DEATHS:
            self._forget(place)
            return None
        if kind not in (*_BIRTHS, *_DATA):
            return None
        edge = place[:2]
        if kind in _BIRTHS:
            self._forget(place)
            self._learn(edge, {one.alias: one.name for one in found if one.alias is not None and one.name})
        names = self._aliases.get(edge, {})
        new = {key: one for one in found for key in _keys(one, one.name or _known(names, one.alias))}
        device = self._devices.setdefault(place, _Device())
        self._devices.move_to_end(place)
        row = device.values | {key: one.value for key, one in new.items()}
        self._keep(device, {key: one.value for key, one in new.items() if not one.historical})
        if kind in _BIRTHS or (self._wanted and self._wanted.isdisjoint(new)):
            return None
        return row

    def _learn(self, edge: tuple[str, ...], names: dict[int, str]) -> None:
        """Take note of the aliases of a birth; they are an edge node's, whichever of its devices has them."""
        known = self._aliases.setdefault(edge, {})
        known |= names
        if len(known) > MOST_METRICS:
            known.clear()
        while len(self._aliases) > MOST_DEVICES:
            del self._aliases[next(iter(self._aliases))]

    def _keep(self, device: _Device, values: dict[str, Any]) -> None:
        """Keep the last values of a device, and forget others where there are too many."""
        self._kept -= len(device.values)
        device.values |= values
        self._kept += len(device.values)
        while len(self._devices) > MOST_DEVICES or (self._kept > MOST_METRICS and len(self._devices) > 1):
            _, oldest = self._devices.popitem(last=False)
            self._kept -= len(oldest.values)
        if self._kept > MOST_METRICS:  # of this one alone
            device.values.clear()
            self._kept = 0

    def _forget(self, place: tuple[str, ...]) -> None:
        """Forget a device; with an edge node, all of its devices."""
        if len(place) == 2:
            self._aliases.pop(place, None)
        for known in [one for one in self._devices if one[: len(place)] == place]:
            self._kept -= len(self._devices.pop(known).values)


def metrics(payload: bytes) -> list[Metric]:
    """Return the metrics of a payload. Raises BadMessage for what is none."""
    from google.protobuf.message import DecodeError

    message = _payload_class()()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        found = "it is no Sparkplug B payload"
        raise BadMessage("payload", _TRIED, found, "send protobuf as Sparkplug B has it") from error
    if len(message.metrics) > MOST_IN_ONE:
        found = f"it has {len(message.metrics)} metrics, {MOST_IN_ONE} may be"
        raise BadMessage("too_large", _TRIED, found, "send fewer at once")
    return [_metric(one) for one in message.metrics]


def _metric(sent: Any) -> Metric:
    """Return one metric."""
    alias = sent.alias if sent.HasField("alias") else None
    if len(sent.name) > LONGEST_NAME:
        raise BadMessage("too_large", _TRIED, f"a metric's name has {len(sent.name)} characters", "send a short name")
    held = sent.WhichOneof("value")
    value = getattr(sent, held) if held and not sent.is_null else None
    bits = _SIGNED.get(sent.datatype)
    if bits and isinstance(value, int) and not isinstance(value, bool):
        value &= (1 << bits) - 1
        value -= (value >> (bits - 1)) << bits
    return Metric(sent.name, alias, value, sent.is_historical)


def _keys(metric: Metric, name: str) -> list[str]:
    """Return the names under which a metric is found in a row: its own, and `alias:7`."""
    keys = [name] if name else []
    return keys if metric.alias is None else [*keys, f"alias:{metric.alias}"]


def _known(names: dict[int, str], alias: int | None) -> str:
    """Return the name that a birth gave to an alias, "" where none did."""
    return "" if alias is None else names.get(alias, "")


def _place(topic: str) -> tuple[str, tuple[str, ...]]:
    """Return the kind of a message and its (group, edge node) or (group, edge node, device). Raises BadMessage."""
    levels = topic.split("/")
    levels = levels[levels.index(_NAMESPACE) :] if _NAMESPACE in levels else []
    if len(levels) not in (4, 5):
        if len(levels) == 3 and levels[1] == "STATE":  # of a host application
            return "STATE", ()
        found = f"{topic[:80]!r} is no topic of Sparkplug B"
        raise BadMessage("form", _TRIED, found, f"publish to {_NAMESPACE}/GROUP/TYPE/EDGE[/DEVICE]")
    return levels[2], (levels[1], *levels[3:])


@cache
def _payload_class() -> Any:
    """Return the class of a payload, made from the schema. Raises ConfigError where the library is absent."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        tried, found = '[[mqtt.subscriptions]] payload = "sparkplug"', "protobuf is not installed"
        raise ConfigError(tried, found, extras.how_to_get("sparkplug")) from error
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug_b.proto", package="appliance.sparkplug", syntax="proto2")
    payload = file.message_type.add(name="Payload")
    metric = payload.nested_type.add(name="Metric")
    metric.oneof_decl.add(name="value")
    plain = (
        ("name", 1, kinds.TYPE_STRING), ("alias", 2, kinds.TYPE_UINT64), ("datatype", 4, kinds.TYPE_UINT32),
        ("is_historical", 5, kinds.TYPE_BOOL), ("is_null", 7, kinds.TYPE_BOOL),
    )  # fmt: skip
    values = (
        ("int_value", 10, kinds.TYPE_UINT32), ("long_value", 11, kinds.TYPE_UINT64),
        ("float_value", 12, kinds.TYPE_FLOAT), ("double_value", 13, kinds.TYPE_DOUBLE),
        ("boolean_value", 14, kinds.TYPE_BOOL), ("string_value", 15, kinds.TYPE_STRING),
    )  # fmt: skip
    for name, number, kind in plain:
        metric.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    for name, number, kind in values:
        metric.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL, oneof_index=0)
    name = ".appliance.sparkplug.Payload.Metric"
    payload.field.add(name="metrics", number=2, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_REPEATED, type_name=name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("appliance.sparkplug.Payload"))

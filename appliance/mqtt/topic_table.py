"""The table of topics: subscriptions, feeds of rows, and our own; ensures that no answer comes back as a message."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from appliance.budget import default_bytes
from appliance.config import MqttConfig, RowsConfig, SubscriptionConfig
from appliance.errors import ConfigError, InvalidInput
from appliance.memory import limit_bytes
from appliance.mqtt.codec import RESERVED, Codec
from appliance.mqtt.overlaps import Ask, covering, identifiers, numbered
from appliance.mqtt.rights import Rights
from appliance.mqtt.routing_key import RoutingKey
from appliance.mqtt.topics import Filter, KeyedFilter, Template, answer_template, is_topic, values_of

_KEPT, _LONGEST_KEPT = 4096, 512  # topics whose subscriptions are remembered, and characters of one

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The model that answers, and how."""

    model: str | None
    version: str | None
    fields: dict[str, str]
    codec: Codec
    way: int
    qos: int
    retain: bool
    expiry: int
    unit: str = ""
    """Of a numeric prediction."""
    quality: bool = False
    """Whether its answers tell the quality of each row, also unasked."""
    key: RoutingKey | None = None
    """By which key its messages are routed; None for rows, which have their own."""


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One subscription, checked."""

    config: SubscriptionConfig
    filter: Filter
    template: Template | None
    guard: tuple[Filter, ...]
    """What the template must not give."""
    respond: tuple[Filter, ...]
    """Where a Response Topic may lie."""
    target: Target
    key: str
    """A unique key: its topic filter, and more where several have the same."""


@dataclass(frozen=True, slots=True, eq=False)
class RowRecipe:
    """One recipe for rows, checked."""

    config: RowsConfig
    feeds: tuple[KeyedFilter, ...]
    template: Template
    guard: tuple[Filter, ...]
    target: Target


class TopicTable:
    """What the configuration asks for. Raises ConfigError when it cannot be, or would go round in a circle."""

    def __init__(self, config: MqttConfig, client_id: str, *, way: int) -> None:
        """`way` is that of answers that go to a topic of the configuration."""
        base = Template(config.topic, ["client_id"]).render({"client_id": client_id.replace("/", "-")})
        self.online, self.status, self.errors = (f"{base}/{name}" for name in ("online", "status", "errors"))
        self.drift = f"{base}/drift"
        """Below it, each model's drift."""
        self.quality = f"{base}/quality"
        """Below it, whether each model's labels are worse than its past."""
        self.birth = f"{config.discovery_prefix}/status" if config.discovery else ""
        """Where Home Assistant says that it has started; "" when it is not told of us."""
        self.rights = Rights(config, base, self.is_ours)
        most = default_bytes(limit_bytes())
        topics = [one.topic for one in config.subscriptions]
        self.subscriptions = [
            _subscription(one, config, way, self.rights, alone=topics.count(one.topic) == 1, most=most)
            for one in config.subscriptions
        ]
        self.rows = [_rows(one, config, way, self.rights) for one in config.rows]
        self._check(config, way)
        self._filters = self._unique()
        self._filter_of = identifiers([one.text for one, _ in self._filters])
        self._five = config.protocol == "5"
        self.asks(with_identifiers=self._five)
        self.asked = _remembered(self._asked)
        self.fed = _remembered(self._fed)

    def asks(self, *, with_identifiers: bool) -> list[Ask]:
        """Return what to ask the broker for, so that each publish counts once.

        Raises ConfigError for filters that overlap where only identifiers could tell whose a copy is.
        """
        return numbered(self._filters) if with_identifiers and self._five else covering(self._filters)

    def filters(self) -> list[str]:
        """Return the filters that the broker's session is to have."""
        return [ask.text for ask in self.asks(with_identifiers=True)]

    def is_ours(self, topic: str) -> bool:
        """Return whether what is published to `topic` would come back to us as a message."""
        return bool(self.asked(topic, ()) or self.fed(topic, ()))

    def answer_topic(self, subscription: Subscription, topic: str) -> str:
        """Return where a subscription's answers to messages of a topic go; "" for nowhere."""
        parts = subscription.filter.match(topic)
        if subscription.template is None or parts is None:
            return ""
        try:
            return subscription.template.render(values_of(topic, parts), subscription.guard)
        except InvalidInput:
            return ""

    def _asked(self, topic: str, copy_of: tuple[int, ...] = ()) -> tuple[tuple[Subscription, str], ...]:
        """Return the subscriptions that match a topic, each with where its answers go; "" for nowhere.

        `copy_of` are the message's subscription identifiers: the other filters that match have a copy of their own.
        """
        texts = self._texts(copy_of)
        meant = (one for one in self.subscriptions if one.filter.match(topic) is not None)
        return tuple((one, self.answer_topic(one, topic)) for one in meant if not texts or one.filter.text in texts)

    def _fed(self, topic: str, copy_of: tuple[int, ...] = ()) -> tuple[tuple[int, int, dict[str, str]], ...]:
        """Return (index of rows, index of feed, key) of what a topic feeds; `copy_of` as in _asked()."""
        texts = self._texts(copy_of)
        found = (
            (index, place, feed.match(topic))
            for index, rows in enumerate(self.rows)
            for place, feed in enumerate(rows.feeds)
            if not texts or feed.filter.text in texts
        )
        return tuple((index, place, key) for index, place, key in found if key is not None)

    def _texts(self, copy_of: tuple[int, ...]) -> set[str]:
        """Return the filters that identifiers stand for; none for those of an earlier configuration.

        What such a message is, its topic must say, or it would be lost.
        """
        return {self._filter_of[number] for number in copy_of if number in self._filter_of}

    def _unique(self) -> list[tuple[Filter, int]]:
        """Return (filter, QoS) of everything that is subscribed to, each filter once."""
        asked = [(one.filter, one.config.qos) for one in self.subscriptions]
        asked += [(feed.filter, rows.config.qos) for rows in self.rows for feed in rows.feeds]
        asked += [(Filter(self.birth), 1)] if self.birth else []
        unique = {filter_.text: filter_ for filter_, _ in asked}
        return [(unique[text], max(qos for other, qos in asked if other.text == text)) for text in unique]

    def _check(self, config: MqttConfig, way: int) -> None:
        """Raise ConfigError for what cannot be."""
        if not self.subscriptions and not self.rows:
            raise ConfigError("configuration [mqtt]", "nothing is subscribed to", "add [[mqtt.subscriptions]]")
        keys = [one.key for one in self.subscriptions]
        if len(set(keys)) != len(keys):
            twice = next(one for one in self.subscriptions if keys.count(one.key) > 1).config
            found = f"{twice.topic!r} stands there twice with the same model and answer"
            raise ConfigError("configuration [[mqtt.subscriptions]]", found, "leave one out")
        names = [one.config.name for one in self.rows]
        if len(set(names)) != len(names):
            raise ConfigError("configuration [[mqtt.rows]]", "two have the same name", "name each differently")
        if config.discovery and not is_topic(self.birth):
            raise ConfigError("configuration [mqtt] discovery_prefix", "it is no topic", "leave out + and #")
        own = [
            Filter(topic) for topic in (self.online, self.status, self.errors, f"{self.drift}/+", f"{self.quality}/+")
        ]
        local = way == 0
        given = [one.template for one in self.subscriptions if one.template and local]
        given += [one.template for one in self.rows if local]
        taken = [one.filter for one in self.subscriptions] + [feed.filter for one in self.rows for feed in one.feeds]
        for published in [*own, *(template.as_filter() for template in given)]:
            for filter_ in taken:
                if filter_.overlaps(published):
                    found = f"what we publish to {published.text!r} would come back by the filter {filter_.text!r}"
                    raise ConfigError(
                        "configuration [mqtt]", found, "choose other topics for answers, or narrower filters"
                    )


def _remembered(find: Callable[[str, tuple[int, ...]], T]) -> Callable[[str, tuple[int, ...]], T]:
    """Return a function with a cache of the last topics; long ones are not kept, since senders choose them."""
    kept = lru_cache(maxsize=_KEPT)(find)

    def remembered(topic: str, copy_of: tuple[int, ...] = ()) -> T:
        return kept(topic, copy_of) if len(topic) <= _LONGEST_KEPT else find(topic, copy_of)

    return remembered


def _subscription(
    config: SubscriptionConfig, mqtt: MqttConfig, way: int, rights: Rights, *, alone: bool, most: int
) -> Subscription:
    """Return a subscription, checked; `alone` says whether no other has the same topic filter.

    `most` in bytes is what one of its messages may become in memory.
    """
    filter_ = Filter(config.topic)
    respond = rights.respond_filters(config)
    labels = config.kind == "labels"
    if labels and (config.payload == "value" or config.answer or config.respond or config.echo):
        found = 'with kind = "labels" nothing is answered, and a payload is a document'
        raise ConfigError(f"[[mqtt.subscriptions]] {config.topic!r}", found, "leave out answer, respond, echo, payload")
    if labels and not config.model:
        next_step = "set model: whose predictions they are of"
        raise ConfigError(f"[[mqtt.subscriptions]] {config.topic!r}", 'kind = "labels" names no model', next_step)
    if not labels and not config.answer and (not respond or mqtt.protocol != "5"):
        next_step = (
            'set answer, or with protocol = "5" respond = ["FILTER"], under which Response Topics are answered to'
        )
        raise ConfigError(f"[[mqtt.subscriptions]] {config.topic!r}", "its answers go nowhere", next_step)
    unused = [key for key in ("at", "fields", "id", "echo") if config.payload == "value" and getattr(config, key)]
    if unused:
        found = f'{", ".join(unused)} has no meaning with payload = "value"'
        raise ConfigError(f"[[mqtt.subscriptions]] {config.topic!r}", found, 'leave it out, or use payload = "json"')
    template = answer_template(config.answer, filter_) if config.answer else None
    kind = _sparkplug() if config.payload == "sparkplug" else Codec
    codec = kind(config, max_bytes=mqtt.max_payload_bytes, max_rows=mqtt.max_rows, max_decoded=most)
    target = Target(
        config.model or None, config.version or None, config.fields, codec, way, config.answer_qos, config.retain,
        config.expiry, config.unit, config.quality,
        RoutingKey(config.key, filter_, codec, of_values=config.payload == "value"),
    )  # fmt: skip
    key = config.topic if alone else "\n".join((config.topic, config.model, config.version, config.answer))
    return Subscription(config, filter_, template, rights.guard(template) if template else (), respond, target, key)


def _sparkplug() -> type[Codec]:
    """Return the codec of Sparkplug B, imported where it is asked for."""
    from appliance.mqtt.sparkplug import SparkplugCodec

    return SparkplugCodec


def _rows(config: RowsConfig, mqtt: MqttConfig, way: int, rights: Rights) -> RowRecipe:
    """Return a recipe for rows, checked."""
    place = f"[[mqtt.rows]] {config.name!r}"
    if not config.feeds:
        raise ConfigError(place, "it has no feeds", "add [[mqtt.rows.feeds]]")
    feeds = tuple(KeyedFilter(feed.topic) for feed in config.feeds)
    if len({frozenset(feed.names) for feed in feeds}) != 1:
        raise ConfigError(place, "its feeds have different keys", "use the same names in braces in every topic")
    columns = [column for feed in config.feeds for column in feed.columns]
    if len(set(columns)) != len(columns) or not columns:
        raise ConfigError(place, "a column is fed twice, or none is", "feed each column once")
    if RESERVED.intersection(feeds[0].names):
        raise ConfigError(place, f"its key has one of {', '.join(sorted(RESERVED))}", "name the key otherwise")
    template = Template(config.answer, feeds[0].names)
    codec = Codec(SubscriptionConfig(topic=config.name), max_bytes=mqtt.max_payload_bytes, max_rows=1)
    target = Target(
        config.model or None, config.version or None, {}, codec, way, config.answer_qos, config.retain, config.expiry,
        config.unit, config.quality,
    )  # fmt: skip
    return RowRecipe(config, feeds, template, rights.guard(template), target)

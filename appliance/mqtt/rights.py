"""Which topics an answer may go to when the message chooses: no sender may publish through us where it could not. Pure.

A message's Response Topic (MQTT 5.0, 3.3.2.3.5) is followed only under the filters of `respond`, and never to topics
that are the appliance's own, Home Assistant's discovery or subscribed to by us. What fills the places of `answer` comes
from the message's topic, and is held to the same topics, but for what the configuration names outright.
"""

from collections.abc import Callable, Sequence

from appliance.config import MqttConfig, SubscriptionConfig
from appliance.errors import ConfigError
from appliance.mqtt.topics import Filter, Template, is_topic


class Rights:
    """Where answers may go."""

    def __init__(self, config: MqttConfig, base: str, is_ours: Callable[[str], bool]) -> None:
        """`base` is the topic that our own are under; `is_ours` says whether a topic is subscribed to by us."""
        self._is_ours = is_ours
        self._own = Filter(f"{base}/#")
        self._family = _family(config.topic) or self._own
        prefix = config.discovery_prefix
        known = is_topic(prefix)
        self._discovery = Filter(f"{prefix}/#") if known else None
        # What Home Assistant acts on; states may well lie beside it where the configuration says so.
        acted_on = ("status", "+/+/config", "+/+/+/config")
        self._commands = [Filter(f"{prefix}/{rest}") for rest in acted_on] if known else []

    def respond_filters(self, config: SubscriptionConfig) -> tuple[Filter, ...]:
        """Return what a subscription's `respond` allows. Raises ConfigError."""
        place = f"[[mqtt.subscriptions]] {config.topic!r} respond"
        if config.respond is True:
            next_step = 'list the filters of allowed Response Topics, as respond = ["reply/#"]'
            raise ConfigError(place, "true would let every sender choose where we publish", next_step)
        filters = tuple(Filter(text) for text in config.respond or ())
        never = [self._own, self._family, *([self._discovery] if self._discovery else [])]
        for one in filters:
            if one.shared or one.text.startswith("$") or any(filter_.covers(one) for filter_ in never):
                found = f"no answer ever goes to what {one.text!r} matches"
                raise ConfigError(place, found, "name topics of those who ask")
        return filters

    def may_respond(self, topic: str, allowed: Sequence[Filter]) -> bool:
        """Return whether a message may have its answer published to `topic`."""
        if not is_topic(topic) or not any(one.match(topic) is not None for one in allowed):
            return False
        never = (self._own, self._family, self._discovery)
        return not any(one and one.match(topic) is not None for one in never) and not self._is_ours(topic)

    def guard(self, template: Template) -> tuple[Filter, ...]:
        """Return the filters of topics that a template must not give.

        Raises ConfigError where it can give no others, or names one outright.
        """
        given = template.as_filter()
        guard = [self._own]
        if not self._family.covers(given):
            guard.append(self._family)
        if self._discovery and not self._discovery.covers(given):
            guard.append(self._discovery)
        guard += self._commands
        if any(one.covers(given) for one in guard):
            found = "the appliance's own topics and Home Assistant's are published to by nobody else"
            raise ConfigError(f"topic {template.text!r} of answers", found, "choose another")
        return tuple(guard)


def _family(text: str) -> Filter | None:
    """Return the filter of all appliances' own topics: what `[mqtt] topic` has before its first place."""
    literal: list[str] = []
    for level in text.split("/"):
        if "{" in level:
            break
        literal.append(level)
    return Filter("/".join([*literal, "#"])) if literal else None

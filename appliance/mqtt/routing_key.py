"""By which key a message is routed while an experiment runs: a part of its topic, or a field of its payload."""

from typing import Any

from appliance.errors import ConfigError, InvalidInput
from appliance.mqtt.codec import Codec, at_path
from appliance.mqtt.messages import Message
from appliance.mqtt.topics import Filter, Template, answer_template, values_of

LONGEST = 256
"""Characters of a key that count."""


class RoutingKey:
    """A subscription's `key`, checked. It costs nothing until it is asked for."""

    def __init__(self, text: str, filter_: Filter, codec: Codec, *, of_values: bool) -> None:
        """`of_values` says that payloads are one value each. Raises ConfigError for a key that cannot be."""
        self._filter = filter_
        self._codec = codec
        self._template: Template | None = answer_template(text, filter_) if "{" in text else None
        self._path = "" if self._template else text
        if self._path and of_values:
            found = 'a path has no meaning with payload = "value"'
            raise ConfigError(f"[[mqtt.subscriptions]] {filter_.text!r} key", found, "use {1} for the first wildcard")

    def of(self, message: Message) -> str:
        """Return a message's key, "" where it has none. What is wrong with its payload is said when it is read."""
        if self._template is None:
            return self._in_payload(message) if self._path else ""
        parts = self._filter.match(message.topic)
        if parts is None:
            return ""
        try:
            return self._template.render(values_of(message.topic, parts))[:LONGEST]
        except InvalidInput:  # an empty level
            return ""

    def _in_payload(self, message: Message) -> str:
        """Return the field at the path as text."""
        try:
            value: Any = at_path(self._codec.document(message.payload), self._path)
        except InvalidInput:
            return ""
        plain = isinstance(value, str | int | float) and not isinstance(value, bool)
        return str(value)[:LONGEST] if plain else ""

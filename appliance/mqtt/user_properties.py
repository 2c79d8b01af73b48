"""User properties of messages (MQTT 5, 3.3.2.3.7): what goes back with an answer, and the trace that they may name."""

from appliance.mqtt.bad_message import BadMessage
from appliance.mqtt.messages import Message
from appliance.trace_context import TraceContext, read_pairs

LONGEST = 4096
"""Bytes of all user properties of a message, which go back and wait with the answer as well."""
OWN = frozenset({"model", "version", "replayed", "predicted_at"})
"""Those that an answer has of its own."""


def check(message: Message) -> None:
    """Raise BadMessage for user properties that an answer cannot have."""
    size = _size(message)
    if size > LONGEST:
        found = f"they have {size} bytes, {LONGEST} may be"
        raise BadMessage("too_large", "read the user properties", found, "send fewer")


def passed_on(message: Message) -> tuple[tuple[str, str], ...]:
    """Return those that go back with an answer: all but our own names."""
    return tuple(one for one in message.user if one[0] not in OWN) if message.user else ()


def trace(message: Message) -> TraceContext | None:
    """Return the trace that a message belongs to; not one that is too long to go back."""
    return read_pairs(message.user) if _size(message) <= LONGEST else None


def _size(message: Message) -> int:
    return sum(len(name.encode()) + len(value.encode()) for name, value in message.user)

"""The two packets of every message, PUBLISH and PUBACK, as bytes. Pure.

paho spends most of a message's time on them, some fifty microseconds of objects; it keeps the connection, which is all
the rest. Source: MQTT 5.0, sections 2.1, 2.2.2, 3.3 and 3.4; MQTT 3.1.1 is the same without properties.
"""

import struct
from dataclasses import replace
from functools import lru_cache

from appliance.mqtt.messages import Message, PublishProperties

PUBLISH, PUBACK = 0x30, 0x40
"""The kinds of packet, in the upper half of the first byte."""

REASONS = {
    0x80: "unspecified error", 0x83: "implementation specific error", 0x87: "not authorized",
    0x90: "topic name invalid", 0x91: "packet identifier in use", 0x95: "packet too large", 0x97: "quota exceeded",
    0x99: "payload format invalid",
}  # fmt: skip
"""Reason codes by which a broker refuses a message (MQTT 5.0, 3.4.2.1; mosquitto has 0x95 too)."""
PACKET_TOO_LARGE = REASONS[0x95]

_EXPIRY, _FORMAT, _CONTENT_TYPE, _RESPONSE, _CORRELATION, _USER = 2, 1, 3, 8, 9, 38
_FIXED = {1: 1, 2: 4, 35: 2}  # property -> bytes of its value
_SIZED = {3, 8, 9}  # properties with a length before their value
_SUBSCRIPTION_ID = 11
_OWN = 2  # user properties that every answer of a model has
SHOWN = 256
"""Bytes that are kept of a payload that is too large."""
LARGEST = 268_435_460
"""Bytes of a packet, as MQTT can write its length (1.5.5)."""


class MalformedPacket(ValueError):
    """Bytes that no broker should send: the connection must be closed."""


def extent(data: bytearray, place: int) -> tuple[int, int] | None:
    """Return where the body of the packet at `place` starts and will end; None while its length has not arrived."""
    size = len(data)
    length = 0
    for count in range(4):
        at = place + 1 + count
        if at >= size:
            return None
        byte = data[at]
        length |= (byte & 127) << (7 * count)
        if byte < 128:
            return at + 1, at + 1 + length
    raise MalformedPacket("the length of a packet has more than four bytes")


def find(data: bytearray, place: int) -> tuple[int, int] | None:
    """Return where the body of the packet at `place` starts and ends; None while it has not arrived whole."""
    found = extent(data, place)
    return found if found and found[1] <= len(data) else None


def read_publish(first: int, body: bytes, *, five: bool) -> Message:
    """Return the message of a PUBLISH whose first byte is `first`. Raises MalformedPacket."""
    qos = first >> 1 & 3
    if qos > 1:
        raise MalformedPacket(f"a message of QoS {qos}, which was not asked for")
    try:
        place = 2 + int.from_bytes(body[:2], "big")
        topic = body[2:place].decode()
        packet_id = 0
        if qos:
            packet_id = int.from_bytes(body[place : place + 2], "big")
            place += 2
        response, correlation = "", b""
        identifiers: tuple[int, ...] = ()
        user: tuple[tuple[str, str], ...] = ()
        if five:
            if body[place]:
                place, response, correlation, identifiers, user = _read_properties(body, place)
            else:
                place += 1
    except (IndexError, UnicodeDecodeError) as error:
        raise MalformedPacket(str(error)) from error
    if place > len(body) or (qos and not packet_id):
        raise MalformedPacket("a message is shorter than it says")
    return Message(
        topic, body[place:], qos, packet_id, bool(first & 1), bool(first & 8), response, correlation, identifiers, user
    )


def read_beginning(first: int, part: bytes, length: int, *, five: bool) -> Message:
    """Return the message of a PUBLISH of which `part` is at hand, the beginning of a body of `length` bytes.

    Its payload is the beginning of the true one, and `unread` says how many bytes that has. Raises MalformedPacket.
    """
    try:
        message = read_publish(first, part, five=five)
    except MalformedPacket:  # its properties end later: topic and identifier are enough to acknowledge it
        message = read_publish(first, part[: 4 + int.from_bytes(part[:2], "big")], five=False)
    payload = message.payload
    return replace(message, payload=payload[:SHOWN], unread=length - len(part) + len(payload))


def read_puback(body: bytes) -> tuple[int, str]:
    """Return (packet id, refusal) of a PUBACK, refusal "" when the broker has the message. Raises MalformedPacket."""
    if len(body) < 2:
        raise MalformedPacket("an acknowledgement without its number")
    reason = body[2] if len(body) > 2 else 0
    return int.from_bytes(body[:2], "big"), REASONS.get(reason, f"reason {reason:#x}") if reason >= 0x80 else ""


def publish(
    topic: str,
    payload: bytes,
    packet_id: int,
    *,
    qos: int = 1,
    retain: bool = False,
    properties: PublishProperties | None,
    five: bool,
) -> bytes:
    """Return a PUBLISH. `packet_id` counts at QoS 1 alone. Raises MalformedPacket for what is too long."""
    name = topic.encode()
    number = packet_id.to_bytes(2, "big") if qos else b""
    encoded = _properties(properties) if five else b""
    length = 2 + len(name) + len(number) + len(encoded) + len(payload)
    if length > LARGEST - 5 or len(name) > 65535:
        raise MalformedPacket(f"a message of {length} bytes")
    first = bytes([PUBLISH | qos << 1 | retain])
    return b"".join((first, _variable(length), len(name).to_bytes(2, "big"), name, number, encoded, payload))


def puback(packet_id: int) -> bytes:
    """Return the PUBACK of a message."""
    return struct.pack("!BBH", PUBACK, 2, packet_id)


def _properties(properties: PublishProperties | None) -> bytes:
    """Return properties as bytes, with their length; that of none where there are none."""
    if properties is None:
        return b"\0"
    return _cached(properties) if not properties.correlation and len(properties.user) <= _OWN else _packed(properties)


@lru_cache(maxsize=256)
def _cached(properties: PublishProperties) -> bytes:
    """Return properties that many messages have, as _packed() does."""
    return _packed(properties)


def _packed(properties: PublishProperties) -> bytes:
    """Return properties as bytes, with their length."""
    parts = []
    if content_type := properties.content_type:
        parts += [bytes([_FORMAT, "json" in content_type]), bytes([_CONTENT_TYPE]), _sized(content_type)]
    if properties.expiry:
        parts += [bytes([_EXPIRY]), properties.expiry.to_bytes(4, "big")]
    if properties.correlation:
        parts += [bytes([_CORRELATION]), len(properties.correlation).to_bytes(2, "big"), properties.correlation]
    for name, value in properties.user:
        parts += [bytes([_USER]), _sized(name), _sized(value)]
    packed = b"".join(parts)
    return _variable(len(packed)) + packed


def _sized(text: str) -> bytes:
    """Return a text behind its length."""
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def _variable(number: int) -> bytes:
    """Return a variable byte integer (1.5.5)."""
    if number < 128:
        return bytes((number,))
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)


def _read_variable(body: bytes, place: int) -> tuple[int, int]:
    """Return a variable byte integer and where it ends."""
    number = 0
    for count in range(4):
        byte = body[place + count]
        number |= (byte & 127) << (7 * count)
        if byte < 128:
            return number, place + count + 1
    raise MalformedPacket("a number has more than four bytes")


def _read_properties(body: bytes, place: int) -> tuple[int, str, bytes, tuple[int, ...], tuple[tuple[str, str], ...]]:
    """Return where the properties at `place` end, Response Topic, Correlation Data, identifiers, user properties."""
    length, place = _read_variable(body, place)
    end = place + length
    response, correlation = "", b""
    identifiers: list[int] = []
    user: list[tuple[str, str]] = []
    while place < end:
        kind = body[place]
        place += 1
        if kind in _FIXED:
            place += _FIXED[kind]
        elif kind in _SIZED or kind == _USER:
            value, place = _read_sized(body, place)
            if kind == _RESPONSE:
                response = value.decode()
            elif kind == _CORRELATION:
                correlation = value
            elif kind == _USER:
                text, place = _read_sized(body, place)
                user.append((value.decode(), text.decode()))
        elif kind == _SUBSCRIPTION_ID:
            number, place = _read_variable(body, place)
            identifiers.append(number)
        else:
            raise MalformedPacket(f"property {kind} in a message")
    if place != end or end > len(body):
        raise MalformedPacket("properties are shorter than they say")
    return end, response, correlation, tuple(identifiers), tuple(user)


def _read_sized(body: bytes, place: int) -> tuple[bytes, int]:
    """Return the bytes behind a length of two, and where they end."""
    end = place + 2 + int.from_bytes(body[place : place + 2], "big")
    if end > len(body):
        raise MalformedPacket("a property is shorter than it says")
    return body[place + 2 : end], end

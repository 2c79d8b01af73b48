"""Recognizes messages that a broker sends again, by packet identifier and content.

A broker sends what it has no acknowledgement of again, under the same identifier and flagged (MQTT 5.0, 4.4). A reading
that only equals the one before is no duplicate: sensors often say the same twice.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice

from appliance.mqtt.disk import Disk, Write
from appliance.mqtt.messages import Message

_MOST = 4096  # identifiers that are remembered: more than brokers leave unacknowledged
_INSERT = "insert or replace into kept values (?, ?)"
_DELETE = "delete from kept where mid = ?"


class Deduplicator:
    """The table of kept messages, the last few thousand. Not thread-safe: one thread has it."""

    def __init__(self, disk: Disk) -> None:
        """Read what was kept. Raises StoreError."""
        self._kept: OrderedDict[int, bytes] = OrderedDict(disk.read("select mid, digest from kept order by mid"))

    def holds(self, message: Message) -> bool:
        """Return whether a message was kept before and only comes again."""
        return message.dup and self._kept.get(message.packet_id) == _digest(message)

    def writes(self, messages: Sequence[Message]) -> list[Write]:
        """Return the statements that keep messages of QoS 1."""
        kept = {message.packet_id: _digest(message) for message in messages if message.qos}
        excess = len(self._kept) + sum(packet_id not in self._kept for packet_id in kept) - _MOST
        oldest = (packet_id for packet_id in self._kept if packet_id not in kept)
        gone = [(packet_id,) for packet_id in islice(oldest, max(0, excess))]
        return [write for write in ((_DELETE, gone), (_INSERT, list(kept.items()))) if write[1]]

    def committed(self, messages: Sequence[Message]) -> None:
        """Remember these messages: their statements were committed."""
        for message in messages:
            if message.qos:
                self._kept[message.packet_id] = _digest(message)
                self._kept.move_to_end(message.packet_id)
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)


def _digest(message: Message) -> bytes:
    """Return what tells a message's topic and payload from others."""
    digest = hashlib.blake2b(message.topic.encode("utf-8", "surrogateescape"), digest_size=8)
    digest.update(b"\0" + message.payload)
    return digest.digest()

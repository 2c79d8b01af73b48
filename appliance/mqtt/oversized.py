"""A packet that is too large: dropped while it arrives, and told as a message without payload once it has arrived.

The message is then acknowledged as any other, or the broker would send it again on each connection.
"""

from appliance.mqtt import packets
from appliance.mqtt.buffered import Buffered
from appliance.mqtt.messages import Message

OVERHEAD = 131_072
"""Bytes of a packet's topic and properties, beside the largest payload."""


class Oversized:
    """Drops what is too large of one connection at a time. Not thread-safe: the thread that turns the client has it."""

    def __init__(self, max_payload: int, *, five: bool) -> None:
        """A payload of more than `max_payload` bytes may be dropped; `five` is whether MQTT 5 is spoken."""
        self.limit = min(packets.LARGEST - 5, max_payload + OVERHEAD)
        """Bytes of a packet, behind its length, that are read."""
        self._five = five
        self._arriving: Message | None = None

    def begin(self, buffer: Buffered) -> None:
        """Begin to drop the packet that stands next in the buffer, if it is too large and enough of it is there.

        Raises MalformedPacket where it is no message.
        """
        extent = packets.extent(buffer.data, buffer.place) if buffer.place < len(buffer.data) else None
        if extent is None or extent[1] - extent[0] <= self.limit:
            return
        (start, end), first = extent, buffer.data[buffer.place]
        if first & 0xF0 != packets.PUBLISH:
            raise packets.MalformedPacket(f"a packet of {end - start} bytes")
        if len(buffer.data) - start < min(OVERHEAD, end - start):
            return  # its topic and identifier may not be there yet
        part = bytes(buffer.data[start : start + OVERHEAD])
        self._arriving = packets.read_beginning(first, part, end - start, five=self._five)
        buffer.pass_over(end)

    def arrived(self, buffer: Buffered) -> Message | None:
        """Return the message that was dropped, once, when all of it has arrived; None before."""
        if not self._arriving or buffer.passing:
            return None
        message, self._arriving = self._arriving, None
        return message

    def forget(self) -> None:
        """Forget what was arriving: its connection has ended."""
        self._arriving = None

"""Messages in memory that are not answered yet, and how many may wait there."""

from collections.abc import Sequence

from appliance.mqtt.messages import Message

PAUSE_MESSAGES, PAUSE_BYTES = 4096, 8 * 1024 * 1024
"""Waiting in memory, after which nothing more is read: brokers have sent more than we asked for (mosquitto 2.0.11)."""
MOST_MESSAGES, MOST_BYTES = 16_384, 16 * 1024 * 1024
"""Waiting in memory, after which messages are dropped while nothing can be committed: acknowledgements that may make
room stand behind them. QoS 0 is lost then; the others come again over a new connection."""


class MessageQueue:
    """The messages of one connection in the order in which they came. Not thread-safe: the loop's thread has it."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._bytes = 0
        self.let_go = False
        """Whether a message of QoS 1 was dropped: all later ones are too, so that they come again in order."""

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def is_full(self) -> bool:
        """Whether no more should be read for now."""
        return len(self._messages) >= PAUSE_MESSAGES or self._bytes >= PAUSE_BYTES

    def put(self, message: Message) -> bool:
        """Add a message; return False where it was dropped instead."""
        if self.let_go or len(self._messages) >= MOST_MESSAGES or self._bytes >= MOST_BYTES:
            self.let_go = self.let_go or bool(message.qos)
            return False
        self._messages.append(message)
        self._bytes += message.size
        return True

    def first(self, count: int) -> list[Message]:
        """Return up to `count` messages, which stay."""
        return self._messages[:count]

    def remove(self, messages: Sequence[Message]) -> None:
        """Remove messages, which must be the first ones."""
        del self._messages[: len(messages)]
        self._bytes -= sum(message.size for message in messages)

    def clear(self) -> None:
        """Forget all messages, as when their connection has ended: the broker sends them again on the next one."""
        self._messages.clear()
        self._bytes = 0
        self.let_go = False

"""The types that pass between us and a broker, whatever the transport."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """What a broker sent: `packet_id` acknowledges it on this connection, and has no other use."""

    topic: str
    payload: bytes
    qos: int = 1
    packet_id: int = 0
    retain: bool = False
    dup: bool = False
    """Whether the broker sent it before, and cannot know whether it arrived."""
    response: str = ""
    correlation: bytes = b""
    identifiers: tuple[int, ...] = ()
    """Subscription identifiers of the filters that this copy stands for (MQTT 5); none where the broker says none."""
    user: tuple[tuple[str, str], ...] = ()
    """User properties (MQTT 5), which go back with the answer."""
    unread: int = 0
    """Bytes of a payload that was passed over as too large; `payload` is its beginning then."""

    @property
    def size(self) -> int:
        """Bytes that it takes, in memory and on disk."""
        texts = sum(len(name) + len(value) for name, value in self.user) if self.user else 0
        return len(self.topic) + len(self.payload) + len(self.response) + len(self.correlation) + texts


@dataclass(frozen=True, slots=True)
class PublishProperties:
    """What goes with a published message."""

    expiry: int = 0
    content_type: str = ""
    correlation: bytes = b""
    user: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class BrokerSession:
    """What a broker said when it took the connection."""

    present: bool
    """Whether it kept our subscriptions and messages."""
    receive_maximum: int
    """Messages that we may send before its acknowledgement."""
    identifiers: bool
    """Whether it has subscription identifiers."""


TOO_LARGE = -1
"""Returned instead of a packet id for a message larger than the broker accepts."""


class Handler(Protocol):
    """Who is told what happens on a connection; called on the thread that turns the client."""

    def up(self, session: BrokerSession) -> None:
        """A connection begins."""

    def down(self, reason: str) -> None:
        """It has ended, or could not be made; it is tried again."""

    def message(self, message: Message) -> None:
        """A message arrived; at QoS 1 it comes again on the next connection unless it is acknowledged."""

    def published(self, packet_id: int, refusal: str) -> None:
        """The broker has acknowledged a message, or refused it for a reason."""

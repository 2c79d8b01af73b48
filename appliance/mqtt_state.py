"""What the MQTT listener tells of itself; alone, so that listener, metrics and health need not know each other."""

import msgspec


class MqttState(msgspec.Struct, kw_only=True):
    """Counters since the start, what waits now, and what is wrong."""

    connected: dict[str, bool]
    """Whether each broker (local, upstream) is connected."""
    problems: list[str]
    """What keeps messages from being answered or answers from being sent; empty when nothing does."""
    received: int = 0
    """Messages that arrived, repeats among them."""
    answered: int = 0
    """Messages whose answer was safe before they were acknowledged."""
    refused: dict[str, int] = {}
    """Bad messages by reason."""
    sent: int = 0
    """Answers that a broker acknowledged."""
    replayed: int = 0
    """Answers that were sent late or again."""
    dropped: int = 0
    """Answers that the quota's policy dropped."""
    waiting: int = 0
    """Answers on disk that no broker has acknowledged."""
    waiting_bytes: int = 0
    parked: int = 0
    """Messages on disk whose model is not ready."""
    updated: float = 0.0
    """When this report was made, in seconds of the monotonic clock, which all processes of a host share."""

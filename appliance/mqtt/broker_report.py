"""What a broker publishes about itself under `$SYS`: its version, and how many messages it has dropped.

Sources: mosquitto(8), "Broker status"; EMQX and VerneMQ, their pages on `$SYS` topics. No standard names these topics.
"""

import secrets
import select
import time
from dataclasses import dataclass, field

from appliance.config import BrokerConfig
from appliance.mqtt.client import Client
from appliance.mqtt.messages import BrokerSession, Message
from appliance.mqtt.overlaps import Ask
from appliance.mqtt.topics import Filter

VERSION = "$SYS/broker/version"
DROPPED = (
    "$SYS/broker/publish/messages/dropped",
    "$SYS/brokers/+/metrics/messages/dropped",
    "$SYS/+/queue_message_drop",
)


@dataclass(slots=True)
class BrokerReport:
    """A broker's answer; `problem` says why there is none."""

    problem: str = ""
    version: str = ""
    dropped: int | None = None
    """Messages dropped since the broker started, mostly since a queue was full; None where it does not say."""


def ask(broker: BrokerConfig, seconds: float = 3.0) -> BrokerReport:
    """Return what `broker` tells within `seconds`; a client id of its own leaves the service's connection alone.

    Raises ConfigError for certificates that cannot be read.
    """
    report = _ReportHandler()
    client = Client(broker, f"appliance-doctor-{secrets.token_hex(4)}", report, lambda: None, max_payload=65_536)
    deadline = time.monotonic() + seconds
    try:
        while not report.done and (now := time.monotonic()) < deadline:
            waiting = [client.fileno()] if client.fileno() >= 0 else []
            client.turn(now, bool(select.select(waiting, [], [], 0.05)[0]))
            if report.connected and not report.asked:
                client.subscribe([Ask(Filter(text), 0) for text in (VERSION, *DROPPED)])
                report.asked = True
            client.flush()
    finally:
        client.close()
    problem = "" if report.connected else report.reason or f"it does not answer within {seconds:g} seconds"
    return BrokerReport(problem, report.version, sum(report.dropped.values()) if report.dropped else None)


@dataclass(slots=True)
class _ReportHandler:
    """Collects the answers; a Handler of the client, called on the asking thread."""

    connected: bool = False
    asked: bool = False
    reason: str = ""
    version: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    """{topic: number}: each node of a cluster has a topic of its own."""

    @property
    def done(self) -> bool:
        """Whether everything that was asked for has arrived."""
        return bool(self.reason or (self.version and self.dropped))

    def up(self, session: BrokerSession) -> None:
        """Store that the broker has accepted the connection."""
        self.connected = True

    def down(self, reason: str) -> None:
        """Store why there is no connection."""
        self.reason = reason

    def message(self, message: Message) -> None:
        """Take a version or a number; nothing else is asked for."""
        text = message.payload[:200].decode("utf-8", "replace").strip()
        if message.topic == VERSION:
            self.version = text
        elif text.isdecimal():
            self.dropped[message.topic] = int(text)

    def published(self, packet_id: int, refusal: str) -> None:
        """Ignore: nothing is published."""

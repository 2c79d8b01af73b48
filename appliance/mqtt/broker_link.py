"""One broker: its connection, and the sender of the answers that go to it."""

import time
from collections.abc import Callable
from typing import Protocol

from appliance.config import BrokerConfig, MqttConfig
from appliance.mqtt.client import Client
from appliance.mqtt.messages import BrokerSession, Message, PublishProperties
from appliance.mqtt.outbox import LOCAL, UPSTREAM, Outbox, Stored
from appliance.mqtt.sender import Sender

NAMES = {LOCAL: "local", UPSTREAM: "upstream"}
"""The ways of an answer as status and metrics call them."""


class Owner(Protocol):
    """Who is told what happens on a link, on the loop's thread."""

    def link_up(self, link: "BrokerLink", session: BrokerSession) -> None:
        """A broker is connected."""

    def link_down(self, link: "BrokerLink") -> None:
        """A broker is disconnected."""

    def take(self, message: Message) -> None:
        """A message arrived."""


class BrokerLink:
    """A client that keeps one broker connected, and the sender of its answers. The Handler of that client."""

    def __init__(
        self,
        owner: Owner,
        way: int,
        config: MqttConfig,
        client_id: str,
        outbox: Outbox,
        *,
        online: str,
        wake: Callable[[], None],
    ) -> None:
        """`online` is the topic of our will; `wake` is called when the loop has something to do for this link."""
        self.way = way
        self._owner = owner
        self._broker: BrokerConfig = config.upstream if way == UPSTREAM else config
        self._client_id = self._broker.client_id or client_id
        self._online = online
        self._wake = wake
        self._session_expiry = config.session_expiry if way == LOCAL else 0
        self._max_payload = config.max_payload_bytes
        self.client = self._new_client()
        rate = config.upstream.replay_rate if way == UPSTREAM else None
        self.sender = Sender(outbox, way, self._publish, window=config.max_unacknowledged, rate=rate)

    def renew(self) -> None:
        """Begin with a new connection."""
        self.sender.down()
        self.client.close()
        self.client = self._new_client()

    def turn(self, now: float, *, readable: bool) -> None:
        """Do what is due on the connection. `now` is time.monotonic()."""
        self.client.turn(now, readable)

    def send(self, now: float) -> None:
        """Publish what may be, and send all that is queued. Raises StoreError when the outbox cannot be read."""
        try:
            self.sender.pump(now)
        finally:
            self.client.flush()

    def leave(self) -> None:
        """Publish that we are offline, then disconnect."""
        self.client.publish(self._online, b"offline", qos=0, retain=True)
        self.client.close()

    def refusals(self) -> list[str]:
        """Return the problems of this broker: no connection, or answers that it refuses."""
        address, sender = self.client.address, self.sender
        found = [f"{address} refuses {sender.refused} answers: {sender.refusal}"] if sender.refused else []
        return found + ([f"{address} refuses reports of bad messages: {sender.unheard}"] if sender.unheard else [])

    def up(self, session: BrokerSession) -> None:
        """Ask for messages, then say that we are there; what waited on disk is sent next."""
        self._owner.link_up(self, session)
        self.client.publish(self._online, b"online", qos=0, retain=True)

    def down(self, reason: str) -> None:
        """Pass on that the broker is disconnected."""
        self.sender.down()
        self._owner.link_down(self)

    def message(self, message: Message) -> None:
        """Pass a message on."""
        self._owner.take(message)

    def published(self, packet_id: int, refusal: str) -> None:
        """Take the broker's acknowledgement of an answer."""
        self.sender.published(packet_id, refusal, time.monotonic())

    def _publish(self, stored: Stored, payload: bytes, properties: PublishProperties) -> int:
        """Publish an answer."""
        answer = stored.answer
        return self.client.publish(answer.topic, payload, qos=answer.qos, retain=answer.retain, properties=properties)

    def _new_client(self) -> Client:
        """Return a client of the broker."""
        will = (self._online, b"offline")
        return Client(
            self._broker,
            self._client_id,
            self,
            self._wake,
            will=will,
            session_expiry=self._session_expiry,
            max_payload=self._max_payload,
        )

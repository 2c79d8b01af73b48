"""Keeps one connection to a broker, reconnecting forever; hands messages on without acknowledging them.

paho does CONNECT, SUBSCRIBE, pings and TLS (connection.py). It is dropped with its connection, so nothing that it keeps
in memory outlives that. The packets of each message are read and written here (packets.py): paho would make objects of
them for fifty microseconds, and ask the system for two single bytes a packet.

States: waiting (for the next try, backoff.py); opening (the thread `mqtt-connect` connects: names, TCP and TLS may each
take long); asked (CONNECT is sent, and the broker must answer within CONNECT_SECONDS); up (it has; `problem` is "");
closed (for ever). A fault only sets `_lost`; turn() then drops the connection, tells the handler and waits. So a
handler may call any method of the client from its callbacks, begin_anew() among them.

Threads: the loop's thread makes all calls, and the handler is called on it, from turn(). The opening thread (opener.py)
touches a new Connection alone and wakes the loop; turn() takes the connection over.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTErrorCode

from appliance.config import BrokerConfig
from appliance.mqtt import packets
from appliance.mqtt.backoff import Backoff
from appliance.mqtt.connection import CONNECT_SECONDS, Connection
from appliance.mqtt.credentials import tls_context
from appliance.mqtt.messages import TOO_LARGE, BrokerSession, Handler, Message, PublishProperties
from appliance.mqtt.opener import Opener
from appliance.mqtt.overlaps import Ask
from appliance.mqtt.oversized import OVERHEAD, Oversized
from appliance.mqtt.subscriptions import Subscriptions, in_packets

log = logging.getLogger(__name__)

UNSENT_BYTES = 8 * 1024 * 1024
"""Of what waits to be sent, beyond which nothing more is published: answers of QoS 0 have no other window."""

_NO_LIMIT = 65535
_FIRST_PACKET_ID, _LAST_PACKET_ID = 1000, 65535  # of our messages; paho numbers its few packets from 1


class Client:
    """A broker's connection, made again whenever it is lost. All methods but `wake` are for one thread."""

    def __init__(
        self,
        config: BrokerConfig,
        client_id: str,
        handler: Handler,
        wake: Callable[[], None],
        *,
        will: tuple[str, bytes] | None = None,
        session_expiry: int = 0,
        max_payload: int = packets.LARGEST,
    ) -> None:
        """`wake` is called from another thread when turn() has something to do. `will` is (topic, payload), retained.

        A payload of more than `max_payload` bytes may be passed over while it is read: it is no message in memory.

        Raises ConfigError for certificates that cannot be read.
        """
        self.config = config
        self.client_id = client_id
        self.address = f"{config.host}:{config.tcp_port}"
        self.problem = "not connected yet"
        """Why there is no connection; "" while there is one."""
        self.paused = False
        """Whether nothing is to be read for now: what the broker has sent waits in the network."""
        self._handler = handler
        self._will = will
        self._session_expiry = session_expiry
        self._five = config.protocol == "5"
        self._oversized = Oversized(max_payload, five=self._five)
        self._paho: Connection | None = None
        self._opener = Opener(wake)
        self._backoff = Backoff()
        self._deadline = 0.0  # for the broker's answer to CONNECT
        self._lost = ""  # why the connection is to be dropped
        self._packet_id = _FIRST_PACKET_ID
        self._largest = packets.LARGEST
        self._subscriptions = Subscriptions(self.address)
        if config.tls:
            tls_context(config)

    @property
    def up(self) -> bool:
        """Whether the broker has accepted the connection."""
        return not self.problem

    @property
    def refused(self) -> list[str]:
        """Filters that the broker refused, so it sends us no messages of them."""
        return self._subscriptions.refused

    def fileno(self) -> int:
        """Return the socket to wait for, -1 while there is none."""
        return self._paho.fileno() if self._paho else -1

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for the socket to take them."""
        return self._paho is not None and self._paho.unsent

    @property
    def has_more(self) -> bool:
        """Whether bytes wait of which the socket says nothing."""
        return self._paho is not None and self._paho.hidden and not self.paused

    @property
    def wants_read(self) -> bool:
        """Whether arriving bytes are of interest now."""
        return not self.paused or not self.up

    def turn(self, now: float, readable: bool) -> None:
        """Do what is due: open a connection, read what arrived, keep it alive. `now` is time.monotonic()."""
        if opened := self._opener.take():
            self._take_over(*opened, now)
        elif self._paho is None and not self._opener.busy and now >= self._backoff.due:
            self._open()
        client = self._paho
        if client is None:
            return
        if self.up and self.paused:
            client.excuse_silence()
        elif readable or client.hidden:
            self._receive(client)
        if self._paho is client and not self._lost:
            self._check(client.loop_misc())
            if not self.up and now > self._deadline:
                self._lost = self._lost or f"no answer within {CONNECT_SECONDS:g} seconds"
        if self._lost:
            self._drop(self._lost)

    def flush(self) -> None:
        """Send what was published and acknowledged since the last time, as far as the socket takes it."""
        if self._paho and (problem := self._paho.flush()):
            self._lost = self._lost or problem

    def due(self) -> float:
        """Return the time.monotonic() at which turn() has something to do, whatever arrives."""
        if self._paho:
            return time.monotonic() + min(1.0, self.config.keepalive / 4)
        return time.monotonic() + 1.0 if self._opener.busy else self._backoff.due

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: PublishProperties | None = None,
    ) -> int:
        """Queue a message for the broker and return its packet id (a QoS 0 message has one too).

        0 without a connection or while much waits to be sent, TOO_LARGE for what the broker does not take.
        """
        if self._paho is None or not self.up or self._paho.buffer.unsent > UNSENT_BYTES:
            return 0
        if len(payload) + 2 * len(topic) + OVERHEAD > packets.LARGEST or len(payload) > self._largest:
            return TOO_LARGE
        self._packet_id = self._packet_id + 1 if self._packet_id < _LAST_PACKET_ID else _FIRST_PACKET_ID
        packet = packets.publish(
            topic, payload, self._packet_id, qos=qos, retain=retain, properties=properties, five=self._five
        )
        if len(packet) > self._largest:
            return TOO_LARGE
        self._paho.buffer.send(packet)
        return self._packet_id

    def acknowledge(self, message: Message) -> None:
        """Queue the acknowledgement of a message of this connection."""
        if self._paho and message.qos:
            self._paho.buffer.send(packets.puback(message.packet_id))

    def subscribe(self, asks: Sequence[Ask]) -> None:
        """Ask for messages; for retained ones when a subscription is new, not at each connection (MQTT 5)."""
        if self._paho is None:
            return
        for together in in_packets(asks):
            code, packet_id = self._paho.ask(together)
            self._check(code)
            self._subscriptions.asked(packet_id or 0, together)
            self._check(self._paho.loop_write())  # what is published next must come after it

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Unsubscribe from these filters."""
        if self._paho and filters:
            self._paho.unsubscribe(list(filters))

    def begin_anew(self, reason: str) -> None:
        """End the connection and make another, so that the broker sends again what it has no acknowledgement of."""
        self._lost = self._lost or reason

    def close(self) -> None:
        """End the connection in good order, so that the broker does not publish our will."""
        client = self._paho
        if client and self.up:
            with contextlib.suppress(OSError, ValueError):
                client.disconnect()
                client.loop_write()
        self._paho = None
        if client:
            client.abandon()
        self.problem = "closed"
        self._opener.close()
        self._backoff.stop()

    def _open(self) -> None:
        """Begin to connect."""
        kept, largest = self._session_expiry > 0, self._oversized.limit + 5
        client = Connection(self._five, self.client_id, self.config, self._will, kept=kept, largest=largest)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe = self._on_subscribe
        self._opener.begin(client, self._session_expiry)

    def _take_over(self, client: Connection | None, problem: str, now: float) -> None:
        """Take the connection that the opening thread made, or the problem that it had."""
        self._lost = ""
        self._oversized.forget()
        if client is None:
            self._retry_later(problem)
            return
        self._paho = client
        self._deadline = now + CONNECT_SECONDS

    def _receive(self, client: Connection) -> None:
        """Take what arrived: messages and acknowledgements here, every other packet by paho."""
        buffer = client.buffer
        try:
            if not buffer.fill():
                self._lost = self._lost or "the broker closed the connection"
            if dropped := self._oversized.arrived(buffer):
                self._handler.message(dropped)
            while not self._lost and (found := packets.find(buffer.data, buffer.place)):
                start, end = found
                first = buffer.data[buffer.place]
                if first & 0xF0 == packets.PUBLISH:
                    self._handler.message(packets.read_publish(first, bytes(buffer.data[start:end]), five=self._five))
                elif first & 0xF0 == packets.PUBACK:
                    self._handler.published(*packets.read_puback(bytes(buffer.data[start:end])))
                else:
                    buffer.grant(end)
                    self._check(client.loop_read())
                buffer.place = end
            self._oversized.begin(buffer)
        except (OSError, packets.MalformedPacket) as error:
            self._lost = self._lost or str(error)

    def _check(self, code: MQTTErrorCode) -> None:
        """Mark the connection as lost when paho reports an error."""
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._lost = self._lost or paho.error_string(code)

    def _drop(self, reason: str) -> None:
        """Drop a connection that was lost or refused."""
        client, self._paho, self._lost = self._paho, None, ""
        if client:
            client.abandon()
        self._retry_later(reason)

    def _retry_later(self, reason: str) -> None:
        """Say why there is no connection and when the next try is."""
        was_up, repeated = self.up, reason == self.problem
        self.problem = reason or "lost"
        self._backoff.lost(time.monotonic())
        if was_up or not repeated:
            log.warning("disconnected from broker", extra={"broker": self.address, "reason": reason})
        self._handler.down(self.problem)

    def _on_connect(self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        """Take the broker's answer to CONNECT."""
        if reason.is_failure:
            self._lost = f"the broker refuses the connection: {reason}"
            return
        self.problem = ""
        self._backoff.connected(time.monotonic())
        self._subscriptions.forget()
        maximum = getattr(properties, "ReceiveMaximum", _NO_LIMIT)
        self._largest = int(getattr(properties, "MaximumPacketSize", packets.LARGEST))
        log.info("connected to broker", extra={"broker": self.address, "session": bool(flags.session_present)})
        has_identifiers = self._five and bool(getattr(properties, "SubscriptionIdentifierAvailable", True))
        self._handler.up(BrokerSession(bool(flags.session_present), int(maximum), has_identifiers))

    def _on_disconnect(self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        """Store why the connection ended."""
        self._lost = self._lost or f"the connection ended: {reason}"

    def _on_subscribe(self, client: paho.Client, data: Any, packet_id: int, reasons: Any, properties: Any) -> None:
        """Store which subscriptions the broker granted and refused."""
        self._subscriptions.answered(packet_id, reasons)

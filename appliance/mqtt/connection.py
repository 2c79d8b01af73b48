"""One connection to a broker, by paho: CONNECT, SUBSCRIBE, pings, TLS. It lives as long as the connection.

States: new; open() connects and sends CONNECT; abandon() ends it. There is no way back: the next connection is a new
object.

Threads: one at a time, and no lock. open() blocks and runs on the thread `mqtt-connect`. All else is for the loop's
thread, once open() has returned (client.py hands it over). paho calls on_connect and the others from loop_read() and
loop_misc(), so on the loop's thread too.
"""

from collections.abc import Sequence
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from appliance.config import BrokerConfig
from appliance.mqtt.buffered import Buffered
from appliance.mqtt.credentials import password, tls_context
from appliance.mqtt.overlaps import Ask

CONNECT_SECONDS = 10.0
"""For the broker to answer, at each step of connecting."""
OUR_RECEIVE_MAXIMUM = 1000
"""Messages that a broker may send before it has our acknowledgement (MQTT 5)."""


class Connection(paho.Client):
    """A paho client for one connection, which reads and writes through our buffer."""

    def __init__(
        self,
        five: bool,
        client_id: str,
        config: BrokerConfig,
        will: tuple[str, bytes] | None,
        *,
        kept: bool,
        largest: int,
    ) -> None:
        """`kept` says whether the broker is to keep our session when we are away; in MQTT 5 its expiry says it.

        `largest` in bytes is our Maximum Packet Size (MQTT 5).
        """
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if five else not kept,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            transport=config.transport,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._config = config
        self._five = five
        self._largest = largest
        self.ws_set_options(config.websocket_path)
        self.buffer: Buffered
        self.connect_timeout = CONNECT_SECONDS
        self.on_socket_register_write = lambda *_: None  # or paho would write each packet at once
        if will:
            self.will_set(will[0], will[1], qos=1, retain=True)

    def open(self, session_expiry: int) -> None:
        """Connect: blocks for names, TCP and TLS. Raises OSError, ValueError or ConfigError."""
        config = self._config
        if config.username:
            self.username_pw_set(config.username, password(config))
        if config.tls:
            self.tls_set_context(tls_context(config))
        port = config.tcp_port
        if not self._five:
            self.connect(config.host, port, config.keepalive)
            return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = session_expiry
        properties.ReceiveMaximum = OUR_RECEIVE_MAXIMUM
        properties.MaximumPacketSize = min(self._largest, 268_435_455)  # paho takes no larger one
        self.connect(config.host, port, config.keepalive, clean_start=False, properties=properties)

    def _create_socket(self) -> Any:
        """Return paho's own socket, buffered; every connection of paho is made here."""
        self.buffer = Buffered(super()._create_socket())
        return self.buffer

    def ask(self, asks: Sequence[Ask]) -> tuple[MQTTErrorCode, int | None]:
        """Send one SUBSCRIBE, for filters of one identifier; return how that went and its packet id."""
        if not self._five:
            return self.subscribe([(ask.text, ask.qos) for ask in asks])
        properties = None
        if asks[0].identifier:
            properties = Properties(PacketTypes.SUBSCRIBE)  # type: ignore[no-untyped-call]
            properties.SubscriptionIdentifier = asks[0].identifier
        new = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
        options = [
            (ask.text, SubscribeOptions(qos=ask.qos, noLocal=not ask.filter.shared, retainHandling=new)) for ask in asks
        ]
        return self.subscribe(options, properties=properties)

    def fileno(self) -> int:
        """Return the socket's number, -1 once it is closed."""
        return self.buffer.fileno() if self.socket() else -1

    @property
    def unsent(self) -> bool:
        """Whether bytes wait to be sent."""
        return self.want_write() or self.buffer.unsent > 0

    @property
    def hidden(self) -> bool:
        """Whether bytes wait of which the system says nothing."""
        return bool(self.socket()) and self.buffer.hidden

    def flush(self) -> str:
        """Send what waits, as far as the socket takes it; return what went wrong, "" for nothing."""
        code = self.loop_write()
        problem = "" if code == MQTTErrorCode.MQTT_ERR_SUCCESS else paho.error_string(code)
        try:
            self.buffer.flush()
        except OSError as error:
            problem = problem or str(error)
        return problem

    def excuse_silence(self) -> None:
        """Take the answer to our ping as given: it may stand behind what is not read for now."""
        self._ping_t = 0.0

    def abandon(self) -> None:
        """Close the socket without a DISCONNECT: the broker publishes our will."""
        self.on_disconnect = None
        self._sock_close()

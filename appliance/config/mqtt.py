"""`[mqtt]`: the broker, and what is answered from its topics."""

from typing import Annotated, Literal

import msgspec

from appliance.config.section import NotNegativeSeconds, Port, Positive, Seconds, Section


class BrokerConfig(Section, frozen=True):
    """How one MQTT broker is reached."""

    host: str = ""
    """Name or address of the broker; empty: none."""
    port: Port = 0
    """TCP port; 0 is 1883, or 8883 with `tls`; for WebSockets 80 and 443."""
    transport: Literal["tcp", "websockets"] = "tcp"
    """`websockets` for brokers behind a web server, or where nothing else passes."""
    websocket_path: str = "/mqtt"
    """Path of the broker's WebSocket."""
    protocol: Literal["5", "3.1.1"] = "5"
    """`"5"`, or `"3.1.1"` for brokers that know no newer one (then without Response Topic, expiry and user properties).
    """
    client_id: str = ""
    """Under which the broker keeps our session. Empty: one is made once and kept in the state folder; `[mqtt.upstream]`
    takes that of `[mqtt]`.
    """
    keepalive: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 30
    """Seconds of silence after which the connection is tried; after as many again it counts as lost."""
    username: str = ""
    """User name for the broker."""
    password_file: str = ""
    """File that holds the password alone; read at each connection."""
    tls: bool = False
    """Whether the connection is encrypted. The broker's certificate and name are always checked."""
    ca_file: str = ""
    """Authorities (PEM) that may have signed the broker's certificate; empty: the system's."""
    cert_file: str = ""
    """Our certificate (PEM), for brokers that ask for one."""
    key_file: str = ""
    """Its key (PEM), without a password."""

    @property
    def tcp_port(self) -> int:
        """The port that is connected to."""
        usual = (443 if self.tls else 80) if self.transport == "websockets" else (8883 if self.tls else 1883)
        return self.port or usual


class UpstreamConfig(BrokerConfig, frozen=True):
    """`[mqtt.upstream]`: a second broker, for the answers.

    Answers go to it instead of to the broker of `[mqtt]`; while it cannot be reached they wait on disk.
    """

    replay_rate: Annotated[float, msgspec.Meta(gt=0)] = 100.0
    """Answers a second that are sent of those that waited, beside the live ones."""


class SubscriptionConfig(Section, frozen=True):
    """`[[mqtt.subscriptions]]`: messages that are answered, any number.

    Lists of tables stand in the file alone; they have no variables.
    """

    topic: str
    """Topic filter: `+`, `#`, `$share/GROUP/FILTER`."""
    kind: Literal["rows", "labels"] = "rows"
    """What the messages are: rows to predict, or `labels`, the true values of rows (docs/how-to/labels.md)."""
    model: str = ""
    """Model that answers; empty: the one that `/predict` means."""
    version: str = ""
    """Its version; empty: the active one."""
    answer: str = ""
    """Topic of the answer: `{1}` is what the first wildcard stood for, `{topic}` the whole incoming topic."""
    respond: tuple[str, ...] | bool = ()
    """Topic filters: a message whose Response Topic (MQTT 5) lies under one is answered there, before `answer`. `true`
    is refused; `false` is none.
    """
    payload: Literal["json", "cbor", "value", "sparkplug"] = "json"
    """`json`, `cbor` (needs the extra `cbor`; answers are CBOR too), `value`: one number or text, for models of one
    column; or `sparkplug`: Sparkplug B (needs the extra `sparkplug`; answers are JSON).
    """
    at: str = ""
    """Path to the row or rows in the payload, as `data.rows`; empty: the payload itself."""
    fields: dict[str, str] = {}  # noqa: RUF012 - msgspec copies an empty default
    """Column to the path of its value within the row: `{ temp = "data.temp" }`; columns not named here are found by
    their own names.
    """
    id: str = ""
    """Path to the message's id; empty, or absent in a message: a digest of its topic and payload."""
    echo: tuple[str, ...] = ()
    """Paths of fields that the answer repeats."""
    key: str = ""
    """By what a message is routed while an experiment runs, so that a device meets one version: `{1}` is what the first
    wildcard stood for, else a path in the payload, as `data.device`. Empty: the experiment's column, or chance.
    """
    qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    """Of the subscription: 0 or 1."""
    retained: bool = True
    """Whether messages that the broker kept from before the subscription are answered, or ignored: they may be old."""
    answer_qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    """Of the answers: 0 or 1."""
    retain: bool = False
    """Whether the broker keeps the last answer of each topic for later subscribers."""
    expiry: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 0
    """Seconds after which a broker may drop an undelivered answer (MQTT 5); 0: never."""
    quality: bool = False
    """Whether the answers tell how far to trust each row; a message may ask for it itself, by `"quality": true`."""
    unit: str = ""
    """Unit of a numeric prediction, as Home Assistant is told it (`[mqtt] discovery`): `"°C"`."""


class FeedConfig(Section, frozen=True):
    """`[[mqtt.rows.feeds]]`: the topics of one row."""

    topic: str
    """Topic whose levels in braces are the row's key: `line/{device}/temperature`."""
    columns: dict[str, Literal["last", "mean", "min", "max", "std", "count", "slope"]]
    """Column to what it holds of the window: `last`, `mean`, `min`, `max`, `std`, `count` or `slope` (per second)."""
    path: str = ""
    """Path to the value in a JSON payload; empty: the payload is the value alone."""
    seconds: NotNegativeSeconds = 0.0
    """Length of the window in seconds; 0: as many `values` as there are."""
    values: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    """Most values in the window."""


class RowsConfig(Section, frozen=True):
    """`[[mqtt.rows]]`: rows put together from several topics, any number."""

    name: str
    """Names the state that survives a restart."""
    answer: str
    """Topic of the answer, with the key's names in braces: `line/{device}/prediction`."""
    feeds: tuple[FeedConfig, ...]
    model: str = ""
    """Model that answers; empty: the one that `/predict` means."""
    version: str = ""
    """Its version; empty: the active one."""
    when: Literal["each", "complete", "every"] = "complete"
    """`each` message, when every feed has a new value (`complete`), or `every` so many `seconds`."""
    seconds: Seconds = 10.0
    """Seconds between two predictions of one key, for `every`."""
    max_age: Seconds = 300.0
    """Seconds for which a value is good; an older one counts as missing."""
    max_keys: Positive = 1000
    """Keys (devices) that are kept; the one that was silent longest goes first."""
    qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    """Of the subscriptions: 0 or 1."""
    retained: bool = True
    """Whether values that the broker kept from before the subscriptions fill the windows, or are ignored."""
    answer_qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    """Of the answers: 0 or 1."""
    retain: bool = False
    """Whether the broker keeps the last answer of each topic for later subscribers."""
    expiry: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 0
    """Seconds after which a broker may drop an undelivered answer (MQTT 5); 0: never."""
    quality: bool = False
    """Whether the answers tell how far to trust each row."""
    unit: str = ""
    """Unit of a numeric prediction, as Home Assistant is told it (`[mqtt] discovery`): `"°C"`."""


class MqttConfig(BrokerConfig, frozen=True):
    """`[mqtt]`: the broker whose messages are answered, and the limits.

    How it all works together: docs/mqtt.md.
    """

    session_expiry: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 604_800
    """Seconds for which the broker keeps messages while we are away (MQTT 5; older brokers have their own limit)."""
    topic: str = "appliance/{client_id}"
    """Our own topics are below it: `online`, `status`, `errors` and `drift/MODEL`."""
    max_payload_bytes: Positive = 262_144
    """Bytes of one message; beyond: error topic, reason `too_large`."""
    max_rows: Positive = 1000
    """Rows in one message; beyond: error topic."""
    batch: Positive = 256
    """Messages answered by one run and one commit at most.

    Waiting messages are taken together; the service never waits for more.
    """
    max_unacknowledged: Positive = 500
    """Answers on their way to a broker; a broker that allows fewer is obeyed."""
    outbox_bytes: Positive = 256 * 1024 * 1024
    """Bytes of answers, and of messages whose model is not ready, that may wait on disk."""
    outbox_seconds: NotNegativeSeconds = 0.0
    """Age in seconds at which a waiting answer is dropped; 0: never."""
    outbox_full: Literal["refuse", "oldest", "newest"] = "refuse"
    """At the limit: `refuse` acknowledges no more messages, so that the broker keeps them; `oldest` and `newest` drop
    those answers.
    """
    status_seconds: Seconds = 30.0
    """Seconds between two status messages."""
    discovery: bool = False
    """Whether Home Assistant is told of every topic that answers go to."""
    discovery_prefix: str = "homeassistant"
    """Its discovery prefix."""
    upstream: UpstreamConfig = UpstreamConfig()
    subscriptions: tuple[SubscriptionConfig, ...] = ()
    rows: tuple[RowsConfig, ...] = ()

"""Every setting with its type, default and unit, as one frozen tree; settings.py reads it from file and environment.

Defaults and units stand here and nowhere else; docs/configuration.md is compared with them by a test.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

DEFAULT_STATE_DIR = "/var/lib/appliance"

Positive = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the configuration file: immutable, and unknown keys are an error."""


class HttpConfig(Section, frozen=True):
    """`[http]`: where and how requests come in, and their limits."""

    host: str = "127.0.0.1"
    port: Port = 8080
    """0 lets the system choose a free one; the log line `listening` tells which."""
    processes: Positive = 1
    """Processes that share the port. One is smallest; two nearly double small requests on two cores."""
    threads: Positive = 2
    """Threads of each process for large or slow requests; small ones run where they were read."""
    auth: Literal["tokens", "none"] = "tokens"
    """`none` says outright that a port beyond loopback needs no token."""
    tokens_file: str = ""
    """File of `scope token` lines (scope predict or admin), readable by the service alone."""
    hosts: tuple[str, ...] = ()
    """Names by which this host is asked, where no token is needed; beside its addresses and localhost."""
    max_body_bytes: Positive = 32 * 1024 * 1024
    """Of the body as sent and as decompressed."""
    max_decoded_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of memory for all large requests of one process, decoded and answered; 0: see budget.default_bytes()."""
    max_rows: Positive = 100_000
    """Rows in one request."""
    max_nesting: Positive = 32
    """Brackets within brackets in a JSON body."""
    max_waiting: Positive = 256
    """Requests of one process that run or wait; one more is answered 503."""
    max_connections: Positive = 1024
    """Open connections of one process; for one more, one that does not read, is silent or slow makes room."""
    request_timeout: Seconds = 30.0
    """Seconds from a request's first byte to its last; a slower one is answered 408."""
    idle_timeout: Seconds = 120.0
    """Seconds after which a connection without a request is closed."""
    health_route: str = ""
    """One more path that answers as `/health/ready` (Vertex AI sets it)."""
    predict_route: str = ""
    """One more path that answers as `/invocations` (Vertex AI sets it)."""
    drain_timeout: Seconds = 20.0
    """Seconds that running requests have to finish after SIGTERM."""


class ModelsConfig(Section, frozen=True):
    """`[models]`: how versions are loaded and run."""

    threads: Positive = 1
    """Intra-op threads of one onnxruntime session. More than one helps large batches alone."""
    poll_seconds: Seconds = 0.5
    """Seconds between two looks at activation.json."""
    pinned_versions: Annotated[int, msgspec.Meta(ge=0)] = 2
    """Inactive versions kept loaded because requests named them; others are refused until one was idle for a minute."""
    self_test_seconds: Seconds = 30.0
    """Seconds that load and self-test of a version may take, in a process of their own."""
    max_memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Bytes that they may take; 0: 8 times model.onnx, at least 512 MiB, and at most half of the host's or cgroup's."""
    run_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    """Seconds after which a run of a graph is ended, between two of its nodes; 0: never."""
    overflow: Literal["refuse", "answer"] = "refuse"
    """Whether answers that are infinite where every number of the row was finite are refused."""
    default: str = ""
    """The model that `/predict` and `/invocations` mean; empty where only one is active."""


class StoreConfig(Section, frozen=True):
    """`[store]`: the state folder."""

    state_dir: str = DEFAULT_STATE_DIR
    preload_dir: str = "/opt/ml/model"
    """Bundles found here are installed and activated when the service starts (SageMaker puts the model there)."""
    trusted_keys: tuple[str, ...] = ()
    """Files of public keys (PEM), one of which must have signed what is installed and what goes live; none: any."""
    revoke: Literal["keep", "stop"] = "keep"
    """What becomes of a version that serves when its key is trusted no more: keep it and say so, or stop it."""
    max_bundle_bytes: Positive = 1024**3
    """Of one bundle, unpacked; a larger one is refused by its table of members, before anything of it is inflated."""


class PullConfig(Section, frozen=True):
    """`[pull]`: where `appliance pull` takes signed bundles from; nothing is pulled while `source` is empty."""

    source: str = ""
    """Folder, `https://HOST/PATH/index.json`, or `oci://REGISTRY/REPOSITORY:TAG`."""
    activate: bool = True
    """Whether what was installed is activated."""
    models: tuple[str, ...] = ()
    """Models that may come although they are not installed here yet; one that is installed follows the source."""
    allow_older: bool = False
    """Whether a version is taken that is not newer than the newest that was ever installed here."""
    ca_file: str = ""
    """Authorities (PEM) that may vouch for the server; empty: the system's."""
    cert_file: str = ""
    """Our certificate (PEM), for servers that ask for one."""
    key_file: str = ""
    token_file: str = ""
    """File that holds a token, or `user:password`."""
    proxy: str = ""
    """`http://HOST:PORT` of an HTTP proxy; empty: none, whatever the environment says."""
    auth_hosts: tuple[str, ...] = ()
    """`HOST` or `HOST:PORT` of token servers that may see `token_file` beside the registry itself."""
    timeout: Seconds = 30.0
    """Seconds of silence after which a connection is given up."""
    deadline: Seconds = 1800.0
    """Seconds that one pull may take as a whole, whatever servers do."""
    max_bytes: Positive = 2 * 1024**3
    """Of one bundle."""


class LogConfig(Section, frozen=True):
    """`[log]`: JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: bool = False
    """Whether each request writes a line."""


class BrokerConfig(Section, frozen=True):
    """How one MQTT broker is reached."""

    host: str = ""
    """Empty: none."""
    port: Port = 0
    """0 is 1883, or 8883 with TLS."""
    protocol: Literal["5", "3.1.1"] = "5"
    client_id: str = ""
    """Under which the broker keeps our session; empty: one is made once and kept in the state folder."""
    keepalive: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 30
    """Seconds of silence after which the connection is tried, and lost after as many again."""
    username: str = ""
    password_file: str = ""
    """File that holds the password alone, read at each connection."""
    tls: bool = False
    ca_file: str = ""
    """Authorities (PEM) that may vouch for the broker's name; empty: the system's."""
    cert_file: str = ""
    """Our certificate (PEM), for brokers that ask for one."""
    key_file: str = ""


class UpstreamConfig(BrokerConfig, frozen=True):
    """`[mqtt.upstream]`: a second broker, to which answers go; while it is away they wait on disk."""

    replay_rate: Annotated[float, msgspec.Meta(gt=0)] = 100.0
    """Answers a second that are sent of those that waited, beside the live ones."""


class SubscriptionConfig(Section, frozen=True):
    """`[[mqtt.subscriptions]]`: which messages are answered, by which model, and where the answer goes."""

    topic: str
    """Topic filter, with `+`, `#` and `$share/GROUP/` as MQTT has them."""
    model: str = ""
    """Empty: the model that `/predict` means."""
    version: str = ""
    """Empty: the active one."""
    answer: str = ""
    """Topic of the answer: `{1}` is what the first wildcard stood for, `{topic}` the whole incoming topic."""
    respond: tuple[str, ...] | bool = ()
    """Topic filters under which a message's Response Topic (MQTT 5) is answered to, before `answer`; empty: none."""
    payload: Literal["json", "cbor", "value"] = "json"
    """`value`: the payload is one number or text, for models of one column. Answers are CBOR where requests are."""
    at: str = ""
    """Path to the row or rows in the payload, as `data.rows`; empty: the payload itself."""
    fields: dict[str, str] = {}
    """Column to the path of its value in the row, where that is not the column's own name."""
    id: str = ""
    """Path to the message's id in the payload; empty or absent: a digest of topic and payload."""
    echo: tuple[str, ...] = ()
    """Paths of fields that the answer repeats."""
    qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    """Of the subscription."""
    answer_qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    retain: bool = False
    """Whether the broker keeps the last answer of a topic for later subscribers."""
    expiry: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 0
    """Seconds after which a broker may drop an undelivered answer (MQTT 5); 0: never."""


class FeedConfig(Section, frozen=True):
    """`[[mqtt.rows.feeds]]`: one topic that feeds columns of a row."""

    topic: str
    """Topic whose levels in braces are the row's key: `line/{device}/temperature`."""
    columns: dict[str, Literal["last", "mean", "min", "max", "std", "count", "slope"]]
    """Column to what it holds of the window: `{ temp = "last", temp_mean = "mean" }`; slope is per second."""
    path: str = ""
    """Path to the value in a JSON payload; empty: the payload is the value alone."""
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Length of the window in time; 0: not bounded by time."""
    values: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    """Most values in the window."""


class RowsConfig(Section, frozen=True):
    """`[[mqtt.rows]]`: rows put together from several topics, one for each key."""

    name: str
    """Names the state that survives a restart."""
    answer: str
    """Topic of the answer, with the names of the key in braces: `line/{device}/prediction`."""
    feeds: tuple[FeedConfig, ...]
    model: str = ""
    version: str = ""
    when: Literal["each", "complete", "every"] = "complete"
    """Predict at each message, when every feed has a new value, or every `seconds`."""
    seconds: Seconds = 10.0
    """Between two predictions of one key, for `every`."""
    max_age: Seconds = 300.0
    """Seconds for which a value is good; older ones count as missing."""
    max_keys: Positive = 1000
    """Keys (devices) that are kept; the one that was silent longest goes first."""
    qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    answer_qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    retain: bool = False
    expiry: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 0


class MqttConfig(BrokerConfig, frozen=True):
    """`[mqtt]`: the broker whose messages are answered, and the limits; off while `host` is empty."""

    session_expiry: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 604_800
    """Seconds for which the broker keeps messages for us while we are away (MQTT 5)."""
    topic: str = "appliance/{client_id}"
    """Under it are our own topics: `online`, `status` and `errors`."""
    max_payload_bytes: Positive = 262_144
    max_rows: Positive = 1000
    """Rows in one message."""
    batch: Positive = 256
    """Messages that are answered by one run and one commit at most; what waits is taken, nothing is waited for."""
    max_unacknowledged: Positive = 500
    """Answers on their way to a broker; a broker that allows fewer is obeyed."""
    outbox_bytes: Positive = 256 * 1024 * 1024
    """Of answers and messages that wait on disk."""
    outbox_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Age at which a waiting answer is dropped; 0: never."""
    outbox_full: Literal["refuse", "oldest", "newest"] = "refuse"
    """At the limit: acknowledge no more messages, drop the oldest answers, or drop the new ones."""
    status_seconds: Seconds = 30.0
    """Between two status messages."""
    discovery: bool = False
    """Whether Home Assistant is told of every topic that answers go to."""
    discovery_prefix: str = "homeassistant"
    upstream: UpstreamConfig = UpstreamConfig()
    subscriptions: tuple[SubscriptionConfig, ...] = ()
    rows: tuple[RowsConfig, ...] = ()


class Config(Section, frozen=True):
    """The whole configuration."""

    http: HttpConfig = HttpConfig()
    models: ModelsConfig = ModelsConfig()
    store: StoreConfig = StoreConfig()
    mqtt: MqttConfig = MqttConfig()
    pull: PullConfig = PullConfig()
    log: LogConfig = LogConfig()

    @property
    def state_dir(self) -> Path:
        """The state folder."""
        return Path(self.store.state_dir)

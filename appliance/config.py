"""Every setting with its type, default and unit, as one frozen tree; settings.py reads it from file and environment.

Defaults, units and meanings stand here and nowhere else: `make settings-docs` writes docs/configuration.md from the
text below each setting.
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
    """`[http]`: where and how requests come in, and their limits.

    What is asked and answered: docs/http.md.
    """

    host: str = "127.0.0.1"
    """Address to bind. Beyond loopback it needs `tokens_file`, or `auth = "none"`."""
    port: Port = 8080
    """TCP port; 0 lets the system choose, and the log line `listening` tells which."""
    processes: Positive = 1
    """Processes that share the port. One is smallest; two nearly double small requests on two cores."""
    threads: Positive = 2
    """Threads of each process for large or slow requests; small ones run where they were read."""
    auth: Literal["tokens", "none"] = "tokens"
    """`none`: a port beyond loopback needs no token. `tokens`: it needs `tokens_file`."""
    tokens_file: str = ""
    """File of tokens (docs/configuration.md#the-tokens-file). Once set, requests from this host need one too."""
    hosts: tuple[str, ...] = ()
    """Names by which this host is asked where no token is needed, beside its addresses and localhost. Requests of
    another name (`Host`), or of another site's page (`Origin`), are refused: 403.
    """
    max_body_bytes: Positive = 32 * 1024 * 1024
    """Bytes of a body, as sent and as decompressed; beyond: 413."""
    max_decoded_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Bytes of memory that all large requests of one process may take together, decoded and answered; beyond: 413 with
    the number, or 503 while others hold them. 0: a quarter of the cgroup's or the host's limit, divided by `processes`,
    at most 128 MiB.
    """
    max_rows: Positive = 100_000
    """Rows in one request; beyond: 413."""
    max_nesting: Positive = 32
    """Brackets within brackets in a JSON body; beyond: 413."""
    max_waiting: Positive = 256
    """Requests of one process that run or wait; one more is answered 503."""
    max_connections: Positive = 1024
    """Open connections of one process; for one more, one that does not read its answers, is silent or slow makes room:
    of the client with the most connections first.
    """
    request_timeout: Seconds = 30.0
    """Seconds from a request's first byte to its last; a slower one is answered 408."""
    idle_timeout: Seconds = 120.0
    """Seconds after which a connection without a request is closed."""
    health_route: str = ""
    """One more path that answers as `/health/ready`."""
    predict_route: str = ""
    """One more path that answers as `/invocations`."""
    drain_timeout: Seconds = 20.0
    """Seconds that running requests have to finish after SIGTERM."""


class ModelsConfig(Section, frozen=True):
    """`[models]`: how versions are loaded and run."""

    threads: Positive = 1
    """Intra-op threads of one onnxruntime session. More than one helps large batches alone."""
    poll_seconds: Seconds = 0.5
    """Seconds between two looks at what the store says is active."""
    pinned_versions: Annotated[int, msgspec.Meta(ge=0)] = 2
    """Inactive versions kept loaded because requests named them; a further one is answered 503 until one of them was
    idle for a minute.
    """
    self_test_seconds: Seconds = 30.0
    """Seconds that load and self-test of a version may take, in a process of their own; beyond: refused."""
    max_memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Bytes that load and self-test may take beside the program itself. 0: 8 times `model.onnx`, at least 512 MiB, and
    at most half of what host or cgroup has.
    """
    run_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    """Seconds after which the run of a graph is ended (413, or the error topic), between two of its nodes or turns of a
    loop; 0: never.
    """
    overflow: Literal["refuse", "answer"] = "refuse"
    """What becomes of an answer that is infinite though every number of its row was finite: `refuse` (400), or `answer`
    for models that mean it, as a log density. See docs/http.md#numbers-without-an-end.
    """
    default: str = ""
    """The model that `/predict` and `/invocations` mean; empty where only one is active."""


class StoreConfig(Section, frozen=True):
    """`[store]`: the state folder."""

    state_dir: str = DEFAULT_STATE_DIR
    """Folder of the installed versions and receipts; also `--state-dir`."""
    preload_dir: str = "/opt/ml/model"
    """Bundles found here are installed and activated when the service starts."""
    trusted_keys: tuple[str, ...] = ()
    """Files of public keys (PEM), one of which must have signed what is installed and what goes live; several for
    rotation, in files of their own or in one. Read again each time. In the variable they stand between `:` or `,`.
    """
    revoke: Literal["keep", "stop"] = "keep"
    """What becomes of a version that serves when its key is trusted no more: `keep` it serving and say so in health and
    status, or `stop` it.
    """
    max_bundle_bytes: Positive = 1024**3
    """Bytes of one bundle's members together, unpacked; a larger one is refused before anything of it is inflated."""


class PullConfig(Section, frozen=True):
    """`[pull]`: where `appliance pull` takes signed bundles from.

    Nothing is pulled while `source` is empty, nor without `[store] trusted_keys`: docs/how-to/pull.md.
    """

    source: str = ""
    """A folder, `https://HOST/PATH/index.json`, `oci://REGISTRY/REPOSITORY:TAG` or `...@sha256:DIGEST`."""
    activate: bool = True
    """Whether what was installed is activated, after its self-test."""
    models: tuple[str, ...] = ()
    """Models that may come although they are not installed here yet; what is installed follows the source."""
    allow_older: bool = False
    """Whether a version is taken that is not newer than the newest that was ever installed here."""
    ca_file: str = ""
    """Authorities (PEM) that may have signed the server's certificate; empty: the system's."""
    cert_file: str = ""
    """Our certificate (PEM), for servers that ask for one."""
    key_file: str = ""
    """Its key (PEM), without a password."""
    token_file: str = ""
    """File that holds one line: a token, or `user:password`; never sent without TLS."""
    proxy: str = ""
    """`http://HOST:PORT` of an HTTP proxy; empty: none, whatever `https_proxy` says."""
    auth_hosts: tuple[str, ...] = ()
    """Token servers that may see the password of `token_file` beside the registry itself: `HOST`, in the file also
    `HOST:PORT`.
    """
    timeout: Seconds = 30.0
    """Seconds of silence after which a connection is given up."""
    deadline: Seconds = 1800.0
    """Seconds that one pull may take as a whole, shared out among its bundles; the next pull goes on with what was
    begun.
    """
    max_bytes: Positive = 2 * 1024**3
    """Bytes of one bundle; a larger one is refused before it is fetched."""


class LogConfig(Section, frozen=True):
    """`[log]`: JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written: debug, info, warning or error."""
    requests: bool = False
    """Whether each request writes a line."""


class BrokerConfig(Section, frozen=True):
    """How one MQTT broker is reached."""

    host: str = ""
    """Name or address of the broker; empty: none."""
    port: Port = 0
    """TCP port; 0 is 1883, or 8883 with `tls`."""
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


class UpstreamConfig(BrokerConfig, frozen=True):
    """`[mqtt.upstream]`: a second broker, for the answers.

    Answers go to it instead of to the broker of `[mqtt]`; while it is away they wait on disk.
    """

    replay_rate: Annotated[float, msgspec.Meta(gt=0)] = 100.0
    """Answers a second that are sent of those that waited, beside the live ones."""


class SubscriptionConfig(Section, frozen=True):
    """`[[mqtt.subscriptions]]`: messages that are answered, any number.

    Lists of tables stand in the file alone; they have no variables.
    """

    topic: str
    """Topic filter: `+`, `#`, `$share/GROUP/FILTER`."""
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
    payload: Literal["json", "cbor", "value"] = "json"
    """`json`, `cbor` (needs the extra `cbor`; answers are CBOR too), or `value`: one number or text, for models of one
    column.
    """
    at: str = ""
    """Path to the row or rows in the payload, as `data.rows`; empty: the payload itself."""
    fields: dict[str, str] = {}
    """Column to the path of its value within the row: `{ temp = "data.temp" }`; columns not named here are found by
    their own names.
    """
    id: str = ""
    """Path to the message's id; empty, or absent in a message: a digest of its topic and payload."""
    echo: tuple[str, ...] = ()
    """Paths of fields that the answer repeats."""
    qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    """Of the subscription: 0 or 1."""
    answer_qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    """Of the answers: 0 or 1."""
    retain: bool = False
    """Whether the broker keeps the last answer of each topic for later subscribers."""
    expiry: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 0
    """Seconds after which a broker may drop an undelivered answer (MQTT 5); 0: never."""


class FeedConfig(Section, frozen=True):
    """`[[mqtt.rows.feeds]]`: the topics of one row."""

    topic: str
    """Topic whose levels in braces are the row's key: `line/{device}/temperature`."""
    columns: dict[str, Literal["last", "mean", "min", "max", "std", "count", "slope"]]
    """Column to what it holds of the window: `last`, `mean`, `min`, `max`, `std`, `count` or `slope` (per second)."""
    path: str = ""
    """Path to the value in a JSON payload; empty: the payload is the value alone."""
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
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
    answer_qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    """Of the answers: 0 or 1."""
    retain: bool = False
    """Whether the broker keeps the last answer of each topic for later subscribers."""
    expiry: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 0
    """Seconds after which a broker may drop an undelivered answer (MQTT 5); 0: never."""


class MqttConfig(BrokerConfig, frozen=True):
    """`[mqtt]`: the broker whose messages are answered, and the limits.

    How it all works together: docs/mqtt.md.
    """

    session_expiry: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 604_800
    """Seconds for which the broker keeps messages while we are away (MQTT 5; older brokers have their own limit)."""
    topic: str = "appliance/{client_id}"
    """Our own topics are below it: `online`, `status` and `errors`."""
    max_payload_bytes: Positive = 262_144
    """Bytes of one message; beyond: error topic, reason `too_large`."""
    max_rows: Positive = 1000
    """Rows in one message; beyond: error topic."""
    batch: Positive = 256
    """Messages answered by one run and one commit at most. What waits is taken; nothing is waited for."""
    max_unacknowledged: Positive = 500
    """Answers on their way to a broker; a broker that allows fewer is obeyed."""
    outbox_bytes: Positive = 256 * 1024 * 1024
    """Bytes of answers, and of messages whose model is not ready, that may wait on disk."""
    outbox_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
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

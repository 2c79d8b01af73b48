"""The one configuration: typed, frozen, read from file and environment, checked once.

A setting's place is `[section] key` in the TOML file and `APPLIANCE_SECTION_KEY` in the environment, which wins.
Defaults and units stand here and nowhere else; docs/configuration.md is compared with them by a test.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from appliance.errors import ConfigError

DEFAULT_STATE_DIR = "/var/lib/appliance"

Positive = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the configuration file: immutable, and unknown keys are an error."""


class HttpConfig(_Section, frozen=True):
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


class ModelsConfig(_Section, frozen=True):
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


class StoreConfig(_Section, frozen=True):
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


class PullConfig(_Section, frozen=True):
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


class LogConfig(_Section, frozen=True):
    """`[log]`: JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: bool = False
    """Whether each request writes a line."""


class BrokerConfig(_Section, frozen=True):
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


class SubscriptionConfig(_Section, frozen=True):
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


class FeedConfig(_Section, frozen=True):
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


class RowsConfig(_Section, frozen=True):
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


class Config(_Section, frozen=True):
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


# Names that others set, beside the derived ones.
_ALIASES = {
    "APPLIANCE_STATE_DIR": ("store", "state_dir"),
    "AIP_HTTP_PORT": ("http", "port"),  # Vertex AI
    "AIP_HEALTH_ROUTE": ("http", "health_route"),
    "AIP_PREDICT_ROUTE": ("http", "predict_route"),
    "SAGEMAKER_BIND_TO_PORT": ("http", "port"),  # SageMaker
}
_NOT_SETTINGS = {"APPLIANCE_CONFIG", "APPLIANCE_KEY_PASSWORD_FILE"}


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """Return the configuration: defaults, then `file` (TOML), then `environment`, then `overrides` (command line).

    Raises ConfigError for a file that cannot be read, an unknown setting, a wrong type or a value out of range.
    """
    raw: dict[str, Any] = _read(file) if file else {}
    for (section, key), value in _from_environment(os.environ if environment is None else environment).items():
        _section(raw, section)[key] = value
    for section, values in (overrides or {}).items():
        _section(raw, section).update(values)
    try:
        # Not strict: the environment has only text, and "8080" must do for a port.
        return msgspec.convert(raw, Config, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"configuration{f' {file}' if file else ''}", str(error), "correct it; see docs/configuration.md"
        ) from error


def _read(file: Path) -> dict[str, Any]:
    """Return the tables of a TOML file."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"configuration {file}", str(error), "correct the file or leave out --config") from error


def _section(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the table `name` (`mqtt.upstream` is a table within a table) of `raw`, made if absent."""
    table = raw
    for part in name.split("."):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"configuration [{name}]", "is a value, not a table", "write it as [section] and keys")
    return table


def _from_environment(environment: Mapping[str, str]) -> dict[tuple[str, str], str | list[str]]:
    """Return {(section, key): text} of the variables that name a setting; a list's texts stand between : or commas.

    An APPLIANCE_ variable that names none is an error: a typing mistake must not be silent.
    """
    defaults = settings()
    known = {variable_of(section, key): (section, key) for section, key in defaults}
    found: dict[tuple[str, str], str | list[str]] = {}
    for name, value in environment.items():
        place = _ALIASES.get(name) or known.get(name)
        if place:
            several = isinstance(defaults[place], tuple)
            found[place] = [part for part in re.split("[:,]", value) if part] if several else value
        elif name.startswith("APPLIANCE_") and name not in _NOT_SETTINGS:
            raise ConfigError(f"environment variable {name}", "names no setting", "see docs/configuration.md")
    return found


def settings() -> dict[tuple[str, str], Any]:
    """Return {(section, key): default} of every setting, in the order of the classes above.

    A table within a table is a section of its own (`mqtt.upstream`). Lists of tables have no place here: see tables().
    """
    return {
        (section, field.name): field.default
        for section, kind in _sections(Config, "")
        for field in msgspec.structs.fields(kind)
        if not _is_table(field.type) and not _row_of(field.type)
    }


def tables() -> dict[str, dict[str, Any]]:
    """Return {list of tables: {key: default}}, as `mqtt.subscriptions`; a key that must be given has no default."""
    found: dict[str, dict[str, Any]] = {}
    open_ = list(_sections(Config, ""))
    for name, kind in open_:
        for field in msgspec.structs.fields(kind):
            row = _row_of(field.type)
            if row:
                own = f"{name}.{field.name}"
                found[own] = {
                    one.name: None if one.default is msgspec.NODEFAULT and one.required else _default(one)
                    for one in msgspec.structs.fields(row)
                    if not _row_of(one.type)
                }
                open_.append((own, row))
    return found


def variable_of(section: str, key: str) -> str:
    """Return the name of a setting's environment variable."""
    return f"APPLIANCE_{section.replace('.', '_').upper()}_{key.upper()}"


def _sections(kind: type, name: str) -> Iterator[tuple[str, type]]:
    """Yield (name, class) of the tables within a table."""
    for field in msgspec.structs.fields(kind):
        if _is_table(field.type):
            own = f"{name}.{field.name}" if name else field.name
            yield own, field.type
            yield from _sections(field.type, own)


def _is_table(kind: Any) -> bool:
    """Return whether a field's type is a table."""
    return isinstance(kind, type) and issubclass(kind, _Section)


def _row_of(kind: Any) -> Any:
    """Return the class of the tables in a list of tables, None for another type."""
    first = (get_args(kind) or (None,))[0]
    return first if _is_table(first) else None


def _default(field: msgspec.structs.FieldInfo) -> Any:
    """Return a field's default."""
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()

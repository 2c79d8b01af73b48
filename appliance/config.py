"""The one configuration: typed, frozen, read from file and environment, checked once.

A setting's place is `[section] key` in the TOML file and `APPLIANCE_SECTION_KEY` in the environment, which wins.
Defaults and units stand here and nowhere else; docs/configuration.md is compared with them by a test.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

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
    server: Literal["waitress", "granian"] = "waitress"
    auth: Literal["tokens", "none"] = "tokens"
    """`none` says outright that a port beyond loopback needs no token."""
    tokens_file: str = ""
    """File of `scope token` lines (scope predict or admin), readable by the service alone."""
    max_body_bytes: Positive = 32 * 1024 * 1024
    """Of the body as sent and as decompressed."""
    max_rows: Positive = 100_000
    """Rows in one request."""
    max_nesting: Positive = 32
    """Brackets within brackets in a JSON body."""
    max_waiting: Positive = 256
    """Requests of one process that run or wait; one more is answered 503."""
    max_connections: Positive = 1024
    """Open connections of one process; more wait in the system's queue."""
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
    """Inactive versions kept loaded because requests named them."""
    default: str = ""
    """The model that `/predict` and `/invocations` mean; empty where only one is active."""


class StoreConfig(_Section, frozen=True):
    """`[store]`: the state folder."""

    state_dir: str = DEFAULT_STATE_DIR
    preload_dir: str = "/opt/ml/model"
    """Bundles found here are installed and activated when the service starts (SageMaker puts the model there)."""
    trusted_keys: tuple[str, ...] = ()
    """Files of public keys (PEM), one of which must have signed a bundle for it to be installed; none asks for none."""


class LogConfig(_Section, frozen=True):
    """`[log]`: JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: bool = False
    """Whether each request writes a line."""


class Config(_Section, frozen=True):
    """The whole configuration."""

    http: HttpConfig = HttpConfig()
    models: ModelsConfig = ModelsConfig()
    store: StoreConfig = StoreConfig()
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
    """Return the table `name` of `raw`, made if absent."""
    table = raw.setdefault(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"configuration [{name}]", "is a value, not a table", "write it as [section] and keys")
    return table


def _from_environment(environment: Mapping[str, str]) -> dict[tuple[str, str], str | list[str]]:
    """Return {(section, key): text} of the variables that name a setting; a list's texts stand between : or commas.

    An APPLIANCE_ variable that names none is an error: a typing mistake must not be silent.
    """
    defaults = settings()
    known = {f"APPLIANCE_{section.upper()}_{key.upper()}": (section, key) for section, key in defaults}
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
    """Return {(section, key): default} of every setting, in the order of the classes above."""
    return {
        (section.name, field.name): field.default
        for section in msgspec.structs.fields(Config)
        for field in msgspec.structs.fields(section.type)
    }

"""How file, environment and command line become a Config, checked once; and the list of all settings.

A setting's place is `[section] key` in the TOML file and `APPLIANCE_SECTION_KEY` in the environment, which wins.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from appliance.config import Config, Section
from appliance.errors import ConfigError
from appliance.setting_errors import explained

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
        found, next_step = explained(str(error), Config)
        raise ConfigError(f"configuration{f' {file}' if file else ''}", found, next_step) from error


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


def _from_environment(
    environment: Mapping[str, str],
) -> dict[tuple[str, str], str | list[str] | dict[str, str]]:
    """Return {(section, key): text} of the variables that name a setting; see _read_variable().

    An APPLIANCE_ variable that names none is an error: a typing mistake must not be silent.
    """
    defaults = settings()
    known = {variable_of(section, key): (section, key) for section, key in defaults}
    found: dict[tuple[str, str], str | list[str] | dict[str, str]] = {}
    for name, value in environment.items():
        place = _ALIASES.get(name) or known.get(name)
        if place:
            found[place] = _read_variable(value, defaults[place])
        elif name.startswith("APPLIANCE_") and name not in _NOT_SETTINGS:
            raise ConfigError(f"environment variable {name}", "names no setting", "see docs/configuration.md")
    return found


def _read_variable(value: str, default: Any) -> str | list[str] | dict[str, str]:
    """Return a variable's text as a setting's value: a list's texts stand between : or commas, a table is k=v,k=v."""
    if isinstance(default, tuple):
        return [part for part in re.split("[:,]", value) if part]
    if isinstance(default, dict):
        return {
            key.strip(): text.strip() for key, _, text in (part.partition("=") for part in value.split(",") if part)
        }
    return value


def settings() -> dict[tuple[str, str], Any]:
    """Return {(section, key): default} of every setting, in the order of the classes in config/.

    A table within a table is a section of its own (`mqtt.upstream`). Lists of tables have no place here: see tables().
    """
    return {
        (section, field.name): _default(field)
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
    return isinstance(kind, type) and issubclass(kind, Section)


def _row_of(kind: Any) -> Any:
    """Return the class of the tables in a list of tables, None for another type."""
    first = (get_args(kind) or (None,))[0]
    return first if _is_table(first) else None


def _default(field: msgspec.structs.FieldInfo) -> Any:
    """Return a field's default."""
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()

"""Settings that have no effect: refused where a user would wait in vain, else logged."""

from typing import Any

from appliance.config import BrokerConfig, Config, MqttConfig
from appliance.errors import ConfigError
from appliance.settings import settings, tables, variable_of


def refuse(config: Config) -> None:
    """Raise ConfigError for settings that ask for messages, encryption or an identity but have no effect."""
    alone = [name for name in ("key", "client_ca") if getattr(config.http, name) and not config.http.certificate]
    if alone:
        found = f"{alone[0]} is set without certificate: the connections would not be encrypted"
        next_step = f"set certificate ({variable_of('http', 'certificate')}), or leave out {alone[0]}"
        raise ConfigError("configuration [http]", found, next_step)
    mqtt = config.mqtt
    if not mqtt.host:
        asked = {
            "[[mqtt.subscriptions]]": bool(mqtt.subscriptions),
            "[[mqtt.rows]]": bool(mqtt.rows),
            "[mqtt.upstream] host": bool(mqtt.upstream.host),
        }
        for name, is_set in asked.items():
            if is_set:
                next_step = f"set host in [mqtt], or {variable_of('mqtt', 'host')}, to the broker's name"
                raise ConfigError("configuration [mqtt]", f"{name} is set, and [mqtt] host is empty", next_step)
    for section, broker in (("mqtt", mqtt), ("mqtt.upstream", mqtt.upstream)):
        if broker.host:
            _refuse_broker(section, broker)


def found(config: Config) -> list[str]:
    """Return a sentence for each setting that has no effect beside the others, for the log and `appliance doctor`."""
    switches = [("mqtt", "host", config.mqtt.host), ("mqtt.upstream", "host", config.mqtt.upstream.host)]
    switches.append(("pull", "source", config.pull.source))
    said = [
        f"[{section}] {', '.join(changed)} has no effect while [{section}] {switch} is empty"
        for section, switch, on in switches
        if not on and (changed := _changed(config, section))
    ]
    if not config.log.predictions.enabled and (changed := _changed(config, "log.predictions")):
        said.append(f"[log.predictions] {', '.join(changed)} has no effect while [log.predictions] enabled is false")
    if config.http.auth == "none" and config.http.tokens_file:
        said.append('[http] tokens_file has no effect with auth = "none"')
    return said + (_of_mqtt(config.mqtt) if config.mqtt.host else [])


def _refuse_broker(section: str, broker: BrokerConfig) -> None:
    """Raise ConfigError for settings of a broker that contradict each other."""
    files = [name for name in ("ca_file", "cert_file", "key_file") if getattr(broker, name)]
    if files and not broker.tls:
        raise ConfigError(
            f"configuration [{section}]",
            f"{', '.join(files)} is set without tls = true: the connection would not be encrypted",
            f"set tls = true ({variable_of(section, 'tls')}), or leave out {', '.join(files)}",
        )
    for name, other in (("key_file", "cert_file"), ("password_file", "username")):
        if getattr(broker, name) and not getattr(broker, other):
            next_step = f"set {other} too ({variable_of(section, other)}), or leave out {name}"
            raise ConfigError(f"configuration [{section}]", f"{name} is set without {other}", next_step)


def _of_mqtt(config: MqttConfig) -> list[str]:
    """Return what has no effect in a configuration that has a broker."""
    said = []
    old = config.protocol == "3.1.1"
    defaults = tables()["mqtt.rows"]
    if old and config.session_expiry not in (0, settings()["mqtt", "session_expiry"]):
        said.append('[mqtt] session_expiry says with protocol = "3.1.1" only whether the broker keeps anything (not 0)')
    for one in config.subscriptions:
        place = f"[[mqtt.subscriptions]] {one.topic!r}"
        if one.retain and not one.answer:
            said.append(f"{place} retain has no effect without answer")
        if one.respond and old:
            said.append(f'{place} respond has no effect with protocol = "3.1.1"')
    for rows in config.rows:
        if rows.when != "every" and rows.seconds != defaults["seconds"]:
            said.append(f'[[mqtt.rows]] {rows.name!r} seconds has no effect without when = "every"')
    answers_old = config.upstream.protocol == "3.1.1" if config.upstream.host else old
    if answers_old and any([*(one.expiry for one in config.subscriptions), *(one.expiry for one in config.rows)]):
        said.append('expiry has no effect with protocol = "3.1.1"')
    return said


def _changed(config: Config, section: str) -> list[str]:
    """Return the keys of a section that are not at their default."""
    table: Any = config
    for part in section.split("."):
        table = getattr(table, part)
    return [key for (name, key), default in settings().items() if name == section and getattr(table, key) != default]

"""Settings without effect: refused where something is waited for that never happens, else told."""

import msgspec
import pytest
from click.testing import CliRunner

from appliance.cli import appliance as command
from appliance.cli import doctor, no_effect
from appliance.config import Config
from appliance.errors import ConfigError

SUBSCRIPTION = {"topic": "in", "answer": "out"}
ROWS = {"name": "r", "answer": "out", "feeds": [{"topic": "in/{a}", "columns": {"x": "last"}}]}


def made(**sections) -> Config:
    return msgspec.convert(sections, Config)


@pytest.mark.parametrize(
    "mqtt",
    [{"subscriptions": [SUBSCRIPTION]}, {"rows": [ROWS]}, {"upstream": {"host": "far"}}],
    ids=lambda one: next(iter(one)),
)
def test_what_needs_a_broker_is_refused_without_one(mqtt):
    with pytest.raises(ConfigError) as raised:
        no_effect.refuse(made(mqtt=mqtt))
    assert "host is empty" in raised.value.found
    assert "APPLIANCE_MQTT_HOST" in raised.value.next_step
    assert doctor.check_settings(made(mqtt=mqtt)).state == "fail"
    no_effect.refuse(made(mqtt={**mqtt, "host": "near"}))


def test_serve_ends_with_the_reason(tmp_path):
    file = tmp_path / "appliance.toml"
    file.write_text('[http]\nport = 0\n[[mqtt.subscriptions]]\ntopic = "in"\nanswer = "out"\n')
    result = CliRunner().invoke(
        command, ["serve", "--config", str(file), "--state-dir", str(tmp_path / "state")], env={}
    )
    assert result.exit_code == 2
    assert "[mqtt] host is empty" in result.output


@pytest.mark.parametrize("section", ["mqtt", "mqtt.upstream"])
@pytest.mark.parametrize(
    "settings", [{"ca_file": "ca.pem"}, {"tls": True, "key_file": "key.pem"}, {"password_file": "password"}]
)
def test_files_that_would_not_be_used_are_refused(section, settings):
    broker = {"host": "near", **settings}
    mqtt = broker if section == "mqtt" else {"host": "near", "upstream": broker}
    with pytest.raises(ConfigError, match="is set without"):
        no_effect.refuse(made(mqtt=mqtt))


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"mqtt": {"batch": 1}}, "batch"),
        ({"mqtt": {"host": "near", "upstream": {"replay_rate": 5.0}}}, "replay_rate"),
        ({"pull": {"ca_file": "ca.pem"}}, "[pull] ca_file"),
        ({"http": {"auth": "none", "tokens_file": "tokens"}}, "tokens_file"),
        ({"mqtt": {"host": "near", "protocol": "3.1.1", "session_expiry": 5}}, "session_expiry"),
        ({"mqtt": {"host": "near", "protocol": "3.1.1", "subscriptions": [{**SUBSCRIPTION, "expiry": 5}]}}, "expiry"),
        (
            {"mqtt": {"host": "near", "protocol": "3.1.1", "subscriptions": [{**SUBSCRIPTION, "respond": ["x"]}]}},
            "respond",
        ),
        ({"mqtt": {"host": "near", "subscriptions": [{"topic": "in", "respond": ["x"], "retain": True}]}}, "retain"),
        ({"mqtt": {"host": "near", "rows": [{**ROWS, "seconds": 5}]}}, "seconds"),
    ],
)
def test_a_setting_without_effect_is_told(sections, told):
    config = made(**sections)
    no_effect.refuse(config)
    (sentence,) = no_effect.found(config)
    assert told in sentence
    assert doctor.check_settings(config).state == "warn"


def test_defaults_and_a_whole_configuration_tell_nothing():
    assert no_effect.found(Config()) == []
    rows = {**ROWS, "when": "every", "seconds": 5.0}
    upstream = {"host": "far", "replay_rate": 5.0}
    whole = made(
        mqtt={"host": "near", "batch": 1, "subscriptions": [SUBSCRIPTION], "rows": [rows], "upstream": upstream}
    )
    no_effect.refuse(whole)
    assert no_effect.found(whole) == []

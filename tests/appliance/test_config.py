"""The configuration: defaults, file, environment and command line, in that order, checked once."""

import importlib.util
from operator import attrgetter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import settings
from appliance.config import Config
from appliance.errors import ConfigError
from appliance.settings import load


def write(folder: Path, text: str) -> Path:
    file = folder / "appliance.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_defaults_serve_this_host_alone():
    found = load(environment={})
    assert found == Config()
    assert (found.http.host, found.http.port, found.http.auth) == ("127.0.0.1", 8080, "tokens")
    assert found.state_dir == Path("/var/lib/appliance")


def test_the_environment_beats_the_file_and_the_command_line_beats_both(tmp_path):
    file = write(tmp_path, '[http]\nport = 1001\nhost = "10.0.0.1"\nthreads = 3\n')
    environment = {"APPLIANCE_HTTP_PORT": "1002", "APPLIANCE_HTTP_HOST": "10.0.0.2"}
    found = load(file, environment, {"http": {"port": 1003}})
    assert (found.http.threads, found.http.host, found.http.port) == (3, "10.0.0.2", 1003)


@pytest.mark.parametrize(("section", "key"), list(settings.settings()))
def test_every_setting_has_its_variable(section, key):
    default = settings.settings()[section, key]
    text = ":".join(default) if isinstance(default, tuple | dict) else str(default).lower()
    found = load(environment={settings.variable_of(section, key): text})
    assert attrgetter(f"{section}.{key}")(found) == default


def test_texts_of_the_environment_become_numbers_and_booleans():
    environment = {"APPLIANCE_HTTP_PORT": "0", "APPLIANCE_LOG_REQUESTS": "true", "APPLIANCE_MODELS_POLL_SECONDS": "2"}
    found = load(environment=environment)
    assert (found.http.port, found.log.requests, found.models.poll_seconds) == (0, True, 2.0)


@pytest.mark.parametrize(
    ("name", "value", "section", "key", "expected"),
    [
        ("APPLIANCE_STATE_DIR", "/srv/state", "store", "state_dir", "/srv/state"),
        ("AIP_HTTP_PORT", "8081", "http", "port", 8081),
        ("AIP_HEALTH_ROUTE", "/healthz", "http", "health_route", "/healthz"),
        ("AIP_PREDICT_ROUTE", "/p", "http", "predict_route", "/p"),
        ("SAGEMAKER_BIND_TO_PORT", "8082", "http", "port", 8082),
    ],
)
def test_names_that_others_set_are_read(name, value, section, key, expected):
    assert getattr(getattr(load(environment={name: value}), section), key) == expected


def test_variables_of_others_are_left_alone():
    assert load(environment={"PATH": "/bin", "AIP_MODE": "x", "APPLIANCE_CONFIG": "/etc/a.toml"}) == Config()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[http]\nporrt = 1\n", "porrt"),
        ("[htp]\nport = 1\n", "htp"),
        ("[http]\nport = 70000\n", "http.port"),
        ("[http]\nprocesses = 0\n", "http.processes"),
        ("[http]\nrequest_timeout = -1\n", "http.request_timeout"),
        ('[http]\nport = "many"\n', "http.port"),
        ('[mqtt]\nprotocol = "4"\n', "mqtt.protocol"),
        ("[[mqtt.subscriptions]]\nqos = 2\n", "mqtt.subscriptions"),
        ("[[mqtt.subscriptions]]\nanswer = 'x'\n", "topic"),
        ("[mqtt.upstream]\nreplay_rate = 0\n", "mqtt.upstream.replay_rate"),
        ('[http]\nauth = "maybe"\n', "http.auth"),
        ("[http\n", "line 1"),
        ("http = 3\n", "http"),
    ],
)
def test_a_mistake_in_the_file_is_an_error_that_names_it(tmp_path, text, found):
    with pytest.raises(ConfigError, match=found):
        load(write(tmp_path, text), {})


def test_an_unknown_variable_of_ours_is_an_error_since_it_is_a_typing_mistake():
    with pytest.raises(ConfigError, match="APPLIANCE_HTTP_PROT"):
        load(environment={"APPLIANCE_HTTP_PROT": "8080"})


def test_a_section_that_is_a_value_is_an_error_also_beside_a_variable(tmp_path):
    with pytest.raises(ConfigError, match="is a value, not a table"):
        load(write(tmp_path, "http = 3\n"), {"APPLIANCE_HTTP_PORT": "1"})


def test_a_file_that_is_absent_or_no_text_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        load(tmp_path / "nothing.toml", {})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml"):
        load(tmp_path / "binary.toml", {})


def test_the_configuration_cannot_be_changed_once_it_was_checked():
    with pytest.raises(AttributeError):
        load(environment={}).http.port = 1


@given(st.text())
def test_any_file_gives_a_configuration_or_a_config_error(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("config") / "any.toml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found: object = load(file, {})
    except ConfigError as error:
        found = error
    assert isinstance(found, Config) or (found.tried and found.found)


def rows(document: str) -> dict[tuple[str, str], tuple[str, str, str]]:
    """Return {(section, key): (default, variable, meaning)} of docs/configuration.md's tables."""
    found = {}
    section = ""
    for line in document.splitlines():
        if line.startswith("## `["):
            section = line.split("[")[1].split("]")[0]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if section and line.startswith("| `") and len(cells) == 4:
            key, default, variable, meaning = cells
            found[section, key.strip("`")] = (default.strip("`"), variable.strip("`"), meaning)
    return found


def test_the_documentation_has_every_setting_with_its_default_and_no_other():
    document = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = rows(document)
    assert list(documented) == list(settings.settings())
    for (section, key), (default, variable, meaning) in documented.items():
        assert default == msgspec.json.encode(settings.settings()[section, key]).decode(), key
        assert variable == settings.variable_of(section, key)
        assert len(meaning) > 10, key


def test_the_tables_of_the_documentation_are_written_from_the_code():
    file = Path(__file__).parents[2] / "docs" / "settings.py"
    spec = importlib.util.spec_from_file_location("settings_docs", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(module.PAGE.read_text(encoding="utf-8"))


def lists_of_tables(document: str) -> dict[str, dict[str, tuple[str, str]]]:
    """Return {list of tables: {key: (default, meaning)}} of docs/configuration.md."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    name = ""
    for line in document.splitlines():
        if line.startswith("## "):
            name = line.split("[[")[1].split("]]")[0] if "`[[" in line else ""
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if name and line.startswith("| `") and len(cells) == 3:
            found.setdefault(name, {})[cells[0].strip("`")] = (cells[1].strip("`"), cells[2])
    return found


def test_the_documentation_has_every_list_of_tables_with_its_keys_and_defaults():
    document = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = lists_of_tables(document)
    expected = {
        name: {
            key: "required" if default is None else msgspec.json.encode(default).decode()
            for key, default in keys.items()
        }
        for name, keys in settings.tables().items()
    }
    assert {name: {key: default for key, (default, _) in keys.items()} for name, keys in documented.items()} == expected
    assert all(len(meaning) > 10 for keys in documented.values() for _, meaning in keys.values())


def test_subscriptions_and_rows_are_read_from_lists_of_tables(tmp_path):
    text = """
        [mqtt]
        host = "plant"
        [mqtt.upstream]
        host = "cloud"
        [[mqtt.subscriptions]]
        topic = "plant/+/sensors"
        fields = { temp = "data.temp" }
        [[mqtt.rows]]
        name = "line"
        answer = "line/{device}/prediction"
        [[mqtt.rows.feeds]]
        topic = "line/{device}/temperature"
        columns = { temp = "last", temp_mean = "mean" }
    """
    mqtt = load(write(tmp_path, text), {"APPLIANCE_MQTT_UPSTREAM_PORT": "8883"}).mqtt
    assert (mqtt.host, mqtt.upstream.host, mqtt.upstream.port) == ("plant", "cloud", 8883)
    assert mqtt.subscriptions[0].fields == {"temp": "data.temp"}
    assert mqtt.rows[0].feeds[0].columns == {"temp": "last", "temp_mean": "mean"}


def test_a_section_within_a_value_is_an_error_beside_its_variable(tmp_path):
    with pytest.raises(ConfigError, match="is a value, not a table"):
        load(write(tmp_path, "[mqtt]\nupstream = 3\n"), {"APPLIANCE_MQTT_UPSTREAM_HOST": "cloud"})


def test_the_documentation_names_what_others_set():
    document = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    for name, (section, key) in settings._ALIASES.items():
        assert f"| `{name}` | `[{section}] {key}` |" in document

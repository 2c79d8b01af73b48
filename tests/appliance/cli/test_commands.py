import http.server
import json
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

import appliance
from appliance import extras
from appliance.bundle.archive import open_bundle
from appliance.cli import EXIT_CODES, Options, exit_code
from appliance.cli import appliance as command
from appliance.drift_report import ColumnReport, DriftReport
from appliance.errors import (
    ActiveVersion,
    ApplianceError,
    BundleRefused,
    ConfigError,
    InvalidInput,
    Misuse,
    NotFound,
    NotReady,
    ParityFailed,
    SelfTestFailed,
    StoreError,
)
from appliance.monitoring import drift_state
from appliance.monitoring.quality import state as labels
from appliance.store.versions import Store

ROOT = Path(appliance.__file__).parents[1]


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def run(state):
    """Run the command in this process: run("models", "--json") -> Result (exit_code, stdout, stderr)."""

    def invoke(*arguments: object, **environment: str):
        texts = [str(argument) for argument in arguments]
        return CliRunner().invoke(command, texts, env={"APPLIANCE_STATE_DIR": str(state), **environment})

    return invoke


@pytest.fixture
def bundles(tmp_path, make_bundle):
    return {version: make_bundle(tmp_path, version=version) for version in ("1.0.0", "2.0.0")}


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Run the command as a process of its own."""
    code = "from appliance.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def document(result) -> dict:
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_the_way_from_bundle_to_roll_back_in_one_process_each(state, bundles):
    steps = [
        (("verify", bundles["1.0.0"], "--self-test"), "iris 1.0.0 is sound"),
        (("install", bundles["1.0.0"]), "iris 1.0.0 installed"),
        (("install", bundles["1.0.0"]), "iris 1.0.0 was installed already"),
        (("activate", "iris", "1.0.0"), "iris 1.0.0 is active, probation"),
        (("mark-good", "iris"), "iris 1.0.0 is active, good"),
        (("install", bundles["2.0.0"]), "iris 2.0.0 installed"),
        (("activate", "iris", "2.0.0"), "iris 2.0.0 is active, probation, rollback returns to 1.0.0"),
        (("rollback", "iris"), "iris 1.0.0 is active, good"),
        (("remove", "iris", "2.0.0"), "iris 2.0.0 removed"),
        (("models",), "1.0.0            active (good)"),
        (("deactivate", "iris"), "no version of iris is active, rollback returns to 1.0.0"),
        (("models",), "1.0.0            previous"),
        (("rollback", "iris"), "iris 1.0.0 is active, good"),
    ]
    for arguments, expected in steps:
        result = process(*arguments, "--state-dir", state)
        assert (result.returncode, result.stderr) == (0, ""), arguments
        assert expected in result.stdout


def test_json_is_one_document_and_nothing_else(run, bundles):
    assert document(run("inspect", bundles["1.0.0"], "--json"))["inputs"][0]["name"] == "features"
    assert document(run("verify", bundles["1.0.0"], "--json"))["self_test"] is None
    assert document(run("verify", bundles["1.0.0"], "--json", "--self-test"))["self_test"]["rows"] == 5
    installed = {"model": "iris", "version": "1.0.0", "changed": True}
    assert document(run("install", bundles["1.0.0"], "--json")) == installed
    assert document(run("install", bundles["1.0.0"], "--json")) == {**installed, "changed": False}
    active = document(run("activate", "iris", "1.0.0", "--why", "try", "--json"))
    assert (active["active"], active["state"], active["why"], active["changed"]) == ("1.0.0", "probation", "try", True)
    assert document(run("activate", "iris", "1.0.0", "--json"))["changed"] is False
    assert document(run("mark-good", "iris", "--json"))["state"] == "good"
    assert document(run("mark-good", "iris", "--json"))["changed"] is False
    document(run("install", bundles["2.0.0"], "--json"))
    document(run("activate", "iris", "2.0.0", "--json"))
    assert document(run("rollback", "iris", "--json"))["active"] == "1.0.0"
    listed = document(run("models", "--json"))["models"]
    assert [(model["name"], model["versions"], model["active"]) for model in listed] == [
        ("iris", ["1.0.0", "2.0.0"], "1.0.0")
    ]
    assert document(run("remove", "iris", "2.0.0", "--json")) == {"model": "iris", "version": "2.0.0", "changed": True}
    idle = document(run("deactivate", "iris", "--why", "no gate passed", "--json"))
    assert (idle["active"], idle["previous"], idle["changed"]) == (None, "1.0.0", True)
    assert document(run("models", "--json"))["models"][0]["why"] == "no gate passed"


def test_inspect_tells_a_person_what_the_model_takes_and_gives(tmp_path, run, make_bundle):
    text = run("inspect", make_bundle(tmp_path, kind="labels")).stdout
    assert "iris 1.0.0: classification, tests.Model from test" in text
    assert "input  features: float32 [-1, 4] of sepal_length, sepal_width, petal_length, petal_width" in text
    assert "labels setosa, versicolor, virginica" in text


def test_inspect_prints_the_certificate(tmp_path, run, make_bundle):
    bundle = make_bundle(tmp_path)
    assert json.loads(run("inspect", bundle, "--certificate").stdout) == json.loads(
        open_bundle(bundle).members["parity.json"]
    )


def test_an_error_has_three_labelled_parts_on_stderr(run, bundles):
    run("install", bundles["1.0.0"])
    result = run("activate", "irs", "1.0.0", "--json")
    assert result.exit_code == 4
    parts = {"tried": "find model 'irs'", "found": "it is not installed", "next": "did you mean iris?"}
    assert json.loads(result.stdout) == {"error": parts, "exit_code": 4}
    assert result.stderr.splitlines() == [
        "error: find model 'irs'",
        "found: it is not installed",
        "next:  did you mean iris?",
    ]
    plain = run("activate", "irs", "1.0.0")
    assert (plain.stdout, plain.stderr) == ("", result.stderr)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("models", "--jsn", "--json"), "--jsn"),
        (("activate", "iris", "--json"), "Missing argument"),
        (("statsu", "--json"), "did you mean status?"),
    ],
)
def test_a_misuse_is_json_too_where_json_is_asked_for(run, words, found):
    result = run(*words)
    told = json.loads(result.stdout)
    assert (result.exit_code, told["exit_code"]) == (2, 2)
    assert found in told["error"]["found"]
    assert found in result.stderr


def test_what_stands_behind_two_dashes_asks_for_no_json(run):
    result = run("activate", "--", "--json", "1.0.0")
    assert (result.exit_code, result.stdout) == (4, "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ApplianceError, 1), (StoreError, 1), (NotReady, 1), (Misuse, 2), (ConfigError, 2), (InvalidInput, 2),
        (BundleRefused, 3), (SelfTestFailed, 3), (ParityFailed, 3), (ActiveVersion, 3), (NotFound, 4),
    ],
)  # fmt: skip
def test_each_kind_of_error_has_its_exit_code(error, code):
    assert exit_code(error("tried", "found")) == code
    assert {number for _, number in EXIT_CODES} == {2, 3, 4}


def test_exit_codes_of_the_commands(tmp_path, run, bundles, make_bundle):
    (tmp_path / "bad.bundle").write_bytes(b"PK")
    wrong = make_bundle(tmp_path, version="9.0.0", error=1.0)
    run("install", bundles["1.0.0"])
    run("activate", "iris", "1.0.0")
    assert run("install", tmp_path / "bad.bundle").exit_code == 3
    assert run("verify", tmp_path / "bad.bundle").exit_code == 3
    assert run("inspect", tmp_path / "absent.bundle").exit_code == 4
    assert run("verify", wrong).exit_code == 0
    assert run("verify", wrong, "--self-test").exit_code == 3
    assert run("install", wrong).exit_code == 0
    assert run("activate", "iris", "9.0.0").exit_code == 3
    assert run("remove", "iris", "1.0.0").exit_code == 3
    assert run("remove", "iris", "3.0.0").exit_code == 4
    assert run("rollback", "iris").exit_code == 4
    assert run("deactivate", "absent").exit_code == 4
    assert run("activate", "iris").exit_code == 2
    assert run("no-such-command").exit_code == 2
    assert run("models", APPLIANCE_HTTP_PORTT="1").exit_code == 2
    assert run("models", APPLIANCE_STATE_DIR=str(tmp_path / "bad.bundle")).exit_code == 0
    assert run("install", bundles["2.0.0"], APPLIANCE_STATE_DIR=str(tmp_path / "bad.bundle")).exit_code == 1


@pytest.mark.parametrize("before", [True, False])
def test_common_options_may_stand_before_or_after_the_subcommand(tmp_path, run, bundles, before):
    other = tmp_path / "other"
    option = ("--state-dir", other)
    arguments = ("install", bundles["1.0.0"])
    assert run(*option, *arguments).exit_code == 0 if before else run(*arguments, *option).exit_code == 0
    assert Store(other).names() == ["iris"]


def test_the_configuration_file_names_the_state_folder_and_the_environment_wins(tmp_path, run, bundles):
    file = tmp_path / "appliance.toml"
    file.write_text(f'[store]\nstate_dir = "{tmp_path / "filed"}"\n')
    without = {key: value for key, value in os.environ.items() if key != "APPLIANCE_STATE_DIR"}
    for arguments in (("--config", file, "install"), ("install", "--config", file)):
        result = process(*arguments, bundles["1.0.0"], **without)
        assert result.returncode == 0, result.stderr
    assert Store(tmp_path / "filed").names() == ["iris"]
    listed = process("models", APPLIANCE_CONFIG=str(file), **without)
    assert "iris" in listed.stdout
    assert "no model" in process("models", APPLIANCE_CONFIG=str(file), APPLIANCE_STATE_DIR=str(tmp_path / "e")).stdout
    assert run("models", "--config", tmp_path / "absent.toml").exit_code == 2


def test_an_option_after_the_subcommand_wins_over_one_before(tmp_path, run, bundles):
    run("--state-dir", tmp_path / "a", "install", bundles["1.0.0"], "--state-dir", tmp_path / "b")
    assert Store(tmp_path / "b").names() == ["iris"]
    assert not (tmp_path / "a").exists()


def test_an_unexpected_error_is_one_message_and_its_place_is_shown_on_demand(monkeypatch, run):
    def fails(self, **overrides):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Options, "config", fails)
    result = run("models")
    assert result.exit_code == 1
    assert "unexpected ZeroDivisionError: planted" in result.stderr
    assert "Traceback" not in result.stderr
    assert "--debug" in result.stderr
    assert "Traceback" in run("--debug", "models").stderr
    assert "Traceback" in run("models", "--debug").stderr


def test_help_loads_neither_numpy_nor_onnxruntime_nor_flask():
    code = """
import sys
from appliance.cli import appliance
appliance.main(sys.argv[1:], standalone_mode=False)
heavy = {"numpy", "onnxruntime", "flask", "waitress", "prometheus_client", "sklearn"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for arguments in (["--help"], ["models", "--state-dir", "/nonexistent"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr


def test_help_lists_every_command(run):
    text = run("--help").stdout
    for name in ("inspect", "verify", "install", "activate", "mark-good", "rollback", "deactivate", "models", "remove"):
        assert f"\n  {name} " in text
    for name in ("serve", "status", "doctor", "convert"):
        assert f"\n  {name} " in text


def test_an_unknown_command_is_answered_with_the_one_that_comes_close(run):
    result = run("modles")
    assert result.exit_code == 2
    assert "did you mean models?" in result.stderr


def test_a_command_of_the_build_machine_says_which_extra_brings_it(monkeypatch, run):
    monkeypatch.setitem(extras.MODULES, "convert", ("joblib", "a_module_that_is_absent", "a.module"))
    for name in ("convert", "lint"):
        result = run(name, "model.joblib", "--name", "iris", "--help")
        assert result.exit_code == 2
        assert "found: this installation lacks a_module_that_is_absent, a.module\n" in result.stderr
        assert "next:  on the build machine: pip install 'edge-inference-appliance[convert]'" in result.stderr
    assert re.search(r"\n  lint .*Needs the extra\s+\[convert\]", run("--help").stdout, re.DOTALL)


def test_the_binary_lists_no_command_that_it_lacks_and_says_where_it_is(monkeypatch, run):
    monkeypatch.setattr("appliance.cli.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert not re.search(r"\n  (convert|lint) ", run("--help").stdout)
    result = run("convert", "model.joblib")
    assert result.exit_code == 2
    assert "in a Python environment: pip install 'edge-inference-appliance[convert]'" in result.stderr


def test_a_plugin_that_cannot_be_imported_says_what_is_missing(tmp_path):
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[appliance.commands]\nglue = a_module_that_is_absent:glue\nhello = hello:hi\n"
    )
    (tmp_path / "hello.py").write_text("import click\n@click.command()\ndef hi():\n    click.echo('hello')\n")
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    missing = process("glue", PYTHONPATH=path)
    assert missing.returncode == 2
    assert "a_module_that_is_absent" in missing.stderr
    assert process("hello", PYTHONPATH=path).stdout == "hello\n"
    assert "Brought by a plugin." in process("--help", PYTHONPATH=path).stdout


def test_models_of_an_empty_store_says_how_to_begin(run):
    assert "appliance install BUNDLE" in run("models").stdout


def test_a_damaged_record_is_shown_and_hides_no_other_model(tmp_path, run, bundles, make_bundle, state):
    run("install", bundles["1.0.0"])
    run("install", make_bundle(tmp_path, name="wine"))
    run("activate", "wine", "1.0.0")
    (state / "models/iris/activation.json").write_text("{")
    iris, wine = document(run("models", "--json"))["models"]
    assert "activation.json" in iris["error"]
    assert wine["active"] == "1.0.0"


class Health(http.server.BaseHTTPRequestHandler):
    """A service that lives, and is not ready yet."""

    def do_GET(self):
        live = self.path == "/health/live"
        self.send_response(200 if live else 503)
        self.end_headers()
        self.wfile.write(b'{"live": true}' if live else b'{"ready": false}')

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    """Return the port of a service on loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield str(server.server_port)
    server.shutdown()
    thread.join()
    server.server_close()


def test_status_tells_of_host_models_last_self_test_and_service(run, bundles, service, state):
    run("install", bundles["1.0.0"])
    run("activate", "iris", "1.0.0", "--why", "first")
    proxy = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    status = document(run("status", "--json", APPLIANCE_HTTP_PORT=service, **proxy))
    assert status["state_dir"] == str(state)
    assert status["disk_free_bytes"] > 0
    assert {"host", "appliance", "python", "onnxruntime", "processor"} <= set(status)
    assert abs(datetime.fromisoformat(status["time"]) - datetime.now(UTC)) < timedelta(minutes=10)
    (model,) = status["models"]
    assert (model["name"], model["active"], model["state"], model["why"]) == ("iris", "1.0.0", "probation", "first")
    assert model["self_test"]["rows"] == 5
    assert model["self_test"]["when"] == model["since"]
    assert model["tolerance"] == {"absolute": 1e-5, "relative": 1e-5}
    assert (status["service"]["running"], status["service"]["status"]) == (True, 503)
    assert status["service"]["answer"] == {"ready": False}
    text = run("status", APPLIANCE_HTTP_PORT=service).stdout
    assert "model iris: 1.0.0 active (probation)" in text
    assert "proved to 1e-05 + 1e-05 relative" in text
    assert "not ready (HTTP 503)" in text


def test_status_tells_of_drift_and_quality(run, bundles, state):
    run("install", bundles["1.0.0"])
    run("activate", "iris", "1.0.0")
    (model,) = document(run("status", "--json"))["models"]
    assert (model["drift"], model["quality"]) == (None, None)
    store = Store(state)
    column = ColumnReport(column="petal_width", role="input", state="drift")
    report = DriftReport(model="iris", version="1.0.0", state="drift", since="2026-01-01T00:00:00Z", columns=[column])
    with store.writing("test"):
        drift_state.write(store, ("iris", "1.0.0"), drift_state.DriftState(drift_state.FORMAT, [], report=report))
    (state / "log" / "iris").mkdir(parents=True)
    sums = {"rows": 4.0, "labelled": 2.0, "table:0:0": 2.0}
    labels.write(
        state, "iris", labels.State(windows=[labels.Window("1.0.0", "", "2026-01-01", ["a"], sums)], counts={})
    )
    (model,) = document(run("status", "--json"))["models"]
    assert model["drift"] == {"state": "drift", "since": "2026-01-01T00:00:00Z", "columns": ["petal_width"]}
    assert model["quality"] == {"coverage": 0.5}
    text = run("status").stdout
    assert "drift: drift: petal_width" in text
    assert "quality: coverage 0.5" in text


def test_status_without_a_service_says_not_running(run, service):
    result = run("status", APPLIANCE_HTTP_PORT="1")
    assert result.exit_code == 0
    assert "not running" in result.stdout
    assert document(run("status", "--json", APPLIANCE_HTTP_PORT="1"))["service"]["running"] is False


def test_doctor_takes_its_own_service_on_the_port_for_well(run, service):
    checks = {
        check["check"]: check
        for check in json.loads(run("doctor", "--json", APPLIANCE_HTTP_PORT=service).stdout)["checks"]
    }
    assert checks["port"]["state"] == "ok"
    assert "is served by the appliance" in checks["port"]["found"]

"""The commands `pull` and `index`, as a timer and a person use them; and a service that follows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import appliance
from appliance.cli import appliance as command

ROOT = Path(appliance.__file__).parents[1]


@pytest.fixture
def run(host):
    """Run a command on the host: run("pull", source=...) -> Result."""

    def invoke(*arguments: object, source: object = "", **environment: str):
        known = {
            "APPLIANCE_STATE_DIR": str(host.state),
            "APPLIANCE_STORE_TRUSTED_KEYS": str(host.key),
            "APPLIANCE_PULL_SOURCE": str(source),
            "APPLIANCE_PULL_MODELS": "iris",
            **environment,
        }
        return CliRunner().invoke(command, [str(argument) for argument in arguments], env=known)

    return invoke


def test_the_way_from_a_folder_of_bundles_to_a_host_over_the_web(run, host, site, signed):
    folder = signed("1.0.0").parent
    signed("1.1.0")
    printed = run("index", folder)
    assert printed.exit_code == 0
    site.files["/index.json"] = printed.stdout.encode()
    site.files["/iris-1.1.0.bundle"] = (folder / "iris-1.1.0.bundle").read_bytes()
    source = f"{site.base}/index.json"
    first = run("pull", "--json", source=source)
    assert first.exit_code == 0
    said = json.loads(first.stdout)
    assert said["changed"] is True
    assert [(one["model"], one["version"], one["what"]) for one in said["bundles"]] == [("iris", "1.1.0", "activated")]
    assert json.loads(run("pull", "--json", source=source).stdout)["changed"] is False
    assert run("pull", source=source).stdout == "iris 1.1.0 unchanged\n"
    assert host.active() == "1.1.0"


def test_a_refusal_ends_with_3_and_says_why(run, signed, other_key):
    folder = signed("1.0.0", key=other_key).parent
    result = run("pull", "--json", source=folder)
    assert result.exit_code == 3
    assert json.loads(result.stdout)["bundles"][0]["what"] == "refused"
    assert json.loads(result.stdout)["bundles"][0]["error"]["found"]
    assert result.stderr.startswith("error: ")
    assert "next:" in result.stderr


@pytest.mark.parametrize(
    ("source", "environment", "code"),
    [
        ("", {}, 2),
        ("relative/folder", {}, 2),
        ("/nowhere/at/all", {}, 4),
        ("http://127.0.0.1:1/index.json", {}, 1),
        ("/nowhere", {"APPLIANCE_STORE_TRUSTED_KEYS": ""}, 2),
        ("/tmp", {"APPLIANCE_STORE_TRUSTED_KEYS": "/nowhere/key.pub"}, 4),
    ],
)
def test_exit_codes_of_pull(run, source, environment, code):
    result = run("pull", source=source, **environment)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    assert "next:" in result.stderr


def test_an_index_of_nothing_or_of_what_is_no_bundle(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert json.loads(run("index", tmp_path / "empty").stdout) == {"format": 1, "bundles": []}
    assert run("index", tmp_path / "nowhere").exit_code == 4
    (tmp_path / "empty" / "bad.bundle").write_bytes(b"PK")
    assert run("index", tmp_path / "empty").exit_code == 3


def test_pull_needs_neither_onnxruntime_nor_the_service_while_nothing_is_new(host, signed):
    folder = signed("1.0.0").parent
    host.pull(folder)
    code = (
        "import sys; from appliance.cli import appliance\n"
        "try: appliance(['pull'])\n"
        "finally: print(sorted({'onnxruntime', 'numpy', 'flask', 'waitress', 'paho'} & sys.modules.keys()))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "APPLIANCE_STATE_DIR": str(host.state),
        "APPLIANCE_STORE_TRUSTED_KEYS": str(host.key),
        "APPLIANCE_PULL_SOURCE": str(folder),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["iris 1.0.0 unchanged", "[]"]

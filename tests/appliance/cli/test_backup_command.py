"""`appliance backup` and `restore` as an operator calls them, and `appliance history`."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.cli import appliance as command
from appliance.inference.selftest import self_test
from appliance.store import activation
from appliance.store.versions import Store

ROOT = Path(__file__).parents[3]


@pytest.fixture
def state(tmp_path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state, make_bundle, tmp_path) -> Store:
    store = Store(state)
    for version in ("1.0.0", "2.0.0"):
        store.install(make_bundle(tmp_path, version=version), why="from a stick")
    activation.activate(store, "iris", "1.0.0", self_test, why="first")
    return store


@pytest.fixture
def run(state):
    def invoke(*arguments: object, to: Path = state):
        return CliRunner().invoke(command, [*map(str, arguments)], env={"APPLIANCE_STATE_DIR": str(to)})

    return invoke


def process(*arguments: object, state: Path, **rest) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "APPLIANCE_STATE_DIR": str(state)}
    line = [sys.executable, "-m", "appliance", *map(str, arguments)]
    return subprocess.run(line, env=environment, stderr=subprocess.PIPE, timeout=100, **rest)


def test_a_state_folder_goes_to_another_host_in_one_file(run, store, tmp_path):
    file, other = tmp_path / "state.tar", tmp_path / "other"
    done = run("backup", file)
    assert (done.exit_code, done.stderr) == (0, "")
    assert file.stat().st_mode & 0o777 == 0o600
    told = json.loads(run("restore", file, "--json", to=other).stdout)
    assert told["state_dir"] == str(other)
    assert f"{told['files']} files, {told['bytes']} bytes" in done.stdout
    assert json.loads(run("models", "--json", to=other).stdout) == json.loads(run("models", "--json").stdout)


def test_what_is_there_is_neither_overwritten_nor_deleted(run, store, tmp_path):
    file = tmp_path / "state.tar"
    assert run("backup", file).exit_code == 0
    again = run("backup", file)
    assert (again.exit_code, "it exists" in again.stderr) == (2, True)
    full = run("restore", file)
    assert (full.exit_code, "--replace" in full.stderr) == (3, True)
    assert run("restore", file, "--replace").exit_code == 0
    assert store.versions("iris") == ["1.0.0", "2.0.0"]


def test_without_a_state_folder_or_a_file_it_is_said_and_no_file_is_left(run, tmp_path):
    done = run("backup", tmp_path / "a.tar")
    assert (done.exit_code, "No such file" in done.stderr) == (1, True)
    assert not (tmp_path / "a.tar").exists()
    assert run("restore", tmp_path / "a.tar").exit_code == 4
    assert run("restore", tmp_path).exit_code == 2


def test_a_pipe_takes_a_backup_and_a_full_disk_is_told(store, state, tmp_path):
    piped = process("backup", "-", state=state, stdout=subprocess.PIPE)
    assert piped.returncode == 0, piped.stderr
    (tmp_path / "piped.tar").write_bytes(piped.stdout)
    assert process("restore", tmp_path / "piped.tar", state=tmp_path / "other").returncode == 0
    with Path("/dev/full").open("wb") as full:
        done = process("backup", "-", state=state, stdout=full)
    assert (done.returncode, b"No space left" in done.stderr) == (1, True)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # noqa: E731
    done = process("backup", tmp_path / "b.tar", state=state, stdout=subprocess.PIPE, preexec_fn=limit)
    assert (done.returncode, b"next:" in done.stderr, b"Traceback" in done.stderr) == (1, True, False)
    assert not (tmp_path / "b.tar").exists()


def test_history_tells_what_was_done_and_what_was_refused(run, store, state, make_bundle, tmp_path):
    store.install(make_bundle(tmp_path, name="wine"))
    lines = run("history").stdout.splitlines()
    assert [line.split()[1:4] for line in lines] == [
        ["install", "iris", "1.0.0"], ["install", "iris", "2.0.0"], ["activate", "iris", "1.0.0"],
        ["install", "wine", "1.0.0"],
    ]  # fmt: skip
    assert lines[2].endswith("  first")
    assert run("history", "wine").stdout.splitlines() == lines[3:]
    assert run("history", "iris", "--last", "1").stdout.splitlines() == [lines[2]]
    told = json.loads(run("history", "iris", "--json").stdout)["receipts"]
    assert (told[2]["what"], told[2]["version"], told[2]["self_test"]["rows"] > 0) == ("activate", "1.0.0", True)
    store.remove("wine", "1.0.0")
    assert run("history", "wine").stdout.splitlines()[-1].split()[1] == "remove"
    unknown = run("history", "irs")
    assert (unknown.exit_code, "no receipt names it" in unknown.stderr) == (4, True)
    store.note("install", "iris", "3.0.0", outcome="refused", why="pulled from x: unsigned")
    assert "install     iris 3.0.0 REFUSED  pulled from x: unsigned" in run("history").stdout


def test_history_of_an_empty_store_says_how_to_begin(run):
    assert "appliance install BUNDLE" in run("history").stdout

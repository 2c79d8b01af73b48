"""score.yml over two hosts that are folders of this machine, each with a store of its own."""

import json
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.cli import appliance as command
from appliance.inference import selftest
from appliance.store import activation
from appliance.store.versions import Store
from tests.appliance.conftest import build_bundle

pytestmark = pytest.mark.timeout(1200)

HEADER = "sepal_length,sepal_width,petal_length,petal_width"
UNIT = 65_536
"""Rows that go to one part in a piece."""
ROWS = UNIT + 1000
NOBODY = 65534


class Host:
    """A folder with a store, and the command `appliance` that means it; `calls` has its lines."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.store = Store(folder / "state")
        self.store.install(bundle)
        activation.activate(self.store, "iris", "1.0.0", selftest.self_test)
        self.command = folder / "appliance"
        self.command.write_text(
            f'#!/bin/sh\necho "$*" >> {folder}/calls\nexport APPLIANCE_STATE_DIR={folder}/state\n'
            f"exec {sys.executable} -c 'from appliance.cli import main; main()' \"$@\"\n"
        )
        self.command.chmod(0o755)

    def scored(self) -> int:
        """How often it was told to score."""
        return (self.folder / "calls").read_text().count("score iris ")

    def variables(self) -> dict[str, str]:
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_remote_tmp": str(self.folder / "tmp"),
            "appliance_cache": str(self.folder / "cache"),
            "appliance_score_folder": str(self.folder / "state/scored"),
            "bundle_command": str(self.command),
        }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "iris-1.0.0.bundle"
    path.write_bytes(build_bundle("iris", "1.0.0"))
    return path


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def hosts(place, bundle) -> list[Host]:
    return [Host(place / name, bundle) for name in ("a", "b")]


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("".join([HEADER, "\n", *(f"{n},{n % 7},3,4\n" for n in range(ROWS))]))
    return path


@pytest.fixture
def play(hosts, source, run, tmp_path):
    """Return a function that runs the playbook with these variables beside the usual ones: play(**variables)."""

    def play(*words: str, silent: str = "", **variables: object):
        given = {
            "appliance_become": False,
            "appliance_score_model": "iris",
            "appliance_score_inputs": [str(source)],
            "appliance_score_to": str(tmp_path / "out"),
            **variables,
        }
        inventory = {one.folder.name: one.variables() for one in hosts}
        if silent:
            inventory[silent] |= {
                "ansible_connection": "ssh",
                "ansible_host": "127.0.0.1",
                "ansible_port": closed_port(),
            }
        (tmp_path / "inventory.json").write_text(json.dumps({"all": {"hosts": inventory}}))
        (tmp_path / "given.json").write_text(json.dumps(given))
        files = ["-i", tmp_path / "inventory.json", "-e", f"@{tmp_path}/given.json", *words]
        done = run("ansible-playbook", *files, "ansible/playbooks/score.yml")
        done.stdout += done.stderr
        return done

    return play


def closed_port() -> int:
    """Return a port at which nothing listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return closed.getsockname()[1]


def summary(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out/summary.json").read_text())


def changed(output: str) -> int:
    return sum(map(int, re.findall(r"changed=(\d+)", output.rpartition("PLAY RECAP")[2])))


def parts(tmp_path: Path) -> list[list[str]]:
    return [(tmp_path / f"out/part-{part}-of-2.csv").read_text().splitlines() for part in (1, 2)]


def test_the_parts_are_what_one_host_scores_and_a_second_run_changes_nothing(hosts, source, play, tmp_path, place):
    done = play()
    assert done.returncode == 0, done.stdout
    alone = tmp_path / "alone.csv"
    line = ["score", "iris", str(source), "-o", str(alone), "--processes", "1"]
    assert CliRunner().invoke(command, line, env={"APPLIANCE_STATE_DIR": str(hosts[0].store.state_dir)}).exit_code == 0
    first, second = parts(tmp_path)
    assert [*first, *second[1:]] == alone.read_text().splitlines()
    told = summary(tmp_path)
    assert (told["whole"], told["rows"], told["bad"], told["faults"]) == (True, ROWS, 0, [])
    assert [(one["host"], one["rows"]) for one in told["parts"]] == [("a", UNIT), ("b", ROWS - UNIT)]
    assert not [*place.rglob("part-*.csv")], "nothing of it stays on a host"
    again = play()
    assert again.returncode == 0, again.stdout
    assert changed(again.stdout) == 0, again.stdout
    assert [one.scored() for one in hosts] == [1, 1]
    assert summary(tmp_path) == told


def test_a_host_that_fails_is_told_and_only_its_part_is_scored_when_it_is_well(hosts, play, tmp_path):
    activation.deactivate(hosts[1].store, "iris")
    done = play(appliance_score_copy=True)
    assert done.returncode == 2, done.stdout
    told = summary(tmp_path)
    assert told["whole"] is False
    assert [one["host"] for one in told["parts"]] == ["a"]
    assert "b: part 2 of 2 is missing" in told["faults"][0]
    assert "no version of it is active" in told["faults"][0]
    assert (tmp_path / "out/part-1-of-2.csv").is_file()
    activation.activate(hosts[1].store, "iris", "1.0.0", selftest.self_test)
    done = play(appliance_score_copy=True, appliance_score_rows=ROWS)
    assert done.returncode == 0, done.stdout
    assert [one.scored() for one in hosts] == [1, 2]
    assert summary(tmp_path)["rows"] == ROWS


def test_the_services_user_scores_and_root_hands_over(hosts, play, tmp_path):
    user = os.geteuid() or NOBODY  # only root can become another user
    for one in hosts:
        for path in [one.store.state_dir, *one.store.state_dir.rglob("*")]:
            os.chown(path, user, -1)
    done = play(silent="b", appliance_score_copy=True)
    assert done.returncode == 2, done.stdout
    told = summary(tmp_path)
    assert told["faults"] == ["b: part 2 of 2 is missing: the host cannot be reached"]
    assert [one["host"] for one in told["parts"]] == ["a"]
    (folder,) = (hosts[0].store.state_dir / "scored").iterdir()
    assert folder.stat().st_uid == user
    assert play(appliance_score_copy=True).returncode == 0
    assert [one.scored() for one in hosts] == [1, 1]


def test_bad_rows_are_gathered_and_judged_over_all_parts(source, play, tmp_path):
    with source.open("a") as file:
        file.write("x,1,2,3\n")
    options = {"appliance_score_bad_rows": "quarantine", "appliance_score_provenance": True}
    done = play(**options)
    assert done.returncode == 2, done.stdout
    assert f"1 of {ROWS + 1} rows are bad, 0 may be" in done.stdout
    done = play(**options, appliance_score_max_bad="0.1%")
    assert done.returncode == 0, done.stdout
    (rejected,) = (tmp_path / "out").glob("*.rejected.jsonl")
    assert json.loads(rejected.read_text())["row"] == ROWS
    assert summary(tmp_path)["parts"][1]["rejected"] == rejected.name


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"appliance_score_keeps": ["id"]}, "there is no variable appliance_score_keeps"),
        ({"appliance_score_inputs": []}, "appliance_score_inputs names no file"),
        ({"appliance_score_max_bad": "many"}, "'many' is neither a number of rows"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_host(hosts, play, wrong, told):
    done = play(**wrong)
    assert done.returncode == 2, done.stdout
    assert told in done.stdout
    assert not [one for one in hosts if (one.folder / "calls").exists()]


def test_check_mode_scores_nothing_and_part_of_the_inventory_is_refused(hosts, play, tmp_path):
    done = play("--check")
    assert done.returncode == 0, done.stdout
    assert changed(done.stdout) >= 2, "both hosts would score"
    done = play("--limit", "a")
    assert done.returncode == 2, done.stdout
    assert "-e appliance_hosts=a" in done.stdout
    assert [one.scored() for one in hosts] == [0, 0]
    assert not (tmp_path / "out").exists()

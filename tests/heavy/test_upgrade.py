"""An older program and this one on the same state folder: old writes, new reads and changes, old reads that again.

OLD is a commit or tag of this repository; its program runs from its files, with this environment's libraries.
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.end_to_end.services import write_bundle

ROOT = Path(__file__).parents[2]
OLD = os.environ["OLD"]
COMMAND = "from appliance.cli import main; main()"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The files of the older version."""
    folder = tmp_path_factory.mktemp("old")
    subprocess.run(["git", "archive", "-o", folder / "old.tar", OLD], cwd=ROOT, check=True)
    with tarfile.open(folder / "old.tar") as archive:
        archive.extractall(folder / "source", filter="data")
    return folder / "source"


class Host:
    """One state folder, used by either program."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder = folder
        self.places = {"old": source, "new": ROOT}

    def __call__(self, which: str, *words: object) -> str:
        environment = os.environ | {
            "PYTHONPATH": str(self.places[which]),
            "APPLIANCE_STATE_DIR": str(self.folder / "state"),
        }
        line = [sys.executable, "-c", COMMAND, *map(str, words)]
        ran = subprocess.run(line, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, f"{which}: {line}: {ran.stderr}"
        return ran.stdout

    def seen(self, which: str) -> list[dict]:
        """Return the models as a program lists them; only what both know."""
        models = json.loads(self(which, "models", "--json"))["models"]
        keys = ("name", "versions", "active", "previous", "state")
        return [{key: model[key] for key in keys} for model in models]


@pytest.fixture
def host(tmp_path, source) -> Host:
    made = Host(tmp_path, source)
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        write_bundle(tmp_path, version)
    return made


def test_the_new_program_reads_what_the_old_one_wrote_and_back(host):
    for version in ("1.0.0", "1.1.0"):
        host("old", "install", host.folder / f"plant-{version}.bundle")
    host("old", "activate", "plant", "1.0.0")
    host("old", "mark-good", "plant")
    host("old", "activate", "plant", "1.1.0")
    assert host.seen("new") == host.seen("old")
    host("new", "install", host.folder / "plant-2.0.0.bundle")
    host("new", "mark-good", "plant")
    host("new", "activate", "plant", "2.0.0", "--why", "newer")
    assert host.seen("old") == host.seen("new")
    assert host("old", "predict", "plant", "[1, 2]") == host("new", "predict", "plant", "[1, 2]")
    assert host("old", "rollback", "plant").startswith("plant 1.1.0 is active, good")
    assert host.seen("new") == host.seen("old")


def test_an_experiment_that_one_program_began_is_ended_by_the_other(host):
    for version in ("1.0.0", "2.0.0"):
        host("old", "install", host.folder / f"plant-{version}.bundle")
    host("old", "activate", "plant", "1.0.0")
    for begins, ends in (("old", "new"), ("new", "old")):
        host(begins, "canary", "plant", "2.0.0")
        assert json.loads(host(ends, "experiment", "plant", "--json"))["running"]
        host(ends, "abort", "plant")
        assert not json.loads(host(begins, "experiment", "plant", "--json"))["running"]


def test_a_backup_of_the_new_program_is_a_folder_for_the_old_one(host):
    host("old", "install", host.folder / "plant-1.0.0.bundle")
    host("old", "activate", "plant", "1.0.0")
    before = host.seen("old")
    host("new", "backup", host.folder / "state.tar")
    host("new", "restore", host.folder / "state.tar", "--replace")
    assert host.seen("old") == before

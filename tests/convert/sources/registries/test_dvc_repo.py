"""Models fetched from a real DVC repository with a remote of its own."""

import os
import shutil
import subprocess
import sys

import pytest

from appliance.bundle import archive
from appliance.errors import Misuse, NotFound, NotReady
from convert.sources import fetch


@pytest.fixture(scope="module")
def repository(tmp_path_factory, files):
    """A repository whose tag v1 has models/model.skops in the remote alone: neither cache nor work tree holds it."""
    folder = tmp_path_factory.mktemp("dvc") / "plant"
    (folder / "models").mkdir(parents=True)
    shutil.copy(files / "model.skops", folder / "models")
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "DVC_NO_ANALYTICS": "1"}
    names = {f"GIT_{who}_{what}": "t@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def run(*command):
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **settings, **names}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    dvc = [sys.executable, "-m", "dvc"]
    run("git", "init", "-q")
    run(*dvc, "init", "-q")
    run(*dvc, "remote", "add", "-d", "store", str(folder.parent / "remote"))
    run(*dvc, "add", "-q", "models/model.skops")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "first")
    run("git", "tag", "v1")
    run(*dvc, "push", "-q")
    shutil.rmtree(folder / ".dvc" / "cache")
    (folder / "models" / "model.skops").unlink()
    return folder, run("git", "rev-parse", "v1")


def test_a_model_of_a_revision_becomes_a_bundle_that_names_the_commit(repository, convert, files, tmp_path):
    folder, commit = repository
    ran = convert("dvc:models/model.skops@v1", "--sample", files / "sample.csv", folder=folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    origin = archive.open_bundle(tmp_path / "iris-1.0.0.bundle").manifest.provenance
    assert (origin.source, origin.run) == ("dvc:models/model.skops@v1", commit)


def test_another_repository_is_named_before_a_hash_and_told_without_its_folders(repository, files, tmp_path):
    folder, commit = repository
    fetched = fetch(f"dvc:{folder}#models/model.skops@v1", tmp_path)
    assert fetched.path.read_bytes() == (files / "model.skops").read_bytes()
    assert (fetched.source, fetched.run) == ("dvc:plant#models/model.skops@v1", commit)
    assert not fetched.local


def test_an_unknown_revision_or_path_is_not_found(repository, tmp_path):
    folder, _ = repository
    with pytest.raises(NotFound):
        fetch(f"dvc:{folder}#models/model.skops@v9", tmp_path)
    with pytest.raises(NotFound):
        fetch(f"dvc:{folder}#models/absent.skops@v1", tmp_path)


def test_a_repository_or_remote_that_is_away_is_not_ready(repository, tmp_path):
    folder, _ = repository
    with pytest.raises(NotReady):
        fetch(f"dvc:{tmp_path}/absent#model.skops@v1", tmp_path)
    copy = tmp_path / "plant"
    shutil.copytree(folder, copy)
    text = (copy / ".dvc" / "config").read_text()
    (copy / ".dvc" / "config").write_text(text.replace("remote\n", "elsewhere\n"))
    with pytest.raises((NotReady, NotFound)):
        fetch(f"dvc:{copy}#models/model.skops", tmp_path)


def test_a_url_without_a_path_is_misuse(tmp_path):
    with pytest.raises(Misuse):
        fetch("dvc:@v1", tmp_path)

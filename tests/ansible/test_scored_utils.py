"""What a host knows of its part: the command that scores it, whether it is done, and how it is handed over."""

import hashlib
import os

import pytest

from tests.ansible.plugins import plugin

scored = plugin("module_utils", "scored")

ASKED = {
    "model": "iris",
    "inputs": [],
    "part": 2,
    "of": 3,
    "version": "",
    "format": "",
    "keep": [],
    "provenance": False,
    "bad_rows": "stop",
    "processes": 0,
    "quality": False,
    "observe": False,
    "resume": True,
}


def test_the_options_are_those_that_were_asked_for():
    assert scored.words_of(ASKED) == ["--shard", "2/3", "--bad-rows", "stop"]
    asked = {**ASKED, "bad_rows": "quarantine", "version": "1.0.0", "format": "csv", "processes": 2, "keep": ["a", "b"]}
    asked |= {"provenance": True, "quality": True, "observe": True, "resume": False}
    assert " ".join(scored.words_of(asked)) == (
        "--shard 2/3 --bad-rows quarantine --max-bad 100% --version 1.0.0 --format csv --processes 2 --keep a --keep b"
        " --provenance --quality --observe --no-resume"
    )


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("x\n1\n")
    return path


@pytest.mark.parametrize(
    ("changed", "version", "done"),
    [
        ({}, "1.0.0", True),
        ({"processes": 4, "observe": True, "resume": False}, "1.0.0", True),  # they change no byte
        ({}, "1.1.0", False),
        ({"keep": ["x"]}, "1.0.0", False),
        ({"quality": True}, "1.0.0", False),
        ({"of": 4}, "1.0.0", False),
    ],
)
def test_a_part_is_done_while_nothing_that_decides_its_bytes_has_changed(tmp_path, source, changed, version, done):
    asked = {**ASKED, "inputs": [str(source)]}
    record = {"job": scored.job_of(asked, "1.0.0"), "part": {"files": {"part-2-of-3.csv": "digest"}}}
    scored.write(tmp_path / "record.json", record)
    read = scored.read(tmp_path / "record.json")
    job = scored.job_of({**asked, **changed}, version)
    assert scored.is_done(read, job, tmp_path, {"part-2-of-3.csv": "digest"}) is done
    assert not scored.is_done(read, job, tmp_path, {"part-2-of-3.csv": "another"})
    (tmp_path / "part-2-of-3.csv").write_text("x")
    assert scored.is_done(read, job, tmp_path, {}) is done


def test_a_file_that_was_written_to_is_another_job(source):
    asked = {**ASKED, "inputs": [str(source.parent)]}
    before = scored.job_of(asked, "1.0.0")
    assert before == scored.job_of(asked, "1.0.0")
    source.write_text("x\n1\n2\n")
    assert before != scored.job_of(asked, "1.0.0")


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_record_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    assert scored.read(tmp_path / "record.json") == {}


def test_the_version_that_answers_is_the_one_named_or_the_active_one():
    listed = {"models": [{"name": "iris", "active": "1.0.0"}, {"name": "idle", "active": None}]}
    assert scored.active(listed, "iris", "") == "1.0.0"
    assert scored.active(listed, "iris", "2.0.0") == "2.0.0"
    assert scored.active(listed, "idle", "") == scored.active(listed, "/srv/x.bundle", "") == ""


def test_a_part_is_moved_whole_and_is_its_owners_alone(tmp_path, source):
    content = source.read_bytes()
    held = tmp_path / "held.csv"
    assert scored.hand_over(source, held, os.geteuid()) == hashlib.sha256(content).hexdigest()
    assert held.read_bytes() == content
    assert held.stat().st_mode & 0o777 == 0o600
    assert not source.exists()


def test_a_link_is_not_followed_where_the_service_may_write(tmp_path, source):
    link = tmp_path / "link.csv"
    link.symlink_to(source)
    with pytest.raises(OSError, match="link"):
        scored.hand_over(link, tmp_path / "held.csv", None)
    assert source.exists()
    assert not (tmp_path / "held.csv").exists()

"""A run of `score` may end at any moment: another one goes on there, to the same bytes."""

import errno
import gzip
import hashlib
import json
import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from appliance.batch import blocks, checkpoint
from appliance.batch.scoring import Scorer
from appliance.batch.tables.records import csv_ends
from appliance.batch.work import MOST_ROWS, block_rows
from appliance.errors import ApplianceError, BadRows, InvalidInput, Misuse, NotFound, StoreError, Unfinished
from appliance.fallback import QualityPolicy

HEADER = "id,sepal_length,sepal_width,petal_length,petal_width"
ROWS = 3000


def rows(count: int = ROWS, bad: bool = True) -> str:
    """Return CSV rows, some of them bad, some with quoted line ends."""
    made = random.Random(3)
    lines = []
    for number in range(count):
        cells = [f"{made.gauss(0, 1):.4f}" for _ in range(4)]
        if bad and number % 97 == 5:
            cells[made.randrange(4)] = made.choice(["x", "", "1e39"])
        lines.append(",".join([f'"r\n{number}"' if number % 50 == 0 else f"r{number}", *cells]))
    return "\n".join([HEADER, *lines]) + "\n"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text(rows())
    return path


@pytest.fixture
def undisturbed(load, score, source, tmp_path):
    return score(load("labels"), source, tmp_path / "whole.csv", quarantine=True)


@pytest.fixture
def often(monkeypatch):
    """Have a checkpoint after each block."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)


def in_a_process(work, *, limit: int | None = None) -> multiprocessing.Process:
    """Start work in a forked process, which may not write files larger than `limit`."""

    def go() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            work()
        except ApplianceError as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(10)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=go, daemon=True)
    process.start()
    return process


def has_moved(process, progress, mark) -> bool:
    """Return whether a run has ended or made another checkpoint."""
    with suppress(FileNotFoundError):
        return process.exitcode is not None or progress.stat().st_mtime_ns != mark
    return process.exitcode is not None


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl.gz"])
def test_twenty_kills_at_random_moments_leave_the_same_bytes(load, score, source, tmp_path, often, output, until):
    version = load("labels")
    whole = score(version, source, tmp_path / f"whole-{output}", quarantine=True)
    path, chance = tmp_path / output, random.Random(11)
    progress = path.with_name(f"{output}.progress.json")
    kills = 0
    while kills < 20:
        process = in_a_process(lambda: score(version, source, path, quarantine=True))
        mark = progress.stat().st_mtime_ns if progress.exists() else 0
        until(partial(has_moved, process, progress, mark), "a checkpoint or an end")
        time.sleep(chance.random() * 0.01)
        process.kill()
        process.join()
        kills += 1
        assert path.exists() or process.exitcode != 0
        if path.exists():  # killed too late, as it ended or after it: once more from the begin
            assert path.read_bytes() == whole.bytes
            path.unlink()
    last = score(version, source, path, quarantine=True)
    assert last.bytes == whole.bytes
    assert last.rejected == whole.rejected
    assert (last.outcome.rows, last.outcome.bad) == (ROWS, whole.outcome.bad)
    assert last.outcome.output.sha256 == hashlib.sha256(whole.bytes).hexdigest()
    left = {entry.name for entry in tmp_path.iterdir() if output in entry.name and "whole" not in entry.name}
    assert left == {output, f"{output}.rejected.jsonl"}


def test_a_run_that_was_stopped_goes_on_where_it_was(load, score, source, tmp_path, undisturbed):
    path, seen = tmp_path / "out.csv", []
    with pytest.raises(Unfinished, match="repeat the command"):
        score(load("labels"), source, path, quarantine=True, report=seen.append, stopping=lambda: len(seen) == 9)
    assert not path.exists()
    again = score(load("labels"), source, path, quarantine=True)
    assert again.outcome.resumed == 9 * 64
    assert again.bytes == undisturbed.bytes
    assert again.rejected == undisturbed.rejected


def test_what_a_bad_row_stopped_goes_on_with_quarantine(load, score, source, tmp_path, undisturbed):
    path = tmp_path / "out.csv"
    with pytest.raises(BadRows):
        score(load("labels"), source, path, rows=2)
    again = score(load("labels"), source, path, quarantine=True)
    assert again.outcome.resumed == 4
    assert again.outcome.block_rows == 2
    assert again.outcome.rows == ROWS
    assert again.rejected == undisturbed.rejected


def stopped(score, version, source, path, **rest) -> None:
    """Leave a run that was stopped after some blocks."""
    seen = []
    with pytest.raises(Unfinished):
        score(version, source, path, quarantine=True, report=seen.append, stopping=lambda: len(seen) == 5, **rest)


def test_a_run_does_not_go_on_with_something_else(load, score, source, tmp_path):
    path = tmp_path / "out.csv"
    stopped(score, load("labels"), source, path)
    with pytest.raises(StoreError, match="another version"):
        score(load("labels", "2.0.0"), source, path, quarantine=True)
    with pytest.raises(StoreError, match="--keep"):
        score(load("labels"), source, path, quarantine=True, keep=["id"])
    with pytest.raises(StoreError, match="quality = 'False'"):
        score(load("labels"), source, path, quarantine=True, quality=QualityPolicy(enabled=True))
    with pytest.raises(StoreError, match=r"fallback = '\{\}'"):
        score(load("labels"), source, path, quarantine=True, quality=QualityPolicy(fallback={"labels": "setosa"}))
    with pytest.raises(StoreError, match="input files was 1"):
        score(load("labels"), [source, source], path, quarantine=True)
    text = source.read_text()
    source.write_text(text.replace("r7,", "r8,"))
    with pytest.raises(StoreError, match="is not what it was"):
        score(load("labels"), source, path, quarantine=True)
    assert score(load("labels"), source, path, quarantine=True, resume=False).outcome.resumed == 0


@pytest.mark.parametrize("damage", ["shorter", "changed"])
def test_a_partial_that_is_not_what_the_checkpoint_says_is_refused(load, score, source, tmp_path, damage):
    path = tmp_path / "out.csv"
    stopped(score, load("labels"), source, path)
    partial = tmp_path / "out.csv.partial"
    content = partial.read_bytes()
    partial.write_bytes(content[:100] if damage == "shorter" else b"X" + content[1:])
    with pytest.raises(StoreError, match="not what the checkpoint says"):
        score(load("labels"), source, path, quarantine=True)


def test_a_checkpoint_that_cannot_be_read_is_refused(load, score, source, tmp_path):
    path = tmp_path / "out.csv"
    stopped(score, load("labels"), source, path)
    (tmp_path / "out.csv.progress.json").write_text('{"format": 1}')
    with pytest.raises(StoreError, match="--no-resume"):
        score(load("labels"), source, path, quarantine=True)


def test_a_full_disk_leaves_a_checkpoint_from_which_the_next_run_goes_on(
    load, score, source, tmp_path, often, undisturbed, capfd
):
    path = tmp_path / "out.csv"
    process = in_a_process(lambda: score(load("labels"), source, path, quarantine=True), limit=60_000)
    process.join()
    assert process.exitcode == 10
    said = capfd.readouterr().err
    assert "StoreError" in said
    assert os.strerror(errno.EFBIG) in said
    assert "it goes on there" in said
    assert not path.exists()
    again = score(load("labels"), source, path, quarantine=True)
    assert 0 < again.outcome.resumed < ROWS
    assert again.bytes == undisturbed.bytes
    assert again.rejected == undisturbed.rejected


def test_a_full_disk_loses_no_block_that_was_written_before(load, score, source, tmp_path, undisturbed, capfd):
    path = tmp_path / "out.csv"
    process = in_a_process(lambda: score(load("labels"), source, path, quarantine=True), limit=60_000)
    process.join()
    assert process.exitcode == 10
    noted = json.loads((tmp_path / "out.csv.progress.json").read_bytes())
    assert noted["output"]["bytes"] == (tmp_path / "out.csv.partial").stat().st_size <= 60_000
    assert noted["rows"] >= 64 * (60_000 * ROWS // len(undisturbed.bytes) // 64 - 1)
    again = score(load("labels"), source, path, quarantine=True)
    assert again.outcome.resumed == noted["rows"]
    assert again.bytes == undisturbed.bytes
    assert again.rejected == undisturbed.rejected


def test_an_input_that_is_written_to_meanwhile_gives_no_output(load, score, source, tmp_path):
    def grow(tally) -> None:
        with source.open("a") as file:
            file.write("late,1,2,3,4\n")

    with pytest.raises(InvalidInput, match="written to while it was read"):
        score(load("labels"), source, tmp_path / "out.csv", quarantine=True, report=grow)
    assert not (tmp_path / "out.csv").exists()


@contextmanager
def piped(path, text):
    """Give a FIFO into which a text is written."""
    os.mkfifo(path)

    def write() -> None:
        with suppress(BrokenPipeError), path.open("w") as pipe:
            pipe.write(text)

    thread = threading.Thread(target=write)
    thread.start()
    yield path
    thread.join()
    path.unlink()


def test_a_run_from_a_pipe_gives_the_same_answers_and_says_that_it_cannot_continue(load, score, tmp_path, undisturbed):
    path = tmp_path / "out.csv"
    with piped(tmp_path / "pipe.csv", rows()) as pipe, pytest.raises(Unfinished, match="from a pipe cannot continue"):
        score(load("labels"), pipe, path, quarantine=True, stopping=lambda: True)
    assert not (tmp_path / "out.csv.progress.json").exists()
    with piped(tmp_path / "pipe.csv", rows()) as pipe:
        found = score(load("labels"), pipe, path, quarantine=True)
    assert found.bytes == undisturbed.bytes
    assert (found.outcome.rows, found.outcome.resumed) == (ROWS, 0)


def test_memory_that_is_free_goes_back_at_each_checkpoint(load, score, source, tmp_path, often, monkeypatch):
    given = []
    monkeypatch.setattr("appliance.memory.give_back", lambda: given.append(True))
    score(load("labels"), source, tmp_path / "out.csv", quarantine=True)
    assert len(given) >= ROWS // 64


def test_output_and_input_are_not_one_file(load, score, source, tmp_path):
    (tmp_path / "link.csv").symlink_to(source)
    for name in ("in.csv", "link.csv"):
        with pytest.raises(Misuse, match="one of the inputs"):
            score(load("labels"), source, tmp_path / name)
    assert source.read_text() == rows()


def test_two_runs_do_not_write_one_output(load, score, source, tmp_path):
    path = tmp_path / "out.csv"

    def second(tally) -> None:
        with pytest.raises(StoreError, match="another run"):
            score(load("labels"), source, path, quarantine=True)
        refused.append(True)

    refused = []
    score(load("labels"), source, path, quarantine=True, report=lambda tally: refused or second(tally))
    assert refused


def test_several_processes_give_the_same_bytes(load, score, source, tmp_path, undisturbed):
    found = score(load("labels"), source, tmp_path / "out.csv", quarantine=True, processes=3)
    assert found.bytes == undisturbed.bytes
    assert found.rejected == undisturbed.rejected


def test_texts_larger_than_the_shared_memory_pass(load, score, source, tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr("appliance.batch.pool.SLOT_BYTES", 4096)
    found = score(load("labels"), source, tmp_path / "out.csv", quarantine=True, processes=2)
    assert found.bytes == undisturbed.bytes


def test_a_process_that_dies_ends_the_run_and_the_next_goes_on(load, score, source, tmp_path, undisturbed, often):
    path, seen = tmp_path / "out.csv", []

    def kill(tally) -> None:
        seen.append(tally.rows)
        if len(seen) == 5:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    with pytest.raises(Unfinished, match="by signal 9"):
        score(load("labels"), source, path, quarantine=True, processes=2, report=kill)
    again = score(load("labels"), source, path, quarantine=True)
    assert again.outcome.resumed >= 5 * 64
    assert again.bytes == undisturbed.bytes


def test_what_is_wrong_with_a_file_is_told_by_a_process_too(load, score, tmp_path):
    path = tmp_path / "in.jsonl"
    row = '{"sepal_length":1,"sepal_width":2,"petal_length":3,"petal_width":4,"prediction":1}\n'
    path.write_text(row)
    with pytest.raises(InvalidInput, match="'prediction'"):
        score(load("labels"), path, tmp_path / "out.jsonl", processes=2)


def test_gzip_in_and_out(load, score, source, tmp_path, undisturbed):
    packed = tmp_path / "in.csv.gz"
    half = len(source.read_bytes()) // 2
    packed.write_bytes(gzip.compress(source.read_bytes()[:half]) + gzip.compress(source.read_bytes()[half:]))
    found = score(load("labels"), packed, tmp_path / "out.csv.gz", quarantine=True)
    assert gzip.decompress(found.bytes) == undisturbed.bytes
    stopped(score, load("labels"), packed, tmp_path / "again.csv.gz")
    again = score(load("labels"), packed, tmp_path / "again.csv.gz", quarantine=True)
    assert again.outcome.resumed == 5 * 64
    assert again.bytes == found.bytes


def test_a_gzip_file_that_is_cut_off_gives_no_output(load, score, source, tmp_path):
    packed = tmp_path / "in.csv.gz"
    packed.write_bytes(gzip.compress(source.read_bytes())[:-50])
    with pytest.raises(InvalidInput, match="gzip"):
        score(load("labels"), packed, tmp_path / "out.csv", quarantine=True)
    assert not (tmp_path / "out.csv").exists()


def test_files_and_folders_become_one_output_in_order(load, score, source, tmp_path, undisturbed):
    lines = undisturbed.lines
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b.csv", "a.csv"):
        (folder / name).write_text(f"{HEADER}\n{name},1,2,3,4\n")
    (folder / "notes.txt").write_text("no table")
    (folder / "c.csv").write_text("petal_width,id,petal_length,sepal_width,sepal_length\n4,c.csv,3,2,1\n")
    found = score(load("labels"), [source, folder], tmp_path / "out.csv", quarantine=True)
    assert found.lines[: len(lines)] == lines
    assert [line.partition(",")[0] for line in found.lines[len(lines) :]] == ["a.csv", "b.csv", "c.csv"]
    assert len({line.partition(",")[2] for line in found.lines[len(lines) :]}) == 1
    again = tmp_path / "again.csv"
    seen = []
    with pytest.raises(Unfinished):
        score(load("labels"), [source, folder], again, quarantine=True, report=seen.append,
              stopping=lambda: len(seen) == ROWS // 64 + 2)  # fmt: skip
    assert score(load("labels"), [source, folder], again, quarantine=True).bytes == found.bytes


def test_what_is_absent_or_no_table_is_told(load, score, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(NotFound):
        score(load("labels"), tmp_path / "nix.csv", tmp_path / "out.csv")
    with pytest.raises(Misuse, match="no file of a known format"):
        score(load("labels"), tmp_path / "empty", tmp_path / "out.csv")
    with pytest.raises(Misuse, match="--format"):
        score(load("labels"), tmp_path / "x.txt", tmp_path / "out.csv")


def test_shards_together_score_each_row_once(load, score, source, tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr(blocks, "UNIT_LINES", 128)
    parts = [
        score(load("labels"), source, tmp_path / f"part-{part}.csv", quarantine=True, shard=(part, 3))
        for part in (1, 2, 3)
    ]
    assert sum(part.outcome.rows for part in parts) == ROWS
    assert all(part.outcome.rows > ROWS // 4 for part in parts)
    header, *expected = records(undisturbed.bytes)
    assert sorted(line for part in parts for line in records(part.bytes)[1:]) == sorted(expected)
    assert all(records(part.bytes)[0] == header for part in parts)
    rejected = sorted(one["row"] for part in parts for one in part.rejected)
    assert rejected == [one["row"] for one in undisturbed.rejected]
    assert score(load("labels"), source, tmp_path / "part-2.csv", quarantine=True, shard=(2, 3)).bytes == parts[1].bytes


def test_of_several_files_a_shard_takes_whole_ones(load, score, tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.csv").write_text(f"{HEADER}\nr{number},1,2,3,4\n")
    files = [tmp_path / f"{number}.csv" for number in range(5)]
    found = score(load("labels"), files, tmp_path / "part.csv", shard=(2, 2), keep=["id"])
    assert [line.partition(",")[0] for line in found.lines[1:]] == ["r1", "r3"]


def records(content: bytes) -> list[bytes]:
    """Return the records of a CSV text, some of which have line ends within."""
    ends = csv_ends(content, True).tolist()
    return [content[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


class Told:
    """An observer."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.listeners: set[str] = set()

    def predicted(self, prediction) -> None:
        self.ids += prediction.ids()
        self.listeners.add(prediction.listener)

    def failed(self, *rest) -> None:
        raise AssertionError(rest)


def test_observers_see_the_good_rows_under_the_ids_of_the_provenance(load, score, source, tmp_path):
    told = Told()
    output = tmp_path / "out.jsonl"
    found = score(load("labels"), source, output, quarantine=True, observers=[told], provenance=True, keep=[])
    documents = found.documents
    assert documents[0].keys() >= {"model", "version", "id"}
    assert [one["id"].partition(".")[2] for one in documents] == [str(row) for row in range(ROWS)]
    assert told.ids == [one["id"] for one in documents if one["prediction"] is not None]
    assert told.listeners == {"batch"}
    copy = tmp_path / "copy.csv"
    copy.write_bytes(source.read_bytes())
    assert score(load("labels"), copy, output, quarantine=True, provenance=True, keep=[]).documents == documents


def test_blocks_of_one_size_choose_the_same_bytes_on_every_run(load):
    assert block_rows(Scorer(load("labels"))) == MOST_ROWS


def test_progress_tells_rows_and_share(load, score, source, tmp_path):
    seen = []
    score(
        load("labels"), source, tmp_path / "out.csv", quarantine=True, report=lambda t: seen.append((t.rows, t.share))
    )
    assert [rows for rows, _ in seen] == [*range(64, ROWS, 64), ROWS]
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_checkpoints_are_json_that_a_person_can_read(load, score, source, tmp_path):
    stopped(score, load("labels"), source, tmp_path / "out.csv")
    document = json.loads((tmp_path / "out.csv.progress.json").read_text())
    assert document["rows"] == document["position"]["row"] == 5 * 64
    assert document["output"]["bytes"] == (tmp_path / "out.csv.partial").stat().st_size
    assert document["job"]["inputs"][0][0].endswith("in.csv")

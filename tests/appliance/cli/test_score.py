"""The commands score and predict: what they print, how they end, and that they ask no service."""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import appliance
from appliance.cli import appliance as command
from appliance.cli.score import lower_priority
from appliance.inference.version import LoadedVersion
from appliance.monitoring.drift_judge import Limits
from appliance.monitoring.watch import DriftWatch
from appliance.repository import Served
from appliance.store.versions import Store

ROOT = Path(appliance.__file__).parents[1]
HEADER = "sepal_length,sepal_width,petal_length,petal_width"
TEXT = f"{HEADER}\n1,2,3,4\n5,6,7,8\n"


@pytest.fixture(scope="module")
def state(tmp_path_factory, make_bundle):
    """Return a state folder with iris 1.0.0 (active) and 2.0.0, and their bundles beside it."""
    folder = tmp_path_factory.mktemp("score")
    for version in ("1.0.0", "2.0.0"):
        make_bundle(folder, version=version)
        assert invoke(folder / "state", "install", folder / f"iris-{version}.bundle").exit_code == 0
    assert invoke(folder / "state", "activate", "iris", "1.0.0").exit_code == 0
    return folder / "state"


def invoke(state, *arguments: object):
    return CliRunner().invoke(command, [*map(str, arguments)], env={"APPLIANCE_STATE_DIR": str(state)})


@pytest.fixture(autouse=True)
def as_before():
    """Keep this process's priority and signals."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
    before = os.getpriority(os.PRIO_PROCESS, 0)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    if os.geteuid() == 0:
        os.setpriority(os.PRIO_PROCESS, 0, before)


@pytest.fixture
def run(state):
    return lambda *arguments: invoke(state, *arguments)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text(TEXT)
    return path


def start(state, *arguments: object, **rest) -> subprocess.Popen:
    """Start the command as a process of its own."""
    code = "from appliance.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "APPLIANCE_STATE_DIR": str(state)}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, **rest)


def predictions(text: str) -> list[str]:
    return [row["prediction"] for row in csv.DictReader(io.StringIO(text))]


def test_a_model_of_the_store_by_its_active_version_or_another(run, source, tmp_path):
    output = tmp_path / "out.csv"
    result = run("score", "iris", source, "-o", output)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("2 rows, iris 1.0.0, in ")
    assert predictions(output.read_text()) == ["110.0", "126.0"]
    assert run("score", "iris", source, "-o", output, "--version", "2.0.0").exit_code == 0
    assert predictions(output.read_text()) == ["210.0", "226.0"]


def test_a_bundle_that_is_not_installed(state, source, tmp_path, make_bundle):
    output = tmp_path / "out.csv"
    nowhere = tmp_path / "nowhere"
    bundle = state.parent / "iris-2.0.0.bundle"
    result = invoke(nowhere, "score", bundle, source, "-o", output)
    assert result.exit_code == 0, result.output
    assert predictions(output.read_text()) == ["210.0", "226.0"]
    assert not nowhere.exists()
    assert invoke(nowhere, "predict", bundle, "[1,2,3,4]").exit_code == 0
    wrong = make_bundle(tmp_path, version="3.0.0", error=1.0)
    refused = invoke(nowhere, "score", wrong, source, "-o", tmp_path / "other.csv")
    assert refused.exit_code == 3
    assert not (tmp_path / "other.csv").exists()
    wrong.write_bytes(wrong.read_bytes()[:-20])
    assert invoke(nowhere, "score", wrong, source, "-o", tmp_path / "other.csv").exit_code == 3


def test_json_tells_what_was_done_and_nothing_else(run, source, tmp_path):
    output = tmp_path / "out.csv"
    result = run("score", "iris", source, "-o", output, "--json", "--processes", "2")
    document = json.loads(result.stdout)
    assert result.stderr == ""
    assert (document["model"], document["version"], document["rows"], document["bad"]) == ("iris", "1.0.0", 2, 0)
    assert document["output"]["bytes"] == output.stat().st_size
    from appliance.store.versions import digest

    assert document["output"]["sha256"] == digest(output)
    assert document["inputs"][0]["sha256"] == digest(source)


def test_pipes(state):
    process = start(
        state, "score", "iris", "-", "--format", "csv", "-o", "-",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    answers, said = process.communicate(TEXT.encode(), 60)
    assert process.returncode == 0, said
    assert predictions(answers.decode()) == ["110.0", "126.0"]
    assert b"2 rows, iris 1.0.0" in said


def test_bad_rows_end_with_exit_code_1_unless_so_many_may_be(run, source, tmp_path):
    source.write_text(TEXT + "x,1,1,1\n" + "1,1,1,1\n" * 97)
    output = tmp_path / "out.csv"
    stopped = run("score", "iris", source, "-o", output)
    assert stopped.exit_code == 1
    assert "row 2 (line 4), column 'sepal_length'" in stopped.stderr
    assert "it holds a text ('x')" in stopped.stderr
    assert not output.exists()
    assert run("score", "iris", source, "-o", output, "--bad-rows", "quarantine").exit_code == 1
    assert predictions(output.read_text())[:4] == ["110.0", "126.0", "", "104.0"]
    assert len((tmp_path / "out.csv.rejected.jsonl").read_text().splitlines()) == 1
    for most, code in (("1%", 0), ("1", 0), ("0.9%", 1)):
        result = run("score", "iris", source, "-o", output, "--bad-rows", "quarantine", "--max-bad", most)
        assert result.exit_code == code, most
    source.write_text(TEXT)
    assert run("score", "iris", source, "-o", output).exit_code == 0
    assert not (tmp_path / "out.csv.rejected.jsonl").exists()


def test_a_model_without_an_active_version_is_told_as_such(source, tmp_path, make_bundle):
    make_bundle(tmp_path, version="1.0.0")
    assert invoke(tmp_path / "state", "install", tmp_path / "iris-1.0.0.bundle").exit_code == 0
    result = invoke(tmp_path / "state", "score", "iris", source, "-o", tmp_path / "out.csv")
    assert result.exit_code != 0
    assert "no version of it is active" in result.stderr
    assert "appliance activate iris VERSION" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "found"),
    [
        (["nix", "in.csv", "-o", "out.csv"], 4, "nix"),
        (["iris", "nix.csv", "-o", "out.csv"], 4, "no such file"),
        (["iris", "in.csv", "-o", "out.csv", "--version", "9.0.0"], 4, "9.0.0"),
        (["iris", "in.csv", "-o", "nix/out.csv"], 2, "no folder nix"),
        (["iris", "in.csv", "-o", "."], 2, "folder"),
        (["iris", "in.csv", "-o", "in.csv"], 2, "one of the inputs"),
        (["iris", "in.csv", "-o", "out.csv", "--shard", "3/2"], 2, "--shard 3/2"),
        (["iris", "in.csv", "-o", "out.csv", "--max-bad", "many"], 2, "--max-bad many"),
        (["iris", "in.csv", "-o", "out.csv", "--max-bad", "101%"], 2, "--max-bad 101%"),
        (["iris", "in.csv", "-o", "out.csv", "--keep", "nix"], 2, "'nix'"),
        (["iris", "in.csv", "-o", "out.csv", "--observe"], 2, "--observe"),
        (["iris", ".", "-o", "out.csv"], 2, "which is scored"),
        (["iris", "-", "in.csv", "-o", "out.csv"], 2, "standard input"),
    ],
)
def test_what_cannot_be_meant_or_found_is_told(run, source, tmp_path, monkeypatch, arguments, code, found):
    monkeypatch.chdir(tmp_path)
    result = run("score", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert found in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


def test_a_shard_writes_its_part_into_a_folder(run, source, tmp_path):
    for part in (1, 2):
        assert run("score", "iris", source, "-o", tmp_path / "out", "--shard", f"{part}/2").exit_code == 0
    names = ["part-1-of-2.csv", "part-2-of-2.csv"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert [len(predictions((tmp_path / "out" / name).read_text())) for name in names] == [2, 0]


def test_sigterm_ends_with_a_checkpoint_from_which_the_same_command_goes_on(state, tmp_path, until):
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(f"{HEADER}\n" + "".join(f"{row % 7},2,3,4\n" for row in range(400_000)))
    process = start(state, "score", "iris", source, "-o", output, "--processes", "2", stderr=subprocess.PIPE)
    partial = tmp_path / "out.csv.partial"
    until(lambda: partial.exists() and partial.stat().st_size > 100_000, "some output", 60)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert b"repeat the command: it goes on there" in said
    assert not output.exists()
    again = start(state, "score", "iris", source, "-o", output, "--json", stdout=subprocess.PIPE)
    document = json.loads(again.communicate(timeout=120)[0])
    assert 0 < document["resumed"] < document["rows"] == 400_000
    lines = output.read_text().splitlines()
    assert lines[1:] == [f"{row % 7},2,3,4,{109.0 + row % 7}" for row in range(400_000)]


FULL = """
mount -t tmpfs -o size=600k none "$1"; shift
"$@"; echo "exit $?"
ls "$DISK"
mount -o remount,size=64m "$DISK"
"$@" --json && cat "$DISK/out.csv" > "$COPY"
"""


def test_a_disk_that_is_full_and_given_more_room_has_the_output_of_an_undisturbed_run(state, run, tmp_path):
    source, disk, copy = tmp_path / "in.csv", tmp_path / "disk", tmp_path / "copy.csv"
    disk.mkdir()
    source.write_text(f"{HEADER}\n" + "".join(f"{row % 7},2,3,4\n" for row in range(60_000)))
    assert run("score", "iris", source, "-o", tmp_path / "whole.csv", "--processes", "1").exit_code == 0
    program = [sys.executable, "-c", "from appliance.cli import main; main()"]
    command = [*program, "score", "iris", str(source), "-o", str(disk / "out.csv"), "--processes", "1"]
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]  # a mount of this process alone
    environment = {"PYTHONPATH": str(ROOT), "APPLIANCE_STATE_DIR": str(state), "DISK": str(disk), "COPY": str(copy)}
    done = subprocess.run(
        ["unshare", "--mount", *own, "sh", "-c", FULL, "sh", str(disk), *command],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "No space left on device" in done.stderr
    assert "repeat the command: it goes on there" in done.stderr
    ended, *left, document = done.stdout.split("\n", 4)
    assert ended == "exit 1"
    assert left == ["out.csv.partial", "out.csv.progress.json", "out.csv.rejected.jsonl.partial"]
    told = json.loads(document)
    assert 0 < told["resumed"] < told["rows"] == 60_000
    assert copy.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_predict_answers_as_the_route_does(run, tmp_path):
    named = {"sepal_length": 1, "sepal_width": 2, "petal_length": 3, "petal_width": 4}
    one = {"prediction": [110.0], "model": "iris", "version": "1.0.0"}
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([named, named]))
    for rows in ("[1, 2, 3, 4]", json.dumps(named), json.dumps({"features": [[1, 2, 3, 4]]})):
        result = run("predict", "iris", rows)
        assert (result.exit_code, json.loads(result.stdout)) == (0, one)
    assert json.loads(run("predict", "iris", file).stdout)["prediction"] == [110.0, 110.0]
    assert json.loads(run("predict", "iris", "[1,2,3,4]", "--version", "2.0.0").stdout)["version"] == "2.0.0"
    assert run("predict", "iris", "[1, 2]").exit_code == 2
    assert run("predict", "iris", "[1, 2").exit_code == 2
    assert run("predict", "iris", "[NaN, 2, 3, 4]").exit_code == 2
    assert run("predict", "iris", "nix.json").exit_code == 4
    piped = CliRunner().invoke(
        command, ["predict", "iris", "-"], input="[1,2,3,4]", env={"APPLIANCE_STATE_DIR": str(tmp_path / "nowhere")}
    )
    assert piped.exit_code == 4


def test_other_programs_of_the_host_go_first():
    lower_priority()
    assert os.getpriority(os.PRIO_PROCESS, 0) >= 10


def test_progress_in_a_pipe_is_a_json_line(monkeypatch, run, tmp_path):
    monkeypatch.setattr("appliance.cli.score_told._JSON_SECONDS", 0.0)
    source = tmp_path / "in.csv"
    source.write_text(f"{HEADER}\n" + "1,2,3,4\n" * 10_000)
    result = run("score", "iris", source, "-o", tmp_path / "out.csv", "--json", "--processes", "1")
    lines = [json.loads(line)["progress"] for line in result.stderr.splitlines()]
    assert [line["rows"] for line in lines] == [4096, 8192, 10_000]
    assert lines[-1]["share"] == 1.0
    assert lines[-1]["seconds_left"] == 0
    assert json.loads(result.stdout)["rows"] == 10_000


def test_parquet_is_scored_without_pandas_even_where_it_is_installed(state, source, tmp_path):
    code = (
        "import sys\nfrom appliance.cli import appliance\n"
        "try: appliance()\nexcept SystemExit as error: sys.exit(error.code or 'pandas' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "APPLIANCE_STATE_DIR": str(state)}
    command = [sys.executable, "-c", code, "score", "iris", str(source), "-o", str(tmp_path / "out.parquet")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["prediction"].to_pylist() == [110.0, 126.0]


def test_first_rows_come_soon(run, source, tmp_path):
    begun = time.monotonic()
    result = run("score", "iris", source, "-o", tmp_path / "out.csv", "--json", "--processes", "1")
    assert json.loads(result.stdout)["first_row_seconds"] <= time.monotonic() - begun


@pytest.mark.parametrize("processes", [1, 2])
def test_the_log_has_a_sample_of_the_rows_under_the_ids_of_the_provenance(make_bundle, source, tmp_path, processes):
    state = tmp_path / "state"
    config = tmp_path / "appliance.toml"
    config.write_text("[log.predictions]\nenabled = true\n")
    assert invoke(state, "install", make_bundle(tmp_path)).exit_code == 0
    assert invoke(state, "activate", "iris", "1.0.0").exit_code == 0
    output = tmp_path / "out.jsonl"
    command = ["score", "iris", source, "-o", output, "--observe", "--provenance", "--processes", processes]
    result = invoke(state, *command, "--config", config)
    assert result.exit_code == 0, result.output
    logged = [
        json.loads(line)
        for path in (state / "log" / "iris" / "1.0.0").rglob("*.jsonl*")
        for line in (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).splitlines()
    ]
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["id"] for line in logged if "id" in line] == [one["id"] for one in answers]
    assert [line["y"] for line in logged if "id" in line] == [one["prediction"] for one in answers]
    assert {line["listener"] for line in logged if "id" in line} == {"batch"}


def test_rows_that_are_observed_count_for_drift_once(make_bundle, tmp_path):
    from tests.appliance.monitoring.test_watch import training

    state, draw = tmp_path / "state", np.random.default_rng(3)
    assert invoke(state, "install", make_bundle(tmp_path, baseline=training(draw))).exit_code == 0
    assert invoke(state, "activate", "iris", "1.0.0").exit_code == 0
    for number in range(2):
        rows = draw.normal(3, 1, size=(1000, 4))
        source = tmp_path / f"in{number}.csv"
        source.write_text(f"{HEADER}\n" + "".join(",".join(f"{value:.4f}" for value in row) + "\n" for row in rows))
        for _ in range(2):  # the same file once more counts nothing
            result = invoke(state, "score", "iris", source, "-o", tmp_path / "out.csv", "--observe", "--processes", "2")
            assert result.exit_code == 0, result.output
    assert "drift: drift (" in result.stdout
    assert HEADER.split(",")[0] in result.stdout
    result = invoke(state, "score", "iris", source, "-o", tmp_path / "out.csv", "--observe", "--json")
    assert json.loads(result.stdout)["drift"] == "drift"
    report = json.loads(invoke(state, "drift", "iris", "--json").stdout)
    assert (report["window_rows"], report["windows"], report["state"]) == (1000, 2, "drift")
    watch = DriftWatch(Store(state), Limits(0.1, 1, 3600, 500))  # as a service has it
    watch.switched(Served("iris", "1.0.0", LoadedVersion(state / "models" / "iris" / "1.0.0")))
    watch.tick()
    assert watch.drifted("iris", "1.0.0") in HEADER.split(",")


def test_nothing_to_observe_is_told(run, source, tmp_path, state, make_bundle):
    output = tmp_path / "out.csv"
    result = run("score", "iris", source, "-o", output, "--observe")
    assert result.exit_code == 2
    assert "the bundle has no baseline.json" in result.output
    result = run("score", state.parent / "iris-1.0.0.bundle", source, "-o", output, "--observe")
    assert "the version is not installed" in result.output
    config = tmp_path / "appliance.toml"
    config.write_text("[drift]\nenabled = false\n")
    result = run("score", "iris", source, "-o", output, "--observe", "--config", config)
    assert "[drift] is not enabled" in result.output
    assert not output.exists()

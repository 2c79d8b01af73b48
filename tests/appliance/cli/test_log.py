"""The commands on the prediction log, on a log that a service wrote."""

import json

import pytest
from click.testing import CliRunner

from appliance.cli import appliance as command
from appliance.monitoring.prediction_log import lines, segments
from appliance.monitoring.prediction_log.lines import Header, Label, Row
from appliance.monitoring.prediction_log.segments import Writer
from appliance.monitoring.prediction_log.writer import SegmentWriter

T = 1_760_000_000.0


def header(slot, segment, prev, key):
    columns, types = ["temp", "site"], ["float64", "string"]
    return Header(
        1, "iris", "1.0.0", columns, types, ["prediction"], ["a", "b"], "host", slot, segment, prev, "", key=key
    )


@pytest.fixture
def run(tmp_path):
    """Run the command: run("log", "head") -> Result."""

    def invoke(*arguments: object):
        return CliRunner().invoke(command, [*map(str, arguments)], env={"APPLIANCE_STATE_DIR": str(tmp_path)})

    return invoke


@pytest.fixture
def written(tmp_path):
    """Write a log of 20 rows, half of them in a packed segment; two have labels, one of them twice."""
    writer = SegmentWriter.open(Writer(tmp_path, "iris", "1.0.0", 0), header, lambda: T)
    made = [lines.line_of(Row(f"r{n}.0", T + n, x=[n / 4, "north"], y="a", p=[0.75, 0.25], n="0")) for n in range(20)]
    refused = lines.line_of(Row("bad", T + 9.5, error="missing", column="temp", n="1"))
    writer.append([*made[:10], refused])
    writer.rotate()
    labels = [
        Label(label=what, id=one, t=T + at) for what, one, at in (("b", "r3.0", 50), ("a", "r3.0", 60), ("b", "r4", 70))
    ]
    writer.append([*made[10:], *map(lines.line_of, labels)])
    writer.seal()
    writer.abandon()
    return Writer(tmp_path, "iris", "1.0.0", 0)


def test_a_sound_log_is_verified_and_a_changed_one_refused(run, written):
    done = run("log", "verify", "iris")
    assert (done.exit_code, "sound, 2 segments, 26 lines sealed" in done.stdout) == (0, True), done.output
    document = json.loads(run("log", "verify", "iris", "--json").stdout)
    assert document["sound"]
    head = json.loads(run("log", "head", "--json").stdout)["heads"][0]
    assert document["writers"][0]["head"] == head["chain"]
    assert run("log", "verify", "iris", "--head", head["chain"]).exit_code == 0
    other = run("log", "verify", "iris", "--head", "00" * 32)
    assert (other.exit_code, "rewritten, or cut off" in other.output) == (3, True)
    path = written.folder / "00000002.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"y":"a"', b'"y":"b"', 1))
    done = run("log", "verify", "iris")
    assert (done.exit_code, "a line was changed" in done.stdout) == (3, True)


def test_status_tells_the_heads(run, written):
    chain = segments.heads(written.state_dir)[0]["chain"]
    assert json.loads(run("status", "--json").stdout)["log"][0]["chain"] == chain
    assert chain in run("status").stdout


def test_a_proof_is_made_and_checked_without_the_log(run, written, tmp_path):
    file = tmp_path / "proof.json"
    file.write_text(run("log", "prove", "iris", "r4.0").stdout)
    assert run("log", "prove", "iris", "--check", file).exit_code == 0
    file.write_text(file.read_text().replace("north", "south"))
    assert run("log", "prove", "iris", "--check", file).exit_code == 3
    file.write_text("{}")
    assert run("log", "prove", "iris", "--check", file).exit_code == 3
    assert run("log", "prove", "iris", "unknown").exit_code == 4


def test_erasing_takes_row_and_labels_and_is_a_receipt(run, written):
    done = run("log", "erase", "iris", "r3.0", "--why", "by letter", "--json")
    assert json.loads(done.stdout) == {"model": "iris", "erased": 3, "changed": True}, done.output
    assert run("log", "verify", "iris").exit_code == 0
    receipts = "".join(file.read_text() for file in (written.state_dir / "receipts").iterdir())
    assert receipts.count('"what":"erase"') == 2
    assert "by letter" in receipts
    exported = run("log", "export", "iris", "--with-labels").stdout
    assert '"r3.0"' not in exported
    assert run("log", "erase", "iris", "unknown").exit_code == 4


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_rows_are_exported_with_their_labels(run, written, tmp_path, form):
    if form == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / f"rows.{form}"
    done = run("log", "export", "iris", "--with-labels", "-o", file)
    assert done.exit_code == 0, done.output
    rows = (
        parquet.read_table(file).to_pylist() if form == "parquet" else [*map(json.loads, file.read_text().splitlines())]
    )
    assert [row["temp"] for row in rows] == [n / 4 for n in range(20)]
    assert {row["_id"]: row["_label"] for row in rows if row["_label"]} == {"r3.0": "a", "r4.0": "b"}
    assert rows[7] == {
        "temp": 1.75, "site": "north", "_id": "r7.0", "_time": T + 7, "_version": "1.0.0", "_prediction": "a",
        "_probability": [0.75, 0.25], "_label": None,
    }  # fmt: skip


def test_a_period_is_exported_alone(run, written):
    done = run("log", "export", "iris", "--since", "2025-10-09T08:53:25Z", "--until", "2025-10-09T08:53:30+00:00")
    assert [json.loads(line)["_id"] for line in done.stdout.splitlines()] == [f"r{n}.0" for n in range(5, 10)]
    assert run("log", "export", "iris", "--since", "1d", "--until", "2d").exit_code == 2
    assert run("log", "export", "iris", "--since", "yesterday").exit_code == 2
    assert run("log", "export", "iris", "-o", "rows.txt").exit_code == 2


def test_the_tail_shows_the_last_lines(run, written):
    shown = [json.loads(line) for line in run("log", "tail", "iris", "-n", 4).stdout.splitlines()]
    assert [line.get("label") for line in shown] == [None, "b", "a", "b"]
    assert run("log", "tail", "never").exit_code == 4
    assert run("log", "tail", "../etc").exit_code == 4


def test_a_sealed_log_is_checked_by_the_key_that_was_shown_once(run, tmp_path):
    done = run("log", "init", "iris", "--seal")
    assert done.exit_code == 0, done.output
    key = tmp_path / "key"
    key.write_text(done.stdout)
    for _ in range(2):
        writer = SegmentWriter.open(Writer(tmp_path, "iris", "1.0.0", 0), header, lambda: T)
        writer.append([lines.line_of(Row("a.0", T, n="0"))])
        writer.advance_key()
        writer.close()
    assert done.stdout.strip() not in "".join(
        file.read_text(errors="replace") for file in (tmp_path / "log").rglob("*") if file.is_file()
    )
    assert run("log", "verify", "iris", "--seal-key", key).exit_code == 0
    key.write_text("00" * 32)
    assert run("log", "verify", "iris", "--seal-key", key).exit_code == 3
    assert run("log", "init", "iris", "--seal").exit_code == 3
    assert run("log", "init", "iris").exit_code == 2
    assert (tmp_path / "log" / "iris" / "seal.json").stat().st_mode & 0o777 == 0o600

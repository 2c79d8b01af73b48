"""Whether the parts that hosts have scored are all of a run, and what they sum up to."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ansible.plugins import plugin

scored = plugin("filter", "scored")


def part(folder, number, of, *, rows=10, bad=0, **other):
    """Return what a host says of its part, which lies in the folder."""
    name = f"part-{number}-of-{of}.csv"
    (folder / name).write_text(f"x\n{number}\n")
    sha256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    files = {name: sha256}
    if bad:
        rejected = folder / f"{name}.rejected.jsonl"
        rejected.write_text("{}\n" * bad)
        files[rejected.name] = hashlib.sha256(rejected.read_bytes()).hexdigest()
    output = {"name": f"/var/lib/appliance/scored/{name}", "bytes": 4, "sha256": sha256}
    inputs = [{"name": "rows.csv", "id": "1", "sha256": "2"}]
    said = {
        "model": "iris",
        "version": "1.0.0",
        "bundle": "b",
        "inputs": inputs,
        "rows": rows,
        "bad": bad,
        "seconds": 1.0,
    }
    return {**said, "output": output, "files": files, **other}


def test_parts_are_summed_up_in_the_order_of_the_hosts(tmp_path):
    parts = {"h2": part(tmp_path, 1, 2, rows=7), "h1": part(tmp_path, 2, 2, rows=5, bad=1)}
    found = scored.account(parts, {}, tmp_path, "10%", 12)
    assert (found["whole"], found["faults"], found["rows"], found["bad"]) == (True, [], 12, 1)
    assert (found["model"], found["version"], found["inputs"][0]["name"]) == ("iris", "1.0.0", "rows.csv")
    assert [(one["part"], one["host"], one["file"], one["rejected"]) for one in found["parts"]] == [
        (1, "h2", "part-1-of-2.csv", None),
        (2, "h1", "part-2-of-2.csv", "part-2-of-2.csv.rejected.jsonl"),
    ]


def test_a_part_that_is_missing_is_told_with_the_hosts_reason(tmp_path):
    parts = {"a": None, "b": part(tmp_path, 2, 3), "c": None}
    found = scored.account(parts, {"a": "disk full", "c": None}, tmp_path)
    assert found["faults"] == [
        "a: part 1 of 3 is missing: disk full",
        "c: part 3 of 3 is missing: the host cannot be reached",
    ]
    assert [one["host"] for one in found["parts"]] == ["b"]


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda file: file.unlink(), "part-1-of-1.csv was not gathered"),
        (lambda file: file.write_text("x\n2\n"), "the SHA-256 differs"),
    ],
)
def test_a_file_that_is_not_what_was_scored_is_told(tmp_path, spoil, fault):
    parts = {"a": part(tmp_path, 1, 1)}
    spoil(tmp_path / "part-1-of-1.csv")
    found = scored.account(parts, {}, tmp_path)
    assert found["whole"] is False
    assert fault in found["faults"][0]


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ({"bundle": "another"}, "the version of the model differ: a | b"),
        ({"inputs": [{"name": "rows.csv", "id": "1", "sha256": "3"}]}, "the input files differ: a | b"),
        ({"bad": 2}, "b: 2 rows are bad, and 0 are in no file"),
    ],
)
def test_parts_of_different_runs_are_not_one(tmp_path, other, fault):
    parts = {"a": part(tmp_path, 1, 2), "b": {**part(tmp_path, 2, 2), **other}}
    assert scored.account(parts, {}, tmp_path)["faults"] == [fault]


@pytest.mark.parametrize(
    ("most", "rows", "fault"),
    [("1", -1, ""), ("5%", 20, ""), ("0", -1, "1 of 20 rows are bad, 0 may be"), ("4.9%", 20, "1 of 20 rows are bad"),
     ("1", 21, "the parts have 20 rows, stated are 21")],
)  # fmt: skip
def test_the_sums_are_what_is_meant(tmp_path, most, rows, fault):
    parts = {"a": part(tmp_path, 1, 2), "b": part(tmp_path, 2, 2, bad=1)}
    found = scored.account(parts, {}, tmp_path, most, rows)
    assert found["whole"] is not bool(fault)
    assert fault in " ".join(found["faults"])


@given(st.floats(0, 100), st.sampled_from(["", "%"]))
def test_an_allowance_is_a_number_or_a_percentage(number, unit):
    text = f"{number:f}{unit}"
    assert scored.allowance(text) == (float(f"{number:f}"), unit == "%")


@pytest.mark.parametrize("text", ["-1", "101%", "1e3", "", "nan", "many", "1 %", "%"])
def test_what_is_no_allowance_is_refused(text):
    with pytest.raises(ValueError, match="neither a number of rows"):
        scored.allowance(text)


def test_parts_of_another_number_are_seen_and_other_files_are_not(tmp_path):
    for name in ("part-1-of-2.csv", "part-1-of-3.csv", "part-1-of-2.csv.rejected.jsonl", "summary.json", "part-x.csv"):
        (tmp_path / name).write_text("x")
    assert scored.strange(tmp_path, 2) == ["part-1-of-3.csv"]
    assert set(scored.there(tmp_path, 1, 2)) == {"part-1-of-2.csv", "part-1-of-2.csv.rejected.jsonl"}
    assert scored.strange(tmp_path / "none", 2) == []

"""The table and the file of a fleet: hosts that were asked, hosts out of reach, and receipts of offline sites."""

import json

import pytest

from tests.ansible.plugins import plugin

fleet = plugin("filter", "fleet")

STATUS = {
    "host": "h1",
    "appliance": "0.1.0",
    "disk_free_bytes": 64 * 1024 * 1024,
    "log": [{"model": "iris", "version": "1.1.0", "slot": 0, "segment": 3, "seal": 17, "chain": "ab" * 32, "t": 1.0}],
    "models": [
        {"name": "iris", "active": "1.1.0", "previous": "1.0.0", "state": "good", "since": "2026-01-01T00:00:00+00:00",
         "versions": ["1.0.0", "1.1.0"], "why": "", "self_test": {"when": "2026-01-01T00:00:01+00:00", "rows": 59}},
    ],
    "service": {"running": True, "ready": True},
}  # fmt: skip


@pytest.fixture
def sent(tmp_path):
    """Write a receipt of a site that nobody can reach, and return its file."""
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({**STATUS, "host": "mine"}))
    return str(file)


def test_every_host_has_its_entry(sent):
    asked = fleet.entries({"h1": {"status": STATUS, "ready": True}, "h2": None, "h3": {}})
    together = fleet.merged(asked, fleet.receipts([sent]))
    assert [(one["host"], one["reachable"]) for one in together] == [
        ("h1", True), ("h2", False), ("h3", False), ("mine", "receipt"),
    ]  # fmt: skip
    assert together[0]["models"][0]["active"] == "1.1.0"
    assert together[3]["receipt"] == "mine.json"
    assert [one.get("log", []) for one in together] == [STATUS["log"], [], [], STATUS["log"]]


def test_a_receipt_speaks_for_a_host_out_of_reach_and_not_for_one_that_answered(sent):
    silent = fleet.merged(fleet.entries({"mine": None}), fleet.receipts([sent]))
    assert [(one["host"], one["reachable"]) for one in silent] == [("mine", "receipt")]
    answered = fleet.merged(fleet.entries({"mine": {"status": STATUS, "ready": True}}), fleet.receipts([sent]))
    assert [one["reachable"] for one in answered] == [True]


def test_a_receipt_of_an_unknown_name_speaks_for_the_host_that_its_file_is_named_after(sent):
    called = fleet.merged(fleet.entries({"mine": None, "h2": None}), fleet.receipts([sent]))
    assert [(one["host"], one["reachable"]) for one in called] == [("h2", False), ("mine", "receipt")]
    receipt = [{**fleet.receipts([sent])[0], "host": "localhost"}]
    called = fleet.merged(fleet.entries({"mine": None}), receipt)
    assert [(one["host"], one["reachable"]) for one in called] == [("mine", "receipt")]
    unknown = fleet.merged(fleet.entries({"h2": None}), receipt)
    assert [(one["host"], one["reachable"]) for one in unknown] == [("h2", False), ("localhost", "receipt")]


def test_the_table_tells_program_version_state_and_disk():
    first, second, third = fleet.table(fleet.entries({"h1": {"status": STATUS, "ready": False}, "h2": None}))
    assert first.split() == list(fleet.COLUMNS)
    assert second.split() == ["h1", "yes", "0.1.0", "no", "iris", "1.1.0", "good", "2026-01-01T00:00:00+00:00",
                              "2026-01-01T00:00:01+00:00", "64", "MiB"]  # fmt: skip
    assert third.split() == ["h2", "no", *["-"] * 8]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"host": "h1"}', "no JSON"])
def test_a_file_that_is_no_receipt_is_named(tmp_path, content):
    file = tmp_path / "wrong.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"wrong\.json is not what `appliance status --json` wrote"):
        fleet.receipts([str(file)])


def test_a_host_s_texts_reach_the_table_without_controls(sent):
    evil = {**STATUS, "host": "h\x1b[2J", "appliance": "0\x9b\u202e\u2028"}
    lines = fleet.table(fleet.entries({"h1": {"status": evil, "ready": True}}))
    assert all(line.isprintable() for line in lines)
    assert r"\x9b\u202e\u2028" in lines[1]

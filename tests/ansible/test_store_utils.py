"""Which command brings a model into a state, and what a failed one said."""

import pytest

from tests.ansible.plugins import plugin

store = plugin("module_utils", "store")

LISTED = {"models": [{"name": "iris", "versions": ["1.0.0", "1.1.0"], "active": "1.1.0", "state": "probation",
                      "previous": "1.0.0", "since": "2026"}]}  # fmt: skip
RECORD = store.record_of(LISTED, "iris")


@pytest.mark.parametrize(
    ("state", "version", "words"),
    [
        ("installed", "1.1.0", ()),
        ("installed", "1.2.0", ("install",)),
        ("active", "1.1.0", ()),
        ("active", "1.0.0", ("activate", "iris", "1.0.0")),
        ("good", "1.1.0", ("mark-good", "iris")),
        ("good", "1.0.0", ("mark-good", "iris")),
        ("back", "", ("rollback", "iris")),
        ("back", "1.0.0", ("rollback", "iris")),
        ("back", "1.1.0", ()),
        ("back", "0.9.0", ("activate", "iris", "0.9.0")),
        ("inactive", "", ("deactivate", "iris")),
    ],
)
def test_the_command_that_a_state_needs(state, version, words):
    assert store.plan(RECORD, state, version)[0] == words


CANARY = {"kind": "canary", "arms": [{"version": "1.1.0", "share": 1.0}, {"version": "1.2.0", "share": 0.0}]}


@pytest.mark.parametrize(
    ("record", "state", "version", "words"),
    [
        (RECORD, "canary", "1.2.0", ("canary", "iris", "1.2.0")),
        (RECORD, "canary", "1.1.0", ()),
        ({**RECORD, "experiment": CANARY}, "canary", "1.2.0", ()),
        ({**RECORD, "experiment": CANARY}, "canary", "1.3.0", ("canary", "iris", "1.3.0")),  # which the host refuses
        ({**RECORD, "active": None}, "canary", "1.1.0", ("activate", "iris", "1.1.0")),
        ({**RECORD, "experiment": CANARY}, "back", "1.1.0", ("abort", "iris")),
        ({**RECORD, "experiment": CANARY}, "back", "", ("abort", "iris")),
        ({**RECORD, "experiment": None}, "back", "1.1.0", ()),
    ],
)
def test_a_canary_begins_once_and_going_back_ends_it(record, state, version, words):
    assert store.plan(record, state, version)[0] == words


def test_the_verdict_of_a_host_on_its_canary():
    text = "step 1 of 4: 200 more requests"
    running = {"running": True, "kind": "canary", "id": "00aa11bb", "evidence": {"verdict": {"text": text}}}
    assert store.verdict(running, "1.2.0") == (False, text)
    assert store.verdict({**running, "evidence": None}, "1.2.0") == (False, "canary 00aa11bb still runs")
    ended = {"running": False, "last": {"outcome": "promoted", "version": "1.2.0", "why": ""}}
    assert store.verdict(ended, "1.2.0") == (True, "")
    back = {"running": False, "last": {"outcome": "taken back", "version": "1.2.0", "why": "9 of 10 failed"}}
    assert store.verdict(back, "1.2.0") == (True, "its canary was taken back: 9 of 10 failed")
    assert store.verdict({"running": False, "last": None}, "1.2.0")[0]


def test_a_model_of_which_none_serves_needs_nothing_to_be_inactive():
    assert store.plan({**RECORD, "active": None}, "inactive", "")[0] == ()


def test_a_good_version_needs_nothing_to_be_good():
    assert store.plan({**RECORD, "state": "good"}, "good", "1.1.0")[0] == ()


def test_a_model_that_is_not_there_has_an_empty_record():
    record = store.record_of(LISTED, "wear")
    assert (record["versions"], record["active"]) == ([], None)
    assert store.plan(record, "installed", "1.0.0")[0] == ("install",)


def test_check_mode_foretells_the_record():
    assert store.plan(RECORD, "installed", "1.2.0")[1]["versions"] == ["1.0.0", "1.1.0", "1.2.0"]
    after = store.plan(RECORD, "back", "")[1]
    assert (after["active"], after["previous"]) == ("1.0.0", None)
    after = store.plan(RECORD, "inactive", "")[1]
    assert (after["active"], after["previous"]) == (None, "1.1.0")
    assert store.plan(RECORD, "active", "1.0.0")[1]["state"] == "probation"


def test_the_answer_of_a_command_is_its_json():
    asked = []

    def run(line):
        asked.append(line)
        return 0, '{"models": []}', ""

    assert store.ask(run, "/bin/appliance", "models") == {"models": []}
    assert asked == [["/bin/appliance", "models", "--json"]]


def test_a_refusal_is_told_with_its_three_parts():
    said = "error: verify x.bundle\nfound: signed by another key\nnext:  get it again\n"
    with pytest.raises(store.Failed, match=r"verify x\.bundle; signed by another key; get it again") as caught:
        store.ask(lambda line: (3, "", said), "appliance", "install", "x.bundle")
    assert caught.value.refused
    assert caught.value.code == 3


def test_a_command_that_prints_no_json_has_failed():
    with pytest.raises(store.Failed, match="it printed no JSON: hello"):
        store.ask(lambda line: (0, "hello", ""), "appliance", "models")


def refusing(lines):
    """Return an AnsibleModule.run_command of a program that wants --inputs-changed, and keeps what it was asked."""

    def run(line):
        lines.append(line)
        if "--inputs-changed" in line:
            return 0, "{}", ""
        return 3, "", "error: activate iris 0.9.0\nfound: it differs\nnext:  if that is meant: --inputs-changed\n"

    return run


def test_going_back_to_other_inputs_is_meant_and_going_forward_asks():
    lines = []
    store.change(refusing(lines), "appliance", ("activate", "iris", "0.9.0"), "gate", back=True)
    assert [line[1:4] for line in lines] == [["activate", "iris", "0.9.0"]] * 2
    assert ["--inputs-changed" in line for line in lines] == [False, True]
    lines.clear()
    with pytest.raises(store.Failed, match="if that is meant"):
        store.change(refusing(lines), "appliance", ("activate", "iris", "1.2.0"), "gate", back=False)
    assert len(lines) == 1
    lines.clear()
    store.change(refusing(lines), "appliance", ("activate", "iris", "1.2.0", "--inputs-changed"), "gate", back=False)
    assert len(lines) == 1


def test_another_refusal_on_the_way_back_is_not_tried_again():
    lines = []

    def run(line):
        lines.append(line)
        return 3, "", "error: activate\nfound: the self-test failed\n"

    with pytest.raises(store.Failed, match="self-test failed"):
        store.change(run, "appliance", ("activate", "iris", "0.9.0"), "gate", back=True)
    assert len(lines) == 1

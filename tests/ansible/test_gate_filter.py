"""When a host is well, when it is worse than before, and when it is due."""

from copy import deepcopy

import pytest

from tests.ansible.plugins import plugin

gate = plugin("filter", "gate")

WANTED = {"iris": "1.1.0"}
WELL = {
    "installed": True,
    "program": "0.1.0",
    "program_digest": "d" * 64,
    "unfinished": False,
    "ready": True,
    "reasons": [],
    "models": {"iris": {"active": "1.1.0", "state": "good", "self_test": {"rows": 59}}},
    "window": {"looks": 30, "not_ready": 0, "reasons": [], "counted": True,
               "models": {"iris": {"requests": 1000.0, "errors": 1.0, "answered": 999.0, "seconds": 2.0}}},
    "probes": {"iris": {"code": 0, "document": {"seconds": {"median": 0.002}}, "error": ""}},
}  # fmt: skip


def readings(**changes):
    """Return the readings of a host that is well, but for the changes ({dotted path: value})."""
    made = deepcopy(WELL)
    for path, value in changes.items():
        *way, last = path.split("__")
        place = made
        for step in way:
            place = place[step]
        place[last] = value
    return made


def test_a_host_that_is_well_has_no_faults():
    assert gate.faults(WELL, WANTED) == []
    assert gate.erring(WELL, WELL) == []
    assert gate.slower(WELL, WELL) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ready": False, "reasons": ["no model is active"]}, "no model is active"),
        ({"window__not_ready": 3, "window__reasons": ["self-test failed"]}, "not ready in 3 of 30 looks"),
        ({"window__counted": False}, "service restarted"),
        ({"models__iris__active": "1.0.0"}, "1.0.0 is active, not 1.1.0"),
        ({"models__iris__self_test": None}, "no self-test"),
        ({"models": {}}, "None is active"),
        ({"probes__iris": {"code": 1, "document": {}, "error": "nothing answers"}}, "nothing answers"),
        (
            {
                "probes__iris": {
                    "code": 3,
                    "document": {"failures": 2, "examples": 59, "largest_difference": 1.0},
                    "error": "",
                }
            },
            "2 of 59 examples are answered otherwise",
        ),
    ],
)
def test_what_is_wrong_is_said(changes, told):
    (found,) = gate.faults(readings(**changes), WANTED)
    assert told in found


PROBATION = {"state": "probation", "action": "wait", "verdict": "1.1.0 answered 7 of 300 requests"}


def test_the_hosts_own_verdict_is_a_fault_where_it_would_go_back():
    wait = readings(models__iris__state="probation", models__iris__probation=PROBATION)
    assert gate.faults(wait, WANTED) == []
    bad = {"state": "probation", "action": "go back", "verdict": "1.1.0 failed on 60 of 60 requests"}
    assert gate.faults(readings(models__iris__probation=bad), WANTED) == ["iris: 1.1.0 failed on 60 of 60 requests"]
    back = {"active": "1.0.0", "state": "good", "why": "probation of 1.1.0: 1.1.0 failed on 60 of 60 requests"}
    (found,) = gate.faults(readings(models__iris=back), WANTED)
    assert found == "iris: 1.0.0 is active, not 1.1.0 (probation of 1.1.0: 1.1.0 failed on 60 of 60 requests)"


def test_counts_and_times_are_compared_from_here_only_while_the_host_has_no_verdict():
    worse = {"iris": {"requests": 100.0, "errors": 2.0, "answered": 98.0, "seconds": 9.0}}
    before = readings(models__iris={"active": "1.0.0", "state": "good", "self_test": {"rows": 59}})
    waits = readings(window__models=worse, models__iris__state="probation", models__iris__probation=PROBATION)
    assert gate.erring(waits, before)
    assert gate.slower(waits, before)
    good = {"state": "good", "action": None, "verdict": ""}
    proved = readings(window__models=worse, models__iris__probation=good)
    assert gate.erring(proved, before) == gate.slower(proved, before) == []
    # Good since before the change, as where the program alone is new: nobody has judged it now.
    assert gate.erring(proved, readings(models__iris__probation=good))


def test_more_errors_than_before_are_a_fault_and_as_many_are_none():
    more = readings(window__models={"iris": {"requests": 100.0, "errors": 2.0, "answered": 98.0, "seconds": 0.2}})
    (found,) = gate.erring(more, WELL)
    assert "2.00% of 100 requests" in found
    assert gate.erring(more, WELL, {"error_rate": 0.05}) == []
    assert gate.erring(WELL, more) == []


def test_any_error_is_one_too_many_where_there_was_no_request_before():
    first = readings(window__models={"iris": {"requests": 10.0, "errors": 1.0, "answered": 9.0, "seconds": 0.2}})
    assert gate.erring(first, readings(window__models={}))
    assert gate.erring(first, None)


def test_a_slower_average_request_is_a_fault():
    slow = readings(window__models={"iris": {"requests": 1000.0, "errors": 1.0, "answered": 999.0, "seconds": 30.0}})
    (found,) = gate.slower(slow, WELL)
    assert "a request took 2.0 ms, now 30.0 ms" in found
    assert gate.slower(slow, WELL, {"latency_ratio": "20"}) == []
    assert gate.slower(slow, WELL, {"latency_slack": 0.1}) == []


def test_too_few_requests_before_say_nothing_of_the_latency_but_the_probe_does():
    few = readings(window__models={"iris": {"requests": 19.0, "errors": 0.0, "answered": 19.0, "seconds": 0.019}})
    slow = {"iris": {"requests": 1000.0, "errors": 0.0, "answered": 1000.0, "seconds": 1000.0}}
    assert gate.slower(readings(window__models=slow), few) == []
    (found,) = gate.slower(readings(window__models=slow, probes__iris__document={"seconds": {"median": 0.03}}), few)
    assert "an example took 2.0 ms, now 30.0 ms" in found


def test_a_version_so_slow_that_it_answers_few_requests_is_slower():
    # The callers wait for each answer: in five seconds 13 of 380 ms, where 50 were answered before.
    slow = {"iris": {"requests": 13.0, "errors": 0.0, "answered": 13.0, "seconds": 3.64}}
    (found,) = gate.slower(readings(window__models=slow), WELL)
    assert "a request took 2.0 ms, now 280.0 ms" in found
    none = {"iris": {"requests": 0.0, "errors": 0.0, "answered": 0.0, "seconds": 0.0}}
    assert gate.slower(readings(window__models=none), WELL) == []


def test_nothing_to_compare_with_is_no_fault():
    assert gate.slower(WELL, None) == []
    unprobed = readings(probes__iris={"code": 2, "document": {}, "error": "No such command 'probe'"}, window__models={})
    assert gate.slower(WELL, unprobed) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"installed": False},
        {"ready": False},
        {"unfinished": True},
        {"program_digest": "e" * 64},
        {"models__iris__active": "1.0.0"},
        {"models__iris__state": "probation"},
        {"models": {}},
    ],
)
def test_a_host_is_due_until_it_has_proved_the_stated_versions(changes):
    assert not gate.is_due(WELL, WANTED, "d" * 64)
    assert gate.is_due(readings(**changes), WANTED, "d" * 64)


def test_a_program_that_is_not_stated_makes_no_host_due():
    assert not gate.is_due(WELL, WANTED, "")


def test_what_served_is_what_a_wave_returns_to():
    assert gate.served(WELL, {"iris": "2.0.0", "new": "1.0.0"}) == {"iris": "1.1.0"}


def test_what_a_host_says_is_told_without_controls():
    told = gate.faults(readings(ready=False, reasons=["\x1b[2J\u202e"]), WANTED)
    assert told == [r"not ready: \x1b[2J\u202e"]

"""In which waves a fleet goes, and what becomes of a wave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ansible.plugins import plugin

rollout = plugin("filter", "rollout")

SETTINGS = {"waves": ["1", "10%", "50%", "100%"], "canary": [], "max_pending": "20%"}


def fleet(count, *, silent=(), stated=(), **settings):
    """Return what due.yml found on h1..hN."""
    return {
        f"h{n}": {
            "reachable": n not in silent,
            "due": n not in stated,
            **SETTINGS,
            **settings,
        }
        for n in range(1, count + 1)
    }


def waves(planned):
    return {one["wave"]: one["hosts"] for one in planned["groups"]}


@pytest.mark.parametrize(
    ("size", "total", "hosts"),
    [(3, 5, 3), ("3", 5, 3), ("10%", 5, 1), ("10%", 70, 7), ("33.3%", 3, 1), ("100%", 9, 9), ("0%", 9, 0)],
)
def test_a_size_is_a_number_or_a_percentage_rounded_up(size, total, hosts):
    assert rollout.share(size, total) == hosts


@pytest.mark.parametrize("size", ["", "ten", "-1", "-5%", "1.5", "%"])
def test_a_size_that_is_neither_is_refused_by_its_own_words(size):
    with pytest.raises(ValueError, match="neither a number of hosts nor a percentage"):
        rollout.share(size, 10)


def test_the_canary_goes_first_and_the_waves_grow():
    planned = rollout.plan(fleet(20))
    assert {wave: len(hosts) for wave, hosts in waves(planned).items()} == {
        "canary": 1, "wave 1": 1, "wave 2": 2, "wave 3": 10, "wave 4": 6,
    }  # fmt: skip
    assert waves(planned)["canary"] == ["h1"]
    assert planned["stop"] == ""


def test_hosts_in_the_stated_state_are_left_alone():
    planned = rollout.plan(fleet(3, stated=(1, 2)))
    assert planned["done"] == ["h1", "h2"]
    assert waves(planned) == {"canary": ["h3"]}
    assert rollout.plan(fleet(3, stated=(1, 2, 3)))["groups"] == []


def test_hosts_out_of_reach_are_pending_up_to_the_limit():
    planned = rollout.plan(fleet(5, silent=(1,)))
    assert (planned["pending"], planned["stop"]) == (["h1"], "")
    assert waves(planned)["canary"] == ["h2"]
    stopped = rollout.plan(fleet(5, silent=(1, 4)))
    assert stopped["stop"] == "2 hosts cannot be reached, 1 may be: h1, h4"
    assert stopped["groups"] == []


def test_a_host_that_was_never_heard_of_is_pending_too():
    assert rollout.plan({**fleet(5), "h6": None})["pending"] == ["h6"]


def test_a_host_that_something_is_wrong_with_stops_the_rollout_before_it_begins():
    looked_at = fleet(3)
    looked_at["h2"] = {"reachable": True, "due": True, "fault": "no Python"}
    assert rollout.plan(looked_at)["stop"] == "h2: no Python"
    assert rollout.plan(looked_at)["groups"] == []


def test_a_named_canary_goes_first():
    assert waves(rollout.plan(fleet(3, canary=["h3"]))) == {"canary": ["h3"], "wave 1": ["h1"], "wave 2": ["h2"]}


def test_a_named_canary_that_has_proved_itself_is_not_asked_again():
    planned = waves(rollout.plan(fleet(3, canary=["h3"], stated=(3,))))
    assert planned == {"wave 1": ["h1"], "wave 2": ["h2"]}


def test_a_named_canary_out_of_reach_or_elsewhere_stops_the_rollout():
    assert rollout.plan(fleet(5, canary=["h1"], silent=(1,)))["stop"] == "the canary cannot be reached: h1"
    assert "none of these hosts: h9" in rollout.plan(fleet(5, canary=["h9"]))["stop"]


@given(st.integers(0, 40), st.lists(st.sampled_from(["1", "2", "7", "10%", "50%", "100%"]), min_size=1, max_size=4))
def test_every_host_goes_once(count, sizes):
    planned = rollout.plan(fleet(count, waves=sizes))
    assert [host for one in planned["groups"] for host in one["hosts"]] == [f"h{n}" for n in range(1, count + 1)]
    gates = [one for one in rollout.members(planned["groups"]) if one["gate"] is None]
    assert sum(rollout.serial(planned["groups"])) in (
        sum(len(one["hosts"]) + 1 for one in planned["groups"] if one["wave"] != "canary"), 1,
    )  # fmt: skip
    assert [gate["number"] for gate in gates] == list(range(len(planned["groups"])))


def test_waves_of_nobody_are_refused():
    with pytest.raises(ValueError, match="must each be one host at least"):
        rollout.plan(fleet(3, waves=["0"]))


def test_a_gate_stands_before_the_hosts_of_its_wave():
    members = rollout.members(rollout.plan(fleet(3))["groups"])
    assert [one["name"] for one in members] == [
        "gate-of-canary", "h1", "gate-of-wave-1", "h2", "gate-of-wave-2", "h3",
    ]  # fmt: skip
    assert [one["gate"] for one in members if one["gate"]] == ["gate-of-canary", "gate-of-wave-1", "gate-of-wave-2"]


def test_one_fault_takes_the_whole_wave_back_and_stops():
    decided = rollout.decide({"h2": [], "h3": ["iris: too slow"], "h4": None}, "wave 2", [], 1)
    assert decided == {"back": True, "stop": "wave 2: h3: iris: too slow", "pending": ["h4"], "proved": []}


def test_a_host_that_falls_silent_is_pending_and_the_wave_stays():
    assert rollout.decide({"h2": [], "h3": None}, "wave 1", [], 1) == {
        "back": False, "stop": "", "pending": ["h3"], "proved": ["h2"],
    }  # fmt: skip


def test_too_many_silent_hosts_stop_the_rollout_and_what_is_proved_stays():
    decided = rollout.decide({"h2": [], "h3": None}, "wave 1", ["h1"], 1)
    assert not decided["back"]
    assert decided["stop"] == "2 hosts cannot be reached, 1 may be: h1, h3"
    assert decided["proved"] == ["h2"]


def test_a_silent_canary_proves_nothing():
    assert "nothing is proved" in rollout.decide({"h1": None}, "canary", [], 5)["stop"]


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"msg": "exit code 3"}, "exit code 3"),
        (
            {"msg": "non-zero return code", "stderr": "error: install\nfound: full"},
            "non-zero return code error: install found: full",
        ),
        ({"results": [{"msg": "fine"}, {"failed": True, "msg": "bad"}]}, "bad"),
        ({"censored": "hidden", "msg": "token"}, "what it said is hidden, since it may hold a secret"),
        ({}, "it failed without a message"),
    ],
)
def test_a_failed_task_is_told_in_one_line(result, told):
    assert rollout.reason(result) == told

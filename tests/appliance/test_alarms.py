"""The alarms: what is wrong is told in words with what to do, and nothing else is."""

import string

import pytest
from msgspec import UNSET

from appliance import alarms
from appliance.alarms import KINDS, Failures, Seen
from appliance.drift_report import DriftSummary
from appliance.readiness import ModelHealth, MqttHealth, Ready
from appliance.store.condition import Condition
from appliance.store.receipts import Receipt

PLENTY = Condition(free_bytes=10**12)
FINE = {"iris": ModelHealth(True, "1.0.0")}
NOW = "2026-06-15T12:00:00+00:00"


def ready(models=FINE, *reasons, mqtt=UNSET):
    return Ready(not reasons, list(reasons), dict(models), [], mqtt)


def raised(seen):
    return [(one.level, one.kind, one.model) for one in alarms.of(seen)]


def of_model(**health):
    told = ModelHealth(**health)
    reasons = () if told.ready else (f"iris: {told.reason}",)
    return raised(Seen(ready({"iris": told}, *reasons), PLENTY))


def test_a_host_on_which_all_is_well_raises_none():
    seen = Seen(
        ready(mqtt=MqttHealth({"local": True}, [], 0)),
        PLENTY,
        {"iris": ("1.0.0", DriftSummary("watch", "", ["petal"]))},
        {"iris": Failures(1000, 9, 0)},
    )
    assert alarms.of(seen) == []
    assert alarms.level([]) == "green"


def test_health_of_a_model_is_told_by_what_is_wrong_with_it():
    assert of_model(ready=False, version="1.0.0", reason="off by 3") == [("red", "self-test", "iris")]
    assert of_model(ready=False, wanted="2.0.0", reason="damaged") == [("red", "not loaded", "iris")]
    assert of_model(ready=True, version="1.0.0", wanted="2.0.0", reason="damaged") == [
        ("amber", "other version", "iris")
    ]
    assert of_model(ready=True, version="1.0.0", reason="no trusted key") == [("amber", "not trusted", "iris")]


def test_a_version_that_is_loading_is_no_alarm_yet():
    loading = "version 2.0.0 is not loaded yet"
    assert of_model(ready=True, version="1.0.0", wanted="2.0.0", reason=loading) == []
    others = {"iris": ModelHealth(False, None, "2.0.0", loading), "oven": ModelHealth(True, "1.0.0")}
    assert raised(Seen(ready(others), PLENTY)) == []


def test_reasons_without_a_model_are_told():
    nothing = Seen(ready({}, "no model is active; activate one: appliance activate NAME VERSION"), PLENTY)
    assert raised(nothing) == [("amber", "nothing active", "")]
    assert raised(Seen(ready(FINE, "the service is stopping"), PLENTY)) == [("amber", "stopping", "")]
    assert raised(Seen(ready({}, "read x: damaged; delete it"), PLENTY)) == [("red", "store", "")]


def test_a_broker_that_is_away_is_red_and_says_what_waits():
    mqtt = MqttHealth({"local": False, "upstream": True}, ["h:1883: refused", "3 messages wait for a model"], 7)
    found = alarms.of(Seen(ready(mqtt=mqtt), PLENTY))
    assert [(one.level, one.kind) for one in found] == [("red", "broker"), ("amber", "mqtt")]
    assert found[0].found == "The MQTT broker (local) is not connected: h:1883: refused. Answers that wait on disk: 7."
    assert "3 messages wait" in found[1].found


def test_the_disk_is_told_by_how_bad_it_is():
    assert raised(Seen(ready(), Condition(free_bytes=600 * 1024**2))) == []
    assert raised(Seen(ready(), Condition(free_bytes=500 * 1024**2))) == [("amber", "disk short", "")]
    assert raised(Seen(ready(), Condition(free_bytes=60 * 1024**2))) == [("red", "disk scarce", "")]
    assert raised(Seen(ready(), Condition("/x is full", free_bytes=0))) == [("red", "state folder", "")]
    assert raised(Seen(ready(), Condition("/x is read-only", read_only=True))) == [("amber", "read-only", "")]
    assert raised(Seen(ready(), Condition())) == []


def test_drift_names_its_columns():
    drift = {"iris": ("1.0.0", DriftSummary("drift", "", [f"c{n}" for n in range(7)]))}
    (found,) = alarms.of(Seen(ready(), PLENTY, drift))
    assert (found.level, found.kind) == ("amber", "drift")
    assert "(c0, c1, c2, c3, c4, +2)" in found.found
    assert "appliance drift accept iris" in found.next


def test_failures_are_told_by_whose_fault_they_are():
    assert raised(Seen(ready(), PLENTY, failures={"iris": Failures(1000, 0, 1)})) == [
        ("amber", "service failures", "iris")
    ]
    assert raised(Seen(ready(), PLENTY, failures={"iris": Failures(12, 11, 0)})) == [
        ("amber", "caller failures", "iris")
    ]
    for few in (Failures(9, 9, 0), Failures(100, 50, 0)):
        assert raised(Seen(ready(), PLENTY, failures={"iris": few})) == []


def test_a_version_that_fails_its_probation_and_stays_is_red():
    (found,) = alarms.of(Seen(ready(), PLENTY, failing={"iris": ("2.0.0", "2.0.0 failed on 9 of 9 requests")}))
    assert (found.level, found.kind, found.model) == ("red", "probation", "iris")
    assert found.found.endswith("could not be taken back: 2.0.0 failed on 9 of 9 requests.")


def receipt(what, when="2026-06-14T12:00:00+00:00", **rest):
    return Receipt(when=when, what=what, model="iris", version="2.0.0", **rest)


JUDGED = {"id": "1", "evidence": {"action": "go back"}}


def test_what_the_host_took_back_is_told_until_something_newer_is_done():
    abort = receipt("abort", why="2.0.0 failed more often.", experiment=JUDGED)
    assert alarms.taken_back([receipt("canary"), abort], NOW) == [abort]
    assert alarms.taken_back([abort, receipt("install")], NOW) == [abort]
    assert alarms.taken_back([abort, receipt("canary")], NOW) == []
    assert alarms.taken_back([receipt("abort", why="by hand", experiment={"id": "1"})], NOW) == []
    assert alarms.taken_back([receipt("abort", "2026-06-01T00:00:00+00:00", experiment=JUDGED)], NOW) == []
    assert alarms.taken_back([receipt("abort", "?", experiment=JUDGED)], NOW) == []
    back = receipt("roll back", why="probation of 3.0.0: it answers NaN")
    (found,) = alarms.of(Seen(ready(), PLENTY, taken_back=alarms.taken_back([back], NOW)))
    assert found.found.startswith("iris 3.0.0 was taken back on 2026-06-14")


def test_the_worst_comes_first_and_gives_the_level():
    seen = Seen(
        ready({"iris": ModelHealth(False, "1.0.0", None, "wrong")}, "iris: wrong"),
        Condition(free_bytes=400 * 1024**2),
        {"iris": ("1.0.0", DriftSummary("drift", "", ["a"]))},
    )
    found = alarms.of(seen)
    assert [one.level for one in found] == ["red", "amber", "amber"]
    assert alarms.level(found) == "red"


@pytest.mark.parametrize("kind", KINDS)
def test_every_alarm_says_what_is_and_what_to_do_in_sentences(kind):
    told = KINDS[kind]
    assert told.level in ("amber", "red")
    for text in (told.found, told.next):
        assert text[0].isupper() or text.startswith("{")
        assert text.endswith(".")
    named = {name for _, name, _, _ in string.Formatter().parse(told.found + told.next) if name}
    assert named <= {"model", "version", "wanted", "reason", "broker", "waiting", "free", "columns", "when",
                     "failures", "requests"}  # fmt: skip


def test_braces_in_a_reason_are_text():
    assert alarms.of(Seen(ready(FINE, "read {x}: {0.__class__}"), PLENTY))[0].found.endswith("{0.__class__}.")

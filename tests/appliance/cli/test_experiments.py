"""The commands on experiments, from beginning to end, and what they refuse."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from appliance.cli import appliance as command
from appliance.errors import InvalidInput
from appliance.experiments import files
from appliance.experiments.counting import ArmCounters
from appliance.inference.selftest import self_test
from appliance.store import activation, experiments, running
from appliance.store.versions import Store


@pytest.fixture
def store(tmp_path, make_bundle) -> Store:
    """Return a store whose model iris has 1.0.0 active, 2.0.0 and 3.0.0 beside."""
    store = Store(tmp_path / "state")
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        store.install(make_bundle(tmp_path, version=version))
    activation.activate(store, "iris", "1.0.0", self_test)
    return store


@pytest.fixture
def run(store):
    def invoke(*arguments: str, code: int = 0):
        result = CliRunner().invoke(command, arguments, env={"APPLIANCE_STATE_DIR": str(store.state_dir)})
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 3)])
def test_who_waits_for_a_probation_is_told_how_it_ended(run, store, good, code, monkeypatch):
    def ends(seconds: float) -> None:
        """End the probation while the command waits, as the service does."""
        if activation.read(store, "iris").active != "2.0.0":
            return
        if good:
            activation.mark_good(store, "iris", only="2.0.0")
        else:
            activation.roll_back(store, "iris", self_test, why="probation of 2.0.0: it failed", only="2.0.0")

    clock = SimpleNamespace(sleep=ends, monotonic=time.monotonic)
    monkeypatch.setattr("appliance.cli.waiting.time", clock)  # of this command alone
    told = run("activate", "iris", "2.0.0", "--wait", code=code)
    assert ("2.0.0 is active, good" in told.output) == good
    assert ("1.0.0 is active instead (probation of 2.0.0: it failed)" in told.output) != good


def test_nobody_waits_for_a_probation_that_nobody_ends(run, store, monkeypatch):
    monkeypatch.setenv("APPLIANCE_PROBATION_ENABLED", "false")
    assert "appliance mark-good iris" in run("activate", "iris", "2.0.0", "--wait", code=2).output
    assert activation.read(store, "iris").active == "1.0.0"


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """A clock of the command that waits, on which a second passes with each look."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + seconds)
    monkeypatch.setattr("appliance.cli.waiting.time", clock)
    return clock


@pytest.mark.parametrize("words", [("activate", "iris", "2.0.0"), ("canary", "iris", "2.0.0")])
def test_who_waits_without_a_service_is_told_soon_and_what_was_begun_stays(run, store, clock, words, monkeypatch):
    monkeypatch.setenv("APPLIANCE_HTTP_PORT", "1")  # where nothing answers
    said = run(*words, "--wait", code=1).stderr
    assert "no service runs here" in said
    assert "appliance serve" in said
    assert 30 <= clock.now <= 32
    if words[0] == "activate":
        assert activation.read(store, "iris").state == "probation"
    else:
        assert info(run)["running"]


@pytest.mark.parametrize("words", [("activate", "iris", "2.0.0"), ("canary", "iris", "2.0.0")])
def test_who_waits_may_say_how_long(run, store, clock, words):
    running.write(store.state_dir, running.here("", 0))  # a service that listens to MQTT alone
    said = run(*words, "--wait", "--timeout", "90", code=1).stderr
    assert "nothing was decided within 90 s" in said
    assert 90 <= clock.now <= 91


def test_numbers_of_a_plan_are_the_options_or_the_settings(run, store, monkeypatch):
    monkeypatch.setenv("APPLIANCE_EXPERIMENTS_MARGIN", "0.05")
    monkeypatch.setenv("APPLIANCE_EXPERIMENTS_MIN_REQUESTS", "50")
    options = ("--min-requests", "20", "--min-seconds", "0", "--max-seconds", "600", "--alpha", "0.001")
    said = run("canary", "iris", "2.0.0", *options).stdout
    assert "each step: at least 20 requests and 0 s, failures at most 5 % of the requests above 1.0.0's" in said
    numbers = {"min_requests": 20, "min_seconds": 0, "max_seconds": 600, "margin": 0.05, "alpha": 0.001}
    assert info(run)["plan"] == numbers
    run("abort", "iris")
    run("split", "iris", "1.0.0=50", "2.0.0=50", "--alpha", "0.02")
    assert (info(run)["plan"]["alpha"], info(run)["plan"]["min_requests"]) == (0.02, 50)


def test_without_an_experiment_it_says_how_to_begin_one(run, store):
    assert "next: appliance shadow iris 3.0.0, or: appliance canary iris 3.0.0" in run("experiment", "iris").stdout
    for version in ("2.0.0", "3.0.0"):
        store.remove("iris", version)
    assert "appliance install BUNDLE" in info(run)["next"]
    activation.deactivate(store, "iris")
    assert info(run)["next"] == "appliance activate iris 1.0.0"


def test_every_door_has_the_verdict_in_the_same_words(run, store):
    run("canary", "iris", "2.0.0")
    words = info(run)["evidence"]["verdict"]["text"]
    assert words == "shadow: 2.0.0 has 0 of 300 requests, 0 of 300 s"
    assert f"verdict: {words}" in run("experiment", "iris").stdout
    assert f"1.0.0 100 %, 2.0.0 0 %, 2.0.0 is asked beside; {words}" in run("status").stdout
    assert json.loads(run("models", "--json").stdout)["models"][0]["experiment"]["verdict"] == words


def info(run) -> dict:
    return json.loads(run("experiment", "iris", "--json").stdout)


def test_a_canary_from_its_beginning_to_its_promotion(run, store):
    said = run("canary", "iris", "2.0.0", "--steps", "5,50", "--key", "sepal_width", "--why", "retrained").stdout
    assert "2.0.0 beside 1.0.0" in said
    assert "shadow; the steps are shadow, 5 %, 50 %, active" in said
    told = info(run)
    assert (told["running"], told["kind"], told["base"], told["steps"]) == (True, "canary", "1.0.0", [0.05, 0.5])
    assert (told["key"], told["shadow"]["version"], told["why"]) == ("column:sepal_width", "2.0.0", "retrained")
    assert "2.0.0 is active, probation" in run("promote", "iris").stdout
    told = info(run)
    assert (told["running"], told["last"]["outcome"], told["last"]["version"]) == (False, "promoted", "2.0.0")
    assert activation.read(store, "iris").active == "2.0.0"
    assert "promoted at" in run("experiment", "iris").stdout


def test_a_canary_that_is_held_goes_a_step_with_each_promote(run, store):
    run("canary", "iris", "2.0.0", "--steps", "5,50", "--hold")
    assert "step 1 of 2" in run("promote", "iris").stdout
    assert info(run)["arms"][1] == {"version": "2.0.0", "share": 0.05}
    run("promote", "iris")
    assert info(run)["arms"][1]["share"] == 0.5
    assert "2.0.0 is active" in run("promote", "iris").stdout
    run("canary", "iris", "3.0.0", "--hold")
    assert "3.0.0 is active" in run("promote", "iris", "--now").stdout


def test_what_a_held_step_has_proved_counts_in_the_next_one(run, store):
    run("canary", "iris", "2.0.0", "--steps", "50,90", "--hold")
    run("promote", "iris")
    routing = experiments.read(store, "iris")
    folder = files.folder(store.state_dir)
    counters = ArmCounters(lambda model: routing, folder, 0, within=store.state_dir)
    for number in range(8):
        counters.failed("iris", "2.0.0", InvalidInput("", ""), 0.0, f"{routing.id}/2.0.0", f"device-{number}")
    run("promote", "iris")
    later = experiments.read(store, "iris")
    assert later.step == 2
    assert max(later.log_e.values()) > 1  # eight failures, all of one of two alike arms


def test_a_split_says_its_shares_and_abort_ends_it(run):
    run("split", "iris", "1.0.0=90", "2.0.0=7.5", "3.0.0=2.5%", "--key", "caller")
    told = info(run)
    assert {arm["version"]: arm["share"] for arm in told["arms"]} == {"1.0.0": 0.9, "2.0.0": 0.075, "3.0.0": 0.025}
    assert told["key"] == "caller"
    assert "several challengers" in run("promote", "iris", code=2).stderr
    assert "iris 1.0.0 answers all requests" in run("abort", "iris", "--why", "enough").stdout
    assert info(run)["last"]["outcome"] == "taken back"
    assert "no experiment runs on it" in run("abort", "iris", code=4).stderr


def test_a_shadow_is_asked_a_share_of_the_rows(run):
    assert "20 % of the rows beside" in run("shadow", "iris", "2.0.0", "--share", "0.2").stdout
    assert info(run)["shadow"] == {"version": "2.0.0", "share": 0.2}


def test_rollback_ends_a_canary_and_leaves_the_active_version_but_of_a_shadow_goes_back(run, store):
    activation.activate(store, "iris", "3.0.0", self_test)
    run("canary", "iris", "2.0.0")
    told = json.loads(run("rollback", "iris", "--json").stdout)
    assert (told["active"], told["changed"]) == ("3.0.0", True)
    assert not info(run)["running"]
    run("shadow", "iris", "2.0.0")
    assert "iris 1.0.0 is active" in run("rollback", "iris").stdout
    told = info(run)
    assert (told["running"], told["last"]["outcome"]) == (False, "ended")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("canary", "iris", "1.0.0"), 2, "1.0.0 is the active version"),
        (("canary", "iris", "4.0.0"), 4, "it is not installed"),
        (("canary", "iris", "2.0.0", "--steps", "5,x"), 2, "write as 1,5,25,50"),
        (("canary", "iris", "2.0.0", "--steps", "0,5"), 2, "rising shares in percent"),
        (("canary", "iris", "2.0.0", "--min-requests", "0"), 2, "see [experiments]"),
        (("canary", "iris", "2.0.0", "--alpha", "nan"), 2, "see [experiments]"),
        (("split", "iris", "1.0.0=50", "2.0.0=50", "--alpha", "1"), 2, "alpha"),
        (("canary", "iris", "2.0.0", "--key", "colour"), 2, "no column 'colour'"),
        (("split", "iris", "1.0.0=90"), 2, "two versions or more"),
        (("split", "iris", "1.0.0=90", "2.0.0=20"), 2, "together 100"),
        (("split", "iris", "1.0.0", "2.0.0=20"), 2, "write as 1.0.0=90"),
        (("split", "iris", "1.0.0=90", "1.0.0=10"), 2, "twice"),
        (("shadow", "iris", "2.0.0", "--share", "2"), 2, "above 0, at most 1"),
        (("shadow", "irs", "2.0.0"), 4, "did you mean iris"),
        (("promote", "iris"), 4, "no experiment runs"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_do(run, arguments, code, said):
    assert said in run(*arguments, code=code).stderr
    assert not info(run)["running"]


def test_while_one_runs_a_second_and_what_would_end_it_are_refused(run):
    run("shadow", "iris", "2.0.0")
    for arguments in (
        ("canary", "iris", "3.0.0"),
        ("activate", "iris", "2.0.0"),
        ("activate", "iris", "3.0.0"),
        ("remove", "iris", "2.0.0"),
    ):
        assert "appliance" in run(*arguments, code=3).stderr
    assert info(run)["running"]


@pytest.mark.parametrize(("end", "code"), [("promote", 0), ("abort", 3), ("rollback", 3), ("deactivate", 3)])
def test_who_waits_is_told_of_the_steps_and_of_the_end(run, store, end, code):
    program = "from appliance.cli import main; main()"
    arguments = ["canary", "iris", "2.0.0", "--wait", "--state-dir", str(store.state_dir)]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        lines = iter(waiting.stdout.readline, "")
        next(line for line in lines if "the steps are" in line)
        experiments.advance(store, "iris", experiments.read(store, "iris").id, 1)
        assert next(line for line in lines if "step 1 of 4: 2.0.0 answers 1 % of the requests" in line)
        run(end, "iris")
        said, why = waiting.communicate(timeout=60)
    assert (waiting.returncode, "2.0.0 is active" in said) == (code, code == 0), why


def test_a_record_that_cannot_be_read_is_told_and_can_be_deleted(run, store):
    experiments.path(store, "iris").write_bytes(b"{ half")
    assert "cannot be read" in run("experiment", "iris").stdout
    assert "appliance abort iris" in info(run)["problem"]
    run("abort", "iris")
    assert info(run)["problem"] == ""

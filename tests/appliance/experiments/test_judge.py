"""The judge on a host: a canary goes through its steps, is promoted or taken back; a probation ends by itself."""

import logging
import shutil
import time

import msgspec
import pytest

from appliance.cli import doctor
from appliance.config import ProbationConfig
from appliance.errors import NotReady
from appliance.experiments import info, probation_record
from appliance.experiments.step_clock import StepClock, seconds
from appliance.inference.selftest import self_test
from appliance.store import activation, experiments, routing_record
from tests.conftest import wait_for

BAD: list[float] = []
GAP = [float("nan"), 1.0, 1.0, 1.0]


def running(host):
    return experiments.read(host.store, "iris")


def to_step(host, routing, step, share=0.5):
    """Have a canary begin a step without the ones before."""
    experiments.advance(host.store, "iris", routing.id, step)
    host.models.refresh()


def test_a_good_canary_goes_from_the_shadow_through_its_steps_and_is_promoted(host):
    routing = host.begin("canary", steps=(0.3, 0.6))
    for _ in range(100):
        assert host.ask().version == "1.0.0"  # nobody is exposed in the shadow's step
    host.wait_compared(routing, 100)
    host.look()
    assert running(host).step == 1
    host.ask_arm("2.0.0", many=100)
    host.ask_arm("1.0.0", many=234)
    host.look()
    assert [arm.share for arm in running(host).arms] == [0.4, 0.6]
    assert set(running(host).log_e) == {"failures 2.0.0", "slow 2.0.0", "nan 2.0.0"}
    host.ask_arm("2.0.0", many=150)
    host.ask_arm("1.0.0", many=100)
    host.look()
    assert running(host) is None
    now = activation.read(host.store, "iris")
    assert (now.active, now.previous, now.state) == ("2.0.0", "1.0.0", "probation")
    assert "all tests passed" in host.receipts("promote")[0].why
    assert host.ask().version == "2.0.0"


def test_a_canary_that_fails_all_is_taken_back_after_four_requests(host, caplog):
    routing = host.begin("canary", steps=(0.05,))
    to_step(host, routing, 1)
    host.ask_arm("1.0.0", many=76)
    asked = 0
    while running(host) is not None and asked < 10:
        host.ask_arm("2.0.0", BAD)
        asked += 1
        host.look()
    assert asked <= 4
    assert activation.read(host.store, "iris").active == "1.0.0"
    (receipt,) = host.receipts("abort")
    assert "2.0.0 failed on 2 of 2 requests" in receipt.why
    assert receipt.experiment["evidence"]["action"] == "go back"
    assert host.ask().version == "1.0.0"
    assert any(one.levelno == logging.ERROR and "taken back" in one.message for one in caplog.records)


def test_failures_of_both_alike_change_nothing(host):
    routing = host.begin("canary", steps=(0.5,), margin=0.5)
    to_step(host, routing, 1)
    for _ in range(20):
        host.ask_arm("1.0.0", BAD)
        host.ask_arm("2.0.0", BAD)
        host.look()
    assert running(host).step == 1


def test_one_broken_device_does_not_decide_alone(host):
    routing = host.begin("canary", steps=(0.5,), min_requests=10_000)
    to_step(host, routing, 1)
    arms = host.models.arms("iris")
    device = next(f"d{n}" for n in range(99) if arms.pick(f"d{n}").version == "2.0.0")
    for _ in range(60):
        host.ask(BAD, key=device)
    host.look()
    assert running(host).step == 1
    for n in range(60):  # while as many devices do
        host.ask(BAD if arms.pick(f"e{n}").version == "2.0.0" else None, key=f"e{n}")
    host.look()
    assert running(host) is None


def test_nan_of_a_canary_is_found_in_the_shadow_where_nobody_sees_it(host):
    routing = host.begin("canary", "2.0.1", steps=(0.5,), min_requests=500)
    for _ in range(30):
        host.ask(GAP)
    host.wait_compared(routing, 30)
    host.look()
    assert running(host) is None
    assert "answered NaN to 30 of 30 rows" in host.receipts("abort")[0].why


def test_a_canary_that_is_worse_by_labels_is_taken_back(host):
    routing = host.begin("canary", steps=(0.5,), min_requests=5000)
    answers = [host.ask(request=f"r{n}") for n in range(40)]
    host.wait_compared(routing, 40)
    for answer in answers:  # 1.0.0 answers 110, 2.0.0 210
        predicted = float(answer.outputs["prediction"][0])
        host.parts.labelled("iris", "1.0.0", next(iter(answer.ids())), predicted, 112.0, answer.arm)
    assert host.compared(routing)["with_labels"] == {"both": 40, "active_better": 40, "challenger_better": 0}
    host.look()
    assert running(host) is None
    assert "1.0.0 alone was right on 40, 2.0.0 alone on 0" in host.receipts("abort")[0].why


def test_a_held_canary_waits_for_a_person_but_is_still_taken_back(host):
    routing = host.begin("canary", steps=(0.5,), hold=True)
    for _ in range(100):
        host.ask()
    host.wait_compared(routing, 100)
    host.look()
    assert running(host).step == 0
    to_step(host, routing, 1)
    host.ask_arm("2.0.0", BAD, many=12)
    host.look()
    assert running(host) is None


def test_too_little_traffic_holds_and_says_so(host):
    from appliance.experiments import report

    routing = host.begin("canary", steps=(0.5,), max_seconds=5.0)
    found = report.document(host.store, "iris", routing, 10.0)["verdict"]
    assert found["inconclusive"]
    assert found["text"].startswith("inconclusive: too little traffic")
    host.look()
    assert running(host) == routing


def test_a_judge_that_is_started_anew_goes_on_with_what_was_counted(make_host):
    first = make_host()
    routing = first.begin("canary", steps=(0.5, 0.9))
    to_step(first, routing, 1)
    first.ask_arm("2.0.0", many=60)
    first.ask_arm("1.0.0", many=60)
    first.close()
    second = make_host()
    second.ask_arm("2.0.0", many=45)
    second.ask_arm("1.0.0", many=45)
    second.look()
    assert running(second).step == 2


@pytest.mark.parametrize("since", ["2001-01-01T00:00:00+00:00", "2199-01-01T00:00:00+00:00"], ids=["forward", "back"])
def test_a_wall_clock_that_is_set_neither_ends_a_step_early_nor_holds_it(host, since):
    routing = host.begin("canary", steps=(0.5,), min_seconds=0.3)
    for _ in range(100):
        host.ask()
    host.wait_compared(routing, 100)
    routing_record.write(host.store.models_dir / "iris", msgspec.structs.replace(routing, since=since))
    begun = time.monotonic()
    host.look()
    if time.monotonic() - begun < 0.3:
        assert running(host).step == 0
    wait_for(lambda: host.look() or running(host).step == 1, "the next step")
    assert time.monotonic() - begun >= 0.3


def test_the_time_of_a_step_outlives_a_restart_and_begins_again_with_the_next_one(host):
    routing = host.begin("canary", steps=(0.5,))
    folder, within = host.store.state_dir / "experiments", host.store.state_dir
    first = StepClock(folder, within=within)
    assert first.count("iris", routing) == 0.0
    passed = wait_for(lambda: first.count("iris", routing), "some time")
    second = StepClock(folder, within=within)
    assert second.count("iris", routing) >= passed
    assert seconds(folder, "iris", routing, within=within) >= passed
    second.pause("iris")  # the challenger is not there
    held = seconds(folder, "iris", routing, within=within)
    assert second.count("iris", routing) == held
    assert second.count("iris", msgspec.structs.replace(routing, step=1)) == 0.0


def test_a_challenger_that_is_deleted_by_hand_is_told_and_its_requests_are_answered(make_host, caplog):
    first = make_host()
    routing = first.begin("canary", steps=(0.5,))
    to_step(first, routing, 1)
    shutil.rmtree(first.store.folder("iris", "2.0.0"))
    first.ask_arm("2.0.0", many=3)  # what is loaded serves on
    first.look()
    assert running(first).step == 1
    first.close()
    second = make_host()  # after a restart it cannot be loaded
    assert {second.ask(key=f"k{number}").version for number in range(20)} == {"1.0.0"}
    second.look()
    second.look()
    told = [one for one in caplog.records if "2.0.0 cannot be loaded" in getattr(one, "found", "")]
    assert len(told) == 1
    shown = info.info(second.store, "iris")
    assert "2.0.0 is not installed any more: 1.0.0 answers its requests" in shown.problem
    assert f"problem: {shown.problem}" in info.described(shown)
    assert doctor.check_experiments(second.store).next == "install it again, or: appliance abort iris"
    experiments.abort(second.store, "iris")
    assert info.problem_of(second.store, "iris") == ""


def test_an_active_version_that_is_deleted_by_hand_leaves_the_experiment_to_be_shown_and_ended(host):
    host.begin("canary", steps=(0.5,))
    shutil.rmtree(host.store.folder("iris", "1.0.0"))
    host.look()
    assert host.ask().version == "1.0.0"  # it is loaded
    assert "1.0.0 is not installed any more; install it again" in info.info(host.store, "iris").problem
    assert info.running(host.store, "iris").verdict.startswith("shadow: 2.0.0 has")
    assert experiments.abort(host.store, "iris")


def test_a_record_that_is_torn_while_it_runs_ends_the_routing_and_nothing_else(host, caplog):
    routing = host.begin("canary", steps=(0.5,))
    to_step(host, routing, 1)
    record = experiments.path(host.store, "iris")
    content = record.read_bytes()
    for torn in (content[: len(content) // 2], content.replace(b'"format": 1', b'"format": 7')):
        record.write_bytes(torn)
        host.look()
        assert {host.ask(key=f"k{number}").version for number in range(20)} == {"1.0.0"}
        assert "appliance abort iris" in info.problem_of(host.store, "iris")
        found = doctor.check_experiments(host.store)
        assert (found.state, "appliance abort iris" in found.next) == ("fail", True)
    assert "experiment cannot be read: the active version answers" in caplog.text
    record.write_bytes(content)  # whoever mends it has the experiment back, with what was counted
    host.look()
    assert running(host).step == 1


def test_counts_of_an_ended_experiment_are_swept(host):
    routing = host.begin("canary", steps=(0.5,))
    to_step(host, routing, 1)
    host.ask_arm("2.0.0", BAD, many=12)
    folder = host.store.state_dir / "experiments"
    assert list(folder.glob(f"*{routing.id}*"))
    host.look()
    host.parts.look(host.stop)
    assert not list(folder.glob(f"*{routing.id}*"))


def test_a_version_on_probation_that_fails_goes_back(host, caplog):
    for _ in range(200):
        host.ask()
    host.look()
    activation.activate(host.store, "iris", "2.0.0", self_test)
    host.look()
    for _ in range(10):
        host.ask(BAD)
    host.look()
    now = activation.read(host.store, "iris")
    assert (now.active, now.state, now.previous) == ("1.0.0", "good", None)
    assert now.why.startswith("probation of 2.0.0: 2.0.0 failed on 10 of 10 requests")
    assert host.receipts("roll back")[0].why == now.why
    assert any(one.levelno == logging.ERROR and "taken back" in one.message for one in caplog.records)
    assert host.ask().version == "1.0.0"


def test_a_version_on_probation_that_answers_well_is_marked_good(host):
    for _ in range(100):
        host.ask()
    host.look()
    activation.activate(host.store, "iris", "2.0.0", self_test)
    host.look()
    for _ in range(49):
        host.ask()
    host.look()
    assert "49 of 50 requests" in status(host).verdict
    for _ in range(250):
        host.ask()
    host.look()
    assert activation.read(host.store, "iris").state == "good"
    assert "2.0.0 failed on 0 of 299 requests" in host.receipts("mark good")[-1].why
    # By hand, as Ansible does, it is marked good once more without harm.
    assert activation.mark_good(host.store, "iris").state == "good"


def test_both_versions_stay_loaded_during_the_probation_and_no_longer(host):
    activation.activate(host.store, "iris", "2.0.0", self_test)
    host.look()
    assert host.models.roles("iris")["previous"].loaded.version == "1.0.0"
    activation.mark_good(host.store, "iris")
    host.look()
    assert "previous" not in host.models.roles("iris")


def test_a_version_that_answers_nan_where_the_one_before_answers_numbers_goes_back(host):
    activation.activate(host.store, "iris", "2.0.1", self_test)
    host.look()
    for _ in range(20):
        host.ask(GAP)
    host.look()
    assert activation.read(host.store, "iris").active == "1.0.0"
    assert "answered NaN to 20 of 20 requests" in activation.read(host.store, "iris").why


def test_nan_that_both_versions_answer_is_the_rows_fault(host):
    for version in ("2.0.1", "2.0.2"):
        activation.activate(host.store, "iris", version, self_test)
        activation.mark_good(host.store, "iris") if version == "2.0.1" else None
    host.look()
    for _ in range(20):
        host.ask(GAP)
    host.look()
    assert activation.read(host.store, "iris").active == "2.0.2"


def test_a_version_that_is_worse_by_labels_goes_back(host):
    for n in range(150):
        host.parts.labelled("iris", "1.0.0", f"a{n}", 110.0, 111.0 + n % 3)
    host.look()
    activation.activate(host.store, "iris", "2.0.0", self_test)
    host.look()
    for n in range(150):
        host.parts.labelled("iris", "2.0.0", f"b{n}", 210.0, 111.0 + n % 3)
    host.look()
    assert activation.read(host.store, "iris").active == "1.0.0"
    assert "2.0.0 is off by 98" in activation.read(host.store, "iris").why


def test_counts_of_both_versions_outlive_the_service(make_host):
    first = make_host()
    for _ in range(200):
        first.ask()
    first.look()
    activation.activate(first.store, "iris", "2.0.0", self_test)
    first.look()
    first.close()
    second = make_host()
    second.look()
    watch = probation_record.read(second.store.state_dir, "iris")
    assert (watch.now.version, watch.before.version, watch.before.requests) == ("2.0.0", "1.0.0", 200)
    for _ in range(10):
        second.ask(BAD)
    second.look()
    assert activation.read(second.store, "iris").active == "1.0.0"


def test_a_first_version_has_nowhere_to_go_back_to(tmp_path, experiment_bundles, make_host):
    from appliance.store.versions import Store

    store = Store(tmp_path / "state")
    store.install(experiment_bundles["one"])
    activation.activate(store, "iris", "1.0.0", self_test)
    host = make_host()
    for _ in range(60):
        host.ask(BAD)
    host.look()
    assert activation.read(host.store, "iris").active == "1.0.0"
    assert "1.0.0 failed on 60 of 60 requests" in status(host).verdict
    assert activation.read(host.store, "iris").state == "probation"


def test_probation_can_be_left_to_people(make_host):
    host = make_host(probation=ProbationConfig(enabled=False, min_requests=1, min_seconds=0))
    activation.activate(host.store, "iris", "2.0.0", self_test)
    for _ in range(60):
        host.ask()
    host.look()
    assert activation.read(host.store, "iris").state == "probation"


def test_a_verdict_on_a_version_that_is_not_active_any_more_does_nothing(host):
    activation.activate(host.store, "iris", "2.0.0", self_test)
    before = activation.read(host.store, "iris")
    with pytest.raises(NotReady, match=r"1\.0\.0 is not active any more"):
        activation.roll_back(host.store, "iris", self_test, only="1.0.0")
    with pytest.raises(NotReady, match=r"1\.0\.0 is not active any more"):
        activation.mark_good(host.store, "iris", only="1.0.0")
    assert activation.read(host.store, "iris") == before


def status(host):
    return probation_record.described(host.store.state_dir, "iris", activation.read(host.store, "iris"))

"""The shadow: copies of live rows are answered beside the work, bounded, dropped first, and go nowhere else."""

import os
import threading

import numpy as np
import pytest

from appliance.experiments import comparison, files, report, shadow, worst_rows
from appliance.experiments.shadow import shadow_key
from appliance.store import experiments
from tests.conftest import wait_for


def test_copies_are_compared_and_the_caller_gets_the_active_answer(host):
    routing = host.begin("shadow")
    answers = [host.ask([float(n), 0, 0, 0], request=f"r{n}") for n in range(50)]
    assert {answer.version for answer in answers} == {"1.0.0"}
    told = host.wait_compared(routing, 50)
    assert (told["rows"], told["agreement"], told["errors"]) == (50, 0.0, 0)
    assert told["difference"]["0.5"] == pytest.approx(100, rel=0.01)  # 2.0.0 adds 200, 1.0.0 100
    assert told["row_seconds"]["quotient"] > 0
    assert host.counters.sums().keys() >= {("iris", "1.0.0")}
    assert host.counters.counts()["iris", "2.0.0"].successes == 0  # nobody was told of the shadow's answers


def test_the_worst_rows_are_kept_with_their_values(host, monkeypatch):
    monkeypatch.setattr(shadow, "_RUNS_BETWEEN_WORST", 0.0)
    routing = host.begin("shadow")
    for n in range(30):
        host.ask([float(n), 0, 0, 0], request=f"r{n}")
    host.wait_compared(routing, 30)
    worst = wait_for(lambda: host.compared(routing)["worst_rows"], "worst rows")
    assert worst[0]["row"].keys() == {"sepal_length", "sepal_width", "petal_length", "petal_width"}
    assert worst[0]["difference"] == pytest.approx(100)
    assert worst[0]["id"].startswith("r")
    assert len(worst) <= comparison.WORST


def test_no_row_is_written_where_rows_are_private(host):
    host.parts._shadow._keep_rows = False
    routing = host.begin("shadow")
    host.ask()
    assert host.wait_compared(routing, 1)["worst_rows"] == []
    assert not list((host.store.state_dir / "experiments").glob(f"*{worst_rows.SUFFIX}"))


def test_a_share_of_the_requests_is_copied(host):
    routing = host.begin("shadow", share=0.2)
    for _ in range(300):
        host.ask()
    host.wait_compared(routing, 20)
    assert host.compared(routing)["requests"] + host.compared(routing)["dropped_requests"] < 120


def test_nothing_is_copied_while_requests_wait(host):
    routing = host.begin("shadow")
    host.busy = True
    for _ in range(20):
        host.ask()
    host.busy = False
    host.ask()
    told = host.wait_compared(routing, 1)
    assert (told["requests"], told["dropped_requests"]) == (1, 20)


def test_what_does_not_fit_is_dropped_and_counted(host, monkeypatch):
    gate = threading.Event()
    compare = shadow.Shadow._compare
    monkeypatch.setattr(shadow.Shadow, "_compare", lambda own, batch: gate.wait(30) and compare(own, batch))
    routing = host.begin("shadow")
    large = np.ones((2000, 4), np.float32)
    version = host.predictor.route("iris")
    for _ in range(100):
        host.predictor.run(version, {"features": large})
    waiting = host.parts._shadow
    assert waiting._bytes <= shadow.MOST_BYTES
    assert sum(shadow._size(one) for _, one in waiting._waiting) == waiting._bytes
    gate.set()
    wait_for(lambda: not waiting._waiting, "an empty queue")
    told = host.compared(routing)
    assert told["dropped_requests"] >= 70
    # Of a large request the first rows are compared.
    assert host.wait_compared(routing, 20)["rows"] <= 64 * 30


def test_a_shadow_that_used_up_its_time_drops_what_comes(host):
    routing = host.begin("shadow")
    host.parts._shadow._allowed = -1.0
    host.ask()
    told = host.compared(routing)
    assert (told["requests"], told["dropped_requests"]) == (0, 1)


def test_the_time_that_is_used_has_to_be_saved_up_again(host, monkeypatch):
    waits = []
    one = host.parts._shadow
    monkeypatch.setattr(one, "_cpu", 0.1)
    monkeypatch.setattr(one._changed, "wait_for", lambda until, seconds: waits.append(seconds), raising=False)
    one._allowed = 0.02
    one._pay(0.0, 0.07)
    one._allowed = 1.0
    one._pay(0.0, 0.07)
    assert waits == [pytest.approx(0.5), shadow.PAUSE_SECONDS]


def test_the_same_request_is_compared_once(host):
    routing = host.begin("shadow")
    for _ in range(10):
        host.ask(request="again")
    host.ask(request="other")
    assert host.wait_compared(routing, 2)["requests"] == 2


def test_what_the_challenger_cannot_answer_is_counted_and_the_others_are_compared(host, monkeypatch):
    routing = host.begin("shadow")
    active, challenger = host.parts._challenger("iris")[1:]
    run = challenger.session.run
    bad = np.array([[-1, 0, 0, 0]], np.float32)

    def refuses(feeds, names=None):
        if (feeds["features"][:, 0] < 0).any():
            from appliance.errors import InvalidInput

            raise InvalidInput("run", "negative", "")
        return run(feeds, names)

    monkeypatch.setattr(challenger.session, "run", refuses)
    for n in range(20):
        host.predictor.run(active.as_arm(f"{routing.id}/1.0.0"), {"features": bad if n % 5 == 0 else abs(bad)})
    told = host.wait_compared(routing, 20)
    wait_for(lambda: host.compared(routing)["rows"] == 16, "the others compared")
    assert host.compared(routing)["errors"] == 4
    assert told["requests"] == 20


def test_its_thread_alone_is_nice(host):
    thread = host.parts._shadow._thread
    wait_for(lambda: os.getpriority(os.PRIO_PROCESS, thread.native_id) >= shadow.NICE, "a nice thread")
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == os.getpriority(os.PRIO_PROCESS, 0)


def test_comparisons_go_on_after_a_restart(make_host):
    first = make_host()
    routing = first.begin("shadow")
    first.ask()
    first.wait_compared(routing, 1)
    first.close()
    second = make_host()
    second.ask()
    assert second.wait_compared(routing, 2)["requests"] == 2


def test_processes_add_up(make_host):
    first = make_host()
    routing = first.begin("shadow")
    second = make_host(slot=1)
    for one in (first, second):
        one.ask(request=f"of {one.parts._shadow._slot}")
    assert first.wait_compared(routing, 2)["rows"] == 2
    assert second.judge is None  # one process judges


def test_damaged_and_planted_files_of_counts_are_passed_over(host, tmp_path):
    routing = host.begin("shadow")
    host.ask()
    host.wait_compared(routing, 1)
    folder = files.folder(host.store.state_dir)
    name, identifier = shadow_key("iris", routing)
    (folder / f"7@{name}@{identifier}.shadow").write_bytes(b"torn")
    (folder / f"8@{name}@{identifier}.shadow").symlink_to("/dev/zero")
    (folder / f"9@{name}@{identifier}.worst").write_text("{not json")
    assert report.document(host.store, "iris", routing, 1.0)["comparison"]["requests"] == 1


def test_nothing_stays_mapped_of_experiments_that_have_ended(host):
    for _ in range(3):
        routing = host.begin("canary", steps=(0.5,))
        host.ask(request=f"of {routing.id}")
        host.wait_compared(routing, 1)
        experiments.advance(host.store, "iris", routing.id, 1)
        host.models.refresh()
        host.ask_arm("2.0.0")
        experiments.abort(host.store, "iris")
        host.models.refresh()
    counters, shadow = host.parts._arms
    assert len(counters._shared._cells) == len(shadow._shared._cells) == len(shadow._asked) == 1

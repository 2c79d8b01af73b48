"""A batch is bounded by the clock: what a message took decides how many the next one has. The clock is the test's."""

import pytest

from appliance.mqtt.batch_sizer import BatchSizer
from appliance.mqtt.listener import MqttListener
from appliance.mqtt.messages import Message


class Clock:
    """A model that takes a fixed time for each batch, and one for each message."""

    def __init__(self, fixed: float, each: float) -> None:
        self.now, self.fixed, self.each = 0.0, fixed, each

    def __call__(self) -> float:
        return self.now

    def answer(self, sizer: BatchSizer, waiting: int) -> float:
        """Answer what one batch may have of what waits; return what that took."""
        size = min(waiting, sizer.size)
        before = self.now
        with sizer.measure(size):
            self.now += self.fixed + size * self.each
        return self.now - before


@pytest.mark.parametrize("each", [1e-6, 5e-5, 3e-4, 1e-3, 4e-3])
def test_batches_of_a_backlog_stay_within_the_budget_and_use_it(each):
    clock = Clock(1e-4, each)
    sizer = BatchSizer(256, budget=0.005, clock=clock)
    taken = [clock.answer(sizer, 10_000) for _ in range(20)]
    assert taken[0] <= 16 * each + 1e-4 + 1e-9  # nothing is known of the model yet
    assert max(taken[1:]) <= 0.005 + 1e-9
    assert sizer.size == 256 or taken[-1] >= 0.0025


def test_a_message_that_takes_longer_than_the_budget_goes_alone():
    clock = Clock(0.0, 0.5)
    sizer = BatchSizer(256, budget=0.005, clock=clock)
    clock.answer(sizer, 100)
    assert sizer.size == 1


def test_a_new_version_that_is_slower_is_noticed_and_so_is_a_quicker_one():
    clock = Clock(0.0, 1e-5)
    sizer = BatchSizer(256, budget=0.005, clock=clock)
    clock.answer(sizer, 1000)
    assert sizer.size == 256
    clock.each = 1e-3
    for _ in range(2):
        clock.answer(sizer, 1000)
    assert sizer.size == 5
    clock.each = 1e-5
    clock.answer(sizer, 1000)
    assert sizer.size == 256


def test_one_pause_of_the_machine_changes_nothing():
    clock = Clock(0.0, 1e-5)
    sizer = BatchSizer(256, budget=0.005, clock=clock)
    clock.answer(sizer, 1000)
    clock.fixed = 0.1
    clock.answer(sizer, 1)
    assert sizer.size == 256


def test_the_loop_answers_no_more_at_once_than_a_batch_may_have(listen, tmp_path):
    subscription = {"topic": "plant/+/sensors", "model": "iris", "answer": "plant/{1}/prediction"}
    running = listen(subscriptions=[subscription])
    running.stop()
    one = MqttListener(running.config, running.predictor, tmp_path / "other")
    clock = Clock(0.0, 0.0)
    one._batch_sizer = BatchSizer(256, budget=0.005, clock=clock)
    for packet_id in range(1, 61):
        one.take(Message("plant/a/sensors", b"[1,2,3,4]", 1, packet_id))
    answer = one._flow.answer

    def slow(messages):
        clock.now += 0.001 * len(messages)
        return answer(messages)

    one._flow.answer = slow
    assert [len(one._answered().messages) for _ in range(3)] == [16, 5, 5]


@pytest.mark.parametrize(("commit", "first"), [(0.001, 50), (0.1, 100)])
def test_half_goes_first_where_a_commit_is_quicker_than_the_answers(listen, tmp_path, commit, first):
    running = listen(subscriptions=[{"topic": "plant/+/sensors", "model": "iris", "answer": "plant/{1}/prediction"}])
    running.stop()
    one = MqttListener(running.config, running.predictor, tmp_path / "other")
    one._batch_sizer = BatchSizer(256, budget=1.0, clock=Clock(0.0, 0.0))
    one._batch_sizer._each.append(1e-4)
    one._committer._took.append(commit)
    for packet_id in range(1, 101):
        one.take(Message("plant/a/sensors", b"[1,2,3,4]", 1, packet_id))
    assert len(one._answered().messages) == first

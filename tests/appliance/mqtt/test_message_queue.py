"""What may wait in memory: in order, within its limits, and nothing after a message that was let go of."""

import pytest

from appliance.mqtt import message_queue
from appliance.mqtt.message_queue import MessageQueue
from appliance.mqtt.messages import Message


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(message_queue, "PAUSE_MESSAGES", 2)
    monkeypatch.setattr(message_queue, "MOST_MESSAGES", 3)
    monkeypatch.setattr(message_queue, "PAUSE_BYTES", 100)
    monkeypatch.setattr(message_queue, "MOST_BYTES", 200)


def message(packet_id: int, size: int = 1, qos: int = 1) -> Message:
    return Message("t", b"x" * (size - 1), qos, packet_id)


def test_messages_leave_in_the_order_in_which_they_came():
    queue = MessageQueue()
    assert all(queue.put(message(number)) for number in (1, 2, 3))
    first = queue.first(2)
    assert [one.packet_id for one in first] == [1, 2]
    queue.remove(first)
    assert [one.packet_id for one in queue.first(9)] == [3]


def test_after_one_that_was_let_go_of_none_is_taken_until_the_queue_is_cleared():
    queue = MessageQueue()
    assert [queue.put(message(number)) for number in (1, 2, 3, 4)] == [True, True, True, False]
    queue.remove(queue.first(3))
    assert queue.let_go
    assert not queue.put(message(5))
    queue.clear()
    assert queue.put(message(4))


def test_one_without_acknowledgement_is_lost_and_others_are_taken_after_it():
    queue = MessageQueue()
    assert [queue.put(message(number, qos=0)) for number in (1, 2, 3, 4)] == [True, True, True, False]
    queue.remove(queue.first(1))
    assert queue.put(message(5))


@pytest.mark.parametrize(("sizes", "full"), [([1], False), ([1, 1], True), ([99], False), ([100], True)])
def test_it_is_full_by_number_or_by_bytes(sizes, full):
    queue = MessageQueue()
    for size in sizes:
        queue.put(message(1, size))
    assert queue.is_full is full
    queue.remove(queue.first(len(sizes)))
    assert not queue.is_full


def test_no_more_bytes_are_taken_than_may_wait():
    queue = MessageQueue()
    assert [queue.put(message(number, 150)) for number in (1, 2, 3)] == [True, True, False]

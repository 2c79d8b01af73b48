"""Works are committed in order, one beside the loop; what failed is tried again, and nothing is told too early."""

import threading

import pytest

from appliance.errors import StoreError
from appliance.mqtt.committer import RETRY_SECONDS, Committer
from appliance.mqtt.flow import Batch
from appliance.mqtt.messages import Message


class Pending:
    def __init__(self, batch: Batch, is_open: bool) -> None:
        self.batch, self.is_open = batch, is_open


class Bench:
    """A committer over a disk that waits for the test, and fails when it is told to."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.may_end = threading.Event()
        self.woken = threading.Event()
        self.failure: Exception | None = None
        self.empty: set[int] = set()
        self.committer = Committer(self, self.end, self.kept, self.woken.set)  # type: ignore[arg-type]

    def begin(self, batch: Batch) -> Pending:
        if self.failure and not self.may_end.is_set():
            raise self.failure
        self.events.append(("begin", number(batch)))
        return Pending(batch, number(batch) not in self.empty)

    def end(self) -> None:
        assert self.may_end.wait(20)
        if self.failure:
            raise self.failure

    def ended(self, pending: Pending) -> list:
        self.events.append(("ended", number(pending.batch)))
        return []

    def kept(self, batch: Batch, stored: list) -> None:
        self.events.append(("kept", len(batch.messages)))

    def wait(self) -> None:
        assert self.woken.wait(20)
        self.woken.clear()


def batch(packet_id: int, **rest) -> Batch:
    return Batch([Message("t", b"", 1, packet_id)] * packet_id, **rest)


def number(one: Batch) -> int:
    return one.messages[0].packet_id if one.messages else 0


@pytest.fixture
def bench():
    one = Bench()
    yield one
    one.may_end.set()
    one.committer.close()


def test_the_next_work_is_taken_while_one_is_committed_and_begun_after_it(bench):
    committer = bench.committer
    committer.put(batch(1))
    committer.begin(0.0, beside=True)
    assert (committer.busy, committer.room, committer.idle) == (True, True, False)
    committer.put(batch(2))
    committer.begin(0.0, beside=True)
    committer.collect(0.0)
    assert bench.events == [("begin", 1)]
    assert not committer.room
    bench.may_end.set()
    bench.wait()
    committer.collect(0.0)
    assert bench.events == [("begin", 1), ("ended", 1), ("kept", 1)]
    committer.begin(0.0, beside=True)
    bench.wait()
    committer.collect(0.0)
    assert bench.events[3:] == [("begin", 2), ("ended", 2), ("kept", 2)]
    assert committer.idle


def test_alone_a_work_is_committed_at_once(bench):
    bench.may_end.set()
    bench.committer.put(batch(1))
    bench.committer.begin(0.0, beside=False)
    assert bench.events == [("begin", 1), ("ended", 1), ("kept", 1)]
    assert bench.committer.idle


def test_what_has_nothing_to_write_needs_no_disk(bench):
    bench.empty.add(1)
    bench.committer.put(batch(1))
    bench.committer.begin(0.0, beside=True)
    assert bench.events[-1] == ("kept", 1)


@pytest.mark.parametrize("beside", [True, False])
def test_a_commit_that_failed_is_tried_again_in_its_place_and_nothing_was_told(bench, beside):
    committer = bench.committer
    bench.failure = StoreError("write", "the disk is full", "free some space")
    bench.may_end.set()
    committer.put(batch(1))
    if beside:
        committer.begin(0.0, beside=True)
        committer.put(batch(2))
        bench.wait()
    with pytest.raises(StoreError, match="full"):
        committer.collect(0.0) if beside else committer.begin(0.0, beside=False)
    assert bench.events == [("begin", 1)]
    assert not committer.room
    assert committer.due(0.0) == RETRY_SECONDS
    committer.begin(RETRY_SECONDS / 2, beside=False)
    assert bench.events == [("begin", 1)]
    bench.failure = None
    committer.begin(RETRY_SECONDS, beside=False)
    told = [event for event in bench.events if event[0] == "kept"]
    assert told == ([("kept", 1), ("kept", 2)] if beside else [("kept", 1)])


def test_a_work_that_cannot_be_begun_stays_first(bench):
    committer = bench.committer
    bench.failure = StoreError("write", "the disk is full", "free some space")
    committer.put(batch(1))
    with pytest.raises(StoreError):
        committer.begin(0.0, beside=True)
    assert (committer.busy, committer.idle) == (False, False)
    bench.failure = None
    bench.may_end.set()
    committer.begin(RETRY_SECONDS, beside=False)
    assert bench.events[-1] == ("kept", 1)


def test_nothing_is_answered_ahead_of_messages_that_go_to_wait_for_a_model(bench):
    bench.committer.put(batch(1, park=[("t", Message("t", b""))]))
    bench.committer.begin(0.0, beside=True)
    assert not bench.committer.room


def test_messages_of_a_lost_connection_are_kept_and_not_acknowledged(bench):
    committer = bench.committer
    committer.put(batch(1))
    committer.begin(0.0, beside=True)
    committer.put(batch(2))
    committer.forget_messages()
    assert not committer.room  # they come again, and must not be answered before it is known that they were kept
    bench.may_end.set()
    bench.wait()
    committer.collect(0.0)
    committer.begin(0.0, beside=False)
    assert [event for event in bench.events if event[0] == "kept"] == [("kept", 0), ("kept", 0)]


def test_draining_waits_for_the_disk_and_forgets_the_rest(bench):
    committer = bench.committer
    committer.put(batch(1))
    committer.begin(0.0, beside=True)
    committer.put(batch(2))
    threading.Timer(0.05, bench.may_end.set).start()
    committer.drain()
    assert bench.events == [("begin", 1), ("ended", 1), ("kept", 1)]
    assert committer.idle

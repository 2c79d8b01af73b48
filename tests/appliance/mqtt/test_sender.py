"""What is sent next: within the window, in order, live before replayed, and nothing twice on one connection."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.mqtt.disk import Disk
from appliance.mqtt.messages import PublishProperties
from appliance.mqtt.outbox import LOCAL, UPSTREAM, Answer, Outbox
from appliance.mqtt.refusals import REFUSED_SECONDS
from appliance.mqtt.sender import LOSSES, Sender


class Broker:
    """Takes what a sender publishes."""

    def __init__(self) -> None:
        self.there = True
        self.got: list[tuple[int, dict, PublishProperties]] = []
        self.packet_id = 0

    def publish(self, stored, payload: bytes, properties: PublishProperties) -> int:
        if not self.there:
            return 0
        self.packet_id += 1
        self.got.append((self.packet_id, msgspec.json.decode(payload), properties))
        return self.packet_id

    @property
    def numbers(self) -> list[int]:
        return [document["n"] for _, document, _ in self.got]


class Bench:
    """An outbox, a sender and its broker."""

    def __init__(self, folder, *, window: int = 10, rate: float | None = None, way: int = LOCAL) -> None:
        self.disk = Disk(folder / "o")
        self.box = Outbox(self.disk, max_bytes=10**7)
        self.broker = Broker()
        self.way = way
        self.sender = Sender(self.box, way, self.broker.publish, window=window, rate=rate)
        self.next = 0

    def add(self, count: int, qos: int = 1, topic: str = "t") -> None:
        numbers = range(self.next, self.next + count)
        self.next += count
        answers = [
            Answer(topic, b'{"n":%d}' % n, self.way, qos, content_type="application/json", model="m", version="1.0.0")
            for n in numbers
        ]
        addition = self.box.prepare(answers, 1_700_000_000.0)
        self.disk.commit(addition.writes)
        self.box.added(addition)
        self.sender.add(addition.stored)


@pytest.fixture
def bench(tmp_path):
    return lambda **rest: Bench(tmp_path, **rest)


def test_live_answers_are_sent_once_and_deleted_when_acknowledged(bench):
    one = bench()
    one.sender.up(65535, 0.0)
    one.add(3)
    one.sender.pump(0.0)
    one.sender.pump(0.0)
    assert one.broker.numbers == [0, 1, 2]
    assert one.broker.got[0][2].user == (("model", "m"), ("version", "1.0.0"))
    assert "replayed" not in one.broker.got[0][1]
    for packet_id in (1, 2, 3):
        one.sender.published(packet_id, "", 0.0)
    one.box.flush()
    assert one.box.count == 0
    assert one.sender.idle
    assert one.sender.sent == 3


def test_no_more_fly_than_the_broker_allows(bench):
    one = bench(window=10)
    one.sender.up(4, 0.0)
    one.add(9)
    one.sender.pump(0.0)
    assert one.broker.numbers == [0, 1, 2, 3]
    one.sender.published(2, "", 0.0)
    one.sender.pump(0.0)
    assert one.broker.numbers == [0, 1, 2, 3, 4]


def test_what_was_not_acknowledged_comes_again_in_order_and_flagged_after_an_outage(bench):
    one = bench()
    one.sender.up(65535, 0.0)
    one.add(3)
    one.sender.pump(0.0)
    one.sender.published(2, "", 0.0)
    one.sender.down()
    one.add(2)
    one.broker.got.clear()
    one.sender.up(65535, 1.0)
    one.add(1)
    one.sender.pump(1.0)
    assert one.broker.numbers == [0, 2, 3, 4, 5]
    documents = [document for _, document, _ in one.broker.got]
    assert [document.get("replayed", False) for document in documents] == [True] * 4 + [False]
    assert documents[0]["predicted_at"] == "2023-11-14T22:13:20.000Z"
    assert ("predicted_at", "2023-11-14T22:13:20.000Z") in one.broker.got[0][2].user
    assert one.sender.replayed == 4


def test_live_answers_go_before_the_replayed_ones_upstream(bench):
    one = bench(way=UPSTREAM, rate=10.0)
    one.add(30)
    one.sender.up(65535, 0.0)
    one.add(2)
    one.sender.pump(0.0)
    one.sender.pump(0.35)
    assert one.broker.numbers == [30, 31, 0, 1]
    flags = [document.get("replayed", False) for _, document, _ in one.broker.got]
    assert flags == [False, False, True, True]
    assert one.sender.due(0.35) == pytest.approx(0.4, abs=0.06)
    for packet_id in range(1, 5):
        one.sender.published(packet_id, "", 0.0)
    for step in range(40):
        one.sender.pump(0.5 + step / 10)
        for packet_id in range(1, one.broker.packet_id + 1):
            one.sender.published(packet_id, "", 0.0)
    assert one.broker.numbers == [30, 31, *range(30)]
    one.box.flush()
    assert one.box.count == 0


def test_a_flood_that_memory_has_no_room_for_goes_over_the_disk(bench):
    one = bench(way=UPSTREAM, rate=1e6, window=5)
    one.sender.up(65535, 0.0)
    one.add(10)
    one.add(100)
    for step in range(1, 200):
        one.sender.pump(step / 100)
        for packet_id in range(1, one.broker.packet_id + 1):
            one.sender.published(packet_id, "", 0.0)
    assert sorted(one.broker.numbers) == list(range(110))
    assert one.broker.numbers == list(range(110))


def test_a_refused_answer_is_kept_and_tried_again_later_on_whichever_connection(bench):
    one = bench()
    one.sender.up(65535, 0.0)
    one.add(2)
    one.sender.pump(0.0)
    one.sender.published(1, "not authorized", 0.0)
    one.sender.published(2, "", 0.0)
    assert (one.sender.refused, one.sender.refusal) == (1, "t: not authorized")
    one.sender.pump(1.0)
    one.sender.up(65535, 2.0)
    one.sender.pump(2.0)
    assert one.broker.numbers == [0, 1]
    one.sender.pump(301.0)
    assert one.broker.numbers == [0, 1, 0]
    assert one.sender.refused == 0


def test_of_a_refused_topic_one_answer_is_tried_again_and_when_it_is_taken_the_others_follow(bench):
    one = bench()
    one.sender.up(65535, 0.0)
    one.add(6)
    one.sender.pump(0.0)
    for packet_id in range(1, 6):
        one.sender.published(packet_id, "not authorized", 0.0)
    one.sender.published(6, "", 0.0)
    one.add(1)
    one.sender.pump(290.0)
    one.sender.published(7, "not authorized", 290.0)  # puts nothing off
    one.broker.got.clear()
    one.sender.pump(REFUSED_SECONDS)
    assert one.broker.numbers == [6]
    one.sender.published(one.broker.packet_id, "not authorized", REFUSED_SECONDS)
    one.sender.pump(2 * REFUSED_SECONDS - 1)
    assert one.broker.numbers == [6]
    assert one.sender.refused == 6
    one.sender.pump(2 * REFUSED_SECONDS)
    one.sender.published(one.broker.packet_id, "", 2 * REFUSED_SECONDS)
    one.sender.pump(2 * REFUSED_SECONDS)
    assert one.broker.numbers == [6, 6, 0, 1, 2, 3, 4]
    assert one.sender.refused == 0


def test_refused_answers_that_the_quota_dropped_do_not_stand_for_their_topic(bench):
    one = bench()
    one.sender.up(65535, 0.0)
    one.add(4)
    one.sender.pump(0.0)
    for packet_id in range(1, 5):
        one.sender.published(packet_id, "not authorized", 0.0)
    one.disk.commit([("delete from answers where seq <= ?", [(3,)])])
    one.broker.got.clear()
    one.sender.pump(REFUSED_SECONDS)
    assert one.broker.numbers == [3]
    assert one.sender.refused == 0


def test_a_hundred_thousand_refused_answers_cost_a_turn_nothing(bench):
    one = bench(window=200_000)
    for number in range(100_000):
        one.sender._refused.add(number + 1, f"t/{number % 10}", 0.0)
    one.add(1)
    one.sender.up(65535, 0.0)
    read = one.box.read
    reads = []
    one.box.read = lambda *question: reads.append(question) or read(*question)
    for turn in range(1000):
        one.sender.pump(turn / 10)
    assert len(reads) == 1  # what is on disk when the connection begins


def test_the_report_of_a_bad_message_that_is_refused_is_said_and_let_go_of(bench):
    one = bench()
    one.sender.up(65535, 0.0)
    for packet_id, refusal in ((1, "not authorized"), (2, "")):
        addition = one.box.prepare([Answer("errors", b"{}", LOCAL, content_type="application/json")])
        one.disk.commit(addition.writes)
        one.box.added(addition)
        one.sender.add(addition.stored)
        one.sender.pump(0.0)
        one.sender.published(packet_id, refusal, 0.0)
        one.box.flush()
        assert one.box.count == 0
        assert one.sender.refused == 0
        assert one.sender.unheard == (f"errors: {refusal}" if refusal else "")


def test_qos_0_is_done_when_it_was_sent(bench):
    one = bench()
    one.sender.up(65535, 0.0)
    one.add(2, qos=0)
    one.sender.pump(0.0)
    one.box.flush()
    assert one.box.count == 0


def test_nothing_is_sent_without_a_connection(bench):
    one = bench()
    one.add(2)
    one.sender.pump(0.0)
    one.sender.up(65535, 0.0)
    one.broker.there = False
    one.sender.pump(0.0)
    assert one.broker.numbers == []
    one.broker.there = True
    one.sender.pump(0.0)
    assert one.broker.numbers == [0, 1]


def test_answers_of_the_other_way_are_not_ours(bench):
    one = bench(way=UPSTREAM)
    one.sender.up(65535, 0.0)
    addition = one.box.prepare([Answer("t", b"{}", LOCAL)])
    one.disk.commit(addition.writes)
    one.box.added(addition)
    one.sender.add(addition.stored)
    one.sender.pump(0.0)
    assert one.broker.got == []
    assert one.sender.idle


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 12)),
        st.tuples(st.just("pump"), st.integers(0, 20)),
        st.tuples(st.just("acknowledge"), st.integers(1, 10)),
        st.tuples(st.just("lose"), st.just(0)),
        st.tuples(st.just("connect"), st.integers(1, 20)),
    ),
    max_size=40,
)


@given(STEPS, st.booleans())
def test_whatever_happens_every_answer_is_sent_and_each_connection_keeps_the_order(tmp_path_factory, steps, live_first):
    one = Bench(tmp_path_factory.mktemp("sender"), window=4, rate=50.0 if live_first else None)
    now = 0.0
    acknowledged: set[int] = set()
    since = 0
    begun = 0
    for step, number in [*steps, ("connect", 20), *[("pump", 20), ("acknowledge", 10)] * 300]:
        now += 0.1
        if step == "add":
            one.add(number)
        elif step == "pump":
            one.sender.pump(now)
            if not live_first:
                this = one.broker.numbers[begun:]
                assert this == sorted(this)
                assert len(set(this)) == len(this)
        elif step == "acknowledge":
            for packet_id, document, _ in one.broker.got[since : since + number]:
                one.sender.published(packet_id, "", 0.0)
                acknowledged.add(document["n"])
            since = min(len(one.broker.got), since + number)
        elif step == "lose":
            one.sender.down()
            since = begun = len(one.broker.got)
        else:
            one.sender.up(number, now)
            since = begun = len(one.broker.got)
    assert acknowledged == set(range(one.next))
    one.box.flush()
    assert one.box.count == 0
    one.disk.close()


FAULTS = st.lists(st.sampled_from(["add", "pump", "take", "refuse", "lose", "connect", "wait"]), max_size=40)


@given(FAULTS, st.booleans())
def test_whatever_is_refused_every_answer_is_taken_once_the_broker_takes_all(tmp_path_factory, steps, live_first):
    one = Bench(tmp_path_factory.mktemp("sender"), window=4, rate=50.0 if live_first else None)
    now, since = 0.0, 0
    taken: set[int] = set()
    for step in [*steps, "connect", *["wait", "pump", "take", "pump", "take"] * 60]:
        now += REFUSED_SECONDS if step == "wait" else 0.1
        if step == "add":
            one.add(3, topic=f"t{one.next % 2}")
        elif step == "pump":
            one.sender.pump(now)
        elif step in ("take", "refuse"):
            for packet_id, document, _ in one.broker.got[since:]:
                one.sender.published(packet_id, "not authorized" if step == "refuse" else "", now)
                taken |= {document["n"]} if step == "take" else set()
            since = len(one.broker.got)
        elif step == "lose":
            one.sender.down()
            since = len(one.broker.got)
        elif step == "connect":
            one.sender.up(20, now)
            since = len(one.broker.got)
    assert taken == set(range(one.next))
    assert one.sender.refused == 0
    one.box.flush()
    assert one.box.count == 0
    one.disk.close()


def test_an_answer_that_ends_each_connection_is_set_aside_and_the_others_go_on(bench):
    one = bench()
    one.add(4)
    for loss in range(LOSSES):
        one.sender.up(65535, float(loss))
        one.broker.got.clear()
        one.sender.pump(float(loss))
        assert one.broker.numbers[0] == 0
        one.sender.down()
    assert one.broker.numbers == [0]  # at last one at a time, so that it is known which
    assert one.sender.refused == 1
    assert "connection ends" in one.sender.refusal
    one.sender.up(65535, 10.0)
    one.broker.got.clear()
    one.sender.pump(10.0)
    assert one.broker.numbers == [1, 2, 3]
    one.broker.got.clear()
    one.sender.pump(10.0 + REFUSED_SECONDS)
    assert one.broker.numbers == [0]  # and is tried again later


def test_a_bad_line_lets_the_window_open_again_as_soon_as_one_answer_gets_through(bench):
    one = bench()
    one.add(5)
    for loss in range(LOSSES - 1):
        one.sender.up(65535, float(loss))
        one.sender.pump(float(loss))
        one.sender.down()
    one.sender.up(65535, 9.0)
    one.broker.got.clear()
    one.sender.pump(9.0)
    assert one.broker.numbers == [0]
    one.sender.published(one.broker.packet_id, "", 9.0)
    one.sender.pump(9.0)
    assert one.broker.numbers == [0, 1, 2, 3, 4]
    one.sender.down()
    assert one.sender.refused == 0

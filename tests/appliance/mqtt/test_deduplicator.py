"""What a broker sends again: it feeds rows once where it was kept, and is taken where it was not."""

import socket

import msgspec
import pytest

from appliance.config import MqttConfig
from appliance.errors import StoreError
from appliance.mqtt import deduplicator
from appliance.mqtt.answering import Answerer
from appliance.mqtt.deduplicator import Deduplicator
from appliance.mqtt.disk import Disk
from appliance.mqtt.flow import Flow
from appliance.mqtt.messages import Message
from appliance.mqtt.outbox import Outbox
from appliance.mqtt.topic_table import TopicTable
from appliance.predictor import Predictor
from appliance.repository import ModelRepository

FEED = {
    "topic": "line/{device}/length",
    "columns": {"sepal_length": "last", "sepal_width": "count", "petal_length": "mean", "petal_width": "min"},
}
ROWS = {"name": "line", "model": "iris", "answer": "line/{device}/prediction", "when": "each", "feeds": [FEED]}


def expected(value: float, count: int) -> list[float]:
    """Return the answer of iris 1.0.0, which adds 100 to the sum of its row."""
    return [100 + 3 * value + count]


class Bench:
    """A flow over one file, made again after each restart."""

    def __init__(self, folder, store) -> None:
        self.path = folder / "o"
        self.config = msgspec.convert({"host": "h", "rows": [ROWS]}, MqttConfig)
        models = ModelRepository(store)
        models.refresh()
        self.predictor = Predictor(models)
        self.restart()

    def restart(self) -> None:
        self.disk = disk = Disk(self.path)
        topic_table = TopicTable(self.config, "edge", way=0)
        answerer = Answerer(self.predictor, topic_table.errors, topic_table.rights)
        self.flow = Flow(self.config, topic_table, self.predictor, answerer, disk, Outbox(disk, max_bytes=10**6))

    def send(self, value: float, packet_id: int, *, dup: bool = False) -> list[list[float]]:
        """Return the answers to one message, which are then kept."""
        batch = self.flow.answer([Message("line/7/length", str(value).encode(), 1, packet_id, dup=dup)])
        pending = self.flow.begin(batch)
        if pending.is_open:
            self.disk.end()
        return [msgspec.json.decode(one.answer.payload)["prediction"] for one in self.flow.ended(pending)]


@pytest.fixture
def bench(tmp_path, store):
    return Bench(tmp_path, store)


def test_what_was_kept_feeds_a_row_once_even_after_a_restart(bench):
    assert bench.send(5, 1) == [expected(5, 1)]
    assert bench.send(5, 1, dup=True) == []
    bench.restart()
    assert bench.send(5, 1, dup=True) == []
    assert bench.send(5, 2) == [expected(5, 2)]


def test_a_reading_that_only_equals_the_one_before_is_answered_though_it_comes_again(bench):
    assert bench.send(5, 1) == [expected(5, 1)]
    assert bench.send(5, 2, dup=True) == [expected(5, 2)]  # sent before, and lost with the process


def test_an_identifier_that_is_used_anew_is_another_message(bench):
    bench.send(5, 1)
    assert bench.send(6, 1, dup=True) == [[100 + 6 + 2 + 5.5 + 5]]
    assert bench.send(7, 1) == [[100 + 7 + 3 + 6 + 5]]
    assert bench.send(6, 1) == [[100 + 6 + 4 + 6 + 5]]


def test_what_was_not_kept_is_forgotten_when_the_flow_begins_anew(bench):
    bench.send(5, 1)
    bench.flow.answer([Message("line/7/length", b"5", 1, 2)])  # and never finished, as by a fault
    bench.flow.reload()
    assert bench.send(5, 2, dup=True) == [expected(5, 2)]


def test_only_the_last_identifiers_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(deduplicator, "_MOST", 3)
    disk = Disk(tmp_path / "o")
    kept = Deduplicator(disk)
    messages = [Message("t", b"x", 1, packet_id, dup=True) for packet_id in range(1, 6)]
    for first in range(0, 5, 2):
        disk.commit(kept.writes(messages[first : first + 2]))
        kept.committed(messages[first : first + 2])
    assert [kept.holds(message) for message in messages] == [False, False, True, True, True]
    assert [Deduplicator(disk).holds(message) for message in messages] == [False, False, True, True, True]


def test_values_wait_for_a_disk_beyond_the_connection_that_brought_them(listen, plain, until, monkeypatch):
    running = listen(rows=[ROWS]).connected()
    client = plain("line/+/prediction")
    client.publish("line/7/length", b"5")
    client.wait(1)
    disk, begin = running.listener._disk, running.listener._disk.begin

    def full(writes) -> None:
        raise StoreError("write", "the disk is full", "free some space")

    monkeypatch.setattr(disk, "begin", full)
    client.client.publish("line/7/length", b"5", 1)
    client.client.publish("line/7/length", b"5", 1)
    until(lambda: any("full" in problem for problem in running.listener.state().problems), "said so")
    running.listener._source.client._paho.buffer._socket.shutdown(socket.SHUT_RDWR)
    until(lambda: not running.listener.state().connected["local"], "lost the connection")
    monkeypatch.setattr(disk, "begin", begin)
    assert [answer["prediction"] for answer in client.answers(3)] == [expected(5, count) for count in (1, 2, 3)]
    client.publish("line/7/length", b"5")
    assert client.answers(4)[-1]["prediction"] == expected(5, 4)


def test_a_work_takes_no_more_messages_once_its_answers_are_large(bench, monkeypatch):
    """What is not answered yet stays with the caller, unacknowledged."""
    monkeypatch.setattr("appliance.mqtt.flow.ROWS_TOGETHER", 2)
    monkeypatch.setattr("appliance.mqtt.flow.ANSWERS_BYTES", 300)
    messages = [Message("line/7/length", b"%d" % packet_id, 1, packet_id) for packet_id in range(1, 20)]
    batch = bench.flow.answer(messages)
    assert batch.messages == messages[: len(batch.messages)]
    assert 2 <= len(batch.messages) == len(batch.outcome.answers) < 10
    rest = bench.flow.answer(messages[len(batch.messages) :])
    assert rest.messages[0] == messages[len(batch.messages)]

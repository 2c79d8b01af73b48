"""What once could stop the flow or lose a message unsaid: each here, so that it cannot come back."""

import socket
import threading
import time

import cbor2
import msgspec
import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from appliance.errors import StoreError
from appliance.mqtt import buffered, message_queue, packets
from appliance.mqtt.codec import Codec
from appliance.mqtt.disk import Disk
from appliance.mqtt.listener import MqttListener
from appliance.mqtt.messages import Message
from appliance.mqtt.outbox import Answer, Outbox

ROW = [5.1, 3.5, 1.4, 0.2]
NAMED = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
EXPECTED = [110.19999694824219]
PLANT = {"topic": "plant/+/sensors", "model": "iris", "answer": "plant/{1}/prediction", "echo": ["n"]}


class Strict:
    """A broker of one connection that keeps the packets it gets and refuses every subscription."""

    def __init__(self) -> None:
        self.kinds: list[int] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        connection, _ = self._server.accept()
        data = bytearray()
        while chunk := connection.recv(65536):
            data += chunk
            while found := packets.find(data, 0):
                body = bytes(data[slice(*found)])
                self.kinds.append(data[0] & 0xF0)
                if self.kinds[-1] == 0x10:
                    connection.sendall(b"\x20\x03\x00\x00\x00")
                elif self.kinds[-1] == 0x80:
                    connection.sendall(b"\x90\x04" + body[:2] + b"\x00\x87")
                del data[: found[1]]

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def strict():
    running = Strict()
    yield running
    running.close()


def test_a_subscription_that_the_broker_refuses_is_a_problem(listen, strict, until):
    running = listen(subscriptions=[PLANT], port=strict.port)
    problem = until(lambda: running.listener.state().connected["local"] and running.listener.state().problems, "said")
    assert "refuses the filter 'plant/+/sensors'" in problem[0]


def test_online_is_said_after_the_messages_were_asked_for(listen, strict, until):
    listen(subscriptions=[PLANT], port=strict.port)
    until(lambda: packets.PUBLISH in strict.kinds, "published")
    assert strict.kinds.index(0x80) < strict.kinds.index(packets.PUBLISH)


def test_an_answer_that_is_larger_than_the_broker_takes_is_told_and_never_comes_back(listen, plain, broker, until):
    broker.stop()
    broker.configure("max_packet_size 1500")
    broker.start()
    running = listen(subscriptions=[PLANT]).connected()
    client = plain("plant/+/prediction", "appliance/edge/errors")
    client.publish("plant/a/sensors", [[5.1, 1, 1, 1]] * 100)
    client.publish("plant/b/sensors", ROW)
    assert client.answers(1, "plant/b/prediction")[0]["prediction"] == EXPECTED
    (told,) = client.answers(1, "appliance/edge/errors")
    assert (told["error"], told["topic"]) == ("answer_too_large", "plant/a/prediction")
    assert "more than the broker takes" in told["found"]
    until(lambda: running.listener.state().waiting == 0, "let go of")
    assert running.listener.state().problems == []
    assert running.listener.state().connected == {"local": True}
    running.stop()
    again = listen(subscriptions=[PLANT]).connected()
    client.publish("plant/b/sensors", ROW)
    client.wait(2, "plant/b/prediction")
    assert len(client.wait(1, "appliance/edge/errors")) == 1
    until(lambda: again.listener.state().waiting == 0, "acknowledged")


def test_an_answer_on_disk_that_no_broker_takes_is_told_after_a_restart_and_deleted(
    listen, plain, broker, tmp_path, until
):
    """As earlier versions have left them there: one larger than the broker takes, one larger than is ever read."""
    listen(subscriptions=[PLANT]).connected().stop()
    broker.stop()
    broker.configure("max_packet_size 1500")
    broker.start()
    disk = Disk(tmp_path / "mqtt" / "outbox.sqlite")
    box = Outbox(disk, max_bytes=2**30)
    large = [Answer("plant/x/prediction", b"x" * size, model="m", version="1.0.0") for size in (2000, 20_000_000)]
    disk.commit(box.prepare([*large, Answer("plant/y/prediction", b"{}", model="m", version="1.0.0")]).writes)
    disk.close()
    client = plain("plant/+/prediction", "appliance/edge/errors")
    running = listen(subscriptions=[PLANT]).connected()
    told = client.answers(2, "appliance/edge/errors")
    assert [one["payload_bytes"] for one in told] == [2000, 20_000_000]
    assert len(client.wait(1, "plant/y/prediction")) == 1
    until(lambda: running.listener.state().waiting == 0, "let go of")
    until(lambda: running.listener.state().waiting_bytes == 0, "deleted")


def test_a_value_that_breaks_a_statistic_neither_stops_the_flow_nor_returns(listen, plain, until):
    feed = {"topic": "line/{d}/x", "columns": {"sepal_length": "std", "sepal_width": "slope"}, "values": 2}
    rows = {"name": "line", "model": "iris", "answer": "line/{d}/out", "when": "each", "feeds": [feed]}
    more = {"topic": "line/{d}/y", "columns": {"petal_length": "last", "petal_width": "mean"}}
    running = listen(rows=[rows | {"feeds": [feed, more]}]).connected()
    client = plain("line/+/out", "appliance/edge/errors")
    client.publish("line/7/y", b"1")
    for value in ("1e300", "-1e300", "1", "1"):
        client.publish("line/7/x", value)
    answer = client.wait(1, "line/7/out")[-1]
    assert msgspec.json.decode(answer.payload)["prediction"] == [102.0]
    assert running.listener.state().problems == []
    until(lambda: running.listener.state().received == 5, "took the message after the answer")


def test_a_fault_that_one_message_causes_is_told_and_does_not_return(listen, plain, monkeypatch):
    write = Codec.write

    def faulty(codec, answer, call):
        if call.id == "0":
            raise RuntimeError("nobody thought of it")
        return write(codec, answer, call)

    monkeypatch.setattr(Codec, "write", faulty)
    subscription = {"topic": "in", "model": "iris", "answer": "out", "payload": "cbor", "id": "n", "at": "x"}
    running = listen(subscriptions=[subscription]).connected()
    client = plain("out", "appliance/edge/errors")
    client.publish("in", cbor2.dumps({"x": ROW, "n": 0}))
    client.publish("in", cbor2.dumps({"x": ROW, "n": 1}))
    assert cbor2.loads(client.wait(1, "out")[0].payload)["id"] == "1"
    assert client.answers(1, "appliance/edge/errors")[0]["error"] == "internal"
    assert running.listener.state().received == 2


def test_messages_without_acknowledgement_do_not_fill_the_memory(listen, tmp_path, monkeypatch):
    monkeypatch.setattr(message_queue, "MOST_MESSAGES", 10)
    running = listen(subscriptions=[PLANT | {"qos": 0}])
    running.stop()
    one = MqttListener(running.config, running.predictor, tmp_path / "other")
    for _ in range(12):
        one.take(Message("plant/a/sensors", b"[1,2,3,4]", qos=0))
    assert len(one._queue) == 10
    assert one.state().dropped == 2


def test_a_flood_beyond_what_the_broker_was_asked_for_waits_in_the_network(listen, plain, monkeypatch):
    monkeypatch.setattr(message_queue, "PAUSE_MESSAGES", 300)
    monkeypatch.setattr(buffered, "_CHUNK", 4096)
    running = listen(subscriptions=[PLANT], keepalive=1).connected()
    flow, most = running.listener._flow, []
    answer = flow.answer

    def slow(messages):
        most.append(len(running.listener._queue))
        time.sleep(0.001 * len(messages))
        return answer(messages)

    monkeypatch.setattr(flow, "answer", slow)
    client = plain("plant/+/prediction")
    for number in range(4000):  # mosquitto 2.0.11 sends nearly all of them at once
        client.client.publish("plant/a/sensors", msgspec.json.encode({**NAMED, "n": number}), 1)
    assert [answer["n"] for answer in client.answers(4000)] == list(range(4000))
    assert max(most) < 300 + 2 * 4096 // 60
    assert running.listener.state().received == 4000  # over one connection


def test_messages_let_go_of_while_the_disk_is_full_come_again_in_order(listen, plain, until, monkeypatch):
    monkeypatch.setattr(message_queue, "MOST_MESSAGES", 50)
    running = listen(subscriptions=[PLANT]).connected()
    disk, begin = running.listener._disk, running.listener._disk.begin

    def full(writes) -> None:
        raise StoreError("write", "the disk is full", "free some space")

    client = plain("plant/+/prediction")
    monkeypatch.setattr(disk, "begin", full)
    for number in range(400):
        client.client.publish("plant/a/sensors", msgspec.json.encode({**NAMED, "n": number}), 1)
    until(lambda: running.listener._queue.let_go, "let go of some")
    assert len(running.listener._queue) <= 50
    monkeypatch.setattr(disk, "begin", begin)
    until(lambda: {answer["n"] for answer in client.answers()} == set(range(400)), "answered all", 60)
    firsts = list(dict.fromkeys(answer["n"] for answer in client.answers()))
    assert firsts == list(range(400))


def test_a_message_on_home_assistant_s_topic_is_answered_too(listen, plain):
    listen(subscriptions=[PLANT | {"topic": "homeassistant/status", "answer": "out"}], discovery=True).connected()
    client = plain("out")
    client.publish("homeassistant/status", ROW)
    assert client.answers(1)[0]["prediction"] == EXPECTED


def test_an_answer_dropped_on_its_way_is_counted_once(tmp_path):
    disk = Disk(tmp_path / "o")
    box = Outbox(disk, max_bytes=500, when_full="oldest")
    flying = None
    for _ in range(8):
        addition = box.prepare([Answer("t", b"x" * 100)])
        disk.commit(addition.writes)
        box.added(addition)
        flying = flying or addition.stored[0]
    box.acknowledge(flying)  # its acknowledgement comes after it was dropped
    box.flush()
    count, size = disk.read("select count(*), sum(length(topic) + length(payload) + 100) from answers")[0]
    assert box.dropped > 0
    assert (box.count, box.bytes, box.acknowledged) == (count, size, 0)


def test_a_session_that_another_client_takes_over_loses_nothing(listen, plain, broker, until):
    running = listen(subscriptions=[PLANT]).connected()
    client = plain("plant/+/prediction")
    for number in range(300):
        if number % 100 == 50:
            intruder = paho.Client(
                CallbackAPIVersion.VERSION2,
                "edge",
                protocol=MQTTProtocolVersion.MQTTv5,
                manual_ack=True,
                reconnect_on_failure=False,
            )
            intruder.connect("127.0.0.1", broker.port, clean_start=False, properties=_kept())
            intruder.loop_start()
            until(lambda: not running.listener.state().connected["local"], "lost its session")
            until(lambda: running.listener.state().connected["local"], "took it back")
            intruder.loop_stop()
        client.client.publish("plant/a/sensors", msgspec.json.encode({**NAMED, "n": number}), 1)
    until(lambda: {answer["n"] for answer in client.answers()} == set(range(300)), "answered all")


def _kept() -> Properties:
    """Return what asks the broker to keep the session, as the appliance does."""
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 600
    return properties

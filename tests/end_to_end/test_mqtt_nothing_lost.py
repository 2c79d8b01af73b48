"""Nothing is lost: 20,000 numbered messages while the broker, the appliance, the network and the disk fail.

Each test counts the same: every message that the broker has acknowledged is answered at least once, repeats bear the
same id, and the first answers of a topic come in the order in which its messages were handed over.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

MESSAGES = 20_000


@pytest.fixture
def judge():
    """Return a function that waits for all answers and then judges what passed on a cable."""

    def judge(record, numbers, *, lost_by_the_broker: frozenset[int] = frozenset()) -> None:
        wanted = set(numbers)
        deadline = time.monotonic() + 90
        while not wanted <= record.taken and time.monotonic() < deadline:
            time.sleep(0.05)
        lacking = wanted - record.taken
        acknowledged = lacking & record.acknowledged.keys()
        assert not lacking, f"{len(lacking)} lack, of which the appliance has acknowledged {len(acknowledged)}"
        assert all(len(ids) == 1 for ids in record.ids.values())
        early = [number for number in record.acknowledged if number not in record.ids]
        assert early == []
        first = {number: place for place, number in enumerate(record.delivered)}
        places = [first[number] for number in record.answered if number not in lost_by_the_broker]
        assert places == sorted(places)

    return judge


def test_the_appliance_is_killed_five_times(broker, make_cable, make_plant, make_sensor, until, judge):
    cable = make_cable(broker.port)
    plant = make_plant(cable.port)
    plant.start()
    until(lambda: plant.said("subscribed"), "subscribed")
    sensor = make_sensor(broker.port)
    publishing = threading.Thread(target=sensor.publish, args=(range(MESSAGES),))
    publishing.start()
    for share in range(1, 6):
        until(lambda share=share: len(cable.record.answered) > MESSAGES * share / 7, f"got to {share}/7", 60)
        plant.stop(signal.SIGKILL)
        plant.start()
    publishing.join()
    sensor.wait()
    judge(cable.record, range(MESSAGES))
    assert plant.said("connected to broker") == 6


ROWS = """
[[mqtt.rows]]
name = "line"
model = "plant"
answer = "line/{device}/out"
when = "each"

[[mqtt.rows.feeds]]
topic = "line/{device}/in"
columns = { a = "last", b = "count" }
values = 10000
"""


def test_rows_lose_no_value_and_count_none_twice_while_the_appliance_is_killed_five_times(broker, make_plant, until):
    plant = make_plant(broker.port, more=ROWS)
    plant.start()
    until(lambda: plant.said("subscribed"), "subscribed")
    counts: list[int] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, "listener", clean_session=False)
    client.max_inflight_messages_set(50)
    client.on_message = lambda _, data, message: counts.append(round(json.loads(message.payload)["prediction"][0]) - 1)
    client.connect(broker.host, broker.port)
    client.subscribe("line/+/out", qos=1)
    client.loop_start()
    sent = [client.publish("line/7/in", b"0", qos=1) for _ in range(3000)]  # all alike, as sensors often are
    for share in range(1, 6):
        until(lambda share=share: len(counts) > 3000 * share / 7, f"got to {share}/7", 60)
        plant.stop(signal.SIGKILL)
        plant.start()
    for one in sent:
        one.wait_for_publish(60)
    until(lambda: set(counts) >= set(range(1, 3001)), "answered all", 60)
    client.publish("line/7/in", b"0", qos=1).wait_for_publish(20)
    until(lambda: counts[-1] == 3001, "counted each once")
    client.disconnect()
    client.loop_stop()


def test_the_broker_is_killed_five_times(broker, make_cable, make_plant, make_sensor, until, judge):
    broker.keep_all()
    cable = make_cable(broker.port)
    plant = make_plant(cable.port)
    plant.start()
    until(lambda: plant.said("subscribed"), "subscribed")
    sensor = make_sensor(broker.port)
    publishing = threading.Thread(target=sensor.publish, args=(range(MESSAGES),))
    publishing.start()
    unsaved: set[int] = set()
    for share in range(1, 6):
        until(lambda share=share: len(cable.record.taken) > MESSAGES * share / 7, f"got to {share}/7", 60)
        until(lambda share=share: plant.said("connected to broker") >= share, "connected again", 40)
        broker.stop(signal.SIGKILL)
        # What it acknowledged and had not saved yet is its own loss, and is sent once more.
        unsaved |= {sensor.sent[packet_id] for packet_id in broker.unsaved(sensor.client_id)}
        broker.start()
    publishing.join()
    sensor.wait()
    until(lambda: dict(cable.record.acknowledged).keys() <= cable.record.taken, "answered all we acknowledged", 90)
    sensor.publish(sorted(unsaved))
    sensor.wait()
    judge(cable.record, range(MESSAGES), lost_by_the_broker=frozenset(unsaved))
    assert plant.said("disconnected from broker") >= 5
    kept = plant.said("connected to broker", session=True)  # the broker kept our session
    assert kept == plant.said("connected to broker") - 1


def test_the_network_is_cut_silent_and_slow(broker, make_cable, make_plant, make_sensor, until, judge):
    cable = make_cable(broker.port)
    plant = make_plant(cable.port, keepalive=1)
    plant.start()
    until(lambda: plant.said("subscribed"), "subscribed")
    sensor = make_sensor(broker.port)
    publishing = threading.Thread(target=sensor.publish, args=(range(MESSAGES),))
    publishing.start()
    for share, fault in enumerate([cable.cut, cable.swallow, cable.cut, cable.swallow], 1):
        until(lambda share=share: len(cable.record.answered) > MESSAGES * share / 7, f"got to {share}/7", 60)
        fault()
        time.sleep(0.5)
        cable.heal()
    cable.delay = 0.02
    publishing.join()
    sensor.wait()
    judge(cable.record, range(MESSAGES))


def test_the_network_loses_packets(start_broker, lossy_host, make_cable, make_plant, make_sensor, until, judge):
    broker = start_broker("far")
    broker.stop()
    broker.host = lossy_host.address
    broker.configure()
    broker.start(*lossy_host.within)
    cable = make_cable(broker.port, lossy_host.address)
    plant = make_plant(cable.port)
    plant.start()
    until(lambda: plant.said("subscribed"), "subscribed", 60)
    sensor = make_sensor(broker.port, host=lossy_host.address)
    sensor.publish(range(MESSAGES))
    sensor.wait(120)
    judge(cable.record, range(MESSAGES))


def test_the_disk_is_full_for_a_while(broker, make_cable, make_plant, make_sensor, until, judge, small_disk):
    cable = make_cable(broker.port)
    plant = make_plant(cable.port, folder=small_disk)
    plant.start()
    until(lambda: plant.said("subscribed"), "subscribed")
    sensor = make_sensor(broker.port)
    publishing = threading.Thread(target=sensor.publish, args=(range(MESSAGES),))
    publishing.start()
    until(lambda: len(cable.record.taken) > MESSAGES / 10, "began", 60)
    ballast = small_disk / "ballast"
    while True:  # the outbox' own log gives some space back at first, which is taken too
        before = len(cable.record.acknowledged)
        for _ in range(12):
            _fill(ballast)
            time.sleep(0.1)
        if len(cable.record.acknowledged) == before:
            break
    assert plant.said("MQTT is paused")
    assert len(cable.record.acknowledged) < MESSAGES
    ballast.unlink()
    publishing.join()
    sensor.wait()
    judge(cable.record, range(MESSAGES))


@pytest.mark.parametrize("before", [True, False], ids=["with an outbox", "without one"])
def test_a_start_with_a_full_disk_waits_for_room(
    broker, make_cable, make_plant, make_sensor, until, small_disk, before
):
    cable = make_cable(broker.port)
    plant = make_plant(cable.port, folder=small_disk)
    sensor = make_sensor(broker.port)
    plant.start()
    until(lambda: plant.said("subscribed"), "subscribed")
    assert plant.stop() == 0
    if not before:
        shutil.rmtree(plant.state / "mqtt")
    ballast = small_disk / "ballast"
    _fill(ballast)
    sensor.publish(range(100))
    sensor.wait()
    plant.start()
    until(lambda: plant.said("MQTT is paused"), "said so")
    time.sleep(1.5)  # for another try
    assert plant.process.poll() is None
    assert plant.said("MQTT is paused") == 1
    ballast.unlink()
    wanted = set(range(100))
    until(lambda: wanted <= cable.record.taken, "answered what came meanwhile")


def test_a_new_version_is_activated(broker, make_cable, make_plant, make_sensor, until, judge):
    cable = make_cable(broker.port)
    plant = make_plant(cable.port)
    plant.start()
    until(lambda: plant.said("subscribed"), "subscribed")
    sensor = make_sensor(broker.port)
    publishing = threading.Thread(target=sensor.publish, args=(range(MESSAGES),))
    publishing.start()
    until(lambda: len(cable.record.taken) > MESSAGES / 4, "began", 60)
    plant.run("activate", "plant", "2.0.0")
    until(lambda: plant.said("serving", role="active", serving="2.0.0"), "served the new version")
    publishing.join()
    sensor.wait()
    judge(cable.record, range(MESSAGES))
    assert cable.record.repeats == 0


def test_an_upstream_broker_is_away_and_gets_all_of_it_live_messages_first(
    broker, start_broker, make_cable, make_plant, make_sensor, until, judge
):
    far = start_broker("far")
    cable, uplink = make_cable(broker.port), make_cable(far.port)
    plant = make_plant(cable.port, upstream={"host": "127.0.0.1", "port": uplink.port, "replay_rate": 1000.0})
    uplink.cut()
    plant.start()
    until(lambda: plant.said("subscribed"), "subscribed")
    sensor = make_sensor(broker.port)
    sensor.publish(range(2000))
    sensor.wait()
    until(lambda: len(cable.record.acknowledged) == 2000, "acknowledged: the answers are safe on disk", 60)
    assert uplink.record.answered == []
    plant.stop(signal.SIGKILL)
    plant.start()
    uplink.heal()
    until(lambda: uplink.record.answered, "began to replay", 60)
    sensor.publish(range(2000, 2100), rate=200)
    sensor.wait()
    until(lambda: set(range(2000, 2100)) <= uplink.record.taken, "took the live answers")
    assert len(uplink.record.taken) < 2100  # before the replay had ended
    wanted = set(range(2100))
    until(lambda: wanted <= uplink.record.taken, "took all", 60)
    assert all(len(ids) == 1 for ids in uplink.record.ids.values())
    old = [number for number in uplink.record.answered if number < 2000]
    assert old == sorted(old)


def _fill(file: Path) -> None:
    """Append to a file until there is no space left."""
    with contextlib.suppress(OSError), file.open("ab", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True, capture_output=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True, capture_output=True)


class LossyHost:
    """A network namespace that loses one packet in ten, with an address of its own."""

    def __init__(self) -> None:
        self.name = f"lossy{time.monotonic_ns() % 10**9}"
        link, self.address = self.name[-9:], "10.231.7.2"
        self.within = ["ip", "netns", "exec", self.name]
        rule = (
            "table inet loss {\n chain in { type filter hook input priority 0; numgen random mod 100 < 10 drop; }\n}\n"
        )
        for command, text in (
            (["ip", "netns", "add", self.name], ""),
            (["ip", "link", "add", f"a{link}", "type", "veth", "peer", "name", f"b{link}", "netns", self.name], ""),
            (["ip", "addr", "add", "10.231.7.1/30", "dev", f"a{link}"], ""),
            (["ip", "link", "set", f"a{link}", "up"], ""),
            ([*self.within, "ip", "addr", "add", f"{self.address}/30", "dev", f"b{link}"], ""),
            ([*self.within, "ip", "link", "set", f"b{link}", "up"], ""),
            ([*self.within, "nft", "-f", "-"], rule),
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, input=text)

    def close(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True, capture_output=True)


@pytest.fixture
def lossy_host() -> Iterator[LossyHost]:
    host = LossyHost()
    yield host
    host.close()

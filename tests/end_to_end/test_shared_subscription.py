"""Several appliances share one subscription: they split the work, answer each message once, lose none that waits."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

APPLIANCE = str(Path(sys.executable).parent / "appliance")
SUBSCRIPTION = '[[mqtt.subscriptions]]\ntopic = "$share/line/plant/+/in"\nanswer = "plant/{1}/out"\necho = ["n"]\n'


class Sharer:
    """An appliance that shares the subscription, over a cable that counts."""

    def __init__(self, folder: Path, state: Path, cable, name: str, more: str = "") -> None:
        self.cable, self._log = cable, folder / f"{name}.log"
        shutil.copytree(state, folder / name)
        config = folder / f"{name}.toml"
        broker = f'host = "127.0.0.1"\nport = {cable.port}\nclient_id = "{name}"\nkeepalive = 3\n{more}'
        config.write_text(f"[mqtt]\n{broker}{SUBSCRIPTION}")
        self._command = [
            APPLIANCE, "serve", "--no-http", "--config", str(config), "--state-dir", str(folder / name)
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(self._command, env=environment, stderr=log)

    @property
    def there(self) -> bool:
        return '"message": "subscribed"' in self._log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        self.process.wait(30)


@pytest.fixture
def sharers(tmp_path, plant_state, broker, make_cable, until) -> Iterator[list[Sharer]]:
    """Two appliances."""
    found = [Sharer(tmp_path, plant_state, make_cable(broker.port), name) for name in ("one", "two")]
    until(lambda: all(sharer.there for sharer in found), "both connected")
    yield found
    for sharer in found:
        sharer.stop(signal.SIGKILL)


@pytest.fixture
def answers(broker, until) -> Iterator[list[int]]:
    """The numbers of the answers, as one who subscribed to them receives them."""
    numbers: list[int] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, "reader")
    ready: list[bool] = []
    client.on_subscribe = lambda *_: ready.append(True)
    client.on_message = lambda _client, _data, message: numbers.append(json.loads(message.payload)["n"])
    client.connect(broker.host, broker.port)
    client.subscribe("plant/+/out", 1)
    client.loop_start()
    until(lambda: ready, "subscribed")
    yield numbers
    client.disconnect()
    client.loop_stop()


Until = Callable[..., object]


def test_two_appliances_split_the_messages_and_each_is_answered_once(broker, sharers, answers, make_sensor, until):
    sensor = make_sensor(broker.port)
    sensor.publish(range(600))
    sensor.wait()
    until(lambda: len(answers) >= 600, "600 answers")
    assert sorted(answers) == list(range(600))
    counts = [len(sharer.cable.record.answered) for sharer in sharers]
    print(f"\n600 messages, answered by one and the other: {counts}")
    assert sum(counts) == 600
    assert min(counts) > 100


def test_what_the_broker_keeps_for_a_stopped_one_is_answered_when_it_returns(
    broker, sharers, answers, make_sensor, until
):
    sensor = make_sensor(broker.port)
    sharers[1].stop()
    sensor.publish(range(200))
    sensor.wait()
    # mosquitto goes on dealing messages to a session that lasts, whether its client is there or not.
    until(lambda: len(answers) >= len(sharers[0].cable.record.answered) > 20, "the other's part")
    sharers[1].start()
    until(lambda: len(set(answers)) >= 200, "200 answers")
    assert sorted(set(answers)) == list(range(200))


def test_without_a_session_the_others_answer_all_that_comes_after_one_was_stopped(
    tmp_path, plant_state, broker, make_cable, answers, make_sensor, until
):
    pair = [
        Sharer(tmp_path, plant_state, make_cable(broker.port), name, "session_expiry = 0\n") for name in ("one", "two")
    ]
    try:
        until(lambda: all(sharer.there for sharer in pair), "both connected")
        pair[1].stop()
        sensor = make_sensor(broker.port)
        sensor.publish(range(200))
        sensor.wait()
        until(lambda: len(set(answers)) >= 200, "200 answers")
        assert len(pair[0].cable.record.answered) == 200
    finally:
        for sharer in pair:
            sharer.stop(signal.SIGKILL)

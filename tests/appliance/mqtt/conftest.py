"""Plain clients of a real broker, and a listener over small models."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from appliance.config import MqttConfig
from appliance.errors import ApplianceError
from appliance.experiment_roles import ExperimentRoles
from appliance.inference import selftest
from appliance.mqtt.listener import MqttListener
from appliance.predictor import Prediction, Predictor
from appliance.repository import ModelRepository
from appliance.store import activation
from appliance.store.versions import Store

Until = Callable[..., Any]


class Plain:
    """A client that publishes and keeps what it hears."""

    def __init__(self, until: Until, port: int, *filters: str, five: bool = True, kept: bool = False) -> None:
        """`kept` (MQTT 5): the broker keeps what comes for us while we are away, its own restart by stop() included."""
        self._until = until
        version = MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311
        self.client = paho.Client(CallbackAPIVersion.VERSION2, "kept" if kept else "", protocol=version)
        self.client.reconnect_delay_set(0.05, 0.5)
        self.client.max_inflight_messages_set(0)
        self.heard: list[paho.MQTTMessage] = []
        self._subscribed = threading.Event()
        self._filters = filters
        self.client.on_message = lambda client, data, message: self.heard.append(message)
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        expiry = Properties(PacketTypes.CONNECT)
        expiry.SessionExpiryInterval = 3600
        self.client.connect("127.0.0.1", port, **({"clean_start": False, "properties": expiry} if kept else {}))
        self.client.loop_start()
        assert self._subscribed.wait(10)

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        if self._filters:
            client.subscribe([(one, 1) for one in self._filters])
        else:
            self._subscribed.set()

    def publish(self, topic: str, payload: Any, qos: int = 1, retain: bool = False, **properties: Any) -> None:
        """Publish JSON, or bytes as they are, and wait for the broker."""
        content = payload if isinstance(payload, (bytes, str)) else msgspec.json.encode(payload)
        five = None
        if properties:
            five = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(five, name, value)
        self.client.publish(topic, content, qos, retain, five).wait_for_publish(20)

    def wait(self, count: int = 1, topic: str = "") -> list[paho.MQTTMessage]:
        """Return what was heard on a topic (all if empty), at least `count` messages."""

        def enough() -> list[paho.MQTTMessage]:
            found = [message for message in self.heard if topic in ("", message.topic)]
            return found if len(found) >= count else []

        what = f"heard {count} of {topic!r}: {[(m.topic, m.payload) for m in self.heard[:100]]}"
        return self._until(enough, what, seconds=max(20.0, count / 50))  # thousands take their time on a busy machine

    def answers(self, count: int = 1, topic: str = "") -> list[Any]:
        """Return what was heard as JSON."""
        return [msgspec.json.decode(message.payload) for message in self.wait(count, topic)]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class RunningListener:
    """A listener over one store, in a thread."""

    def __init__(self, until: Until, folder: Path, port: int, store: Store, **settings: Any) -> None:
        self._until = until
        quality = settings.pop("quality", None)
        self.models = ModelRepository(store, default=settings.pop("default", ""), roles=ExperimentRoles())
        self.models.refresh()
        document = {"host": "127.0.0.1", "port": port, "client_id": "edge", **settings}
        self.config = msgspec.convert(document, MqttConfig)
        self.store = store
        self.states: list[Any] = []
        self.seen: list[Prediction] = []
        self.failures: list[tuple[str, str, str]] = []
        """(version, arm, key) of each message that was not answered."""
        self.predictor = Predictor(self.models, [self], quality=quality)
        self.served: list[dict[str, Any]] = []
        """What the status says of the models."""
        self.listener = MqttListener(
            self.config, self.predictor, folder / "mqtt", models=lambda: self.served, report=self.states.append
        )
        self._subscribed = threading.Event()
        self._note_subscription(self.listener._source.client)
        self.thread = threading.Thread(target=self.listener.run, daemon=True)
        self.thread.start()

    def predicted(self, prediction: Prediction) -> None:
        self.seen.append(prediction)

    def failed(
        self, model: str, version: str, error: ApplianceError, seconds: float, arm: str = "", key: str = ""
    ) -> None:
        self.failures.append((version, arm, key))

    def connected(self) -> "RunningListener":
        """Wait until every broker is there and the local one has taken the subscriptions."""
        self._until(lambda: all(self.listener.state().connected.values()), "connected")
        assert self._subscribed.wait(20)
        return self

    def _note_subscription(self, client: Any) -> None:
        on_subscribe = client._on_subscribe

        def note(*arguments: Any) -> None:
            on_subscribe(*arguments)
            self._subscribed.set()

        client._on_subscribe = note

    def activate(self, name: str, version: str) -> None:
        activation.activate(self.store, name, version, selftest.self_test)
        self.models.refresh()

    def stop(self) -> None:
        self.listener.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture(scope="session")
def four_models(tmp_path_factory: pytest.TempPathFactory, bundle_bytes: Callable[..., bytes]) -> Path:
    """A state folder with iris 1.0.0 (regression), flower 1.0.0 (labels), gaps 1.0.0 and table 1.0.0 active."""
    folder = tmp_path_factory.mktemp("four-models")
    made = Store(folder / "state")
    for name, kind in (("iris", "regression"), ("flower", "labels"), ("gaps", "gaps"), ("table", "table")):
        path = folder / f"{name}.bundle"
        path.write_bytes(bundle_bytes(name, "1.0.0", kind=kind))
        installed = made.install(path)
        activation.activate(made, name, installed.version, selftest.self_test)
    return folder / "state"


@pytest.fixture
def store(tmp_path: Path, four_models: Path) -> Store:
    """A store of the test's own with the four models."""
    shutil.copytree(four_models, tmp_path / "state")
    return Store(tmp_path / "state")


@pytest.fixture
def listen(tmp_path: Path, broker: Any, store: Store, until: Until) -> Iterator[Callable[..., RunningListener]]:
    """Return a function that starts a listener on the broker: listen(subscriptions=[...], ...)."""
    listeners: list[RunningListener] = []

    def start(**settings: Any) -> RunningListener:
        folder, port = settings.pop("folder", tmp_path), settings.pop("port", broker.port)
        listeners.append(RunningListener(until, folder, port, store, **settings))
        return listeners[-1]

    yield start
    for one in listeners:
        if one.thread.is_alive():
            one.stop()


@pytest.fixture
def plain(broker: Any, until: Until) -> Iterator[Callable[..., Plain]]:
    """Return a function that connects a plain client to the broker: plain("filter", ...)."""
    clients: list[Plain] = []

    def connect(*filters: str, **rest: Any) -> Plain:
        clients.append(Plain(until, rest.pop("port", broker.port), *filters, **rest))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()

"""The service runs its listeners: one on its own thread, each other one beside it, and stops them in order."""

import threading

import pytest

from appliance.config import Config, StoreConfig
from appliance.rest import http_listener
from appliance.rest.server.listener import bind
from appliance.service import Service


class Recorded:
    """A listener that writes down what is done to it; run() goes on until it is let end."""

    def __init__(self, name: str, done: list[str]) -> None:
        self.name = name
        self.done = done
        self.running, self.end = threading.Event(), threading.Event()
        self.problem = ""

    def run(self) -> None:
        self.done.append(f"{self.name} runs on {threading.current_thread().name}")
        self.running.set()
        self.end.wait(30)
        self.done.append(f"{self.name} ended")

    def stop(self) -> None:
        self.done.append(f"{self.name} stopped")
        self.end.set()

    def alive(self) -> str:
        return self.problem


@pytest.fixture
def service(tmp_path) -> Service:
    return Service(Config(store=StoreConfig(state_dir=str(tmp_path / "state"), preload_dir=str(tmp_path))), None)


def test_the_first_listener_ends_before_the_others_are_stopped(service):
    done: list[str] = []
    one, other = Recorded("one", done), Recorded("other", done)
    service._listeners = [one, other]
    thread = threading.Thread(target=service.run, name="main")
    thread.start()
    assert one.running.wait(30)
    assert other.running.wait(30)
    service.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert set(done[:2]) == {"one runs on main", "other runs on other"}
    assert done[2:] == ["one stopped", "one ended", "other stopped", "other ended"]


def test_a_service_without_a_listener_ends_at_once(service):
    service.run()
    service.stop()


def test_the_watchdog_asks_every_listener(service):
    one, other = Recorded("one", []), Recorded("other", [])
    service._listeners = [one, other]
    assert service._alive() == ""
    other.problem = "the loop hangs"
    assert service._alive() == "the loop hangs"


def test_an_http_loop_that_takes_no_turn_is_told_and_one_that_does_is_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(http_listener, "TURN_SECONDS", 0.2)
    listener = bind("127.0.0.1", 0)
    config = Config(store=StoreConfig(state_dir=str(tmp_path / "state"), preload_dir=str(tmp_path)))
    service = Service(config, listener)
    assert service._alive() == "the HTTP loop hangs"  # nobody runs it
    monkeypatch.setattr(http_listener, "TURN_SECONDS", 30.0)
    serving = threading.Event()
    thread = threading.Thread(target=service.run, args=(serving.set,))
    thread.start()
    assert serving.wait(30)
    assert service._alive() == ""
    service.stop()
    assert service._alive() == ""
    thread.join(30)
    assert not thread.is_alive()

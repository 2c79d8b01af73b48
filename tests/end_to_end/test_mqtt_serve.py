"""`appliance serve` with both listeners, and with MQTT alone: what its users see of it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

APPLIANCE = str(Path(sys.executable).parent / "appliance")
SUBSCRIPTION = '[[mqtt.subscriptions]]\ntopic = "plant/+/in"\nanswer = "plant/{1}/out"\necho = ["n"]\n'


def get(url: str) -> dict:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


@pytest.fixture
def both(tmp_path, plant_state, broker, until):
    """Return a function that starts a service with both listeners; it returns the address of the HTTP one."""
    processes = []

    def start(*, processes_: int = 1) -> str:
        config = tmp_path / "appliance.toml"
        text = f'[http]\nport = 0\nprocesses = {processes_}\n[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n'
        config.write_text(text + SUBSCRIPTION)
        log = tmp_path / "log"
        command = [APPLIANCE, "serve", "--config", str(config), "--state-dir", str(plant_state)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("APPLIANCE_")}
        with log.open("wb") as sink:
            processes.append(subprocess.Popen(command, env=environment, stderr=sink))
        lines = lambda: [json.loads(line) for line in log.read_text().splitlines()]  # noqa: E731
        until(lambda: any(line["message"] == "subscribed" for line in lines()), "subscribed")
        return next(line["url"] for line in lines() if line["message"] == "listening")

    yield start
    for process in processes:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_both_listeners_give_the_same_answer_and_health_and_metrics_tell_of_both(
    both, broker, make_sensor, until, processes
):
    url = both(processes_=processes)
    sensor = make_sensor(broker.port)
    sensor.publish(range(10))
    sensor.wait()
    body = json.dumps({"features": [7, 0.5]}).encode()
    asked = json.load(urllib.request.urlopen(f"{url}/predict", body, timeout=20))
    assert asked["prediction"] == [8.5]
    state = until(lambda: (found := get(f"{url}/health/ready")["mqtt"]) and found["connected"]["local"] and found, "up")
    assert state["problems"] == []
    metrics = lambda: urllib.request.urlopen(f"{url}/metrics", timeout=20).read().decode()  # noqa: E731
    until(lambda: "appliance_mqtt_answered_total 10.0" in metrics(), "counted ten answers")
    assert 'appliance_mqtt_connected{broker="local"} 1.0' in metrics()
    assert 'nv_inference_request_success{model="plant",version="1.0.0"} 11' in metrics()


def test_a_broker_that_goes_away_is_a_problem_in_health_but_takes_http_not_out(both, broker, until):
    url = both()
    broker.stop(signal.SIGKILL)
    state = until(lambda: (found := get(f"{url}/health/ready")["mqtt"])["problems"] and found, "said so")
    assert not state["connected"]["local"]
    assert get(f"{url}/health/ready")["ready"]


def test_mqtt_alone_answers_and_opens_no_port(broker, make_plant, make_cable, make_sensor, until):
    cable = make_cable(broker.port)
    plant = make_plant(cable.port)
    plant.start()
    until(lambda: plant.said("subscribed"), "subscribed")
    make_sensor(broker.port).publish(range(5))
    until(lambda: len(cable.record.taken) == 5, "answered")
    assert plant.said("listening") == 0
    assert plant.stop() == 0
    assert plant.said("stopped") == 1


def test_without_any_listener_the_command_is_misused(plant_state):
    command = [APPLIANCE, "serve", "--no-http", "--state-dir", str(plant_state)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no other listener is configured" in done.stderr


def test_a_wrong_mqtt_configuration_stops_the_start_with_words(tmp_path, plant_state, broker):
    config = tmp_path / "appliance.toml"
    config.write_text(
        f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n[[mqtt.subscriptions]]\ntopic = "a/#"\nanswer = "a/b"\n'
    )
    command = [APPLIANCE, "serve", "--port", "0", "--config", str(config), "--state-dir", str(plant_state)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "would come back" in done.stderr


def test_a_subscription_of_a_broker_s_queue_survives_a_stop_and_a_start(
    broker, make_plant, make_cable, make_sensor, until
):
    cable = make_cable(broker.port)
    plant = make_plant(cable.port)
    plant.start()
    until(lambda: plant.said("subscribed"), "subscribed")
    assert plant.stop() == 0
    make_sensor(broker.port).publish(range(100))
    plant.start()
    until(lambda: len(cable.record.taken) == 100, "answered what came meanwhile")
    assert cable.record.repeats == 0

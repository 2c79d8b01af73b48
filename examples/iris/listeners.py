"""Both listeners of the service: how MQTT is configured, what each is asked first, and what to try next."""

import json
import os
import shutil
import sys
import time
import urllib.request
from pathlib import Path

import sensors
from broker import Broker

HERE = Path(os.path.relpath(Path(__file__).parent))
FLOWER = sensors.MEASURED["south"]
OTHER = sensors.MEASURED["north"]

_CONFIG = """\
[mqtt]
host = "127.0.0.1"
port = {port}
protocol = "{protocol}"

[[mqtt.subscriptions]]
topic = "bed/+/flower"
model = "iris"
at = "cm"                    # where the row stands in a message
echo = ["sensor"]            # what the answer repeats
answer = "bed/{{1}}/species"   # {{1}} is what + stood for
"""


def configured(folder: Path, broker: Broker) -> Path:
    """Write the configuration that turns MQTT on, and show it."""
    path = folder / "appliance.toml"
    path.write_text(_CONFIG.format(port=broker.port, protocol=broker.protocol))
    print(f"$ cat {path}    # the broker is {broker.name}, for as long as this runs\n{path.read_text()}", flush=True)
    return path


def ask_http(url: str) -> None:
    """Ask for one prediction over HTTP and show it."""
    body = json.dumps({"features": FLOWER})
    request = urllib.request.Request(f"{url}/predict", body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        print(f"$ curl {url}/predict -d '{body}'\n{answer.read().decode()}", flush=True)


def ask_mqtt(url: str, broker: Broker) -> None:
    """Have sensors publish as soon as the service hears the broker, and show what is answered."""
    until = time.monotonic() + 10
    while not _hears(url) and time.monotonic() < until:
        time.sleep(0.1)
    print(f"\nmessages of sensors, and their answers (MQTT, port {broker.port}):", flush=True)
    sensors.show(broker.port, broker.protocol)


def show_next(url: str, broker: Broker) -> None:
    """Show what to try in another terminal."""
    rows = json.dumps({"features": [FLOWER, OTHER]})
    print("\nServing until Ctrl-C. Try in another terminal:")
    print(f"  curl {url}/predict -d '{rows}'")
    print(f"  curl {url}/v2/models/iris")
    print(f"  curl {url}/health/ready")
    print(f"  curl {url}/metrics")
    if shutil.which("mosquitto_pub") and shutil.which("mosquitto_sub"):
        message = json.dumps({"sensor": "west-1", "cm": OTHER})
        print(f"  mosquitto_sub -p {broker.port} -v -t 'bed/+/species' &")
        print(f"  mosquitto_pub -p {broker.port} -q 1 -t bed/west/flower -m '{message}'")
    else:
        python = os.path.relpath(sys.executable)
        print(f"  {python} {HERE / 'sensors.py'} {broker.port} {broker.protocol}")
    print(f"  {os.path.relpath(Path(sys.executable).parent / 'appliance')} doctor")
    print(f"or open {url}/ in a browser.", flush=True)


def _hears(url: str) -> bool:
    """Return whether the service is connected to its broker."""
    with urllib.request.urlopen(f"{url}/health/ready", timeout=20) as answer:
        state = json.load(answer).get("mqtt") or {}
    return bool(state.get("connected", {}).get("local"))

"""Measures what a mosquitto keeps for an appliance that is away, and its cost: `python -m benchmarks.broker --help`.

A client with a persistent session subscribes and leaves. Messages of QoS 1 come as fast as the broker acknowledges
them. The broker stops and starts; the client comes back and counts. Three configurations in one run: mosquitto's own,
one that saves on changes, and the compose site's.
"""

import argparse
import itertools
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.processes import free_port, own_mib

SITE = Path(__file__).parents[1] / "packaging/docker/site/mosquitto.conf"
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
PLACES = ("listener", "certfile", "keyfile", "password_file", "allow_anonymous", "persistence_location", "per_listener")
"""Settings that say where the broker is and who may use it, not what it keeps."""
UNACKNOWLEDGED = 2000
PATIENCE_SECONDS = 10.0


def main() -> None:
    options = _options()
    site = keeping(SITE.read_text())
    on_changes = [line for line in site if not line.startswith("autosave")] + [
        "autosave_on_changes true",
        "autosave_interval 1",
    ]
    for name, lines in (("mosquitto's own", []), ("saved on changes", on_changes), ("the site's", site)):
        with tempfile.TemporaryDirectory(prefix="bench-broker-") as folder:
            print(f"{name:17} {_measured(Path(folder), lines, options)}", flush=True)


def keeping(configuration: str) -> list[str]:
    """Return the lines of a mosquitto.conf that say what is kept, without its places, users and comments."""
    lines = [line.strip() for line in configuration.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", *PLACES))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.broker", description=__doc__)
    parser.add_argument("--messages", type=int, default=500_000, help="that wait (default 500,000)")
    parser.add_argument("--bytes", type=int, default=268, help="of each payload (default 268)")
    parser.add_argument("--seconds", type=float, default=90.0, help="after which no more are sent (default 90)")
    return parser.parse_args()


def _measured(folder: Path, lines: list[str], options: argparse.Namespace) -> str:
    """Return one line of figures about a broker with these settings."""
    port = free_port()
    own = [f"listener {port} 127.0.0.1", "allow_anonymous true", "user root", f"persistence_location {folder}/"]
    (folder / "mosquitto.conf").write_text("\n".join([*own, "persistence true", *lines]) + "\n")
    broker = _start(folder)
    try:
        _leave_a_session(port)
        before = own_mib(broker.pid)
        sent, seconds = _publish(port, options)
        more = own_mib(broker.pid) - before
        broker.send_signal(signal.SIGTERM)
        broker.wait()
        size = (folder / "mosquitto.db").stat().st_size / 1e6
        broker = _start(folder)
        kept = _come_back(port, sent)
    finally:
        broker.terminate()
        broker.wait()
    return (
        f"{sent} sent, {kept} kept ({kept / sent:.1%}); {sent / seconds:.0f} messages a second; "
        f"{more:.0f} MiB more ({more * 2**20 / max(kept, 1):.0f} bytes a message); file of {size:.0f} MB"
    )


def _start(folder: Path) -> subprocess.Popen[bytes]:
    """Return a mosquitto that has begun to listen."""
    log = folder / "log"
    with log.open("wb") as sink:
        broker = subprocess.Popen([MOSQUITTO, "-c", str(folder / "mosquitto.conf")], stdout=sink, stderr=sink)
    while b" running" not in log.read_bytes():
        if broker.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.05)
    return broker


def _leave_a_session(port: int) -> None:
    """Subscribe as the appliance would, and go."""
    subscribed = threading.Event()
    away = Client(CallbackAPIVersion.VERSION2, "appliance", clean_session=False)
    away.on_subscribe = lambda *_: subscribed.set()
    away.connect("127.0.0.1", port)
    away.loop_start()
    away.subscribe("plant/#", 1)
    if not subscribed.wait(PATIENCE_SECONDS):
        raise SystemExit("the broker has not taken the subscription")
    away.disconnect()
    away.loop_stop()


def _publish(port: int, options: argparse.Namespace) -> tuple[int, float]:
    """Return (messages that the broker acknowledged, seconds)."""
    acknowledged = itertools.count(1)
    last = 0

    def count(*_: object) -> None:
        nonlocal last
        last = next(acknowledged)

    sensors = Client(CallbackAPIVersion.VERSION2, "sensors")
    sensors.max_inflight_messages_set(200)
    sensors.max_queued_messages_set(0)
    sensors.on_publish = count
    sensors.connect("127.0.0.1", port)
    sensors.loop_start()
    began = time.monotonic()
    sent = 0
    for payload in itertools.islice(_payloads(options.bytes), options.messages):
        sensors.publish(f"plant/line{sent % 5}/press{sent % 50}/sensors", payload, 1)
        sent += 1
        while sent - last > UNACKNOWLEDGED:
            time.sleep(0.001)
        if time.monotonic() - began > options.seconds:
            break
    while last < sent:
        time.sleep(0.001)
    seconds = time.monotonic() - began
    sensors.disconnect()
    sensors.loop_stop()
    return sent, seconds


def _payloads(size: int) -> Iterator[str]:
    """Yield payloads that all differ, of `size` bytes."""
    for number in itertools.count():
        yield (
            f'{{"number":{number},"temperature":{number % 911 / 10},"vibration":{number % 3571 / 1000}'.ljust(size - 1)
            + "}"
        )


def _come_back(port: int, sent: int) -> int:
    """Return how many different messages the session was kept."""
    seen: set[bytes] = set()
    last = time.monotonic()

    def take(client: Client, data: object, message: object) -> None:
        nonlocal last
        seen.add(message.payload)  # type: ignore[attr-defined]
        last = time.monotonic()

    back = Client(CallbackAPIVersion.VERSION2, "appliance", clean_session=False)
    back.on_message = take
    back.connect("127.0.0.1", port)
    back.loop_start()
    while len(seen) < sent and time.monotonic() - last < PATIENCE_SECONDS:
        time.sleep(0.05)
    back.disconnect()
    back.loop_stop()
    return len(seen)


if __name__ == "__main__":
    main()

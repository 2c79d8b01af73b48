"""Sensors in three flower beds: `python sensors.py PORT [5|3.1.1]` publishes their values and prints the answers."""

import json
import queue
import sys

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

TOPIC, ANSWER = "bed/{}/flower", "bed/{}/species"
MEASURED = {
    "north": [5.1, 3.5, 1.4, 0.2],
    "east": [6.0, 2.7, 4.2, 1.3],
    "south": [6.3, 3.3, 6.0, 2.5],
}
_ANSWER_SECONDS, _TRIES = 2.0, 10


def show(port: int, protocol: str = "5") -> bool:
    """Publish a message for each bed and print it with its answer; return whether all were answered."""
    version = MQTTProtocolVersion.MQTTv5 if protocol == "5" else MQTTProtocolVersion.MQTTv311
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version)
    heard: queue.Queue[paho.MQTTMessage | None] = queue.Queue()
    client.on_connect = lambda *_: client.subscribe(ANSWER.format("+"), qos=1)
    client.on_subscribe = lambda *_: heard.put(None)
    client.on_message = lambda _, data, message: heard.put(message)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        heard.get(timeout=10)
        return all(_exchanged(client, heard, bed, row) for bed, row in MEASURED.items())
    except queue.Empty:
        return False
    finally:
        client.disconnect()
        client.loop_stop()


def _exchanged(client: paho.Client, heard: "queue.Queue[paho.MQTTMessage | None]", bed: str, row: list[float]) -> bool:
    """Publish one message until it is answered: who subscribes as we publish may have missed it."""
    payload = json.dumps({"sensor": f"{bed}-1", "cm": row})
    print(f"{TOPIC.format(bed)} {payload}", flush=True)
    for _ in range(_TRIES):
        client.publish(TOPIC.format(bed), payload, qos=1)
        try:
            while (message := heard.get(timeout=_ANSWER_SECONDS)) is None or message.topic != ANSWER.format(bed):
                continue
        except queue.Empty:
            continue
        print(f"  -> {message.topic} {message.payload.decode()}", flush=True)
        return True
    print("  -> no answer", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(not show(int(sys.argv[1]), *sys.argv[2:]))

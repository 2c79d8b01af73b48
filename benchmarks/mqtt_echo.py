"""The references: a paho client that sends every QoS 1 message back, `python mqtt_echo.py PORT [MODEL.onnx]`.

With a model it predicts first, one message at a time, in the callback: what a straightforward program does.
"""

import json
import sys

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion


def main(port: int, model: str = "") -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, "bench-echo", protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(0)
    answer = predicting(model) if model else lambda payload: payload
    client.on_connect = lambda *_: client.subscribe("bench/in", qos=1)
    client.on_message = lambda _, data, message: client.publish("bench/out", answer(message.payload), qos=1)
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.connect("127.0.0.1", port, keepalive=600)
    client.loop_forever()


def predicting(model: str):
    """Return a function from a request's payload to its answer."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64}[session.get_inputs()[0].type]

    def answer(payload: bytes) -> str:
        asked = json.loads(payload)
        label, probability = session.run(None, {name: np.array([asked["x"]], dtype)})
        document = {"n": asked["n"], "prediction": label.tolist(), "probability": probability.tolist()}
        return json.dumps(document, separators=(",", ":"))

    return answer


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])

"""The references that every figure is a ratio against, each run as a child: `python -m benchmarks.references KIND ...`.

constant   waitress answers a constant from a bare WSGI callable: the ceiling of the stack
tutorial   Flask's own server, joblib and scikit-learn, as a tutorial has it
floor      session.run in a loop, without a service: the ceiling of the work
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}


def main() -> None:
    parser = argparse.ArgumentParser()
    kinds = parser.add_subparsers(required=True)
    constant = kinds.add_parser("constant")
    constant.add_argument("answer", type=Path, help="file with the bytes to answer")
    constant.add_argument("port", type=int)
    constant.add_argument("server", choices=_SERVERS)
    constant.set_defaults(run=lambda args: serve_constant(args.answer.read_bytes(), args.port, args.server))
    tutorial = kinds.add_parser("tutorial")
    tutorial.add_argument("models", type=Path, help="folder of NAME.joblib")
    tutorial.add_argument("port", type=int)
    tutorial.set_defaults(run=lambda args: serve_tutorial(args.models, args.port))
    floor = kinds.add_parser("floor")
    floor.add_argument("model", type=Path, help="an ONNX file")
    floor.add_argument("body", type=Path, help='file with {"features": [[...], ...]}')
    floor.add_argument("seconds", type=float)
    floor.add_argument("--json", action="store_true", help="decode the body and encode the answer each time")
    floor.set_defaults(run=lambda args: run_floor(args.model, args.body.read_bytes(), args.seconds, args.json))
    args = parser.parse_args()
    args.run(args)


def serve_constant(answer: bytes, port: int, server: str) -> None:
    """Serve `answer` to every request: on waitress as it comes, as the service tunes it, or on the service's server."""
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", headers)
        return [answer]

    _SERVERS[server](app, port)


def serve_tutorial(models: Path, port: int) -> None:
    """Serve every NAME.joblib of a folder on /models/NAME/predict with Flask's own server."""
    import joblib
    from flask import Flask, jsonify, request

    app = Flask(__name__)
    loaded = {file.stem: joblib.load(file) for file in models.glob("*.joblib")}

    @app.post("/models/<name>/predict")
    def predict(name: str) -> Any:
        features = request.get_json()["features"]
        rows = features if isinstance(features[0], list) else [features]
        return jsonify({"prediction": loaded[name].predict(rows).tolist()})

    app.run(host="127.0.0.1", port=port)


def run_floor(model: Path, body: bytes, seconds: float, with_json: bool) -> None:
    """Print how often a second the rows of `body` can be predicted, once a line on standard input says go."""
    import msgspec
    import numpy as np
    import onnxruntime

    class Body(msgspec.Struct):
        features: list[list[float]]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    tensor = session.get_inputs()[0]
    dtype = _DTYPES[tensor.type]
    decoder, encoder = msgspec.json.Decoder(Body), msgspec.json.Encoder()
    rows = np.array(decoder.decode(body).features, dtype)
    labels = [str(label) for label in range(np.shape(session.run(None, {tensor.name: rows})[1])[1])]

    def run() -> None:
        session.run(None, {tensor.name: rows})

    def decode_run_encode() -> None:
        array = np.array(decoder.decode(body).features, dtype)
        prediction, probability = session.run(None, {tensor.name: array})[:2]
        named = [dict(zip(labels, row, strict=True)) for row in probability.tolist()]
        encoder.encode({"prediction": prediction.tolist(), "probability": named})

    work = decode_run_encode if with_json else run
    work()
    print("ready", flush=True)
    sys.stdin.readline()
    print(_rate(work, seconds), flush=True)


def _rate(work: Callable[[], None], seconds: float) -> float:
    """Return how often a second `work` ran, over `seconds`."""
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        work()
        count += 1
    return count / spent


def _serve_stock(app: Any, port: int) -> None:
    """Serve `app` on waitress as it comes."""
    import waitress

    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    waitress.serve(app, host="127.0.0.1", port=port)


def _serve_tuned(app: Any, port: int) -> None:
    """Serve `app` with the service's settings and its loop, where waitress itself reads requests and writes answers."""
    from waitress.parser import HTTPRequestParser
    from waitress.task import WSGITask

    from appliance.rest.server.channel import Channel

    class Plain(Channel):
        parser_class = HTTPRequestParser
        task_class = WSGITask

    _service_server(app, port, Plain).run()


def _serve_own(app: Any, port: int) -> None:
    """Serve `app` on the service's own server."""
    _service_server(app, port, None).run()


def _service_server(app: Any, port: int, channel: Any) -> Any:
    """Return the service's server for one process, every request as quick as its predictions."""
    from appliance.config import HttpConfig
    from appliance.rest.server.listener import bind
    from appliance.rest.server.server import make_server

    server = make_server(app, bind("127.0.0.1", port), HttpConfig(), lambda path: True)
    if channel:
        server.channel_class = channel
    return server


_SERVERS = {"stock": _serve_stock, "tuned": _serve_tuned, "own": _serve_own}


if __name__ == "__main__":
    main()

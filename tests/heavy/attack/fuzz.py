"""Gives every decoder bodies that libFuzzer makes (atheris), guided by what they reach: `fuzz.py [TARGET...]`.

A target takes bytes. What it may raise is a typed error of ours; all else ends the run, and the bytes are shown. HTTP
targets must answer with a status that is no 500. Each target runs in a process of its own.
"""

import argparse
import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["appliance"]):
    from appliance.bundle import archive, baseline, examples, keys, onnx_wire, signature
    from appliance.config import SubscriptionConfig
    from appliance.errors import ApplianceError
    from appliance.mqtt import packets
    from appliance.mqtt.codec import Codec
    from appliance.pull import offers
    from appliance.rest.server.framing import Parser
    from appliance.rest.server.header_cache import HeaderCache
    from tests.appliance.conftest import build_bundle
    from tests.appliance.rest.conftest import Api, echo_bundle

from waitress.adjustments import Adjustments

RUNS = 1_000_000
LONGEST = 4096
ROW = b'{"features": [[1, 2.5, -3e2, null], {"sepal_length": 1}]}'
INFER = (
    b'{"id": "a", "inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}],'
    b'"outputs": [{"name": "prediction", "parameters": {"binary_data": true}}]}'
)
TABLES = (
    b'{"dataframe_split": {"columns": ["a"], "data": [[1]]}}',
    b'{"dataframe_records": [{"float64": NaN}]}',
    b'{"instances": [{"string": "x", "bool": true}]}',
    b'{"inputs": {"int64": [1, 2]}}',
)

Target = tuple[Callable[[bytes], None], list[bytes]]


def raising(decode: Callable[[bytes], object], *seeds: bytes) -> Callable[[Path], Target]:
    """Return a target of a decoder that raises typed errors alone."""

    def one(content: bytes) -> None:
        with contextlib.suppress(ApplianceError, packets.MalformedPacket):
            decode(content)

    return lambda folder: (one, list(seeds))


def asking(path: str, kind: str, *seeds: bytes, **headers: str) -> Callable[[Path], Target]:
    """Return a target that is a route of the service, over a model of every type."""

    def make(folder: Path) -> Target:
        api = Api(folder / "state", default="echo")
        api.install(echo_bundle(), folder)
        api.install(build_bundle("table", kind="table"), folder)

        def one(content: bytes) -> None:
            got = api.post(path, content, CONTENT_TYPE=kind, **headers)
            assert got.status != 500, got.body[:500]
            if got.status >= 400:
                json.loads(got.body)

        return one, list(seeds)

    return make


def codec(payload: str, *seeds: bytes) -> Callable[[Path], Target]:
    """Return a target that is MQTT's reader of one kind of payload, with an id, a path and an echo."""
    config = SubscriptionConfig(topic="t", payload=payload, id="id", echo=("sensor",))  # type: ignore[arg-type]
    reader = Codec(config, max_bytes=262_144, max_rows=1000)
    return raising(lambda content: reader.read("t", content, b"c"), *seeds)


def head(content: bytes) -> None:
    """Read a request as the server does, in two parts."""
    adjustments = Adjustments(max_request_body_size=10_000)
    adjustments.header_cache = HeaderCache()
    parser = Parser(adjustments)
    half = len(content) // 2
    taken = parser.received(content[:half])
    if not parser.completed:
        parser.received(content[taken:])


def bundle(folder: Path) -> Target:
    """Return the target that is the reader of bundles, from a file."""
    path = folder / "fuzzed.bundle"

    def one(content: bytes) -> None:
        path.write_bytes(content)
        with contextlib.suppress(ApplianceError):
            archive.open_bundle(path)

    return one, [build_bundle()]


def members() -> dict[str, bytes]:
    """Return the members of a sound bundle."""
    return dict(archive.read(build_bundle(baseline=b"{}")).members)


PRIVATE, PUBLIC = keys.generate_key()
SIGNED = signature.sign(members(), PRIVATE)
REQUEST = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX: y\r\n\r\n12345"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n"
PUBLISH = packets.publish("a/b", b"payload", 7, five=True, properties=None, qos=1, retain=False)

TARGETS: dict[str, Callable[[Path], Target]] = {
    "predict": asking("/predict", "application/json", ROW, b'{"features": {"float64": NaN, "string": "x"}}'),
    "infer": asking("/v2/models/echo/infer", "application/json", INFER),
    "infer-binary": asking(
        "/v2/models/echo/infer", "application/octet-stream", INFER, HTTP_INFERENCE_HEADER_CONTENT_LENGTH="160"
    ),
    "invocations": asking("/invocations", "application/json", *TABLES),
    "csv": asking("/invocations", "text/csv", b'a,b\n1,"x\ny"\n', b"float64\r\n1e400\r\n", b"\xef\xbb\xbf1,2\n"),
    "v1": asking("/v1/models/echo:predict", "application/json", TABLES[2]),
    "gzip": asking("/predict", "application/json", b"\x1f\x8b\x08", CONTENT_ENCODING="gzip"),
    "head": raising(head, REQUEST, CHUNKED),
    "mqtt-json": codec("json", b'{"id": 7, "sensor": {"a": 1}, "features": [1, NaN]}', INFER),
    "mqtt-cbor": codec(
        "cbor", b"\xa2bid\x07hfeatures\x82\x01\xfb?\xf0\x00\x00\x00\x00\x00\x00", b"\xd8\x19\x00\xc4\x82"
    ),
    "mqtt-value": codec("value", b"12.5", b"\xef\xbb\xbfnan"),
    "mqtt-publish": raising(lambda content: packets.read_publish(0x32, content, five=True), PUBLISH[2:]),
    "mqtt-puback": raising(packets.read_puback, b"\x00\x01\x10\x00"),
    "bundle": bundle,
    "manifest": raising(lambda content: archive.decode_manifest(content, "here"), members()["manifest.json"]),
    "examples": raising(examples.read, members()["examples.npz"]),
    "baseline": raising(baseline.read, b'{"inputs": {}, "outputs": {}}'),
    "model": raising(onnx_wire.check, members()["model.onnx"]),
    "signature": raising(lambda content: signature.verify(members(), content, [PUBLIC]), SIGNED),
    "key": raising(keys.load_public_keys, PUBLIC),
    "index": raising(
        lambda content: offers.decode_index(content, "here"),
        b'{"format": 1, "bundles": [{"name": "iris", "version": "1.1.0"}]}',
    ),
}


def main() -> None:
    options = argparse.ArgumentParser(prog="fuzz.py", description=__doc__)
    options.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    options.add_argument("--runs", type=int, default=RUNS, help=f"bodies for each target (default {RUNS:,})")
    options.add_argument("--seconds", type=int, default=600, help="for each target at most (default 600)")
    options.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    found = options.parse_args()
    if found.here:
        fuzz(found.targets[0], found.runs, found.seconds)
    failed = [name for name in found.targets if not ran(name, found.runs, found.seconds)]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def ran(name: str, runs: int, seconds: int) -> bool:
    """Fuzz one target in a process of its own; print how it went; return whether it is sound."""
    line = [sys.executable, __file__, name, "--runs", str(runs), "--seconds", str(seconds), "--here"]
    began = time.monotonic()
    done = subprocess.run(line, capture_output=True, text=True, errors="replace")
    number = re.findall(r"Done (\d+) runs", done.stderr)
    said = f"{number[-1]} bodies" if number else "ended early"
    print(
        f"{name:14} {'sound' if not done.returncode else 'FAILED'}: {said} in {time.monotonic() - began:.0f} s",
        flush=True,
    )
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-6000:], sep="\n")
    return not done.returncode


def fuzz(name: str, runs: int, seconds: int) -> None:
    """Fuzz one target here; libFuzzer ends the process."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as folder:
        one, seeds = TARGETS[name](Path(folder))
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(seeds):
            (corpus / str(number)).write_bytes(seed)
        flags = [
            f"-runs={runs}",
            f"-max_total_time={seconds}",
            f"-max_len={LONGEST}",
            "-timeout=10",
            "-rss_limit_mb=1500",
        ]
        atheris.Setup([sys.argv[0], *flags, "-seed=1", f"-artifact_prefix={tempfile.gettempdir()}/", str(corpus)], one)
        sys.stdout = io.StringIO()
        atheris.Fuzz()


if __name__ == "__main__":
    main()

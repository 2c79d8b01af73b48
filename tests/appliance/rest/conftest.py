"""The HTTP api over a store of small models: called in the process (quick), or over a real socket."""

import contextlib
import functools
import http.client
import io
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from appliance.bundle import archive, examples
from appliance.bundle.manifest import Input, Manifest, Output, Provenance
from appliance.config import Config, HttpConfig, LogConfig, ModelsConfig, StoreConfig
from appliance.experiment_roles import ExperimentRoles
from appliance.inference import selftest
from appliance.inference.session import Session
from appliance.predictor import Counts, Predictor
from appliance.readiness import Readiness
from appliance.repository import ModelRepository
from appliance.rest import (
    admin,
    columns,
    history,
    invocations,
    kserve_v1,
    log,
    openinference,
    predict,
    sagemaker,
    status,
)
from appliance.rest.app import App, create_app
from appliance.rest.http_types import Context
from appliance.rest.server.listener import bind
from appliance.rest.server.server import make_server
from appliance.service import Service
from appliance.store import activation
from appliance.store.versions import Installed, Store

ROOT = Path(__file__).parents[3]
KINDS = ("regression", "classifier", "labels", "table")
ECHOED = {
    "bool": TensorProto.BOOL, "int8": TensorProto.INT8, "int16": TensorProto.INT16, "int32": TensorProto.INT32,
    "int64": TensorProto.INT64, "uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32, "uint64": TensorProto.UINT64, "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "string": TensorProto.STRING,
}  # fmt: skip


@dataclass
class Got:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Recorder:
    """An observer that counts, as the metrics do."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], Counts] = {}
        self.failures: list[tuple[str, str, str]] = []
        self.routed: list[tuple[str, str]] = []
        """(arm, key) of every request, whether it was answered or not."""

    def predicted(self, prediction) -> None:
        self.routed.append((prediction.arm, *prediction.keys))
        key = (prediction.model, prediction.version)
        counts = self.counts.setdefault(key, Counts())
        counts.successes += 1
        counts.rows += prediction.rows
        counts.prepare_seconds += prediction.prepare_seconds
        counts.run_seconds += prediction.run_seconds
        counts.request_seconds += prediction.prepare_seconds + prediction.run_seconds
        counts.last = 1_700_000_000.5

    def failed(self, model, version, error, seconds, arm="", key="") -> None:
        self.failures.append((model, version, type(error).__name__))
        self.routed.append((arm, key))


class Api:
    """The application over one store, called in this process."""

    def __init__(self, state_dir: Path, default: str = "", **settings: object) -> None:
        self.store = Store(state_dir)
        self.models = ModelRepository(self.store, default=default, roles=ExperimentRoles())
        self.models.refresh()
        self.recorder = Recorder()
        config = HttpConfig(**settings)
        predictor = Predictor(self.models, [self.recorder])
        readiness = Readiness(self.models, self.store)
        self.context = Context(
            predictor, self.models, self.store, readiness, config, counts=lambda: self.recorder.counts
        )
        routes = (
            *predict.ROUTES,
            *openinference.ROUTES,
            *invocations.ROUTES,
            *kserve_v1.ROUTES,
            *sagemaker.ROUTES,
            *status.ROUTES,
            *admin.ROUTES,
            *history.ROUTES,
            *columns.ROUTES,
            *log.ROUTES,
        )
        self.app: App = create_app(self.context, routes, lambda request, scope: None)

    def install(self, content: bytes, folder: Path, *, activate: bool = True) -> None:
        path = folder / "sent.bundle"
        path.write_bytes(content)
        installed = self.store.install(path)
        if activate:
            activation.activate(self.store, installed.name, installed.version, selftest.self_test)
        self.models.refresh()

    def call(self, method: str, path: str, body: object = b"", **headers: str) -> Got:
        """Return the answer to a request; a body that is not bytes is sent as JSON. Headers as CONTENT_TYPE."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        path, _, query = path.partition("?")
        environ = {
            "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "SERVER_NAME": "test",
            "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content)), "wsgi.errors": io.StringIO(),
            "wsgi.version": (1, 0), "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
        }  # fmt: skip
        for name, value in headers.items():
            environ[name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"] = value
        got = Got(0, {}, b"")

        def start_response(status: str, answered: list[tuple[str, str]], *_: object) -> None:
            got.status, got.headers = int(status.split()[0]), dict(answered)

        got.body = b"".join(self.app(environ, start_response))
        return got

    def post(self, path: str, body: object = b"", **headers: str) -> Got:
        return self.call("POST", path, body, **headers)

    def get(self, path: str, **headers: str) -> Got:
        return self.call("GET", path, **headers)


@contextlib.contextmanager
def listening(api: Api) -> Iterator[str]:
    """Serve an api on a free port of loopback; gives host:port."""
    listener = bind("127.0.0.1", 0)
    server = make_server(
        api.app, listener, api.context.config, api.app.is_small, answer=api.app.direct, together=api.app.together
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.stop()
        thread.join(25)
        assert not thread.is_alive()


def echo_bundle() -> bytes:
    """Return a model `echo` that gives back a column of each type (NaN, infinity and nothing missing are all fine)."""
    inputs = [
        Input(name=kind, type=kind, shape=[-1, 1], columns=[kind], missing=kind.startswith("float"), finite=False)
        for kind in ECHOED
    ]
    outputs = [Output(name=f"out_{kind}", type=kind, shape=[-1, 1]) for kind in ECHOED]
    graph = helper.make_graph(
        [helper.make_node("Identity", [kind], [f"out_{kind}"]) for kind in ECHOED],
        "echo",
        [helper.make_tensor_value_info(kind, number, ["N", 1]) for kind, number in ECHOED.items()],
        [helper.make_tensor_value_info(f"out_{kind}", number, ["N", 1]) for kind, number in ECHOED.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    rows = [np.array([["a"]] if kind == "string" else [[1]], object if kind == "string" else kind) for kind in ECHOED]
    answers = Session(content).run(dict(zip(ECHOED, rows, strict=True)), [output.name for output in outputs])
    manifest = Manifest(
        format=1, name="echo", version="1.0.0", task="transformation", inputs=inputs, outputs=outputs,
        opset={"": 18}, ir_version=9, least_onnxruntime="1.20.0", members={},
        provenance=Provenance(source="test", sha256="0" * 64, model_type="tests.Echo"),
    )  # fmt: skip
    return archive.write(manifest, content, b"{}", examples.write(rows, answers), None, None)


@pytest.fixture(scope="session")
def state_dir(bundle_bytes, tmp_path_factory) -> Path:
    """Return a state folder with a model of every kind, named as its kind, version 1.0.0, active."""
    folder = tmp_path_factory.mktemp("served")
    api = Api(folder / "state")
    for kind in KINDS:
        api.install(bundle_bytes(kind, kind=kind), folder)
    api.install(echo_bundle(), folder)
    return folder / "state"


@pytest.fixture(scope="session")
def api(state_dir) -> Api:
    """Return an api over models of all kinds; tests must not change its store."""
    return Api(state_dir)


@pytest.fixture(scope="session")
def api_of(state_dir) -> Callable[[str], Api]:
    """Return a function that gives an api whose default model is the named one; tests must not change its store."""
    return functools.cache(lambda model: Api(state_dir, model))


@pytest.fixture
def make_api(tmp_path, bundle_bytes) -> Callable[..., Api]:
    """Return a function that makes an api over a store of its own: make_api("labels", ..., max_rows=3)."""

    def make(*kinds: str, **settings: object) -> Api:
        api = Api(tmp_path / "state", **settings)
        for kind in kinds:
            api.install(bundle_bytes(kind, kind=kind), tmp_path)
        return api

    return make


@pytest.fixture(scope="session")
def address(api) -> Iterator[str]:
    """Return host:port of `api`, served over a real socket."""
    with listening(api) as where:
        yield where


@pytest.fixture
def listen() -> Callable[[Api], contextlib.AbstractContextManager[str]]:
    """Return `listening`, see there."""
    return listening


@pytest.fixture
def send(address) -> Callable[..., Got]:
    """Return a function that sends raw requests over a socket: send("POST", path, body, headers, chunked=True)."""

    def send(method: str, path: str, body: object = None, headers: dict[str, str] | None = None, **rest: bool) -> Got:
        connection = http.client.HTTPConnection(address, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {}, encode_chunked=rest.get("chunked", False))
            answer = connection.getresponse()
            return Got(answer.status, dict(answer.getheaders()), answer.read())

    return send


class Running:
    """A whole service in this process whose store already has versions; the last one named of a model is active."""

    def __init__(self, folder: Path, bundles: list[Path], *, log: LogConfig = LogConfig(), **settings: Any) -> None:  # noqa: B008 - frozen
        self.store = Store(folder / "state")
        for bundle in bundles:
            installed = self.install(bundle)
            activation.activate(
                self.store, installed.name, installed.version, selftest.self_test, why="the test wants it"
            )
        config = Config(
            http=HttpConfig(port=0, **settings),
            log=log,
            models=ModelsConfig(poll_seconds=0.05),
            store=StoreConfig(state_dir=str(folder / "state"), preload_dir=str(folder / "none")),
        )
        listener = bind("127.0.0.1", 0)
        self.port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.service = Service(config, listener)
        ready = threading.Event()
        self.thread = threading.Thread(target=self.service.run, args=(ready.set,), name="service")
        self.thread.start()
        assert ready.wait(30)

    def install(self, bundle: Path) -> Installed:
        return self.store.install(bundle)

    def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Return (status, headers, body) of one request; a body that is no bytes goes as JSON."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, content, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Return (status, decoded JSON) of one request."""
        status, _, content = self.send(method, path, body, headers)
        return status, json.loads(content)

    def close(self) -> None:
        self.service.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def start_service(tmp_path: Path, make_bundle: Callable[..., Path]) -> Iterator[Callable[..., Running]]:
    """Return start((name, version, kind), ..., **http settings) -> Running; all are stopped at the end."""
    running: list[Running] = []

    def start(*models: tuple[str, str, str], **settings: Any) -> Running:
        folder = tmp_path / f"service-{len(running)}"
        folder.mkdir()
        bundles = [make_bundle(folder, name, version, kind=kind) for name, version, kind in models]
        running.append(Running(folder, bundles, **settings))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture(scope="module")  # another module may have one of its own
def browser() -> Iterator[Any]:
    """Return a Chromium that asks nobody for anything by itself."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("chromium-browser") or os.environ.get("CHROMIUM")
    quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=quiet)
        yield browser
        browser.close()

"""A writer of one version's log, with lines that need no model; and a whole service that logs."""

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.config import Config, HttpConfig, LogConfig, ModelsConfig, PredictionLogConfig, StoreConfig
from appliance.inference import selftest
from appliance.monitoring.prediction_log import find, lines, segments
from appliance.monitoring.prediction_log.lines import Header, Row
from appliance.monitoring.prediction_log.segments import Writer
from appliance.monitoring.prediction_log.writer import SegmentWriter
from appliance.rest.server.listener import bind
from appliance.service import Service
from appliance.store import activation
from appliance.store.versions import Store

COLUMNS = ["temp", "site"]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_760_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def header(slot: int, segment: int, prev: str, key: list[int] | None) -> Header:
    return Header(
        1, "iris", "1.0.0", COLUMNS, ["float64", "string"], ["prediction"], [], "host", slot, segment, prev, "", key=key
    )


def row(number: int, request: str = "r", **more: object) -> Row:
    return Row(f"{request}{number}.0", 1_760_000_000.0 + number, x=[number / 8, "north"], y=number / 2, n="00", **more)


def encoded(numbers: range) -> list[bytes]:
    return [lines.line_of(row(number)) for number in numbers]


OpenWriter = Callable[..., SegmentWriter]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def place(tmp_path: Path) -> Writer:
    return Writer(tmp_path, "iris", "1.0.0", 0)


@pytest.fixture
def open_writer(place: Writer, clock: Clock) -> Iterator[OpenWriter]:
    """Return open() -> a writer of the place, as a process would have it; all are abandoned at the end."""
    opened: list[SegmentWriter] = []

    def open_(at: Writer = place) -> SegmentWriter:
        opened.append(SegmentWriter.open(at, header, clock))
        return opened[-1]

    yield open_
    for one in opened:
        one.abandon()


class LoggedService:
    """A whole service in this process that logs; its store has versions, the last one of a model is active."""

    def __init__(self, folder: Path, bundles: list[Path], http: dict, **settings: Any) -> None:
        self.state = folder / "state"
        store = Store(self.state)
        for bundle in bundles:
            done = store.install(bundle)
            activation.activate(store, done.name, done.version, selftest.self_test)
        self.config = Config(
            http=HttpConfig(port=0, **http),
            models=ModelsConfig(poll_seconds=0.05),
            store=StoreConfig(state_dir=str(self.state), preload_dir=str(folder / "none")),
            log=LogConfig(predictions=PredictionLogConfig(**({"enabled": True} | settings))),
        )
        self.start()

    def start(self) -> None:
        listener = bind("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.service = Service(self.config, listener)
        ready = threading.Event()
        self.thread = threading.Thread(target=self.service.run, args=(ready.set,), name="service")
        self.thread.start()
        assert ready.wait(30)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Return (status, decoded JSON, headers) of one request."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, content, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            found = answer.read()
            is_json = answer.headers["Content-Type"].endswith("json")
            return answer.status, json.loads(found) if is_json else found.decode(), dict(answer.headers)

    def predict(self, rows: Any, model: str = "iris", **headers: str) -> Any:
        status, answer, _ = self.ask("POST", f"/models/{model}/predict", {"features": rows}, **headers)
        assert status == 200, answer
        return answer

    def stop(self) -> None:
        self.service.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def lines(self, kind: bytes = lines.ROW, model: str = "iris") -> list[dict[str, Any]]:
        """Return the lines of a kind that are on disk."""
        return [
            json.loads(line)
            for writer in segments.writers(self.state, model)
            for segment in segments.of_writer(writer)
            for line in find.lines_of(segment)
            if line.startswith(kind)
        ]


@pytest.fixture
def start_logged(tmp_path: Path, make_bundle: Callable[..., Path]) -> Iterator[Callable[..., LoggedService]]:
    """Return start((name, version, kind), ..., **[log.predictions]) -> LoggedService; all are stopped at the end."""
    running: list[LoggedService] = []

    def start(*models: tuple[str, str, str], http: dict | None = None, **settings: Any) -> LoggedService:
        folder = tmp_path / f"service-{len(running)}"
        folder.mkdir()
        bundles = [make_bundle(folder, name, version, kind=kind) for name, version, kind in models]
        running.append(LoggedService(folder, bundles, http or {}, **settings))
        return running[-1]

    yield start
    for one in running:
        if one.thread.is_alive():
            one.stop()

"""`appliance drift`: what is shown, what accepting does, and what is said where there is nothing to show."""

import json

import msgspec
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from appliance.bundle import baseline
from appliance.cli import appliance as command
from appliance.config import Config, HttpConfig, StoreConfig
from appliance.inference.version import LoadedVersion
from appliance.monitoring import drift_judge, drift_state
from appliance.monitoring.drift_judge import Closed, Limits
from appliance.monitoring.drift_tables import TableCounter, Tables
from appliance.service import Service
from appliance.store import activation
from appliance.store.versions import Store
from convert import baseline as converted

KEY = ("iris", "1.0.0")
COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


@pytest.fixture
def state(tmp_path, make_bundle):
    """A state folder with iris 1.0.0 active, which has a baseline."""
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(2000, 4)), columns=COLUMNS)
    content = baseline.write(converted.of(rows, {}, [], dict.fromkeys(COLUMNS, "float32")))
    store = Store(tmp_path / "state")
    store.install(make_bundle(tmp_path, baseline=content))
    loaded = LoadedVersion(store.folder(*KEY))
    activation.activate(store, *KEY, lambda folder: loaded.self_test())
    return tmp_path / "state"


@pytest.fixture
def run(state):
    def invoke(*arguments: str):
        return CliRunner().invoke(command, list(arguments), env={"APPLIANCE_STATE_DIR": str(state)})

    return invoke


def drift(state, windows=2):
    """Keep windows in which the first column is one deviation off."""
    store = Store(state)
    loaded = LoadedVersion(store.folder(*KEY))
    tables = Tables(loaded.manifest, loaded.baseline)
    counter, rng = TableCounter(tables), np.random.default_rng(1)
    kept = drift_state.DriftState(drift_state.FORMAT, tables.layout)
    for number in range(windows):
        cells = np.zeros((20, tables.size))
        for block in cells:
            rows = rng.normal(size=(100, 4)) + np.array([1, 0, 0, 0])
            counter.add(block, {"features": rows.astype(np.float32)}, {})
        closed = Closed(f"2026-01-01T{number % 24:02}:00:00+00:00", 3600.0, cells, {})
        kept = drift_judge.judged(tables, kept, closed, Limits(0.1, 1, 3600, 500))
        kept = drift_judge.with_window(kept, closed.kept())
    with store.writing("test"):
        drift_state.write(store, KEY, kept)
    return kept


def test_drift_is_shown_with_the_worst_column_first(run, state):
    drift(state)
    done = run("drift", "iris")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "iris 1.0.0: drift since 2026-01-01T01:00:00+00:00"
    assert lines[1] == "  last window: 2000 rows in 60 min, ended 2026-01-01T01:00:00+00:00"
    assert lines[3].startswith("  sepal_length             drift        PSI ")
    assert lines[4].startswith("    its values differ from training (PSI ")
    document = json.loads(run("drift", "iris", "--json").stdout)
    assert document["state"] == "drift"
    assert [one["column"] for one in document["columns"] if one["state"] == "drift"] == ["sepal_length"]


def test_before_the_first_window_it_says_so(run):
    done = run("drift", "iris")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == "iris 1.0.0: too few rows"
    assert "no window has closed yet" in done.stdout


def test_accepting_needs_a_reason_writes_a_receipt_and_ends_the_alarm(run, state):
    drift(state)
    assert run("drift", "accept", "iris").exit_code == 2
    assert run("drift", "accept", "iris", "--why", " ").exit_code == 2
    done = run("drift", "accept", "iris", "--why", "a new pump")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "iris 1.0.0: accepted, off training: sepal_length",
        "the host's own reference starts again, from 72 windows on",
    ]
    receipt = Store(state).receipts()[-1]
    assert (receipt.what, receipt.model, receipt.version, receipt.why) == (
        "accept drift",
        "iris",
        "1.0.0",
        "a new pump",
    )
    assert json.loads(run("drift", "iris", "--json").stdout)["state"] == "fine"


def test_accepting_with_windows_enough_freezes_them(run, state):
    drift(state, 72)
    done = json.loads(run("drift", "accept", "iris", "--why", "as it should be", "--json").stdout)
    assert done["windows"] == 72
    assert done["device_reference"]
    assert drift_state.read(Store(state), KEY).frozen_windows == 72


def test_what_is_not_there_is_named(run):
    unknown = run("drift", "irsi")
    assert unknown.exit_code == 4
    assert "iris" in unknown.stderr
    assert run("drift", "accept", "iris", "--why", "x").exit_code == 4  # no window has closed
    assert run("drift", "iris", "--version", "9.9.9").exit_code == 4


def test_a_model_may_be_called_accept(run):
    assert "no such model" in run("drift", "accept").stderr or "'accept'" in run("drift", "accept").stderr


def test_the_service_tells_the_same_over_http_and_in_metrics(state, start_alone):
    kept = drift(state)
    service = start_alone(Config(http=HttpConfig(port=0), store=StoreConfig(state_dir=str(state))))
    status, body = service.get("/models/iris/drift")
    assert status == 200
    told = msgspec.convert(json.loads(body)["versions"][0], type(kept.report))
    assert told == kept.report
    assert 'appliance_drift_state{column="sepal_length",model="iris",version="1.0.0"} 2.0' in service.get("/metrics")[1]
    assert service.get("/models/nobody/drift")[0] == 404


@pytest.fixture
def start_alone():
    """Start a service on a free port, in this process; it has get(path) -> (status, text)."""
    import http.client
    import socket
    import threading

    running = []

    class Running:
        def __init__(self, config):
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.port = self.listener.getsockname()[1]
            self.service = Service(config, self.listener)
            ready = threading.Event()
            self.thread = threading.Thread(target=self.service.run, args=(ready.set,), daemon=True)
            self.thread.start()
            assert ready.wait(20)
            running.append(self)

        def get(self, path):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
            connection.close()
            return answer.status, body

    yield Running
    for one in running:
        one.service.stop()
        one.thread.join(20)
        assert not one.thread.is_alive()

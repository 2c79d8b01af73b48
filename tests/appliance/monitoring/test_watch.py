"""The watch over drift: rows are counted beside the requests, windows are judged and kept, whoever is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle import baseline
from appliance.bundle.baseline import Baseline, CalibrationBin
from appliance.drift_report import DriftReport
from appliance.errors import InvalidInput
from appliance.inference.version import LoadedVersion
from appliance.monitoring import drift_judge, drift_state
from appliance.monitoring import watch as watching
from appliance.monitoring.drift_judge import Limits
from appliance.monitoring.drift_tables import Tables
from appliance.monitoring.metrics import Metrics
from appliance.monitoring.watch import CHUNK, DriftWatch
from appliance.predictor import Prediction, Predictor
from appliance.repository import ModelRepository, Served
from appliance.store import activation
from appliance.store.versions import Store
from convert import baseline as converted
from tests.conftest import wait_for

KEY = ("iris", "1.0.0")
LIMITS = Limits(psi=0.1, false_alarms_a_year=1, window_seconds=3600, min_rows=500)
COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


def training(rng: np.random.Generator, **rest: Any) -> bytes:
    """Return the baseline of four independent columns, and of the sum that the model gives."""
    import pandas as pd

    rows = rng.normal(size=(4000, 4)).astype(np.float32)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    answers = {"prediction": rows.sum(axis=1) + 100}
    types = {**dict.fromkeys(COLUMNS, "float32"), "prediction": "float32"}
    return baseline.write(converted.of(frame, answers, [], types, **rest))


class Host:
    """A store with one version, and a watch whose clock the test moves."""

    def __init__(self, folder: Path, bundle: Path, *, slots: int = 1) -> None:
        self.store = Store(folder)
        self.store.install(bundle)
        self.loaded = LoadedVersion(self.store.folder(*KEY))
        self.now = 0.0
        runtime = folder / "runtime" if slots > 1 else None
        if runtime:
            runtime.mkdir()
        self.metrics = [Metrics(runtime, slot) for slot in range(slots)]
        self.watches = [
            DriftWatch(
                self.store,
                LIMITS,
                folder=runtime,
                slot=slot,
                refused=self.metrics[slot].counters.refusals.counts,
                clock=lambda: self.now,
            )
            for slot in range(slots)
        ]
        self.predictors = []
        for watch, metrics in zip(self.watches, self.metrics, strict=True):
            served = Served(KEY[0], KEY[1], self.loaded)
            watch.switched(served)
            metrics.switched(served)
            models = ModelRepository(self.store)
            self.predictors.append(Predictor(models, [metrics.counters, watch]))
        self.tick()

    def tick(self) -> None:
        for watch in reversed(self.watches):  # the first one sums up what the others have counted
            watch.tick()

    def hour(self, rows: np.ndarray, refused: int = 0, slot: int = 0, closes: bool = True) -> DriftReport:
        """Have an hour of rows [rows, 4] predicted, 20 to a request, and return the report of its window."""
        parts = np.array_split(rows.astype(np.float32), 60) if len(rows) else [rows] * 60
        for minute, part in enumerate(parts):
            for start in range(0, len(part), 20):
                predictor = self.predictors[slot]
                predictor.run(self.loaded, {"features": part[start : start + 20]})
            if minute < refused:
                error = InvalidInput("", "", column=self.loaded.schema.columns[2], reason="missing")
                for _ in range(20):
                    self.predictors[slot].failed("iris", "", error)
            self.now += 60
            self.tick()
        return self.report() if closes else None

    def state(self) -> Any:
        return drift_state.read(self.store, KEY)

    def report(self) -> DriftReport:
        return self.state().report


@pytest.fixture
def host(tmp_path: Path, make_bundle: Callable[..., Path], rng: np.random.Generator) -> Host:
    return Host(tmp_path / "state", make_bundle(tmp_path, baseline=training(rng)))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_fixture_has_the_models_columns(host):
    assert host.loaded.schema.columns == COLUMNS


def by_name(report: DriftReport) -> dict[str, Any]:
    return {column.column: column for column in report.columns}


def test_rows_of_the_same_kind_are_fine(host, rng):
    for _ in range(3):
        report = host.hour(rng.normal(size=(1200, 4)))
    assert report.state == "fine"
    assert report.window_rows == 1200
    assert {column.state for column in report.columns if column.role == "input"} == {"fine"}
    assert by_name(report)["prediction"].state == "too few rows"  # training's outputs are no reference
    assert report.windows == 3


def test_a_shifted_column_is_in_drift_after_two_windows_and_fine_two_after_it_ended(host, rng, caplog):
    shifted = np.array([0, 1.0, 0, 0])
    assert host.hour(rng.normal(size=(1200, 4)) + shifted).state == "fine"
    report = host.hour(rng.normal(size=(1200, 4)) + shifted)
    assert report.state == "drift"
    found = by_name(report)[COLUMNS[1]]
    assert (found.state, by_name(report)[COLUMNS[0]].state) == ("drift", "fine")
    assert found.because[0].startswith("its values differ from training (PSI ")
    assert found.psi["training"] > 0.2
    assert found.mean_shift == pytest.approx(1, abs=0.15)
    assert found.median == pytest.approx(1, abs=0.2)
    assert [one.column for one in report.drifting()] == [COLUMNS[1]]
    told = [record for record in caplog.records if record.message == "drift"]
    assert [(record.state, record.columns[0]["column"]) for record in told] == [("drift", COLUMNS[1])]
    host.hour(rng.normal(size=(1200, 4)))
    assert host.hour(rng.normal(size=(1200, 4))).state == "fine"


def test_a_sensor_that_turns_nan_is_seen_by_its_refusals_alone(host, rng):
    host.hour(rng.normal(size=(1200, 4)), refused=60)
    report = host.hour(np.zeros((0, 4)), refused=60)
    found = by_name(report)[COLUMNS[2]]
    assert report.window_rows == 0
    assert found.refused == 1200
    assert found.state == "drift"
    assert "requests are refused because of it" in found.because[0]


def test_a_window_with_too_few_rows_goes_on_and_ends_after_a_day(host, rng):
    for _ in range(23):
        host.hour(rng.normal(size=(10, 4)), closes=False)
        assert host.state() is None
    report = host.hour(rng.normal(size=(10, 4)))
    assert report.state == "too few rows"
    assert report.window_rows == 240
    assert host.state().windows == []  # it would be a bad reference


def test_a_stuck_sensor_and_unusual_values_are_told_by_the_devices_own_reference(host, rng):
    for _ in range(3):
        host.hour(rng.normal(size=(1200, 4)))
    state = host.state()
    tables = Tables(host.loaded.manifest, host.loaded.baseline)
    many = msgspec.structs.replace(state, windows=state.windows * 24)
    with host.store.writing("test"):
        drift_state.write(host.store, KEY, drift_judge.frozen(tables, many, many.windows, "2026-01-01T00:00:00+00:00"))
    stuck = rng.normal(size=(2, 1200, 4))
    stuck[:, :, 3] = 0.25
    host.hour(stuck[0])
    found = by_name(host.hour(stuck[1]))[COLUMNS[3]]
    assert found.repeats > 0.99
    assert any(
        one.startswith("values repeat more or less often than in the device's own past") for one in found.because
    )


def test_mark_good_freezes_the_windows_of_the_probation(host, rng):
    host.hour(rng.normal(size=(600, 4)))
    kept = host.state()
    with host.store.writing("test"):
        drift_state.write(host.store, KEY, msgspec.structs.replace(kept, windows=kept.windows * 72))
    activation.activate(host.store, *KEY, lambda folder: host.loaded.self_test())
    assert host.hour(rng.normal(size=(600, 4))).device_reference == ""
    assert host.state().frozen == ""  # on probation still
    activation.mark_good(host.store, "iris")
    for _ in range(20):
        host.now += 1
        host.tick()
    assert host.state().frozen_windows == 73
    assert host.hour(rng.normal(size=(600, 4))).device_windows == 73


def test_outputs_are_judged_against_the_device_alone_unless_the_sample_is_unseen(tmp_path, make_bundle, rng):
    host = Host(tmp_path / "state", make_bundle(tmp_path, baseline=training(rng, unseen=True)))
    host.hour(rng.normal(size=(600, 4)) + 1)
    found = by_name(host.hour(rng.normal(size=(600, 4)) + 1))["prediction"]
    assert found.role == "output"
    assert found.state == "drift"


def test_processes_add_up_and_the_first_one_judges(tmp_path, make_bundle, rng):
    host = Host(tmp_path / "state", make_bundle(tmp_path, baseline=training(rng)), slots=2)
    for minute in range(60):
        for slot in (0, 1):
            host.predictors[slot].run(host.loaded, {"features": rng.normal(size=(10, 4)).astype(np.float32)})
        if minute < 30:
            error = InvalidInput("", "", column=COLUMNS[0], reason="type")
            host.predictors[1].failed("iris", "1.0.0", error)
        host.now += 60
        host.tick()
    report = host.report()
    assert report.window_rows == 1200
    assert by_name(report)[COLUMNS[0]].refused == 30


def test_a_version_whose_rows_cannot_be_counted_does_not_end_the_watch(host, rng, caplog):
    bad = Prediction("iris", "1.0.0", {"features": np.zeros(4, np.float32)}, {"prediction": None}, 1, "1", "", 0, 0, 0)
    host.watches[0].predicted(bad)
    host.tick()
    host.tick()
    assert caplog.messages.count("drift is not watched any more") == 1


def test_counts_of_other_bins_are_begun_anew(host, rng, make_bundle, tmp_path):
    tables = Tables(host.loaded.manifest, host.loaded.baseline)
    column = msgspec.structs.replace(host.loaded.baseline.inputs[COLUMNS[0]], edges=[float(n) for n in range(15)])
    other = msgspec.structs.replace(host.loaded.baseline, inputs={**host.loaded.baseline.inputs, COLUMNS[0]: column})
    assert len(column.edges) == len(host.loaded.baseline.inputs[COLUMNS[0]].edges)
    assert Tables(host.loaded.manifest, other).layout != tables.layout


def test_a_few_predictions_are_counted_at_once_so_that_a_burst_takes_no_memory(host, rng, monkeypatch):
    monkeypatch.setattr(watching, "TICK_SECONDS", 3600.0)
    (watch,) = host.watches
    watch.start()
    for row in rng.normal(size=(10 * watching.FEW, 1, 4)).astype(np.float32):
        host.predictors[0].run(host.loaded, {"features": row})
        wait_for(lambda: len(watch._waiting) < watching.FEW, "a count in between")
    wait_for(lambda: watch._cells.sums()[KEY][watch._tables[KEY].tail] == 10 * watching.FEW, "all rows counted")
    assert watch._rows == 10 * watching.FEW  # those of a second are still what is bounded
    watch.stop()
    assert not watch._thread.is_alive()


def test_many_rows_are_thinned_and_a_large_request_keeps_rows_spread_over_it(host, rng):
    rows = rng.normal(size=(10_000, 4)).astype(np.float32)
    host.predictors[0].run(host.loaded, {"features": rows})
    waiting = host.watches[0]._waiting[0]
    assert waiting.rows == len(waiting.inputs["features"]) <= CHUNK
    assert (waiting.inputs["features"][1] == rows[40]).all()
    assert waiting.inputs["features"].base is None  # the request's own rows can be freed
    for _ in range(10_000):
        host.watches[0].predicted(waiting)
    assert sum(one.rows for one in host.watches[0]._waiting) < 2048 + CHUNK
    host.tick()
    assert host.watches[0]._every > 100


def test_estimated_accuracy_is_what_calibration_lets_expect(tmp_path, make_bundle, rng):
    import pandas as pd

    rows = pd.DataFrame(rng.normal(size=(100, 4)), columns=COLUMNS)
    bins = [CalibrationBin(0.6, 0.5, 0.4, 50), CalibrationBin(1.0, 0.9, 0.8, 50)]
    made = converted.of(rows, {"probability": np.full((100, 3), 1 / 3)}, [0, 1, 2], unseen=True, calibration=bins)
    host = Host(tmp_path / "state", make_bundle(tmp_path, kind="classifier", baseline=baseline.write(made)))
    sure, unsure = np.array([[9.0, 0, 0, 0]]), np.array([[1.0, 0, 1, 0]])  # softmax with a bias of 1 for the second
    report = host.hour(np.repeat(np.concatenate([sure, sure, sure, unsure]), 200, axis=0))
    assert report.estimated_accuracy == pytest.approx((3 * 0.8 + 0.4) / 4)


def test_baselines_of_format_1_are_judged_with_a_warning_and_not_where_quantiles_coincide(tmp_path, make_bundle, rng):
    quantiles = np.quantile(rng.normal(size=4000), baseline.PROBABILITIES).tolist()
    tied = [0.0] * 10 + [1.0, 2.0, 3.0]
    columns = {name: baseline.Numbers(0.0, quantiles, 0.0, 1.0) for name in COLUMNS}
    columns[COLUMNS[0]] = baseline.Numbers(0.0, tied, 0.0, 1.0)
    old = baseline.write(Baseline(1, 4000, baseline.PROBABILITIES, columns, {}))
    host = Host(tmp_path / "state", make_bundle(tmp_path, baseline=old))
    shift = np.array([5, 0, 1, 0])
    host.hour(rng.normal(size=(1200, 4)) + shift)
    report = host.hour(rng.normal(size=(1200, 4)) + shift)
    found = by_name(report)
    assert {name: found[name].state for name in COLUMNS} == {
        COLUMNS[0]: "too few rows",
        COLUMNS[1]: "fine",
        COLUMNS[2]: "drift",
        COLUMNS[3]: "fine",
    }
    assert found[COLUMNS[0]].psi["training"] > 1  # shown all the same
    assert "format 1" in report.warnings[0]
    assert COLUMNS[0] in report.warnings[1]


def test_accepting_drift_ends_the_alarm_and_the_device_alone_is_asked_from_then_on(host, rng):
    shift = np.array([0, 1.0, 0, 0])
    for _ in range(3):
        host.hour(rng.normal(size=(600, 4)) + shift)
    tables = Tables(host.loaded.manifest, host.loaded.baseline)
    state = drift_judge.accepted(tables, host.state(), "2026-01-01T00:00:00+00:00")
    assert state.accepted == [COLUMNS[1]]
    assert (state.report.state, len(state.windows), state.frozen) == ("fine", 3, "")
    with host.store.writing("test"):
        drift_state.write(host.store, KEY, state)
    for _ in range(2):
        report = host.hour(rng.normal(size=(600, 4)) + shift)
    assert report.state == "fine"
    assert report.accepted == [COLUMNS[1]]
    for _ in range(2):
        report = host.hour(rng.normal(size=(600, 4)) + shift[[1, 0, 2, 3]] + shift)
    assert [one.column for one in report.drifting()] == [COLUMNS[0]]


def test_the_reference_after_a_change_is_made_of_windows_since_it(host, rng):
    calm = host.hour(rng.normal(size=(600, 4)))
    assert calm.state == "fine"
    for _ in range(2):
        host.hour(rng.normal(size=(600, 4)) + 2)
    tables = Tables(host.loaded.manifest, host.loaded.baseline)
    state = drift_judge.accepted(tables, host.state(), "2026-01-01T00:00:00+00:00")
    assert len(state.windows) == 2


def test_files_of_removed_versions_are_deleted_and_a_damaged_one_is_begun_anew(host, rng, caplog):
    host.hour(rng.normal(size=(600, 4)))
    file = drift_state.path(host.store, KEY)
    other = file.with_name("0.9.0.json")
    other.write_bytes(file.read_bytes())
    file.write_bytes(file.read_bytes()[:-40])
    host.hour(rng.normal(size=(600, 4)))
    assert "drift counts start again" in caplog.messages
    assert host.state().report.windows == 1
    assert not other.exists()


def test_a_state_folder_that_cannot_be_written_loses_no_verdict(host, rng, monkeypatch, caplog):
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    shift = np.array([0, 1.0, 0, 0])
    with monkeypatch.context() as patched:
        patched.setattr(drift_state, "write", full)
        for _ in range(60):
            host.predictors[0].run(host.loaded, {"features": (rng.normal(size=(20, 4)) + shift).astype(np.float32)})
            host.now += 60
            host.tick()
    assert "drift cannot be kept" in caplog.messages
    assert host.hour(rng.normal(size=(1200, 4)) + shift).state == "drift"


@given(st.binary(max_size=300))
def test_any_other_file_is_refused_by_the_decoder(content):
    with pytest.raises(ValueError, match=r"."):
        drift_state.decode(content)


@given(st.data())
def test_a_changed_byte_of_a_state_is_refused_or_read(data):
    window = drift_state.KeptWindow("2026-01-01T00:00:00+00:00", 3600.0, [1.0, 2.0], {"a": 3.0})
    reference = {"a/values": drift_state.KeptReference([1.0, 2.0], 1.5, 600.0, 72.0, 0.1)}
    state = drift_state.DriftState(
        1, ["a:2"], [window], [window], reference, "x", 72, ["a"], {"a/values/training": (1, 2)}
    )
    content = bytearray(msgspec.json.encode(state))
    assert drift_state.decode(bytes(content)) == state
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        assert drift_state.decode(bytes(content)).format == 1


KILLED = textwrap.dedent("""
    import sys, os
    from pathlib import Path
    from appliance.monitoring import drift_state
    from appliance.store.versions import Store
    store = Store(Path(sys.argv[1]))
    key = ("iris", "1.0.0")
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        window = drift_state.KeptWindow(str(number), 1.0, [float(number)] * 2000)
        with store.writing("test"):
            drift_state.write(store, key, drift_state.DriftState(1, ["a:1"], [window] * 20))
""")


def test_who_is_killed_leaves_the_old_state_or_the_new_one(tmp_path):
    (tmp_path / "state").mkdir()
    store = Store(tmp_path / "state")
    seen = 0
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "state")], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        before = drift_state.mark(store, KEY)
        while drift_state.mark(store, KEY) == before:
            assert child.poll() is None
        os.kill(child.pid, signal.SIGKILL)
        child.wait(20)
        child.stdout.close()
        state = drift_state.read(store, KEY)
        assert state is not None
        assert {window.ended for window in state.windows} == {state.windows[0].ended}
        assert set(state.windows[0].cells) == {float(state.windows[0].ended)}
        seen += 1
    assert seen == 5


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level("INFO"):
        yield


def test_a_prediction_that_is_put_aside_is_the_very_one(host):
    prediction = Prediction("iris", "1.0.0", {}, {}, 1, "1", "http", 0.0, 0.0, 0.0)
    host.watches[0].predicted(prediction)
    assert host.watches[0]._waiting[-1] is prediction

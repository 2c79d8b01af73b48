"""What is counted, over processes and their deaths, and under which names Prometheus sees it."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.drift_report import ColumnReport, DriftReport
from appliance.errors import InvalidInput, NotFound, NotReady
from appliance.inference.version import LoadedVersion
from appliance.monitoring import counters, shared_cells
from appliance.monitoring.experiment_figures import STATES, ArmFigures, ExperimentFigures
from appliance.monitoring.metrics import Metrics
from appliance.monitoring.quality import state
from appliance.monitoring.quality.standing import Standing
from appliance.mqtt_state import MqttState
from appliance.predictor import Counts, Prediction, Predictor
from appliance.repository import ModelRepository, Served
from appliance.store.versions import Store

IRIS = {"model": "iris", "version": "1.0.0"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> LoadedVersion:
    store = Store(tmp_path_factory.mktemp("state"))
    installed = store.install(make_bundle(tmp_path_factory.mktemp("bundles")))
    return LoadedVersion(installed.folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def prediction(loaded: LoadedVersion, rows: int = 1, prepare: float = 0.001, run: float = 0.002) -> Prediction:
    return Prediction(loaded.name, loaded.version, {}, {}, rows, "1", "http", time.time(), prepare, run)


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def test_predictions_of_the_predictor_are_counted_with_their_rows_and_times(loaded, folder):
    metrics = Metrics(folder, 0)
    predictor = Predictor(ModelRepository(Store(folder)), [metrics.counters])
    for rows in (1, 3):
        predictor.run(loaded, {"features": np.ones((rows, 4), np.float32)})
    counts = metrics.counters.counts()["iris", "1.0.0"]
    assert (counts.successes, counts.failures, counts.rows) == (2, 0, 4)
    assert 0 < counts.run_seconds <= counts.request_seconds < 5
    assert counts.last > 1.7e9


def test_failures_are_counted_by_whose_fault_they_are(loaded, folder):
    metrics = Metrics(folder, 0)
    metrics.switched(Served("iris", "1.0.0", loaded))
    metrics.counters.failed("iris", "", InvalidInput("read the rows", "there are none"))
    metrics.counters.failed("iris", "1.0.0", NotReady("run", "no memory"), 0.5)
    metrics.counters.failed("iris", "1.0.0", NotReady("run", "no memory"), 0.25)
    assert value(metrics, "appliance_requests_total", **IRIS, outcome="caller_error") == 1
    assert value(metrics, "appliance_requests_total", **IRIS, outcome="service_error") == 2
    assert value(metrics, "nv_inference_request_failure", **IRIS) == 3
    assert metrics.counters.counts()["iris", "1.0.0"].failures == 3
    assert metrics.counters.counts()["iris", "1.0.0"].failure_seconds == 0.75


def test_names_that_callers_make_up_make_no_time_series(loaded, folder):
    metrics = Metrics(folder, 0)
    metrics.switched(Served("iris", "1.0.0", loaded))
    for number in range(50):
        metrics.counters.failed(f"made-up-{number}/../x", "1.0.0", NotFound("find", "unknown"))
        metrics.counters.failed("iris", f"{number + 2}.0.0", NotFound("find", "unknown"))
    assert set(metrics.counters.counts()) == {("iris", "1.0.0"), ("", ""), ("iris", "")}
    assert metrics.counters.counts()["", ""].failures == metrics.counters.counts()["iris", ""].failures == 50


def test_every_name_of_a_histogram_adds_up(loaded, folder):
    metrics = Metrics(folder, 0)
    for run in (0.000005, 0.00001, 0.00002, 0.3, 60.0):
        metrics.counters.predicted(prediction(loaded, prepare=0.0, run=run))
    found = {
        float(dict(labels)["le"]): number
        for (name, labels), number in samples(metrics).items()
        if name == "appliance_run_seconds_bucket"
    }
    assert found[1e-05] == 2  # a bound belongs to its bucket
    assert found[2.5e-05] == 3
    assert found[0.5] == 4
    assert found[float("inf")] == 5
    assert [found[bound] for bound in sorted(found)] == sorted(found.values())
    assert value(metrics, "appliance_run_seconds_count", **IRIS) == 5
    assert value(metrics, "appliance_run_seconds_sum", **IRIS) == pytest.approx(60.300035)


def test_other_dashboards_find_their_names(loaded, folder):
    metrics = Metrics(folder, 0)
    metrics.counters.predicted(prediction(loaded, rows=7))
    assert value(metrics, "nv_inference_request_success", **IRIS) == 1
    assert value(metrics, "nv_inference_count", **IRIS) == 7
    assert value(metrics, "nv_inference_exec_count", **IRIS) == 1
    assert value(metrics, "nv_inference_request_duration_us", **IRIS) == pytest.approx(3000)
    assert value(metrics, "model_infer_request_success_total", **IRIS) == 1
    assert value(metrics, "model_infer_request_failure_total", **IRIS) == 0
    assert value(metrics, "model_infer_request_duration_count", **IRIS) == 1
    assert value(metrics, "model_infer_request_duration_sum", **IRIS) == pytest.approx(0.003)


def test_a_scrape_of_any_process_gives_the_sum_of_all(loaded, folder):
    processes = [Metrics(folder, slot) for slot in range(3)]
    for number, metrics in enumerate(processes, 1):
        for _ in range(number):
            metrics.counters.predicted(prediction(loaded, rows=2))
    for metrics in processes:
        assert value(metrics, "appliance_requests_total", **IRIS, outcome="success") == 6
        assert value(metrics, "appliance_prediction_rows_total", **IRIS) == 12
        assert metrics.counters.counts()["iris", "1.0.0"].request_seconds == pytest.approx(6 * 0.003)


def _count_and_die(folder: Path, loaded_folder: Path, number: int) -> None:
    loaded = LoadedVersion(loaded_folder)
    metrics = Metrics(folder, 1)
    for _ in range(number):
        metrics.counters.predicted(prediction(loaded))
    os._exit(9)


def test_counters_do_not_go_back_when_a_process_dies_and_is_started_again(
    loaded, folder, tmp_path_factory, make_bundle
):
    installed = Store(tmp_path_factory.mktemp("state")).install(make_bundle(tmp_path_factory.mktemp("bundles")))
    survivor = Metrics(folder, 0)
    survivor.counters.predicted(prediction(loaded))
    spawn = multiprocessing.get_context("spawn")
    for total in (11, 21):
        process = spawn.Process(target=_count_and_die, args=(folder, installed.folder, 10))
        process.start()
        process.join(60)
        assert process.exitcode == 9
        assert survivor.counters.counts()["iris", "1.0.0"].successes == total


def test_threads_lose_no_count(loaded, folder):
    metrics = Metrics(folder, 0)

    def count() -> None:
        for _ in range(2000):
            metrics.counters.predicted(prediction(loaded))

    threads = [Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.counters.counts()["iris", "1.0.0"].successes == 8000


def test_without_a_folder_one_process_counts_in_memory(loaded):
    metrics = Metrics()
    metrics.counters.predicted(prediction(loaded, rows=5))
    metrics.switched(Served("iris", "1.0.0", loaded))
    assert metrics.counters.counts()["iris", "1.0.0"].rows == 5
    assert value(metrics, "appliance_active_version_info", **IRIS) == 1


def test_the_active_version_is_shown_and_its_series_begin_at_zero(loaded, folder):
    metrics = Metrics(folder, 0)
    metrics.switched(Served("iris", "1.0.0", loaded))
    assert value(metrics, "appliance_active_version_info", **IRIS) == 1
    assert value(metrics, "appliance_model_problem", model="iris") == 0
    assert value(metrics, "appliance_requests_total", **IRIS, outcome="success") == 0


def test_a_version_that_cannot_be_loaded_is_a_problem_beside_the_one_that_still_serves(loaded, folder):
    one, other = Metrics(folder, 0), Metrics(folder, 1)
    one.switched(Served("iris", "2.0.0", loaded, NotReady("load the ONNX graph", "no memory")))
    other.switched(Served("iris", "1.0.0", loaded))
    assert value(other, "appliance_model_problem", model="iris") == 1
    assert value(other, "appliance_active_version_info", **IRIS) == 1


def test_a_removed_model_is_shown_no_more(loaded, folder):
    metrics = Metrics(folder, 0)
    metrics.switched(Served("iris", "1.0.0", loaded))
    metrics.switched(Served("iris", None, None))
    assert value(metrics, "appliance_active_version_info", **IRIS) is None
    assert value(metrics, "appliance_model_problem", model="iris") is None


def test_a_restarted_process_shows_nothing_of_what_its_predecessor_served(loaded, folder):
    Metrics(folder, 0).switched(Served("iris", "1.0.0", loaded))
    assert value(Metrics(folder, 0), "appliance_active_version_info", **IRIS) is None


def test_counting_goes_on_in_memory_when_the_folder_is_lost(loaded, tmp_path):
    folder = tmp_path / "runtime"
    folder.mkdir()
    metrics = Metrics(folder, 0)
    (folder / "0.serving").unlink()
    folder.rmdir()
    metrics.counters.predicted(prediction(loaded))
    metrics.switched(Served("iris", "1.0.0", loaded))
    metrics.counters.failed("iris", "1.0.0", InvalidInput("read", "no"))
    assert metrics.exposition()  # still an answer, if an empty one


def test_a_file_that_is_being_made_is_passed_over(folder):
    (folder / "3@iris@1.0.0.counts").write_bytes(b"\0" * 8)
    assert Metrics(folder, 0).counters.counts() == {}


def test_versions_with_every_kind_of_semver_are_told_apart(folder):
    for version in ("1.0.0", "1.0.0-rc.1", "1.0.0+build.5"):
        shared_cells.open_cells(folder, 0, ("a.b-c_d", version), counters.LAYOUT)[counters.SUCCESSES] += 1
    assert set(Metrics(folder, 0).counters.counts()) == {
        ("a.b-c_d", "1.0.0"),
        ("a.b-c_d", "1.0.0-rc.1"),
        ("a.b-c_d", "1.0.0+build.5"),
    }


def test_counts_of_nothing_are_zero():
    assert Metrics().counters.counts() == {}
    assert Counts() == Counts(0, 0, 0, 0.0, 0.0, 0.0, 0.0)


def test_requests_that_share_a_run_each_count_and_the_run_counts_once(loaded, folder):
    metrics = Metrics(folder, 0)
    shared = [(str(number), 1) for number in range(20)]
    metrics.counters.predicted(Prediction("iris", "1.0.0", {}, {}, 20, "0", "mqtt", time.time(), 0.001, 0.002, shared))
    assert value(metrics, "nv_inference_request_success", **IRIS) == 20
    assert value(metrics, "nv_inference_exec_count", **IRIS) == 1
    assert value(metrics, "appliance_request_seconds_count", **IRIS) == 20
    assert value(metrics, "appliance_request_seconds_sum", **IRIS) == pytest.approx(0.06)
    assert value(metrics, "appliance_run_seconds_count", **IRIS) == 1


def test_every_process_tells_of_the_mqtt_door_that_one_of_them_has(folder):
    one, other = Metrics(folder, 0), Metrics(folder, 1)
    assert other.mqtt.read() is None
    one.mqtt.write(MqttState(connected={"local": True, "upstream": False}, problems=["away"], received=7, sent=5))
    assert value(other, "appliance_mqtt_received_total") == 7
    assert value(other, "appliance_mqtt_connected", broker="upstream") == 0
    assert value(other, "appliance_mqtt_problems") == 1


def test_refusals_are_counted_by_column_and_reason_over_all_processes(loaded, folder):
    one, other = Metrics(folder, 0), Metrics(folder, 1)
    for metrics in (one, other):
        metrics.switched(Served("iris", "1.0.0", loaded))
    schema = loaded.schema
    row = [1.0, 2.0, 3.0, 4.0]
    for metrics, bad in (
        (one, [row, [1.0, None, 3.0, 4.0]]),
        (other, [[1.0, None, 3.0, 4.0]]),
        (one, [[1.0, 2.0, 3.0, "4"]]),
    ):
        with pytest.raises(InvalidInput) as refused:
            schema.from_rows(bad)
        metrics.counters.failed("iris", "", refused.value)
    second, fourth = schema.columns[1], schema.columns[3]
    for metrics in (one, other):
        assert value(metrics, "appliance_refused_values_total", **IRIS, column=second, reason="missing") == 2
        assert value(metrics, "appliance_refused_values_total", **IRIS, column=fourth, reason="type") == 1
    one.counters.failed("iris", "1.0.0", InvalidInput("", "", column="made up", reason="missing"))
    one.counters.failed("nobody", "", InvalidInput("", "", column=second, reason="missing"))
    one.counters.failed("iris", "1.0.0", NotReady("", ""))
    assert sum(one.counters.refusals.counts()["iris", "1.0.0"].values()) == 3


def test_drift_is_told_of_the_worst_hundred_columns(folder):
    columns = [
        ColumnReport(column=f"c{number}", role="input", state="fine", psi={"training": 0.01, "device": 0.02})
        for number in range(150)
    ]
    columns.append(ColumnReport(column="bad", role="input", state="drift", psi={"training": 0.4}))
    columns.append(ColumnReport(column="new", role="output", state="too few rows"))
    metrics = Metrics(folder, 0)
    metrics.drift = lambda: [DriftReport(model="iris", version="1.0.0", columns=columns)]
    assert value(metrics, "appliance_drift_state", **IRIS, column="bad") == 2
    assert value(metrics, "appliance_drift_psi", **IRIS, column="bad", reference="training") == 0.4
    assert value(metrics, "appliance_drift_psi", **IRIS, column="c0", reference="device") == 0.02
    assert len([1 for name, _ in samples(metrics) if name == "appliance_drift_state"]) == 100
    assert value(metrics, "appliance_estimated_accuracy", **IRIS) is None


def test_the_documentation_has_every_metric_with_its_type_and_labels_and_no_other(loaded, folder):
    column = ColumnReport(column="a", role="input", state="watch", psi={"training": 0.15})
    report = DriftReport(model="iris", version="1.0.0", estimated_accuracy=0.9, columns=[column])
    arms = [ArmFigures("1.0.0", 0.95, 950, 1, 0, 0), ArmFigures("2.0.0", 0.05, 50, 2, 3, 4)]
    evidence = {("2.0.0", "failures"): 0.5}
    canary = ExperimentFigures("iris", 2, "wait", arms, ("2.0.0", 1.0), {"agreement": 0.75}, evidence)
    (folder / "log" / "iris").mkdir(parents=True)
    window = state.Window("1.0.0", "", "2026-01-01", ["a"], {"rows": 2.0, "labelled": 1.0, "table:0:0": 1.0})
    state.write(
        folder,
        "iris",
        state.State(windows=[window], counts={"matched": 1}, standings={"1.0.0": Standing("worse", "2026-01-01")}),
    )
    metrics = Metrics(folder, 0, state_dir=folder)
    metrics.experiments = lambda: [canary]
    metrics.drift = lambda: [report]
    metrics.switched(Served("iris", "1.0.0", loaded))
    metrics.mqtt.write(MqttState(connected={"local": True}, problems=[], refused={"payload": 1}))
    metrics.counters.failed("iris", "", InvalidInput("", "", column=loaded.schema.columns[0], reason="missing"))
    metrics.log.dropped("iris", "1.0.0", "disk", 1)
    exposed = {}
    for line in metrics.exposition().decode().splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            exposed[name] = kind
    document = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in document.splitlines() if "| `" in line]
    assert {name.strip("`"): kind for name, kind, _, _ in table} == exposed
    labels = {name: set() for name in exposed}
    for name, sample_labels in samples(metrics):
        family = next(known for known in (name, name.rpartition("_")[0]) if known in exposed)
        labels[family] |= set(dict(sample_labels)) - {"le"}
    assert {name.strip("`"): set(filter(None, named.split(", "))) for name, _, named, _ in table} == labels
    assert value(metrics, "appliance_experiment_step", model="iris") == 2
    arm = {"model": "iris", "version": "2.0.0"}
    assert value(metrics, "appliance_experiment_share", **arm, role="arm") == 0.05
    counted = [value(metrics, f"appliance_experiment_{name}", **arm) for name in ("requests", "failures", "slow_runs")]
    assert [*counted, value(metrics, "appliance_experiment_nan", **arm)] == [50, 2, 3, 4]
    assert value(metrics, "appliance_experiment_compared", **arm, figure="agreement") == 0.75
    assert value(metrics, "appliance_experiment_log_evidence", **arm, test="failures") == 0.5
    states = {one: value(metrics, "appliance_experiment_verdict", model="iris", state=one) for one in STATES}
    assert [state for state, holds in states.items() if holds] == ["wait"]

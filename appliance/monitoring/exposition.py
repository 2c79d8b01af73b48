"""The names of the counters in Prometheus: our own, and those of other servers' dashboards.

Triton's names and labels: github.com/triton-inference-server/server, docs/user_guide/metrics.md. MLServer's:
mlserver/handlers/dataplane.py. A Triton counter has no `_total`, which the text format's client library always gives a
counter, so those are declared untyped; Prometheus stores both alike.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
    UntypedMetricFamily,
)
from prometheus_client.registry import Collector

from appliance import __version__
from appliance.drift_report import STATES, DriftReport
from appliance.monitoring.counters import (
    BOUNDS,
    CALLER_ERRORS,
    LAST,
    REQUEST_BUCKETS,
    REQUEST_SECONDS,
    ROWS,
    RUN_BUCKETS,
    RUN_SECONDS,
    RUNS,
    SERVICE_ERRORS,
    SUCCESSES,
)
from appliance.monitoring.experiment_families import families
from appliance.monitoring.experiment_figures import ExperimentFigures
from appliance.monitoring.log_counters import LogFigures
from appliance.monitoring.quality.report import QualityFigures
from appliance.monitoring.refusals import Refused
from appliance.monitoring.serving import Serving
from appliance.monitoring.shared_cells import Key
from appliance.mqtt_state import MqttState
from appliance.store.condition import Condition

Sums = dict[Key, list[float]]

_VERSION = ("model", "version")
MOST_COLUMNS = 100
"""The most columns of a version with series of their own: each series takes memory in Prometheus."""
_OUTCOMES = {"success": SUCCESSES, "caller_error": CALLER_ERRORS, "service_error": SERVICE_ERRORS}


def text(
    sums: Sums,
    serving: Iterable[dict[str, Serving]],
    mqtt: MqttState | None = None,
    state: Condition | None = None,
    refused: Mapping[Key, Refused] = MappingProxyType({}),
    log: LogFigures | None = None,
    experiments: Sequence[ExperimentFigures] = (),
    drift: Sequence[DriftReport] = (),
    quality: Mapping[str, QualityFigures] = MappingProxyType({}),
) -> bytes:
    """Return the Prometheus text format 0.0.4: cells, what serves, the MQTT listener, the state folder, the log.

    `refused` are the refusals of each version by column and reason; `experiments` those that run;
    `drift` is of the versions that are watched.
    """
    registry = CollectorRegistry(auto_describe=False)
    served = (*_states(serving), *families(experiments), *_state_folder(state))
    watched = (_refused(refused), *_drift(drift), *_quality(quality))
    own = (*_own(sums), *watched, *served, *_mqtt(mqtt), *_log(log))
    registry.register(_Snapshot([*own, *_triton(sums), *_mlserver(sums)]))
    return generate_latest(registry)


class _Snapshot(Collector):
    """Metric families that were computed already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """Return the families."""
        return self._families


def _own(sums: Sums) -> Iterator[Metric]:
    """Return our own counters and times."""
    requests = CounterMetricFamily("appliance_requests", "Requests by how they ended.", labels=(*_VERSION, "outcome"))
    for key, cells in sums.items():
        for outcome, cell in _OUTCOMES.items():
            requests.add_metric((*key, outcome), cells[cell])
    yield requests
    rows = CounterMetricFamily("appliance_prediction_rows", "Rows predicted.", labels=_VERSION)
    last = GaugeMetricFamily(
        "appliance_last_prediction_timestamp_seconds", "Unix time of the last prediction, 0 before it.", labels=_VERSION
    )
    for key, cells in sums.items():
        rows.add_metric(key, cells[ROWS])
        last.add_metric(key, cells[LAST])
    yield rows
    yield last
    help_ = "From a request's arrival to its outputs, of requests that were answered."
    yield _histogram("appliance_request_seconds", help_, sums, REQUEST_BUCKETS, REQUEST_SECONDS)
    yield _histogram("appliance_run_seconds", "Of the ONNX graph alone.", sums, RUN_BUCKETS, RUN_SECONDS)


def _drift(reports: Sequence[DriftReport]) -> Iterator[Metric]:
    """Return the drift of each version, of its MOST_COLUMNS worst columns."""
    index = GaugeMetricFamily(
        "appliance_drift_psi",
        "Population stability index of the last window, in bins at training's quantiles.",
        labels=(*_VERSION, "column", "reference"),
    )
    help_ = "0 fine, 1 watch, 2 drift, 3 too few rows."
    states = GaugeMetricFamily("appliance_drift_state", help_, labels=(*_VERSION, "column"))
    accuracy = GaugeMetricFamily(
        "appliance_estimated_accuracy", "That calibrated probabilities of the last window let expect.", labels=_VERSION
    )
    for report in reports:
        key = (report.model, report.version)
        worst = [*report.drifting(), *(one for one in report.columns if one.state not in ("watch", "drift"))]
        for column in worst[:MOST_COLUMNS]:
            states.add_metric((*key, column.column), STATES.index(column.state))
            for reference, value in column.psi.items():
                index.add_metric((*key, column.column, reference), value)
        if report.estimated_accuracy is not None:
            accuracy.add_metric(key, report.estimated_accuracy)
    yield from (index, states, accuracy)


def _refused(refused: Mapping[Key, Refused]) -> Metric:
    """Return the refusals by column and reason, of the MOST_COLUMNS that were refused most often."""
    labels = (*_VERSION, "column", "reason")
    family = CounterMetricFamily("appliance_refused_values", "Requests refused because of a column.", labels=labels)
    for key, counts in refused.items():
        by_column: dict[str, float] = {}
        for (column, _), count in counts.items():
            by_column[column] = by_column.get(column, 0) + count
        most = set(sorted(by_column, key=lambda column: -by_column[column])[:MOST_COLUMNS])
        for (column, reason), count in counts.items():
            if column in most:
                family.add_metric((*key, column, reason), count)
    return family


def _histogram(name: str, documentation: str, sums: Sums, first_bucket: int, total: int) -> Metric:
    """Return one histogram per version from its plain (not cumulative) buckets."""
    family = HistogramMetricFamily(name, documentation, labels=_VERSION)
    bounds = [*map(str, BOUNDS), "+Inf"]
    for key, cells in sums.items():
        below = 0.0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip(bounds, cells[first_bucket:], strict=False):
            below += count
            buckets.append((bound, below))
        family.add_metric(key, buckets, cells[total])
    return family


def _states(serving: Iterable[dict[str, Serving]]) -> Iterator[Metric]:
    """Return what is served now, by any process."""
    problems: dict[str, bool] = {}
    active: set[Key] = set()
    for models in serving:
        for model, state in models.items():
            problems[model] = problems.get(model, False) or bool(state.problem)
            if state.version is not None:
                active.add((model, state.version))
    info = GaugeMetricFamily("appliance_active_version_info", "1 for each version that answers.", labels=_VERSION)
    for key in sorted(active):
        info.add_metric(key, 1)
    yield info
    help_ = "1 while the version that the store wants active cannot serve, else 0."
    problem = GaugeMetricFamily("appliance_model_problem", help_, labels=("model",))
    for model, bad in sorted(problems.items()):
        problem.add_metric((model,), float(bad))
    yield problem
    build = GaugeMetricFamily("appliance_build_info", "1; the label says which program runs.", labels=("version",))
    build.add_metric((__version__,), 1)
    yield build


def _state_folder(state: Condition | None) -> Iterator[Metric]:
    """Return the state of the state folder; without a value if it was not checked."""
    help_ = "1 while the state folder can be written, else 0; what is installed is served all the same."
    family = GaugeMetricFamily("appliance_state_folder_writable", help_)
    if state is not None:
        family.add_metric((), float(not state.hindrance))
    yield family
    free = GaugeMetricFamily("appliance_disk_free_bytes", "Bytes that are free for the state folder.")
    if state is not None and state.free_bytes is not None:
        free.add_metric((), state.free_bytes)
    yield free


def _mqtt(state: MqttState | None) -> Iterator[Metric]:
    """Return what the MQTT listener reports; nothing where there is none."""
    if state is None:
        return
    connected = GaugeMetricFamily("appliance_mqtt_connected", "1 while the broker is connected.", labels=("broker",))
    for broker, up in state.connected.items():
        connected.add_metric((broker,), float(up))
    yield connected
    refused = CounterMetricFamily("appliance_mqtt_refused", "Bad messages by reason.", labels=("reason",))
    for reason, count in state.refused.items():
        refused.add_metric((reason,), count)
    yield refused
    counted = {
        "received": ("Messages that arrived, repeats among them.", state.received),
        "answered": ("Messages that were answered.", state.answered),
        "sent": ("Answers that a broker acknowledged.", state.sent),
        "replayed": ("Answers that were sent late or again.", state.replayed),
        "dropped": ("Answers that the outbox's policy dropped.", state.dropped),
    }
    for name, (documentation, number) in counted.items():
        yield CounterMetricFamily(f"appliance_mqtt_{name}", documentation, value=number)
    now = {
        "outbox_answers": ("Answers on disk that no broker has acknowledged.", state.waiting),
        "outbox_bytes": ("Bytes of the answers on disk.", state.waiting_bytes),
        "parked_messages": ("Messages on disk whose model is not ready.", state.parked),
        "problems": ("What keeps messages from being answered or answers from being sent.", len(state.problems)),
    }
    for name, (documentation, number) in now.items():
        yield GaugeMetricFamily(f"appliance_mqtt_{name}", documentation, value=number)


def _log(log: LogFigures | None) -> Iterator[Metric]:
    """Return the prediction log's figures; without values if they are unknown."""
    help_ = "Rows that are not in the prediction log, by why: it has a gap line for them."
    dropped = CounterMetricFamily("appliance_prediction_log_dropped", help_, labels=(*_VERSION, "reason"))
    for key, by_reason in (log.dropped if log else {}).items():
        for reason, rows in by_reason.items():
            dropped.add_metric((*key, reason), rows)
    yield dropped
    size = GaugeMetricFamily("appliance_prediction_log_bytes", "Bytes of the prediction log on disk.")
    if log and log.bytes is not None:
        size.add_metric((), log.bytes)
    yield size


def _quality(models: Mapping[str, QualityFigures]) -> Iterator[Metric]:
    """Return the quality of each model's versions by their labels, over all days that are kept."""
    help_ = "Labels by what came of them: matched, repeated, changed, late, unknown."
    labels = CounterMetricFamily("appliance_labels", help_, labels=("model", "outcome"))
    for model, found in sorted(models.items()):
        for outcome, count in found.labels.items():
            labels.add_metric((model, outcome), count)
    yield labels
    help_ = "What labels say of a version: coverage, accuracy, f1_macro, log_loss, brier, auc, mae, rmse, bias, r2."
    figures = GaugeMetricFamily("appliance_quality", help_, labels=(*_VERSION, "figure"))
    for model, found in sorted(models.items()):
        for version, by_name in found.figures.items():
            for name, value in by_name.items():
                figures.add_metric((model, version, name), value)
    yield figures
    help_ = "1 where labels say that a version is worse than its own past, else 0; absent with too few labels."
    worse = GaugeMetricFamily("appliance_quality_worse", help_, labels=_VERSION)
    for model, found in models.items():
        for version, value in found.worse.items():
            worse.add_metric((model, version), float(value))
    yield worse


def _triton(sums: Sums) -> Iterator[Metric]:
    """Return the counters under Triton's names."""
    names: dict[str, tuple[str, tuple[int, ...], float]] = {
        "nv_inference_request_success": ("Requests answered.", (SUCCESSES,), 1),
        "nv_inference_request_failure": ("Requests not answered.", (CALLER_ERRORS, SERVICE_ERRORS), 1),
        "nv_inference_count": ("Rows predicted.", (ROWS,), 1),
        "nv_inference_exec_count": ("Runs of the ONNX graph.", (RUNS,), 1),
        "nv_inference_request_duration_us": ("Time of answered requests in microseconds.", (REQUEST_SECONDS,), 1e6),
    }
    for name, (documentation, taken, scale) in names.items():
        family = UntypedMetricFamily(name, documentation, labels=_VERSION)
        for key, cells in sums.items():
            family.add_metric(key, scale * sum(cells[cell] for cell in taken))
        yield family


def _mlserver(sums: Sums) -> Iterator[Metric]:
    """Return the counters under MLServer's names."""
    success = CounterMetricFamily("model_infer_request_success", "Requests answered.", labels=_VERSION)
    failure = CounterMetricFamily("model_infer_request_failure", "Requests not answered.", labels=_VERSION)
    duration = SummaryMetricFamily("model_infer_request_duration", "Seconds of answered requests.", labels=_VERSION)
    for key, cells in sums.items():
        success.add_metric(key, cells[SUCCESSES])
        failure.add_metric(key, cells[CALLER_ERRORS] + cells[SERVICE_ERRORS])
        duration.add_metric(key, int(cells[SUCCESSES]), cells[REQUEST_SECONDS])
    yield from (success, failure, duration)

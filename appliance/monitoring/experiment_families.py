"""The names that the figures of experiments have in Prometheus."""

from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from appliance.monitoring.experiment_figures import STATES, ExperimentFigures

_VERSION = ("model", "version")


def families(running: Sequence[ExperimentFigures]) -> Iterator[Metric]:
    """Return the metric families of the experiments that run; nothing where none does."""
    if not running:
        return
    yield from (_shares(running), _steps(running), *_counts(running), _compared(running))
    yield from (_evidence(running), _verdicts(running))


def _shares(running: Sequence[ExperimentFigures]) -> Metric:
    family = GaugeMetricFamily(
        "appliance_experiment_share",
        "Share of the requests that a version answers while an experiment runs, or as shadow is asked beside.",
        labels=(*_VERSION, "role"),
    )
    for one in running:
        for arm in one.arms:
            family.add_metric((one.model, arm.version, "arm"), arm.share)
        if one.shadow:
            family.add_metric((one.model, one.shadow[0], "shadow"), one.shadow[1])
    return family


def _steps(running: Sequence[ExperimentFigures]) -> Metric:
    family = GaugeMetricFamily("appliance_experiment_step", "Step of a canary, 0 while it shadows.", labels=("model",))
    for one in running:
        family.add_metric((one.model,), one.step)
    return family


def _counts(running: Sequence[ExperimentFigures]) -> Iterator[Metric]:
    """Return what each arm did in the step that runs: gauges, since they begin again with each step."""
    told = {
        "requests": "Requests that an arm took in the step that runs.",
        "failures": "Those of them that it did not answer.",
        "slow_runs": "Those of its runs that were slow, by the active version's times.",
        "nan": "Requests that it answered with NaN.",
    }
    for name, help_ in told.items():
        family = GaugeMetricFamily(f"appliance_experiment_{name}", help_, labels=_VERSION)
        for one in running:
            for arm in one.arms:
                family.add_metric((one.model, arm.version), getattr(arm, name))
        yield family


def _compared(running: Sequence[ExperimentFigures]) -> Metric:
    help_ = "Of a shadow: requests, rows, dropped_requests; agreement, a share of the rows; errors that it alone has."
    family = GaugeMetricFamily("appliance_experiment_compared", help_, labels=(*_VERSION, "figure"))
    for one in running:
        for name, value in one.compared.items():
            family.add_metric((one.model, one.shadow[0] if one.shadow else "", name), value)
    return family


def _evidence(running: Sequence[ExperimentFigures]) -> Metric:
    help_ = "Natural logarithm of a test's evidence that a version is worse, over all steps; 4.6 acts at alpha 0.01."
    family = GaugeMetricFamily("appliance_experiment_log_evidence", help_, labels=(*_VERSION, "test"))
    for one in running:
        for (version, test), log_e in one.log_e.items():
            family.add_metric((one.model, version, test), log_e)
    return family


def _verdicts(running: Sequence[ExperimentFigures]) -> Metric:
    help_ = f"1 for the state of the verdict, of: {', '.join(STATES)}."
    family = GaugeMetricFamily("appliance_experiment_verdict", help_, labels=("model", "state"))
    for one in running:
        for state in STATES:
            family.add_metric((one.model, state), float(one.verdict == state))
    return family

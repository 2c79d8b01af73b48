"""Logged rows are asked of a version again: the same version agrees, another one is compared, and labels judge both."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from appliance.cli import appliance as command
from appliance.experiments.evidence import log_evidence
from appliance.inference.session import Session


def run(service, *arguments: object):
    texts = ["replay", "iris", *map(str, arguments), "--state-dir", str(service.state)]
    return CliRunner().invoke(command, texts)


def result(service, *arguments: object) -> dict:
    done = run(service, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def rows(count: int, seed: int = 0) -> list:
    return np.round(np.random.default_rng(seed).normal(2, 2, (count, 4)), 2).tolist()


@pytest.mark.parametrize("kind", ["labels", "classifier", "regression", "gaps"])
def test_the_version_that_answered_agrees_with_itself_in_batches(start_logged, kind):
    service = start_logged(("iris", "1.0.0", kind))
    for row in rows(20):
        service.predict(row)
    service.predict(rows(300, 1))  # kept by a stride
    if kind == "gaps":
        service.predict([[1, None, 3, 4]])
    service.stop()
    found = result(service, "--version", "1.0.0")
    kept = len([line for line in service.lines() if "error" not in line])
    assert found["rows"] == kept >= 170
    assert found["agreement"] == 1.0
    assert found["same_version"] == {"rows": kept, "beyond_tolerance": 0}
    assert found["difference"]["1"] < 1e-5
    assert found["truth"] == {"rows": 0}


def test_rows_of_a_table_are_replayed_by_name(start_logged):
    service = start_logged(("iris", "1.0.0", "table"))
    service.predict([{"temp-C": 1.5, "count": 2**40 + 1, "site": "north", "on": True}])
    service.stop()
    assert result(service, "--version", "1.0.0")["agreement"] == 1.0


def test_another_version_is_compared_row_by_row(start_logged, make_bundle, tmp_path):
    service = start_logged(("iris", "2.0.0", "labels"), ("iris", "1.0.0", "labels"))
    service.predict(rows(200))
    service.stop()
    file = tmp_path / "diff.jsonl"
    run(service, "--version", "2.0.0", "-o", file)
    found = result(service, "--version", "2.0.0")
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert found["rows"] == len(told) == 200
    assert found["same_version"]["rows"] == 0
    assert 0 < found["agreement"] < 1
    assert found["agreement"] == sum(one["_logged"] == one["_replayed"] for one in told) / 200
    assert found["agreement"] == sum(one["_alike"] for one in told) / 200
    assert sum(map(sum, found["table"])) == 200
    assert found["labels"] == ["setosa", "versicolor", "virginica"]
    differing = sorted((one["_difference"] for one in told), reverse=True)
    assert [one["_difference"] for one in found["worst_rows"]] == differing[:20]


def test_with_labels_the_better_version_is_proved_and_without_a_difference_nothing_is(start_logged):
    service = start_logged(("iris", "2.0.0", "regression"), ("iris", "1.0.0", "regression"))
    answer = service.predict(rows(60), X_Request_Id="r")
    truth = [{"id": f"r.{n}", "label": value + 95} for n, value in enumerate(answer["prediction"])]
    assert service.ask("POST", "/models/iris/feedback", {"labels": truth})[0] == 202
    service.stop()
    better = result(service, "--version", "2.0.0")["truth"]
    assert better["better"] == "replayed"
    assert better["logged"]["mean_absolute_error"] == pytest.approx(95, abs=1e-3)
    assert better["replayed"]["mean_absolute_error"] == pytest.approx(5, abs=1e-3)
    assert better["replayed"]["better_rows"] == 60
    same = result(service, "--version", "1.0.0")["truth"]
    assert same["better"] is None
    assert "2.0.0 is better" in run(service, "--version", "2.0.0").stdout


def test_a_host_that_computes_otherwise_than_it_did_is_told_by_exit_code_3(start_logged, monkeypatch):
    service = start_logged(("iris", "1.0.0", "regression"))
    service.predict(rows(10))
    service.stop()
    real = Session.run
    selftest_rows = 5

    def wrong(self, feeds, names):
        answers = real(self, feeds, names)
        return answers if len(answers[0]) == selftest_rows else [one + np.float32(0.5) for one in answers]

    monkeypatch.setattr(Session, "run", wrong)
    done = run(service, "--version", "1.0.0")
    assert done.exit_code == 3
    assert "10 of 10 rows are beyond the tolerance" in done.output


def test_what_is_not_in_the_log_as_it_was_sent_is_refused_with_the_reason(start_logged):
    service = start_logged(("iris", "1.0.0", "labels"), columns={"petal_width": "drop"})
    service.predict([1, 2, 3, 4])
    service.stop()
    done = run(service, "--version", "1.0.0")
    assert (done.exit_code, "petal_width = drop" in done.output) == (3, True), done.output
    assert run(service, "--version", "9.0.0").exit_code == 4
    assert run(service, "--version", "1.0.0", "--until", "2020-01-01").exit_code == 4


@pytest.mark.parametrize(("one", "other"), [(0, 0), (3, 4), (0, 12), (40, 10)])
def test_the_evidence_is_the_integral_over_all_probabilities(one, other):
    shares = (np.arange(200_000) + 0.5) / 200_000
    mixture = np.mean(shares**one * (1 - shares) ** other)
    assert log_evidence(one, other, 0.5) == pytest.approx(math.log(mixture * 2.0 ** (one + other)), abs=1e-6)

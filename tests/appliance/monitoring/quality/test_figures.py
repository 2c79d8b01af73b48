"""The figures of sums are those that scikit-learn computes of the rows; where coverage is uneven they are weighted."""

import math

import numpy as np
import pytest
from sklearn import metrics

from appliance.errors import InvalidInput
from appliance.labels import GivenLabel, like, of_csv, of_document
from appliance.monitoring.quality import figures, sums

CLASSES = ["a", "b", "c"]


def summed(answers, probabilities, truths, classes=CLASSES, unlabelled=()):
    """Return the sums of labelled rows, and of others without a label."""
    total: sums.Sums = {}
    for answer in [*answers, *unlabelled]:
        sums.add(total, sums.predicted(answer, classes))
    for answer, chances, truth in zip(answers, probabilities, truths, strict=True):
        sums.add(total, sums.labelled_class(answer, chances, truth, classes, 60.0))
    return total


def drawn(seed: int, classes=CLASSES, rows: int = 400):
    rng = np.random.default_rng(seed)
    truths = rng.integers(0, len(classes), rows)
    scores = rng.normal(size=(rows, len(classes)))
    scores[np.arange(rows), truths] += 1.0
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    answers = chances.argmax(axis=1)
    return [classes[one] for one in answers], chances.tolist(), [classes[one] for one in truths]


@pytest.mark.parametrize("classes", [CLASSES, ["no", "yes"], [0, 1, 2, 3]])
def test_figures_of_a_classifier_are_scikit_learns(classes):
    answers, chances, truths = drawn(1, classes)
    found = figures.report(summed(answers, chances, truths, classes), classes)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truths, answers))
    assert found["f1_macro"] == pytest.approx(metrics.f1_score(truths, answers, average="macro"))
    assert found["f1_weighted"] == pytest.approx(metrics.f1_score(truths, answers, average="weighted"))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(truths, chances, labels=classes))
    onehot = np.array([[one == name for name in classes] for one in truths], float)
    assert found["brier"] == pytest.approx(float(((np.array(chances) - onehot) ** 2).sum(axis=1).mean()))
    exact = (
        metrics.roc_auc_score([one == classes[1] for one in truths], np.array(chances)[:, 1])
        if len(classes) == 2
        else metrics.roc_auc_score(truths, chances, multi_class="ovr")
    )
    assert found["auc"] == pytest.approx(exact, abs=0.01)
    table = metrics.confusion_matrix(truths, answers, labels=classes)
    assert found["table"] == table.tolist()
    recall = metrics.recall_score(truths, answers, average=None, labels=classes)
    assert [one["recall"] for one in found["classes"]] == pytest.approx(recall.tolist())
    low, high = found["interval"]
    assert low < found["accuracy"] < high


def test_wilsons_interval_is_the_published_one():
    assert figures.wilson(8, 10) == pytest.approx([0.4901625, 0.9433178], abs=1e-6)  # R: binom.confint, wilson
    assert figures.wilson(0, 0) is None


def test_figures_of_a_regressor_are_scikit_learns():
    rng = np.random.default_rng(2)
    truths = rng.normal(10, 3, 500)
    answers = truths + rng.normal(0.5, 1, 500)
    total: sums.Sums = {}
    for answer, truth in zip(answers.tolist(), truths.tolist(), strict=True):
        sums.add(total, sums.predicted(answer, []))
        sums.add(total, sums.labelled_number(answer, truth, (1.0, 0.0), 5.0))
    found = figures.report(total, [])
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truths, answers))
    assert found["rmse"] == pytest.approx(math.sqrt(metrics.mean_squared_error(truths, answers)))
    assert found["r2"] == pytest.approx(metrics.r2_score(truths, answers))
    assert found["bias"] == pytest.approx(float((answers - truths).mean()))
    assert found["within_tolerance"] == pytest.approx(float((abs(answers - truths) <= 1).mean()))
    sizes = abs(answers - truths)
    for level, value in found["error"].items():
        assert value == pytest.approx(float(np.quantile(sizes, float(level))), rel=0.06)
    assert found["coverage"]["median_delay_seconds"] == pytest.approx(5, rel=0.06)


def test_a_label_that_is_taken_out_leaves_no_trace():
    answers, chances, truths = drawn(3, rows=50)
    total = summed(answers, chances, truths)
    before = dict(total)
    sums.add(total, sums.labelled_class("a", [0.5, 0.25, 0.25], "c", CLASSES, 9.0))
    assert total != before
    sums.add(total, sums.labelled_class("a", [0.5, 0.25, 0.25], "c", CLASSES, 9.0), -1.0)
    assert total == pytest.approx(before)
    assert total.keys() == before.keys()


def test_where_alarms_alone_are_inspected_accuracy_is_weighted_and_a_class_without_labels_has_none():
    # 1,000 rows, 100 alarms: all alarms are labelled (60 % right), but 2 % of the quiet ones (18 of 900, 17 right).
    answers = ["alarm"] * 100 + ["quiet"] * 18
    truths = ["alarm"] * 60 + ["quiet"] * 40 + ["quiet"] * 17 + ["alarm"]
    total = summed(answers, [None] * 118, truths, ["alarm", "quiet"], unlabelled=["quiet"] * 882)
    found = figures.report(total, ["alarm", "quiet"])
    assert found["coverage"]["weighted"]
    assert found["coverage"]["share"] == pytest.approx(0.118)
    assert found["accuracy"] == pytest.approx((60 + 17 * 50) / 1000)  # not 77 of 118
    assert found["interval"][1] - found["interval"][0] > 0.1  # 18 rows say little
    rare = summed(answers[:104], [None] * 104, truths[:104], ["alarm", "quiet"], unlabelled=["quiet"] * 896)
    found = figures.report(rare, ["alarm", "quiet"])
    assert found["coverage"]["left_out"] == ["quiet"]
    assert found["accuracy"] == pytest.approx(0.6)  # of the alarms: nothing is known of the others
    even = summed(*drawn(4))
    assert not figures.report(even, CLASSES)["coverage"]["weighted"]


def test_labels_of_no_class_count_as_errors_and_unseen():
    found = figures.report(summed(["a", "a"], [None, None], ["a", "new"]), CLASSES)
    assert found["coverage"]["unseen_labels"] == 1
    assert found["coverage"]["labelled"] == 2
    assert (found["accuracy"], found["classes"][0]["precision"]) == (0.5, 0.5)  # it was wrong, whichever class it said


@pytest.mark.parametrize(("given", "classes", "meant"), [
    ("1", [0, 1, 2], 1), (1.0, [0, 1, 2], 1), ("a", ["a", "b"], "a"), (1, ["0", "1"], "1"), (True, [False, True], True),
    ("x", [0, 1], "x"),
])  # fmt: skip
def test_a_label_is_read_as_the_models_classes_are(given, classes, meant):
    assert like(given, classes) == meant


@pytest.mark.parametrize("document", [
    {"labels": [{"id": "a.0", "label": "x"}]}, [{"id": "a.0", "label": "x"}], {"id": "a.0", "label": "x"},
    {"groundTruthData": {"data": "x", "encoding": "CSV"}, "eventMetadata": {"eventId": "a.0"}, "eventVersion": "0"},
])  # fmt: skip
def test_labels_are_read_in_every_form(document):
    assert of_document(document) == [GivenLabel("a.0", "x")]


def test_times_are_read():
    (one,) = of_document({"id": "a.0", "label": 1, "time": "2026-01-01T00:00:00Z"})
    assert one.time == 1767225600.0
    assert [*of_csv(["id,label,time", "a.0,x,1767225600", "b.0,y,"])] == [
        GivenLabel("a.0", "x", 1767225600.0), GivenLabel("b.0", "y"),
    ]  # fmt: skip


@pytest.mark.parametrize("document", [
    [], None, 5, {"id": "a"}, {"id": "", "label": 1}, {"id": "a", "label": None}, {"id": "a", "label": [1]},
    {"id": "a", "label": "x" * 300}, {"id": "a", "label": float("inf")}, {"id": 5, "label": 1}, {"labels": {}},
    {"id": "a", "label": 1, "time": "soon"}, {"id": "a", "label": 1, "time": -1}, {"id": "a", "label": 1, "more": 1},
    {"groundTruthData": 5}, {"id": "a", "label": 1, "time": "nan"},
])  # fmt: skip
def test_what_is_no_label_is_refused(document):
    with pytest.raises(InvalidInput):
        of_document(document)

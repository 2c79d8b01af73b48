"""The graph's own splits: a threshold that was moved by a thousandth is found, wherever in the forest it stands."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from appliance.bundle.manifest import Tolerance
from convert import convert_model
from convert.model.original import Original
from convert.model.schema import infer
from convert.proof import candidate, splits
from convert.proof.comparison import ParityComparison
from convert.proof.graph_trees import ensembles
from convert.proof.limits import probe

TRIALS = 8


@pytest.fixture(scope="module")
def readings():
    """Readings of two decimals, and a target that bends."""
    rng = np.random.default_rng(1)
    x = rng.normal(20, 5, (700, 8)).round(2)
    return x, x[:, 0] * x[:, 1] + np.sin(x[:, 2]) * 5 + rng.normal(size=700)


class Trees:
    """A converted model, whose graph's thresholds can be moved."""

    def __init__(self, model, x):
        self.original = Original(model, infer(model, x))
        self.limits = probe(self.original)
        reports = []
        self.onnx = convert_model(model, x, reports=reports.append).onnx
        self.float_type = reports[-1].float_type

    def thresholds(self, model):
        (node,) = [node for node in model.graph.node if node.op_type == "TreeEnsemble"]
        return next(attribute for attribute in node.attribute if attribute.name == "nodes_splits").t

    def after(self, index, factor):
        """Return the candidate whose threshold at `index` is `factor` times what it was, and whether that moves it."""
        model = onnx.load_from_string(self.onnx)
        tensor = self.thresholds(model)
        values = numpy_helper.to_array(tensor).copy()
        before = values[index]
        values[index] *= factor
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        answers = self.original.answers(self.original.schema.frame.iloc[:5])
        made = candidate.build(model.SerializeToString(), self.original, answers, self.float_type)
        return made, values[index] != before

    def passes(self, made):
        """Return whether the rows at the graph's splits show no difference."""
        comparison = ParityComparison(self.original, made, Tolerance())
        batches = splits.of(made, self.limits).batches()
        assert batches
        for batch in batches:
            comparison.compare(batch, self.limits)
        return comparison.passed


@pytest.fixture(
    scope="module",
    params=[
        (RandomForestClassifier(15, random_state=0, max_depth=8), True),
        (make_pipeline(StandardScaler(), GradientBoostingRegressor(random_state=0, n_estimators=40)), False),
        (HistGradientBoostingRegressor(random_state=0, max_iter=30), False),
    ],
    ids=["forest of float32", "boosting behind a scaler", "histogram boosting"],
)
def trees(request, readings):
    model, is_classifier = request.param
    x, y = readings
    return Trees(model.fit(x, y > y.mean() if is_classifier else y), x)


def test_graph_that_answers_as_the_original_has_no_row_that_differs_at_its_splits(trees):
    assert trees.passes(trees.after(0, 1.0)[0])


def test_one_threshold_of_thousands_moved_by_a_thousandth_is_found_every_time(trees):
    count = len(ensembles(onnx.load_from_string(trees.onnx))[0].feature)
    picked = np.random.default_rng(5).permutation(count)
    tried = 0
    for index in picked:
        made, is_moved = trees.after(int(index), 1.001)
        if is_moved:
            tried += 1
            assert not trees.passes(made), index
        if tried == TRIALS:
            break
    assert tried == TRIALS

"""Rows on which rounding decides what the original answers, and where a graph may answer otherwise."""

from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import KNNImputer
from sklearn.kernel_approximation import PolynomialCountSketch
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from appliance.bundle import examples
from appliance.bundle.manifest import Tolerance
from appliance.inference import selftest
from appliance.inference.session import Session
from convert import convert_model
from convert.model.original import Original
from convert.model.schema import Limits, infer
from convert.proof import near_ties
from convert.proof.comparison import ParityComparison
from convert.proof.rows import Batch


@pytest.fixture(scope="module")
def readings():
    return np.random.default_rng(0).normal(20, 5, (200, 2)).round(1)


class Side:
    """Either side of a comparison, of one number for each row."""

    task = "regression"
    float_type = "float64"
    methods = MappingProxyType({"prediction": "predict"})
    roles = MappingProxyType({"prediction": "prediction"})
    class_labels = ()

    def equivalents(self, frame):
        return []

    def shares_drawn(self, frame):
        return None


def judged(original, candidate_graph, batch):
    comparison = ParityComparison(original, candidate_graph, Tolerance())
    comparison.compare(batch, Limits())
    return comparison


def test_near_ties_count_only_where_the_answer_beside_is_given(readings):
    model = DecisionTreeClassifier(max_depth=1).fit(readings, readings[:, 0] > 20)
    schema = infer(model, readings)
    original = Original(model, schema)
    other = Original(DecisionTreeClassifier(max_depth=1).fit(readings, readings[:, 0] > 22), schema)

    class Moved:
        """A graph whose threshold is elsewhere."""

        float_type = "float64"

        def answers(self, frame, limits):
            return other.answers(frame)

    def rows(x):
        return pd.DataFrame({"x0": [x], "x1": [20.0]})

    alone = judged(original, Moved(), Batch("alone", "", rows(21.0)))
    tied = judged(original, Moved(), Batch("ties", "", rows(21.0), rows(15.0)))
    neither = judged(original, Moved(), Batch("ties", "", rows(21.0), rows(25.0)))
    assert [comparison.passed for comparison in (alone, tied, neither)] == [False, True, False]
    assert [output.near_ties for output in tied.outputs()] == [1, 1]
    assert [output.label_flips for output in tied.outputs()] == [0, 0]


def test_far_numbers_may_be_what_the_original_answers_one_rounding_further():
    """Squares of 1e9 leave no more than hundreds of a difference; some roundings further, thousands."""

    class Squares(Side):
        def __init__(self, off):
            self.off = off

        def answers(self, frame, limits=None):
            x, y = frame["x0"].to_numpy(), frame["x1"].to_numpy()
            return {"prediction": x * x - y * y + self.off}

    far = pd.DataFrame({"x0": [1e9], "x1": [1e9]})
    for off, passed in ((200.0, True), (2000.0, True), (10_000.0, False)):
        assert judged(Squares(0.0), Squares(off), Batch("magnitudes", "", far)).passed is passed
    assert not judged(Squares(0.0), Squares(200.0), Batch("sample", "", far)).passed


def test_rows_are_moved_by_one_rounding_and_categories_not_at_all():
    frame = pd.DataFrame({"x": [1.0, -2.0], "n": [1, 2], "text": ["a", "b"], "kind": [1.5, 2.5]})
    turns = near_ties.moved(frame, Limits(categories={"kind": [1.5, 2.5]}))
    assert turns[0]["x"].tolist() == np.nextafter(frame["x"], np.inf).tolist()
    assert turns[1]["x"].tolist() == np.nextafter(frame["x"], -np.inf).tolist()
    assert len({tuple(turn["x"]) for turn in turns}) == 4
    for turn in turns:
        assert (turn["x"] != frame["x"]).all()
        pd.testing.assert_frame_equal(turn.drop(columns="x"), frame.drop(columns="x"))


def test_rows_are_moved_farther_by_two_to_four_roundings():
    frame = pd.DataFrame({"x": [1.0, -2.0]})
    away = {round((turn["x"][0] - 1.0) / 2**-52, 1) for turn in near_ties.moved_wider_ulp(frame, Limits())}
    assert {2.0, 3.0, 4.0} < away  # below 1 a step is half as large
    assert {-1.0, -1.5, -2.0} < away


class Shares(Side):
    """A graph and its original that give a probability for each of two labels, and the label."""

    task = "classification"
    methods = MappingProxyType({"prediction": "predict", "probability": "predict_proba"})
    roles = MappingProxyType({"prediction": "prediction", "probability": "probability"})
    class_labels = ("a", "b")

    def __init__(self, label, first, draws=True):
        self.label, self.first, self.draws = label, first, draws

    def answers(self, frame, limits=None):
        shares = np.tile([self.first, 1 - self.first], (len(frame), 1))
        return {"prediction": np.full(len(frame), self.label, dtype=object), "probability": shares}

    def shares_drawn(self, frame):
        return self.answers(frame)["probability"] if self.draws else None


@pytest.mark.parametrize(
    ("original", "graph", "passed"),
    [
        (Shares("a", 0.5), Shares("b", 0.5 - 1e-15), True),
        (Shares("a", 0.5 + 1e-14), Shares("b", 0.5 - 1e-14), True),
        (Shares("a", 0.5, draws=False), Shares("b", 0.5), False),  # it has a rule for ties
        (Shares("a", 0.5 + 1e-9), Shares("b", 0.5 - 1e-9), False),
        (Shares("a", 0.5), Shares("c", 0.5 - 1e-15), False),
    ],
    ids=["tied", "as good as tied", "a rule", "not tied", "no such label"],
)
def test_label_of_equal_probabilities_is_drawn_by_rounding_in_far_rows_alone(original, graph, passed):
    rows = pd.DataFrame({"x0": [1.0, 2.0]})
    far = judged(original, graph, Batch("edges", "", rows))
    assert far.passed is passed
    assert far.outputs()[0].near_ties == 2 * passed
    assert not judged(original, graph, Batch("noise", "", rows)).passed


class Numbers(Side):
    """A graph, and an original, that give of each row's number whatever `answer` makes of it."""

    def __init__(self, answer):
        self.answer = answer

    def answers(self, frame, limits=None):
        return {"prediction": self.answer(frame["x0"].to_numpy())}


def passes(original, graph, kind="edges", numbers=(1.0, 2.0)):
    rows = pd.DataFrame({"x0": list(numbers)})
    return judged(Numbers(original), Numbers(graph), Batch(kind, "", rows)).passed


def test_a_large_number_of_a_row_excuses_none_of_its_others():
    """As an identity of 19 digits that is passed on beside readings."""
    assert not passes(lambda x: np.c_[1e18 + x, x], lambda x: np.c_[1e18 + x, x + 100])


def test_nothing_excuses_nan_or_infinity_but_the_originals_own():
    assert not passes(lambda x: x, lambda x: x * np.nan)
    assert not passes(lambda x: x, lambda x: x * np.inf)
    assert not passes(lambda x: x, lambda x: np.array([str(number) for number in x]))
    for odd in (np.nan, np.inf, -np.inf):
        assert passes(lambda x, odd=odd: np.where(x > 1.0, odd, x), lambda x, odd=odd: np.full(len(x), odd), "ties")
        assert not passes(lambda x, odd=odd: np.where(x > 1.0, odd, x), lambda x: x + 9.0)  # infinity is no range
        assert not passes(lambda x, odd=odd: np.full(len(x), odd), lambda x: x)


def test_numbers_beside_nan_keep_their_range():
    """A row's missing value that is passed on says nothing of its other numbers."""

    def original(x):
        return np.c_[x * np.nan, np.where(x > 1.0, 9.0, 5.0)]

    assert passes(original, lambda x: np.c_[x * np.nan, x * 0.0 + 7.0], numbers=[1.0])
    assert not passes(original, lambda x: np.c_[x * np.nan, x * 0.0 + 7.0], numbers=[2.0])


def test_infinity_is_not_the_greatest_number():
    def within(x):
        return np.clip(x, -1e308, 1e308) / 1e300

    assert passes(lambda x: np.where(np.isinf(x), 0.0, within(x)), within, "infinite")
    odd = (np.inf, -np.inf)
    assert not passes(lambda x: np.where(np.isinf(x), 0.0, within(x)), within, "infinite", odd)


def test_near_tie_of_both_kinds_counts_once():
    """The row beside has another answer, and one rounding further there is a third."""
    original = Numbers(lambda x: np.where(x < 1.0, 0.0, np.where(x > 1.0, 2.0, 1.0)))
    row, beside = pd.DataFrame({"x0": [1.0]}), pd.DataFrame({"x0": [0.5]})
    (output,) = judged(original, Numbers(lambda x: x * 0.0 + 2.0), Batch("ties", "", row, beside)).outputs()
    assert (output.rows_off, output.near_ties, output.near_ties_turned) == (0, 1, 1)


def test_density_and_imputer_are_also_computed_with_fewer_roundings(readings):
    model = make_pipeline(StandardScaler(), KernelDensity()).fit(readings)
    original = Original(model, infer(model, readings))
    far = pd.DataFrame({"x0": [20.0, 75.0], "x1": [20.0, 75.0]})
    (precise,) = original.equivalents(far)
    scaled, points = (model[0].transform(x) for x in (far.to_numpy(), readings))
    squares = ((scaled[:, None] - points) ** 2).sum(axis=2)
    most = squares.min(axis=1)
    summed = np.log(np.exp((most[:, None] - squares) / 2).sum(axis=1)) - most / 2
    assert np.allclose(precise["prediction"], summed - np.log(2 * np.pi) - np.log(len(points)), rtol=1e-12)
    assert model[1].tree_.get_arrays()[3].shape[0] > 1  # the model itself is as it was
    gaps = readings.copy()
    gaps[::7, 1] = np.nan
    imputer = KNNImputer(n_neighbors=3, weights="distance").fit(gaps)
    asked = pd.DataFrame({"x0": [20.03], "x1": [np.nan]})
    (precise,) = Original(imputer, infer(imputer, gaps)).equivalents(asked)
    assert np.allclose(precise["prediction"], imputer.transform(asked.to_numpy()), rtol=1e-6)
    marked = np.where(np.isnan(gaps), -1.0, gaps)
    imputer = KNNImputer(missing_values=-1.0, n_neighbors=3, weights="distance").fit(marked)
    asked = pd.DataFrame({"x0": [20.03], "x1": [-1.0]})
    (precise,) = Original(imputer, infer(imputer, marked)).equivalents(asked)
    assert np.allclose(precise["prediction"], imputer.transform(asked.to_numpy()), rtol=1e-6)
    search = GridSearchCV(KernelDensity(), {"bandwidth": [0.5, 1.0]}, cv=2).fit(readings)
    assert len(Original(search, infer(search, readings)).equivalents(far)) == 1
    plain = DecisionTreeClassifier().fit(readings, readings[:, 0] > 20)
    assert Original(plain, infer(plain, readings)).equivalents(far) == []


@pytest.mark.parametrize("options", [{}, {"degree": 3, "coef0": 1, "n_components": 7, "gamma": 0.5}], ids=str)
def test_count_sketch_is_also_convolved(readings, options):
    model = PolynomialCountSketch(random_state=0, **options).fit(readings)
    original = Original(model, infer(model, readings))
    frame = original.schema.frame
    (precise,) = original.equivalents(frame)
    assert np.allclose(precise["prediction"], model.transform(readings), rtol=1e-9, atol=1e-7)
    assert "transform" not in vars(model)  # the model itself is as it was


@pytest.mark.parametrize(
    "model",
    [
        GaussianProcessClassifier(random_state=0),
        KernelDensity(),
        PolynomialCountSketch(random_state=0),
        PolynomialCountSketch(degree=3, coef0=1, n_components=7, random_state=0),
        KNNImputer(weights="distance"),
    ],
    ids=["process", "density", "sketch", "small sketch", "imputer"],
)
def test_originals_that_rounding_rules_far_out_are_served(model):
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (90, 5)).round(2)
    answers = np.array(list("abc"))[rows[:, :3].argmax(axis=1)]
    if isinstance(model, KNNImputer):
        rows[rng.random(rows.shape) < 0.1] = np.nan
    conversion = convert_model(model.fit(rows, answers), rows)
    assert conversion.parity.passed
    assert conversion.parity.outputs[0].near_ties_turned > 0
    session = Session(conversion.onnx)
    assert selftest.check(conversion.manifest, session, *examples.read(conversion.examples)).rows > 40


def test_labels_alone_are_drawn_as_labels_with_probabilities_are():
    rng = np.random.default_rng(3)
    rows = rng.normal(0, 1, (90, 5)).round(2)
    model = GaussianProcessClassifier(random_state=0).fit(rows, rows[:, :3].argmax(axis=1))
    for outputs in (None, ["prediction"]):
        assert convert_model(model, rows, outputs=outputs).parity.passed


def test_density_of_a_small_bandwidth_is_served_where_its_tree_is_off_in_rows_near_the_sample():
    rows = np.random.default_rng(0).normal(20, 5, (200, 3)).round(1)
    conversion = convert_model(make_pipeline(StandardScaler(), KernelDensity(bandwidth=0.3)).fit(rows), rows)
    assert conversion.parity.passed
    assert conversion.parity.outputs[0].near_ties_turned > 0


def test_wide_count_sketch_is_written_in_portions_and_served():
    rows = np.random.default_rng(0).normal(0, 1, (60, 110)).round(2)
    model = PolynomialCountSketch(random_state=0).fit(rows)
    assert convert_model(model, rows).parity.passed


def test_probabilities_stay_between_0_and_1():
    class Half(Shares):
        def equivalents(self, frame):
            answer = self.answers(frame)
            return [answer | {"probability": answer["probability"][:, ::-1]}]

    rows = pd.DataFrame({"x0": [1.0]})
    assert judged(Half("a", 0.9), Shares("a", 1.0), Batch("edges", "", rows)).passed
    assert not judged(Half("a", 0.9), Shares("a", 1.2), Batch("edges", "", rows)).passed

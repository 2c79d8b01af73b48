"""A failed proof of a pipeline names the step from which the answers differ, the row, and both values after it."""

import numpy as np
import pandas as pd
import pytest
import skl2onnx
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from appliance.errors import ParityFailed
from convert import convert_model


class Halver(TransformerMixin, BaseEstimator):
    """A step of our own, for which somebody registers a converter that copies the input."""

    def fit(self, x, y=None):
        self.n_features_in_ = x.shape[1]
        return self

    def transform(self, x):
        return 0.5 * np.asarray(x)


class Tripler(RegressorMixin, BaseEstimator):
    """A regressor of our own, of the same kind."""

    def fit(self, x, y):
        self.n_features_in_ = x.shape[1]
        return self

    def predict(self, x):
        return 3.0 * np.asarray(x)[:, 0]


@pytest.fixture(autouse=True)
def registered():
    def shapes(operator):
        operator.outputs[0].type = type(operator.inputs[0].type)([None, operator.raw_operator.n_features_in_])

    def shape_of_one(operator):
        operator.outputs[0].type = type(operator.inputs[0].type)([None, 1])

    def copy(scope, operator, container):
        container.add_node("Identity", operator.inputs[0].full_name, operator.outputs[0].full_name)

    def copy_one(scope, operator, container):
        one = scope.get_unique_variable_name("one")
        container.add_initializer(one, 7, [1], [0])
        container.add_node("ArrayFeatureExtractor", [operator.inputs[0].full_name, one],
                           operator.outputs[0].full_name, op_domain="ai.onnx.ml")  # fmt: skip

    skl2onnx.update_registered_converter(Halver, "TestsHalver", shapes, copy)
    skl2onnx.update_registered_converter(Tripler, "TestsTripler", shape_of_one, copy_one)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.uniform(1, 2, 60), "b": rng.uniform(3, 4, 60)})
    return table.assign(c=rng.choice(["x", "y"], 60))


def failed(model, sample):
    """Return the last report, and what the error says was found."""
    reports = []
    with pytest.raises(ParityFailed) as error:
        convert_model(model, sample, reports=reports.append)
    return reports[-1], error.value.found


def test_the_step_at_fault_and_both_values_after_it_are_named(table):
    numbers = table[["a", "b"]]
    model = make_pipeline(StandardScaler(), Halver(), LinearRegression()).fit(numbers, numbers.a)
    report, found = failed(model, numbers)
    first = report.diverged
    assert (first.step, first.estimator) == ("halver", "Halver")
    assert np.allclose(np.array(first.onnx), 2 * np.array(first.original))
    row = pd.DataFrame([report.worst[0].row])
    assert np.allclose(model[:2].transform(row)[0][first.places], first.original)
    assert "differ from the step 'halver' (Halver) on: after it value 0 is" in found


def test_the_part_of_a_column_transformer_is_named(table):
    columns = ColumnTransformer([("code", OneHotEncoder(), ["c"]), ("half", Halver(), ["a", "b"])])
    model = make_pipeline(columns, LinearRegression()).fit(table, table.a)
    report, _ = failed(
        GridSearchCV(model, {"linearregression__fit_intercept": [True]}, cv=2).fit(table, table.a), table
    )
    assert (report.diverged.step, report.diverged.places) == ("columntransformer__half", [2, 3])


def test_the_last_step_is_named_where_all_before_it_agree(table):
    numbers = table[["a", "b"]]
    report, found = failed(make_pipeline(StandardScaler(), Tripler()).fit(numbers, numbers.a), numbers)
    assert (report.diverged.step, report.diverged.places) == ("tripler", [])
    assert "both sides agree after all steps before 'tripler' (Tripler)" in found


def test_a_model_of_one_step_has_none_to_name(table):
    numbers = table[["a", "b"]]
    report, found = failed(Tripler().fit(numbers, numbers.a), numbers)
    assert report.diverged is None
    assert "step" not in found

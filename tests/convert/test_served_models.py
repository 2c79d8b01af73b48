"""Models whose graph is exact and whose place in a bundle takes a thought: densities, poolings, array columns apart."""

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostClassifier
from sklearn.cluster import AgglomerativeClustering, FeatureAgglomeration
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import SparsePCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import SimpleImputer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, SGDOneClassSVM
from sklearn.naive_bayes import CategoricalNB
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from appliance.errors import ConversionRefused, InvalidInput
from convert import convert_model


@pytest.fixture(scope="module")
def readings():
    return np.random.default_rng(0).normal(20, 5, (80, 3)).round(1)


def by_column(x):
    return {f"x{i}": x[:, i] for i in range(x.shape[1])}


def test_density_answers_its_log_density(readings, ask):
    model = KernelDensity(bandwidth=3.0).fit(readings)
    conversion = convert_model(model, readings)
    assert (conversion.manifest.task, conversion.manifest.outputs[0].shape) == ("transformation", [-1])
    found = ask(conversion, by_column(readings))["prediction"]
    assert np.allclose(found, model.score_samples(readings), atol=1e-5)


def test_pooled_columns_are_a_transformation(readings, ask):
    model = FeatureAgglomeration(2).fit(readings)
    conversion = convert_model(model, readings)
    assert conversion.manifest.task == "transformation"
    assert np.allclose(ask(conversion, by_column(readings))["prediction"], model.transform(readings), atol=1e-5)


def test_components_that_the_original_gives_without_an_axis_for_one_row_keep_it(readings, ask):
    model = SparsePCA(2, random_state=0).fit(readings)
    conversion = convert_model(model, readings)
    found = ask(conversion, by_column(readings[:1]))["prediction"]
    assert found.shape == (1, 2)
    assert np.allclose(found[0], model.transform(readings[:1]).ravel(), atol=1e-5)


def test_score_of_just_zero_is_no_outlier(readings, ask):
    model = SGDOneClassSVM(random_state=0).fit(readings)
    model.coef_, model.offset_ = np.array([1.0, 0.0, 0.0]), np.array([20.0])
    conversion = convert_model(model, readings)
    rows = np.array([[20.0, 1.0, 1.0], [19.9, 1.0, 1.0]])
    assert ask(conversion, by_column(rows))["prediction"].tolist() == model.predict(rows).tolist() == [1, -1]


def test_characters_of_texts_become_columns(ask):
    texts = ["fox jumps", "lazy  dog", "Über fox", "dog", "", "the fox"] * 5
    model = make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(1, 2)), LogisticRegression())
    table = pd.DataFrame({"text": texts})
    model.fit(table["text"], ["fox" in text for text in texts])
    conversion = convert_model(model, table)
    assert ask(conversion, {"text": ["a fox", "a dog"]})["prediction"].tolist() == [1, 0]


def test_clustering_that_answers_for_its_own_rows_only_is_refused(readings):
    with pytest.raises(ConversionRefused, match="it has answers only for the rows it was fitted on"):
        convert_model(AgglomerativeClustering().fit(readings), readings)


def test_kernels_that_write_into_their_rows_get_their_own(readings):
    model = KernelRidge(kernel="chi2", gamma=0.5).fit(readings, readings[:, 0])
    assert convert_model(model, readings).parity.passed


def test_probabilities_that_the_model_refuses_are_left_out(iris, ask):
    x, y = (part[::5] for part in iris)
    model = GaussianProcessClassifier(multi_class="one_vs_one", optimizer=None).fit(x, y)
    conversion = convert_model(model, x)
    assert [output.name for output in conversion.manifest.outputs] == ["prediction"]
    assert (ask(conversion, by_column(x))["prediction"] == model.predict(x)).all()


def test_labels_of_one_target_are_a_vector_though_catboost_gives_a_column(iris, ask):
    x, y = iris
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = CatBoostClassifier(iterations=4, depth=3, verbose=0, allow_writing_files=False, thread_count=1)
    model.fit(x, names)
    conversion = convert_model(model, x)
    shapes = {output.name: output.shape for output in conversion.manifest.outputs}
    assert shapes == {"prediction": [-1], "probability": [-1, 3]}
    assert (ask(conversion, by_column(x))["prediction"] == model.predict(x)[:, 0]).all()


@pytest.mark.parametrize("model", [CategoricalNB(), OneHotEncoder()], ids=str)
def test_array_whose_columns_know_their_categories_has_a_tensor_for_each(readings, ask, model):
    levels = np.digitize(readings, [15, 20, 25])[:, :2]
    levels[:, 1] = np.minimum(levels[:, 1], 1)
    model.fit(levels, readings[:, 0] > 20)
    conversion = convert_model(model, levels)
    first, second = conversion.manifest.inputs
    assert (first.categories, first.columns) == ([0.0, 1.0, 2.0, 3.0], ["x0"])
    assert (second.categories, second.columns) == ([0.0, 1.0], ["x1"])
    answer = model.predict(levels) if hasattr(model, "predict") else model.transform(levels).toarray()
    assert (ask(conversion, by_column(levels))["prediction"] == answer).all()
    with pytest.raises(InvalidInput, match="never seen in training"):
        ask(conversion, {"x0": [4], "x1": [0]})


def test_array_with_gaps_that_only_some_columns_take_has_a_tensor_for_each(iris, ask):
    x, y = iris
    gaps = x.copy()
    gaps[::8, 1] = np.nan
    columns = ColumnTransformer([("gaps", SimpleImputer(), [1]), ("rest", "passthrough", [0, 2, 3])])
    model = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(gaps, y)
    conversion = convert_model(model, gaps)
    assert [tensor.missing for tensor in conversion.manifest.inputs] == [False, True, False, False]
    assert (ask(conversion, by_column(gaps))["prediction"] == model.predict(gaps)).all()
    with pytest.raises(InvalidInput, match="missing"):
        ask(conversion, {"x0": [None], "x1": [3.0], "x2": [1.0], "x3": [0.2]})


def test_array_of_texts_keeps_each_columns_categories(ask):
    texts = np.array([["a", "b"], ["c", "d"], ["a", "d"]] * 5, dtype=object)
    model = OneHotEncoder().fit(texts)
    conversion = convert_model(model, pd.DataFrame(texts, columns=["p", "q"]))
    assert [tensor.categories for tensor in conversion.manifest.inputs] == [["a", "c"], ["b", "d"]]
    rows = {"p": texts[:, 0].tolist(), "q": texts[:, 1].tolist()}
    assert (ask(conversion, rows)["prediction"] == model.transform(texts).toarray()).all()

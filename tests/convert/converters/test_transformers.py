import re

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.cluster import (
    AffinityPropagation,
    Birch,
    BisectingKMeans,
    FeatureAgglomeration,
    KMeans,
    MeanShift,
    MiniBatchKMeans,
)
from sklearn.covariance import EllipticEnvelope
from sklearn.cross_decomposition import CCA, PLSSVD, PLSCanonical, PLSRegression
from sklearn.decomposition import NMF, FactorAnalysis, FastICA, MiniBatchSparsePCA, SparsePCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.impute._iterative import IterativeImputer
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
)

from appliance.errors import ConversionRefused
from convert.converters import refusals

VERSION = tuple(map(int, sklearn.__version__.split(".")[:2]))
QUANTILES = {"quantile_method": "averaged_inverted_cdf"} if VERSION >= (1, 7) else {}
SPLINES = [
    *[
        (SplineTransformer(degree=d, extrapolation=e), "rows")
        for e in ("constant", "linear", "continue", "periodic")
        for d in (1, 2, 3)
    ],
    *[(SplineTransformer(degree=0, extrapolation=e), "rows") for e in ("linear", "continue")],
    (SplineTransformer(include_bias=False, knots="quantile", n_knots=6), "rows"),
    *([(SplineTransformer(handle_missing="zeros"), "gaps")] if VERSION >= (1, 8) else []),
]
SCALES = [
    (PowerTransformer(), "rows"),
    (PowerTransformer(), "gaps"),
    (PowerTransformer("box-cox"), "positive"),
    (PowerTransformer(standardize=False), "rows"),
    *[
        (QuantileTransformer(n_quantiles=40, output_distribution=d), k)
        for d in ("uniform", "normal")
        for k in ("rows", "repeated", "gaps")
    ],
    (PolynomialFeatures(3), "rows"),
    (PolynomialFeatures(2, interaction_only=True, include_bias=False), "rows"),
    (Binarizer(threshold=0.5), "rows"),
    *[
        (KBinsDiscretizer(4, encode=e, strategy=s, **QUANTILES), "rows")
        for e in ("ordinal", "onehot", "onehot-dense")
        for s in ("uniform", "quantile", "kmeans")
    ],
]
PROJECTIONS = [
    (FactorAnalysis(2), "rows"),
    (FastICA(3, random_state=0), "rows"),
    (SparsePCA(3, random_state=0), "rows"),
    (MiniBatchSparsePCA(3, random_state=0, max_iter=5), "rows"),
    (BernoulliRBM(4, random_state=0), "rows"),
    *[(model, "two numbers") for model in (CCA(2), PLSCanonical(2), PLSRegression(2), PLSSVD(2))],
    *[(LinearDiscriminantAnalysis(solver=s), k) for s in ("svd", "lsqr", "eigen") for k in ("two", "three")],
    *[(QuadraticDiscriminantAnalysis(reg_param=0.1), k) for k in ("two", "three")],
]
CLUSTERS = [
    (KMeans(4, random_state=0, n_init=1), "rows"),
    (MiniBatchKMeans(4, random_state=0, n_init=1), "rows"),
    *[
        (BisectingKMeans(6, random_state=0, bisecting_strategy=s), "rows")
        for s in ("largest_cluster", "biggest_inertia")
    ],
    (MeanShift(), "rows"),
    (AffinityPropagation(random_state=0), "rows"),
    (Birch(), "rows"),
    (Birch(threshold=0.3, n_clusters=None), "rows"),
    *[(FeatureAgglomeration(2, pooling_func=f), "rows") for f in (np.mean, np.median, np.max)],
    (EllipticEnvelope(random_state=0), "rows"),
    *[(GaussianMixture(3, covariance_type=t, random_state=0), "rows") for t in ("full", "tied", "diag", "spherical")],
    (BayesianGaussianMixture(n_components=3, random_state=0), "rows"),
]
IMPUTERS = [
    *[(SimpleImputer(strategy=s), "gaps") for s in ("mean", "median", "most_frequent", "constant")],
    (SimpleImputer(add_indicator=True), "gaps"),
    (SimpleImputer(missing_values=0, strategy="most_frequent"), "repeated"),
    *[(KNNImputer(weights=w, n_neighbors=3), "gaps") for w in ("uniform", "distance")],
    (KNNImputer(add_indicator=True), "gaps"),
    *[(MissingIndicator(features=f), "gaps") for f in ("missing-only", "all")],
    (make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression()), "gaps"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model", "kind"),
    [*SPLINES, *SCALES, *PROJECTIONS, *CLUSTERS, *IMPUTERS],
    ids=lambda value: re.sub(r"\n| at 0x\w+", "", str(value)),
)
def test_transformers_and_clusterings_answer_as_in_scikit_learn(data, fresh, assert_same, model, kind):
    rows, answers = data[kind]
    assert_same(model.fit(rows, answers), fresh(rows))


@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "tophat", "epanechnikov", "linear"])
def test_kernel_densities_are_those_of_scikit_learn(data, fresh, graph, ask, kernel):
    rows, _ = data["rows"]
    model = KernelDensity(bandwidth=1.5, kernel=kernel).fit(rows)
    asked = np.concatenate([fresh(rows), rows + 50])
    found = ask(graph(model, rows), asked)[0][:, 0]
    # Compared as densities: where a kernel has ended, scikit-learn's sums leave 1e-17 and its logarithm is noise.
    np.testing.assert_allclose(np.exp(found), np.exp(model.score_samples(asked)), rtol=1e-5, atol=1e-12)


def test_texts_with_gaps_are_filled_in(graph, ask):
    table = pd.DataFrame({"size": pd.Series(["S", "M", None, "M"], dtype=object)})
    for model in (
        SimpleImputer(strategy="most_frequent", missing_values=None),
        SimpleImputer(strategy="constant", fill_value="none", missing_values=None),
    ):
        model.fit(table)
        assert ask(graph(model, table), table)[0].tolist() == model.transform(table).tolist()


def test_columns_without_a_single_value_in_training_are_left_out(data, graph, ask):
    rows = data["gaps"][0].copy()
    rows[:, 2] = np.nan
    model = SimpleImputer().fit(rows)
    with pytest.warns(UserWarning, match="Skipping features"):
        expected = model.transform(rows)
    np.testing.assert_allclose(ask(graph(model, rows), rows)[0], expected)


def test_new_gaps_are_refused_where_the_indicator_refuses_them(data, graph, ask):
    rows = np.nan_to_num(data["gaps"][0])
    rows[0, 0] = np.nan
    session = graph(MissingIndicator().fit(rows), rows)
    with pytest.raises(Exception, match="out of data bounds"):
        ask(session, np.full((1, 5), np.nan))


def test_values_outside_the_knots_are_refused_where_the_spline_refuses_them(data, graph, ask):
    rows, _ = data["rows"]
    session = graph(SplineTransformer(extrapolation="error").fit(rows), rows)
    with pytest.raises(Exception, match="out of data bounds"):
        ask(session, rows[:1] + 100)


@pytest.mark.filterwarnings("ignore")
def test_iterative_solvers_are_refused_by_name_with_what_to_use_instead(data, graph):
    rows, _ = data["positive"]
    with pytest.raises(ConversionRefused, match="NMF") as refused:
        graph(NMF(2, random_state=0).fit(rows), rows)
    assert "PCA" in refused.value.next_step


def test_iterative_imputer_is_refused_by_name_with_what_to_use_instead(data, graph):
    rows, _ = data["gaps"]
    with pytest.raises(ConversionRefused, match="IterativeImputer: it predicts gaps") as refused:
        graph(IterativeImputer(max_iter=2, random_state=0).fit(rows), rows)
    assert "KNNImputer" in refused.value.next_step


def test_every_refusal_says_why_and_what_to_use_instead():
    assert all(
        found and next_step.startswith(("use", "cut", "give")) for found, next_step in refusals._REFUSED.values()
    )

import numpy as np
import pytest
from sklearn.decomposition import KernelPCA
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, DotProduct, ExpSineSquared, Matern, RationalQuadratic, WhiteKernel
from sklearn.kernel_approximation import (
    AdditiveChi2Sampler,
    Nystroem,
    PolynomialCountSketch,
    RBFSampler,
    SkewedChi2Sampler,
)
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import KernelCenterer
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM

from appliance.errors import ConversionRefused

KERNELS = ("linear", "poly", "rbf", "sigmoid")
POSITIVE = ("laplacian", "cosine", "additive_chi2")
MACHINES = [
    *[(SVC(kernel=k), "three") for k in KERNELS],
    *[(SVC(kernel=k, gamma=0.3, coef0=0.5, C=10), "two") for k in KERNELS],
    *[(SVR(kernel=k), "numbers") for k in KERNELS],
    *[(OneClassSVM(kernel=k, nu=0.2), "rows") for k in KERNELS],
    (SVC(decision_function_shape="ovo"), "three"),
    (SVC(break_ties=True), "three"),
    (SVC(class_weight="balanced"), "three"),
    (NuSVC(), "three"),
    (NuSVR(), "numbers"),
    (SVC(probability=True, random_state=0), "two"),
    (SVC(probability=True, random_state=0), "three"),
]
PROCESSES = [
    (GaussianProcessClassifier(), "two"),
    (GaussianProcessClassifier(1.0 * RBF(2.0)), "three"),
    (GaussianProcessRegressor(1.0 * RBF(2.0) + WhiteKernel(), normalize_y=True), "numbers"),
    (GaussianProcessRegressor(RationalQuadratic() + DotProduct() ** 2, alpha=1.0, optimizer=None), "two numbers"),
    *[(GaussianProcessRegressor(Matern([1, 2, 3, 4, 5], nu=n), alpha=0.1), "numbers") for n in (0.5, 1.5, 2.5)],
    (GaussianProcessRegressor(ExpSineSquared(), alpha=50.0, optimizer=None), "numbers"),
]
SUMS = [
    *[(KernelRidge(kernel=k), "positive") for k in (*KERNELS, *POSITIVE)],
    (KernelRidge(kernel="chi2", gamma=0.5), "positive"),
    (KernelRidge(kernel="rbf", gamma=0.2), "two numbers"),
    *[(KernelPCA(3, kernel=k), "rows") for k in ("linear", "rbf", "poly", "cosine")],
    *[(Nystroem(kernel=k, n_components=10, random_state=0), "positive") for k in (*KERNELS, *POSITIVE, "chi2")],
]
MAPS = [
    (RBFSampler(random_state=0, n_components=8), "rows"),
    *[(AdditiveChi2Sampler(sample_steps=s), "positive") for s in (1, 2, 3)],
    (AdditiveChi2Sampler(sample_steps=4, sample_interval=0.3), "positive"),
    (SkewedChi2Sampler(random_state=0, n_components=8), "positive"),
    (PolynomialCountSketch(random_state=0, n_components=12), "rows"),
    (PolynomialCountSketch(random_state=0, n_components=15, degree=3, coef0=1), "rows"),
    (SparseRandomProjection(3, random_state=0), "rows"),
    (GaussianRandomProjection(3, random_state=0), "rows"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model", "kind"), [*MACHINES, *PROCESSES, *SUMS, *MAPS], ids=lambda value: str(value).replace("\n", "")
)
def test_kernels_answer_as_in_scikit_learn(data, fresh, assert_same, model, kind):
    rows, answers = data[kind]
    assert_same(model.fit(rows, answers), fresh(rows))


def test_pairwise_processes_predict_as_in_scikit_learn(data, fresh, graph, ask):
    rows, answers = data["three"]
    model = GaussianProcessClassifier(1.0 * RBF(2.0), multi_class="one_vs_one").fit(rows, answers)
    asked = fresh(rows)
    assert (ask(graph(model, rows), asked)[0] == model.predict(asked)).all()


def test_precomputed_kernels_are_taken_as_rows(data, assert_same):
    rows, answers = data["two"]
    gram = rows @ rows.T
    assert_same(SVC(kernel="precomputed").fit(gram, answers), gram)
    assert_same(KernelCenterer().fit(gram), gram)


def test_kernels_that_are_functions_are_refused(data, graph):
    rows, answers = data["two"]
    with pytest.raises(ConversionRefused, match="function"):
        graph(SVC(kernel=lambda a, b: a @ b.T).fit(rows, answers), rows)


def test_values_that_the_feature_map_refuses_are_refused_by_the_graph_too(data, graph, ask):
    rows, _ = data["positive"]
    session = graph(AdditiveChi2Sampler().fit(rows), rows)
    with pytest.raises(Exception, match="out of data bounds"):
        ask(session, np.full((1, 5), -1.0))

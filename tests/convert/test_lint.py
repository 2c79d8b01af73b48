"""`appliance lint`, and the table of what converts that it must agree with."""

import json
import re
import subprocess
import sys

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import DBSCAN
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import NMF, PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectFromModel
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Matern, WhiteKernel
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from appliance.errors import ConversionRefused
from benchmarks.coverage import DOCS, OPTIONS, cells_of, table
from benchmarks.coverage_cases import cases
from convert.lint import lint

MIXED = Pipeline(
    [
        ("columns", ColumnTransformer([("text", HashingVectorizer(), "t"), ("size", OneHotEncoder(), ["s"])])),
        ("model", LogisticRegression()),
    ]
)


def centred(x):
    return x - x.mean(axis=0)


class Doubled(TransformerMixin, BaseEstimator):
    def fit(self, x, y=None):
        return self

    def transform(self, x):
        return 2 * x


class Forest(RandomForestClassifier):
    pass


def refused(model):
    """Return {step: (found, next step)} of the steps that do not convert."""
    return {f.step: (f.found, f.next_step) for f in lint(model) if f.verdict == "refused"}


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), RandomForestClassifier()),
        ColumnTransformer([("a", TfidfVectorizer(), "t"), ("b", "passthrough", ["n"]), ("c", "drop", ["m"])]),
        GridSearchCV(Pipeline([("s", None), ("m", SVC())]), {"m__C": [1, 10]}),
        StackingClassifier([("a", LogisticRegression()), ("b", "drop")], SVC()),
        SelectFromModel(Forest()),  # it is asked in training only
        make_pipeline(FunctionTransformer(np.log1p), Ridge()),
        GaussianProcessRegressor(1.0 * RBF() + WhiteKernel()),
        TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_models_that_convert_have_nothing_against_them(model):
    assert {finding.verdict for finding in lint(model)} == {"converts"}


def test_the_step_that_does_not_convert_is_named_with_what_to_use_instead():
    found = refused(MIXED)
    assert [*found] == ["columns__text"]
    assert "max_features" in found["columns__text"][1]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (SVC(kernel=lambda a, b: a @ b.T), "kernel is a function"),
        (KNeighborsClassifier(metric=lambda a, b: abs(a - b).sum()), "metric is a function"),
        (DummyClassifier(strategy="stratified"), "random"),
        (GridSearchCV(Ridge(), {"alpha": [1]}, refit=False), "refit"),
        (GaussianProcessRegressor(1.0 * Matern(nu=2.0)), "nu=2.0"),
        (CountVectorizer(tokenizer=str.split), "function of its own"),
        (TfidfVectorizer(token_pattern=r"(\w+)-"), "token_pattern"),
        (TransformedTargetRegressor(Ridge(), transformer=PCA()), "inverse of PCA"),
        (TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=lambda y: y.sort()), "traced"),
        (LocalOutlierFactor(), "training rows only"),
        (DBSCAN(), "no answer for new rows"),
        (Doubled(), "no converter knows"),
        (Forest(), "RandomForestClassifier with changes of its own"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_options_and_classes_without_a_graph_are_refused_with_the_reason(model, reason):
    (found, next_step) = refused(model)[""]
    assert reason in found
    assert next_step


@pytest.mark.filterwarnings("ignore")
def test_candidates_of_a_search_are_judged_until_it_has_chosen():
    search = GridSearchCV(Pipeline([("p", PCA()), ("m", Ridge())]), {"p": [PCA(2), NMF(2)]}, cv=2)
    assert [*refused(search)] == ["param_grid__p"]
    rows = np.random.default_rng(0).normal(size=(30, 3))  # not positive, as NMF wants: PCA is chosen
    search.fit(rows, rows[:, 0])
    assert refused(search) == {}


def test_a_function_is_judged_for_good_once_its_columns_are_known():
    model = FunctionTransformer(centred)
    assert [finding.verdict for finding in lint(model)] == ["depends"]
    assert [finding.verdict for finding in lint(model.fit(np.ones((3, 2))))] == ["refused"]


def test_what_is_no_estimator_is_refused():
    with pytest.raises(ConversionRefused, match="dict"):
        lint({"model": Ridge()})


def run(*arguments):
    command = [sys.executable, "-c", "from appliance.cli import main; main()", "lint", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_command_ends_with_0_where_every_step_converts(tmp_path):
    path = tmp_path / "model.skops"
    skops.io.dump(make_pipeline(StandardScaler(), Ridge()), path)
    ran = run(path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [line.split() for line in ran.stdout.splitlines()] == [
        ["converts", "(model)", "Pipeline"],
        ["converts", "standardscaler", "StandardScaler"],
        ["converts", "ridge", "Ridge"],
    ]


def test_command_ends_with_3_and_prints_one_document_where_a_step_does_not(tmp_path):
    path = tmp_path / "model.joblib"
    joblib.dump(MIXED, path)
    ran = run(path, "--json")
    assert ran.returncode == 3
    steps = json.loads(ran.stdout)["steps"]
    assert [step["step"] for step in steps if step["verdict"] == "refused"] == ["columns__text"]
    assert "runs the code in it" in ran.stderr
    assert "columns__text (HashingVectorizer)" in ran.stderr


def test_command_says_under_a_step_why_it_does_not_convert(tmp_path):
    path = tmp_path / "model.joblib"
    joblib.dump(MIXED, path)
    lines = run(path).stdout.splitlines()
    (place,) = [index for index, line in enumerate(lines) if line.startswith("refused")]
    assert lines[place].split() == ["refused", "columns__text", "HashingVectorizer"]
    assert lines[place + 1].startswith(" " * 10 + "ONNX has no such hash")


class Hanging:
    def __reduce__(self):
        return exec, ("print('from the model', flush=True); import time; time.sleep(100)",)


def test_command_loads_a_pickle_apart_and_ends_one_that_hangs(tmp_path):
    path = tmp_path / "model.joblib"
    joblib.dump(Hanging(), path)
    ran = run(path, "--json", "--time-limit", "1")
    assert ran.returncode == 3
    assert "from the model" not in ran.stdout
    assert "did not end within 1 s while loading the model" in json.loads(ran.stdout)["error"]["found"]
    assert "did not end within 1 s while loading the model" in ran.stderr


@pytest.fixture(scope="module")
def rows():
    """The rows of docs/coverage.md, (estimator, options, data, verdict): those of default options, and the others."""
    parts = DOCS.read_text(encoding="utf-8").split(OPTIONS)
    return [[(*named, found[0].partition(",")[0].strip("*")) for named, found in table(part).items()] for part in parts]


def test_counts_of_the_coverage_page_are_those_of_its_table(rows):
    default, options = ([row[3] for row in part] for part in rows)
    text = DOCS.read_text(encoding="utf-8")
    counts = re.search(r"Of (\d+) estimators (\d+) are exact(?: \(.*?\))?, (\d+) refused and (\d+) wrong", text)
    found = [len(default), *(default.count(verdict) for verdict in ("exact", "refused", "wrong"))]
    assert [int(count) for count in counts.groups()] == found
    further = re.search(r"Of (\d+) further sets of options (\d+) are exact, (\d+) refused and (\d+) wrong", text)
    found = [len(options), *(options.count(verdict) for verdict in ("exact", "refused", "wrong"))]
    assert [int(count) for count in further.groups()] == found


def test_at_least_176_estimators_are_served_exactly_and_none_is_wrong(rows):
    served = [found[0] for found in table(DOCS.read_text(encoding="utf-8").split(OPTIONS)[0]).values()]
    assert served.count("exact") >= 176  # and not "exact, not served"
    assert "wrong" not in [row[3] for part in rows for row in part]


@pytest.mark.filterwarnings("ignore")
def test_lint_refuses_nothing_that_the_coverage_page_has_as_exact(rows):
    both = [*rows[0], *rows[1]]
    verdicts = {row[:3]: row[3] for row in both}
    tried = [(case, verdicts.get(cells_of(case))) for case in cases()]
    assert sum(verdict is None for _, verdict in tried) < 0.1 * len(tried)  # another scikit-learn has other estimators
    assert [case for case, verdict in tried if verdict == "exact" and refused(case.model)] == []


@pytest.mark.filterwarnings("ignore")
def test_lint_refuses_by_name_every_estimator_that_the_coverage_page_refuses(rows):
    names = {row[0] for row in rows[0] if row[3] == "refused"}
    models = [case.model for case in cases() if case.default and case.estimator in names]
    assert {type(model).__name__ for model in models if refused(model)} == names

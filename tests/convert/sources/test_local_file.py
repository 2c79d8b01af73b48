"""Trained models in files: pickles as they are, skops files only with harmless types."""

import pickle
from functools import partial

import joblib
import numpy as np
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from appliance.errors import ConversionRefused, Misuse, NotFound
from convert.sources.local_file import load


class Strange(BaseEstimator):
    """An estimator that is nobody's but ours."""


@pytest.fixture
def model(iris):
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(*iris)


@pytest.mark.parametrize("ending", [".joblib", ".pkl", ".pickle", ".skops"])
def test_every_known_ending_loads_with_its_digest(tmp_path, model, iris, ending):
    path = tmp_path / f"model{ending}"
    if ending == ".skops":
        skops.io.dump(model, path)
    elif ending == ".joblib":
        joblib.dump(model, path)
    else:
        path.write_bytes(pickle.dumps(model))
    source = load(path)
    assert source.file_name == path.name
    assert len(source.sha256) == 64
    assert (source.model.predict(iris[0]) == model.predict(iris[0])).all()


@pytest.mark.parametrize("kind", [RandomForestClassifier, GradientBoostingClassifier])
def test_scikit_learns_own_classes_in_skops_files_are_trusted(tmp_path, iris, kind):
    skops.io.dump(kind(n_estimators=3).fit(*iris), tmp_path / "model.skops")
    assert isinstance(load(tmp_path / "model.skops").model, kind)


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (Strange(), "Strange"),
        (FunctionTransformer(partial(np.testing.runstring, "import os")), "runstring"),
    ],
    ids=["unknown class", "a NumPy function that runs text"],
)
def test_other_types_in_skops_files_are_refused_by_name(tmp_path, estimator, name):
    skops.io.dump(estimator, tmp_path / "model.skops")
    with pytest.raises(ConversionRefused, match=name):
        load(tmp_path / "model.skops")


def test_missing_file_unknown_ending_and_torn_pickle_are_told_apart(tmp_path, model):
    with pytest.raises(NotFound):
        load(tmp_path / "model.joblib")
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(Misuse, match=r"\.h5"):
        load(tmp_path / "model.h5")
    joblib.dump(model, tmp_path / "torn.joblib")
    torn = (tmp_path / "torn.joblib").read_bytes()
    (tmp_path / "torn.joblib").write_bytes(torn[: len(torn) // 2])
    with pytest.raises(ConversionRefused):
        load(tmp_path / "torn.joblib")


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=300))
def test_any_bytes_as_skops_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.skops"
    path.write_bytes(content)
    with pytest.raises(ConversionRefused) as refused:
        load(path)
    assert refused.value.next_step

"""LightGBM's, XGBoost's and CatBoost's own files, read as the estimators that wrote them."""

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from appliance.errors import ConversionRefused
from convert.sources.local_file import load


def saved(model, path):
    (model.booster_ if isinstance(model, lightgbm.LGBMModel) else model).save_model(path)
    return path


@pytest.fixture(params=[True, False], ids=["table", "array"])
def rows(request, iris):
    x, _ = iris
    return pd.DataFrame(x, columns=["a", "b", "c", "d"]) if request.param else x


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("make", "ending"),
    [
        (lambda: lightgbm.LGBMClassifier(n_estimators=3, verbose=-1), "txt"),
        (lambda: xgboost.XGBClassifier(n_estimators=3), "json"),
        (lambda: xgboost.XGBClassifier(n_estimators=3), "ubj"),
        (lambda: catboost.CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False), "cbm"),
    ],
    ids=["lightgbm", "xgboost json", "xgboost ubj", "catboost"],
)
def test_a_classifier_answers_as_before(tmp_path, iris, rows, make, ending, classes):
    model = make().fit(rows, np.minimum(iris[1], classes - 1))
    read = load(saved(model, tmp_path / f"m.{ending}")).model
    assert type(read) is type(model)
    assert (read.predict_proba(rows) == model.predict_proba(rows)).all()
    assert (read.predict(rows) == model.predict(rows)).all()
    assert list(read.classes_) == list(range(classes))
    assert read.n_features_in_ == 4
    assert hasattr(read, "feature_names_in_") == isinstance(rows, pd.DataFrame)


@pytest.mark.parametrize(
    ("make", "ending"),
    [
        (lambda: lightgbm.LGBMRegressor(n_estimators=3, verbose=-1), "txt"),
        (lambda: lightgbm.LGBMRegressor(n_estimators=3, objective="poisson", verbose=-1), "txt"),
        (lambda: xgboost.XGBRegressor(n_estimators=3), "json"),
        (lambda: xgboost.XGBRegressor(n_estimators=3, objective="count:poisson"), "ubj"),
        (lambda: catboost.CatBoostRegressor(iterations=3, verbose=0, allow_writing_files=False), "cbm"),
    ],
    ids=["lightgbm", "lightgbm poisson", "xgboost", "xgboost poisson", "catboost"],
)
def test_a_regressor_answers_as_before(tmp_path, iris, make, ending):
    x, y = iris
    model = make().fit(x, y + x[:, 0])
    read = load(saved(model, tmp_path / f"m.{ending}")).model
    assert type(read) is type(model)
    assert (read.predict(x) == model.predict(x)).all()


def test_a_ranker_is_read_as_one(tmp_path, iris):
    x, y = iris
    model = lightgbm.LGBMRanker(n_estimators=2, verbose=-1).fit(x, y, group=[75, 75])
    read = load(saved(model, tmp_path / "m.txt")).model
    assert isinstance(read, lightgbm.LGBMRanker)
    assert (read.predict(x) == model.predict(x)).all()


@pytest.mark.parametrize("ending", ["txt", "json", "ubj", "cbm"])
@pytest.mark.parametrize("content", [b"", b"tree\nnothing", b'{"learner": {}}', b"\xff\xfe\0\1"], ids=str)
def test_another_file_is_refused(tmp_path, ending, content):
    path = tmp_path / f"m.{ending}"
    path.write_bytes(content)
    with pytest.raises(ConversionRefused) as refused:
        load(path)
    assert refused.value.next_step

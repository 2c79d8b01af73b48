"""LightGBM, XGBoost and CatBoost models answer in the graph as their libraries do."""

import json

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from catboost import CatBoostClassifier, CatBoostRanker, CatBoostRegressor
from hypothesis import given
from hypothesis import strategies as st
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from appliance.errors import ConversionRefused
from appliance.inference.session import Session
from convert.converters import boosting_catboost, boosting_lightgbm, isolation

EXACT = 1e-12  # of float64 answers
SINGLE = 2e-6  # of float32 answers: XGBoost's, and those of float32 graphs
KINDS = ("continuous", "one decimal", "integers", "missing")
LIGHT = {"n_estimators": 6, "verbose": -1, "min_child_samples": 5, "n_jobs": 1}
EXTREME = {"n_estimators": 6, "n_jobs": 1}
CAT = {"iterations": 6, "depth": 4, "verbose": 0, "allow_writing_files": False, "thread_count": 1}


def light_splits(model):
    """Return (column, threshold) of a LightGBM model's nodes."""
    trees = boosting_lightgbm._read(model).trees
    return [(tree.feature[i], tree.threshold[i]) for tree in trees for i in np.flatnonzero(~tree.is_leaf)]


def extreme_splits(model):
    """Return (column, threshold) of an XGBoost model's nodes."""
    booster = json.loads(bytes(model.get_booster().save_raw("json")))["learner"]["gradient_booster"]
    pairs = []
    for tree in booster.get("gbtree", booster)["model"]["trees"]:
        inner = np.flatnonzero(np.asarray(tree["left_children"]) >= 0)
        pairs += [(tree["split_indices"][i], np.float32(tree["split_conditions"][i])) for i in inner]
    return pairs


def cat_splits(model):
    """Return (column, border) of a CatBoost model."""
    features = boosting_catboost._content(model)["features_info"]["float_features"]
    return [(feature["flat_feature_index"], border) for feature in features for border in feature["borders"]]


def holes(rows, share=0.03):
    """Return rows with some values missing and some zero."""
    rng = np.random.default_rng(2)
    rows = np.where(rng.random(rows.shape) < share, np.nan, rows)
    return np.where(rng.random(rows.shape) < share, 0.0, rows)


def target(sample, model):
    """Return what a model of this kind is trained on."""
    name = type(model).__name__
    if "Classifier" not in name:
        return sample.numbers
    return sample.three if "XGB" in name else sample.texts


def check(proof, model, rows, tolerance=EXACT):
    proof.check(model, rows, tolerance, SINGLE)


@pytest.mark.parametrize("kind", KINDS)
def test_lightgbm_compares_in_float64(proof, kind):
    sample = proof.draw(kind)
    for model in (lightgbm.LGBMClassifier(**LIGHT), lightgbm.LGBMRegressor(**LIGHT)):
        model.fit(sample.x, target(sample, model))
        check(proof, model, holes(proof.neighbours(sample.x, light_splits(model))))


@pytest.mark.parametrize("kind", KINDS)
def test_xgboost_compares_in_float32(proof, kind):
    sample = proof.draw(kind)
    for model in (xgboost.XGBClassifier(**EXTREME), xgboost.XGBRegressor(**EXTREME)):
        model.fit(sample.x, target(sample, model))
        check(proof, model, holes(proof.neighbours(sample.x, extreme_splits(model))), SINGLE)


@pytest.mark.parametrize("kind", KINDS)
def test_catboost_compares_in_float32(proof, kind):
    sample = proof.draw(kind)
    for model in (CatBoostClassifier(**CAT), CatBoostRegressor(**CAT)):
        model.fit(sample.x, target(sample, model))
        rows = proof.neighbours(sample.x, cat_splits(model))
        check(proof, model, holes(rows) if kind == "missing" else rows)


@pytest.mark.parametrize("options", [{"zero_as_missing": True}, {"use_missing": False}], ids=str)
def test_lightgbm_takes_zero_and_missing_as_it_was_told(proof, options):
    sample = proof.draw("integers")
    model = lightgbm.LGBMRegressor(**LIGHT, **options).fit(sample.x, sample.numbers)
    check(proof, model, holes(proof.neighbours(sample.x, light_splits(model)), 0.2))


@pytest.mark.parametrize("boosting", ["dart", "rf", "goss"])
def test_lightgbm_knows_each_boosting_type(proof, boosting):
    sample = proof.draw("one decimal")
    bagging = {"subsample": 0.5, "subsample_freq": 1} if boosting == "rf" else {}
    model = lightgbm.LGBMClassifier(boosting_type=boosting, **LIGHT, **bagging).fit(sample.x, sample.texts)
    check(proof, model, proof.neighbours(sample.x))


@pytest.mark.parametrize(
    "objective",
    [
        "regression_l1",
        "huber",
        "fair",
        "poisson",
        "quantile",
        "mape",
        "gamma",
        "tweedie",
        "cross_entropy",
        "cross_entropy_lambda",
    ],
)
def test_lightgbm_knows_each_link(proof, objective):
    sample = proof.draw("one decimal")
    model = lightgbm.LGBMRegressor(objective=objective, **LIGHT)
    model.fit(sample.x, sample.numbers / sample.numbers.max())
    check(proof, model, sample.x)


@pytest.mark.parametrize(
    "options",
    [{"objective": "multiclassova"}, {"objective": "binary", "sigmoid": 0.7}, {"objective": "cross_entropy"}],
    ids=str,
)
def test_lightgbm_knows_each_classification(proof, options):
    sample = proof.draw("one decimal")
    classes = sample.texts if options["objective"] == "multiclassova" else sample.two
    model = lightgbm.LGBMClassifier(**LIGHT, **options).fit(sample.x, classes)
    check(proof, model, sample.x)


def test_lightgbm_square_root_and_ranking_are_exact(proof):
    sample = proof.draw("one decimal")
    check(proof, lightgbm.LGBMRegressor(reg_sqrt=True, **LIGHT).fit(sample.x, sample.numbers - 3), sample.x)
    check(proof, lightgbm.LGBMRanker(**LIGHT).fit(sample.x, sample.three, group=[100] * 3), sample.x)


@pytest.mark.parametrize(
    "objective",
    [
        "reg:absoluteerror",
        "reg:pseudohubererror",
        "count:poisson",
        "reg:gamma",
        "reg:tweedie",
        "reg:logistic",
        "survival:cox",
    ],
)
@pytest.mark.parametrize("base", [None, 0.3], ids=["own base score", "base score given"])
def test_xgboost_knows_each_link_and_base_score(proof, objective, base):
    sample = proof.draw("one decimal")
    model = xgboost.XGBRegressor(objective=objective, base_score=base, **EXTREME)
    model.fit(sample.x, sample.numbers / sample.numbers.max())
    check(proof, model, sample.x, SINGLE)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "multi:softmax"},
        {"booster": "dart", "rate_drop": 0.4},
        {"num_parallel_tree": 3},
        {"missing": 0.0},
    ],
    ids=str,
)
def test_xgboost_knows_options_that_change_the_answer(proof, options):
    sample = proof.draw("integers")
    model = xgboost.XGBClassifier(**EXTREME, **options).fit(sample.x, sample.three)
    check(proof, model, holes(sample.x), SINGLE)


@pytest.mark.parametrize("objective", ["binary:logistic", "binary:hinge", "binary:logitraw"])
def test_xgboost_knows_each_classification_in_two(proof, objective):
    sample = proof.draw("integers")
    model = xgboost.XGBClassifier(objective=objective, base_score=0.2, **EXTREME).fit(sample.x, sample.two)
    check(proof, model, sample.x, SINGLE)


def test_xgboost_stops_at_the_best_iteration(proof):
    sample = proof.draw("one decimal")
    model = xgboost.XGBClassifier(n_estimators=40, learning_rate=1.0, early_stopping_rounds=1, n_jobs=1)
    model.fit(sample.x[:150], sample.three[:150], eval_set=[(sample.x[150:], sample.three[150:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    check(proof, model, sample.x, SINGLE)


def test_xgboost_forests_rankings_and_several_targets_are_right(proof):
    sample = proof.draw("one decimal")
    several = np.column_stack([sample.numbers, -sample.numbers])
    for model in (
        xgboost.XGBRFClassifier(**EXTREME).fit(sample.x, sample.three),
        xgboost.XGBRanker(**EXTREME).fit(sample.x, sample.two, group=[100] * 3),
        xgboost.XGBRegressor(**EXTREME).fit(sample.x, several),
    ):
        check(proof, model, sample.x, SINGLE)


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise", "Lossguide"])
@pytest.mark.parametrize("missing", ["Min", "Max"])
def test_catboost_knows_each_tree_shape_and_side_of_missing_values(proof, policy, missing):
    sample = proof.draw("missing")
    model = CatBoostClassifier(grow_policy=policy, nan_mode=missing, **CAT).fit(sample.x, sample.texts)
    check(proof, model, holes(sample.x))


@pytest.mark.parametrize("loss", ["MAE", "Poisson", "Tweedie:variance_power=1.5", "LogLinQuantile", "MultiRMSE"])
def test_catboost_knows_each_link(proof, loss):
    sample = proof.draw("one decimal")
    several = np.column_stack([sample.numbers, -sample.numbers])
    model = CatBoostRegressor(loss_function=loss, **CAT)
    model.fit(sample.x, several if loss == "MultiRMSE" else sample.numbers)
    check(proof, model, sample.x)


def test_catboost_knows_its_threshold_one_against_all_and_rankings(proof):
    sample = proof.draw("one decimal")
    tuned = CatBoostClassifier(**CAT).fit(sample.x, sample.two)
    tuned.set_probability_threshold(0.3)
    ranker = CatBoostRanker(**CAT).fit(sample.x, sample.three, group_id=np.repeat(range(3), 100))
    against_all = CatBoostClassifier(loss_function="MultiClassOneVsAll", **CAT).fit(sample.x, sample.texts)
    for model in (tuned, ranker, against_all):
        check(proof, model, sample.x)


@pytest.mark.parametrize(
    ("model", "tolerance"),
    [
        (lightgbm.LGBMClassifier(**LIGHT), EXACT),
        (xgboost.XGBClassifier(**EXTREME), SINGLE),
        (CatBoostClassifier(**CAT), EXACT),
    ],
    ids=["lightgbm", "xgboost", "catboost"],
)
def test_booster_is_right_behind_a_scaler(proof, model, tolerance):
    sample = proof.draw("one decimal")
    pipeline = make_pipeline(StandardScaler(), model).fit(sample.x, target(sample, model))
    difference = proof.compare(pipeline, proof.neighbours(sample.x))
    assert difference.labels == 0
    assert difference.numbers <= tolerance


@pytest.mark.parametrize("count", [3, 70, 250])
def test_categories_unseen_missing_and_broken_ones_are_right(proof, count):
    rng = np.random.default_rng(count)
    x = np.column_stack([rng.integers(0, count, 1000), rng.normal(size=1000)]).astype(float)
    y = rng.normal(size=count)[x[:, 0].astype(int)] * 3 + x[:, 1]
    x[::11, 0] = np.nan
    rows = x.copy()
    rows[::3, 0] = rng.choice([-1.0, -0.5, 1.5, 400.0, np.nan, 2.0], len(rows[::3]))
    light = lightgbm.LGBMRegressor(min_data_per_group=2, cat_smooth=1, **LIGHT).fit(x, y, categorical_feature=[0])
    extreme = xgboost.XGBRegressor(enable_categorical=True, feature_types=["c", "q"], **EXTREME).fit(x, y)
    check(proof, light, rows)
    check(proof, extreme, rows, SINGLE)


@pytest.mark.parametrize(
    ("model", "tolerance"),
    [
        (lightgbm.LGBMClassifier(min_data_per_group=2, cat_smooth=1, **LIGHT), EXACT),
        (xgboost.XGBClassifier(enable_categorical=True, max_cat_to_onehot=2, **EXTREME), SINGLE),
    ],
    ids=["lightgbm", "xgboost"],
)
def test_texts_of_category_columns_become_the_codes_of_training(proof, model, tolerance):
    rng = np.random.default_rng(0)
    texts = pd.Categorical(rng.choice(["a", "b c", "zed", None], 400), categories=["zed", "a", "b c"])
    numbers = pd.Categorical(rng.choice([5, 7, 100], 400))
    table = pd.DataFrame({"x": rng.normal(size=400), "k": texts, "n": numbers})
    model.fit(table, (table.x + table.k.cat.codes + table.n.cat.codes > 1).astype(int))
    feeds = {
        "x": table[["x"]].to_numpy(),
        "k": table[["k"]].astype(object).fillna("").to_numpy(),
        "n": table[["n"]].astype("int64").to_numpy(),
    }
    difference = proof.compare(model, table, feeds=feeds)
    assert difference.labels == 0
    assert difference.numbers <= tolerance


def test_native_boosters_answer_as_their_own_predict(proof):
    sample = proof.draw("continuous")
    settings = {"objective": "multiclass", "num_class": 3, "verbose": -1}
    light = lightgbm.train(settings, lightgbm.Dataset(sample.x, sample.three), 4)
    matrix = xgboost.DMatrix(sample.x, sample.two)
    extreme = xgboost.train({"objective": "binary:logistic"}, matrix, num_boost_round=4)
    ours = [Session(proof.graph(model, 5)).run({"x": sample.x})[0] for model in (light, extreme)]
    assert np.abs(ours[0] - light.predict(sample.x)).max() <= EXACT
    assert np.abs(ours[1].ravel() - extreme.predict(matrix)).max() <= SINGLE


def test_conversion_ends_in_a_forked_process_after_training_with_threads(proof):
    sample = proof.draw("continuous")
    light = lightgbm.LGBMRegressor(**{**LIGHT, "n_jobs": 2}).fit(sample.x, sample.numbers)
    extreme = xgboost.XGBRegressor(n_estimators=4, n_jobs=2).fit(sample.x, sample.numbers)
    cat = CatBoostRegressor(**{**CAT, "thread_count": 2}).fit(sample.x, sample.numbers)
    for model in (light, extreme, cat):
        content = isolation.run(lambda model=model: proof.graph(model, 5), time_limit=30)
        answers = Session(content).run({"x": sample.x})
        assert proof.difference(model, sample.x, answers).numbers <= SINGLE


def test_what_cannot_be_exact_is_refused_by_name(proof):
    sample = proof.draw("integers")
    categories = sample.x.astype(int).astype(str)
    refused = {
        "linear": lightgbm.LGBMRegressor(linear_tree=True, **LIGHT).fit(sample.x, sample.numbers),
        "pred_early_stop": lightgbm.LGBMClassifier(pred_early_stop=True, **LIGHT).fit(sample.x, sample.two),
        "booster": xgboost.XGBRegressor(booster="gblinear", **EXTREME).fit(sample.x, sample.numbers),
        "vectors": xgboost.XGBRegressor(multi_strategy="multi_output_tree", **EXTREME).fit(
            sample.x, np.column_stack([sample.numbers, sample.numbers])
        ),
        "categorical features": CatBoostClassifier(cat_features=[0], **CAT).fit(categories, sample.two),
    }
    for reason, model in refused.items():
        with pytest.raises(ConversionRefused, match=reason) as refusal:
            proof.graph(model, 5)
        assert type(model).__name__ in str(refusal.value)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_bitset_of_lightgbm_holds_the_categories_that_were_put_in(categories):
    words = np.zeros(max(categories) // 32 + 1, dtype=np.int64)
    for category in categories:
        words[category // 32] |= 1 << category % 32
    assert set(boosting_lightgbm._members(words) - 1) == categories

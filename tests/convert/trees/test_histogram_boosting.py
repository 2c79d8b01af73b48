"""Histogram-based boosting answers in the graph as scikit-learn does: bins, categories, links."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)

from convert.converters import hist_gradient_boosting

EXACT = 1e-12
SINGLE = 1e-6  # what a float32 output rounds away

KINDS = ("continuous", "one decimal", "integers", "missing")


def bins(model):
    """Return (column, threshold) of a histogram-based model's nodes."""
    nodes = np.concatenate([tree.nodes for iteration in model._predictors for tree in iteration])
    nodes = nodes[(nodes["is_leaf"] == 0) & np.isfinite(nodes["num_threshold"])]
    return list(zip(nodes["feature_idx"], nodes["num_threshold"], strict=True))


LOSSES = ("squared_error", "absolute_error", "gamma", "poisson", "quantile")


@pytest.mark.parametrize("kind", KINDS)
def test_histogram_boosting_is_exact_on_and_beside_thresholds(proof, kind):
    sample = proof.draw(kind)
    for target in (sample.two, sample.texts):
        model = HistGradientBoostingClassifier(max_iter=6).fit(sample.x, target)
        rows = proof.neighbours(sample.x, bins(model))
        proof.check(model, rows)


@pytest.mark.parametrize("loss", LOSSES)
def test_histogram_boosting_knows_the_link_of_each_loss(proof, loss):
    sample = proof.draw("missing")
    model = HistGradientBoostingRegressor(loss=loss, max_iter=6, quantile=0.3).fit(sample.x, sample.numbers)
    assert proof.compare(model, proof.neighbours(sample.x, bins(model))).numbers <= EXACT


@pytest.mark.parametrize("count", [3, 70, 250])
def test_histogram_boosting_knows_categories_unseen_and_missing_ones(proof, count):
    rng = np.random.default_rng(count)
    x = np.column_stack([rng.integers(0, count, 1000), rng.normal(size=1000), rng.integers(0, 4, 1000)]).astype(float)
    y = rng.normal(size=count)[x[:, 0].astype(int)] * 3 + x[:, 1] + x[:, 2]
    x[::11, 0] = np.nan
    rows = x.copy()
    rows[::3, 0] = rng.choice([-1.0, 1.5, 400.0, np.nan, 2.0], len(rows[::3]))
    model = HistGradientBoostingRegressor(max_iter=10, categorical_features=[0, 2], min_samples_leaf=3).fit(x, y)
    assert proof.compare(model, rows).numbers <= EXACT


def test_histogram_boosting_knows_texts_of_category_columns(proof):
    rng = np.random.default_rng(0)
    texts = pd.Categorical(rng.choice(["ä", "b c", "zed", None], 400), categories=["zed", "ä", "b c"])
    table = pd.DataFrame({"x": rng.normal(size=400), "k": texts})
    model = HistGradientBoostingClassifier(max_iter=6, categorical_features="from_dtype")
    model.fit(table, (table.x + table.k.cat.codes > 1).astype(int))
    feeds = {"x": table[["x"]].to_numpy(), "k": table[["k"]].astype(object).fillna("").to_numpy()}
    difference = proof.compare(model, table, feeds=feeds)
    assert difference.labels == 0
    assert difference.numbers <= EXACT


@given(st.sets(st.integers(0, 255)))
def test_bitset_holds_the_codes_that_were_put_in(codes):
    words = np.zeros(8, dtype=np.uint32)
    for code in codes:
        words[code // 32] |= np.uint32(1 << code % 32)
    assert set(hist_gradient_boosting._members(words) - 1) == codes

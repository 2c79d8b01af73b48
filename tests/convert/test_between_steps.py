"""Texts that pass from one step to the next, and refusals that name the step at fault."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from appliance.errors import ConversionRefused
from convert.build import convert_model


def half(table):
    return table.astype(np.float32)  # which is not traced


TABLE = pd.DataFrame(
    {
        "id": range(60),
        "unit": list("abc") * 20,
        "kind": list("xxyyz") * 12,
        "n": np.random.default_rng(0).normal(size=60).round(2),
    }
)
DENSE = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
CODES = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
SCALED_FIRST = ColumnTransformer([("s", StandardScaler(), ["n"])], remainder="passthrough")
NAMED = ColumnTransformer(
    [("s", StandardScaler(), ["n", "id"])], remainder="passthrough", verbose_feature_names_out=False
)
UNIT = ColumnTransformer([("k", "passthrough", ["unit"])])
IMPUTED = ("i", SimpleImputer(strategy="most_frequent"), ["unit", "kind"])
PIPELINES = {
    "texts pass to an encoder": [ColumnTransformer([("keep", "passthrough", ["unit"])]), DENSE],
    "texts and numbers pass": [ColumnTransformer([("keep", "passthrough", ["unit", "n"])]), DENSE],
    "imputed texts to a second": [
        ColumnTransformer([IMPUTED], remainder=StandardScaler()),
        ColumnTransformer([("o", DENSE, [0, 1]), ("n", StandardScaler(), [2, 3])]),
    ],
    "two in a row, the rest passes": [SCALED_FIRST, ColumnTransformer([("o", CODES, [2, 3])], remainder="passthrough")],
    "two in a row by names": [NAMED, ColumnTransformer([("o", DENSE, ["unit", "kind"])], remainder="passthrough")],
    "words of what passed": [
        ColumnTransformer([("keep", "passthrough", ["unit", "n"])]),
        ColumnTransformer([("t", TfidfVectorizer(analyzer="char"), 0), ("n", StandardScaler(), [1])]),
    ],
    "one inside another": [
        ColumnTransformer([("in", UNIT, ["unit", "kind"]), ("n", StandardScaler(), ["n"])]),
        ColumnTransformer([("o", DENSE, [0])], remainder="passthrough"),
    ],
    "a union of texts": [
        FeatureUnion([(name, ColumnTransformer([("k", "passthrough", [name])])) for name in ("unit", "kind")]),
        DENSE,
    ],
}


@pytest.mark.parametrize("steps", PIPELINES.values(), ids=PIPELINES)
def test_texts_pass_between_steps(steps):
    model = make_pipeline(*steps, LogisticRegression())
    if steps[0] is NAMED:
        model.set_output(transform="pandas")
    model.fit(TABLE, TABLE["unit"] == "a")
    assert convert_model(model, TABLE).parity.passed


def test_the_step_at_fault_is_found_by_the_object_and_not_by_its_class():
    parts = [("half", FunctionTransformer(half), ["n"]), ("same", FunctionTransformer(), ["id"])]
    model = make_pipeline(ColumnTransformer(parts), Ridge()).fit(TABLE, TABLE["n"])
    with pytest.raises(ConversionRefused) as caught:
        convert_model(model, TABLE)
    assert caught.value.tried == "convert step 'columntransformer__half' (FunctionTransformer) to ONNX"

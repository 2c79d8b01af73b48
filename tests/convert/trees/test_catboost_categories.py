"""CatBoost models with categorical features answer in the graph as CatBoost does, or are refused by name."""

import json

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from catboost import CatBoostClassifier, CatBoostRanker, CatBoostRegressor
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from appliance.errors import ConversionRefused, InvalidInput
from convert import convert_model
from convert.converters import boosting_catboost
from convert.converters import boosting_catboost_categories as categories
from convert.lint import lint
from convert.sources import native_boosters

EXACT = 1e-12
NAMES = ["city", "shift", "line", "part"]
NUMBERS = ["heat", "load"]
BARE = {"iterations": 20, "depth": 4, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
CAT = {**BARE, "cat_features": NAMES}
CUTS = "TargetBorderCount"


def drawn(rows, seed):
    """Return rows with a column of 40 texts, some of them not ASCII, of two, of three, and of 50 numbers."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "heat": rng.normal(size=rows).round(2),
            "city": rng.choice([f"Köln {i} 東" for i in range(38)] + ["", " "], rows).astype(object),
            "shift": rng.choice(["früh", "spät"], rows).astype(object),
            "line": rng.choice(["p", "q", "r"], rows).astype(object),
            "part": rng.integers(0, 50, rows),
            "load": rng.normal(size=rows),
        }
    )


@pytest.fixture(scope="module")
def table():
    """Return training rows, and a number to predict that hangs on categories, their combinations and numbers."""
    rows = drawn(800, 0)
    score = rows.heat + (rows.city.str.len() == 8) + (rows.line == "p") * (rows.part % 7) / 3
    score += (rows["shift"] == "spät") * (rows.heat > 0) + np.random.default_rng(1).normal(size=800) / 2
    return rows, score


@pytest.fixture(scope="module")
def fresh():
    """Return rows of which a part has categories that training never saw."""
    rows = drawn(900, 2)
    rows.loc[::5, "city"] = "Łódź"
    rows.loc[::7, "part"] = 2**40
    rows.loc[::11, "shift"] = "früh "
    rows.loc[::13, "line"] = "nan"
    return rows


@pytest.fixture
def check(ask):
    """Convert a model with the gate, and compare what a device answers to other rows with the model's own answers."""

    def check(model, sample, rows):
        conversion = convert_model(model, sample)
        if isinstance(rows, pd.DataFrame):
            columns = {name: [None if pd.isna(v) else v for v in rows[name].tolist()] for name in rows}
        else:
            columns = {f"x{i}": rows[:, i].tolist() for i in range(rows.shape[1])}
        found = ask(conversion, columns)
        expected = np.asarray(model.predict(rows)).ravel()
        if "probability" not in found:
            assert np.abs(found["prediction"].ravel() - expected).max() <= EXACT * max(1.0, np.abs(expected).max())
        else:
            assert (found["prediction"].astype(str) == expected.astype(str)).all()
            assert np.abs(found["probability"] - model.predict_proba(rows)).max() <= EXACT
        return conversion

    return check


def labels(score):
    return np.array(["low", "middle", "high"])[np.digitize(score, [0.5, 2])]


@pytest.mark.parametrize("complexity", [1, 2, 4])
def test_combinations_of_categories_are_right_and_unseen_ones_too(table, fresh, check, complexity):
    rows, score = table
    model = CatBoostClassifier(**CAT, max_ctr_complexity=complexity).fit(rows, score > 1)
    content = boosting_catboost._content(model)["features_info"]
    kinds = {e["combination_element"] for ctr in content["ctrs"] for e in ctr["elements"]}
    assert len(kinds) == (1 if complexity == 1 else 3), kinds
    conversion = check(model, rows, fresh)
    assert {tensor.name: tensor.type for tensor in conversion.manifest.inputs}["part"] == "int64"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (CatBoostClassifier, {"grow_policy": "Depthwise"}),
        (CatBoostClassifier, {"grow_policy": "Lossguide"}),
        (CatBoostClassifier, {"loss_function": "MultiClassOneVsAll", "boosting_type": "Ordered"}),
        (CatBoostClassifier, {"simple_ctr": "Buckets", "combinations_ctr": "Buckets"}),
        (CatBoostClassifier, {"one_hot_max_size": 255}),
        (CatBoostClassifier, {"ctr_leaf_count_limit": 10, "one_hot_max_size": 0}),
        (CatBoostRegressor, {"loss_function": "Poisson", "ctr_target_border_count": 3}),
        (
            CatBoostRegressor,
            {
                "simple_ctr": [
                    f"Borders:{CUTS}=5:Prior=0.3",
                    f"Buckets:{CUTS}=3",
                    f"BinarizedTargetMeanValue:{CUTS}=4",
                ],
                "combinations_ctr": [f"BinarizedTargetMeanValue:{CUTS}=4", "Counter:Prior=0.7"],
                "per_feature_ctr": [f"1:Borders:{CUTS}=2:Prior=0.5"],
            },
        ),
    ],
    ids=str,
)
def test_each_kind_of_target_statistic_is_right(table, fresh, check, kind, options):
    rows, score = table
    target = labels(score) if kind is CatBoostClassifier else score.abs()
    check(kind(**{**CAT, **options}).fit(rows, target), rows, fresh)


def test_ranker_and_counters_over_a_validation_set_are_right(table, fresh, check):
    rows, score = table
    ranker = CatBoostRanker(**CAT).fit(rows, np.digitize(score, [0, 1, 2]), group_id=np.repeat(range(8), 100))
    check(ranker, rows, fresh)
    counted = CatBoostClassifier(**CAT, counter_calc_method="Full", max_ctr_complexity=4)
    counted.fit(rows[:500], score[:500] > 1, eval_set=(rows[500:], score[500:] > 1), use_best_model=False)
    check(counted, rows, fresh)


def test_statistics_that_only_a_gpu_trains_are_right(table, fresh, check, tmp_path):
    rows, score = table
    kinds = ["Counter", "BinarizedTargetMeanValue"]
    model = CatBoostClassifier(**CAT, simple_ctr=kinds, combinations_ctr=kinds).fit(rows, score > 1)
    content = json.dumps(boosting_catboost._content(model))
    content = content.replace("Counter", "FeatureFreq").replace("BinarizedTarget", "FloatTarget")
    edited = json.loads(content)
    rng = np.random.default_rng(0)
    for entry in edited["ctr_data"].values():
        if entry["hash_stride"] == 3:
            entry["hash_map"][1::3] = [float(np.float32(v * rng.random())) for v in entry["hash_map"][1::3]]
    for ctr in edited["features_info"]["ctrs"]:
        ctr.update(prior_denomerator=7, prior_numerator=0.3, shift=0.1)
    (tmp_path / "model.json").write_text(json.dumps(edited))
    model.load_model(str(tmp_path / "model.json"), format="json")
    assert {ctr["ctr_type"] for ctr in edited["features_info"]["ctrs"]} == {"FeatureFreq", "FloatTargetMeanValue"}
    check(model, rows, fresh)


@pytest.mark.parametrize(
    "dtypes",
    [
        {"city": "category", "line": "category", "part": "category"},
        {"city": "string", "part": "Int64"},
        {"part": str},
        {"part": "int8", "heat": "float32"},
    ],
    ids=str,
)
def test_categories_may_come_in_other_dtypes(table, fresh, check, dtypes):
    rows, score = table
    fits = fresh.assign(part=fresh.part % 100).astype({name: kind for name, kind in dtypes.items() if name != "line"})
    check(CatBoostClassifier(**CAT).fit(rows.astype(dtypes), score > 1), rows.astype(dtypes), fits)


def test_truth_values_and_large_numbers_are_categories(table, check):
    rows, score = table
    rows = rows.assign(shift=rows["shift"] == "spät", part=2**60 + rows.part)
    conversion = check(CatBoostClassifier(**CAT).fit(rows, score > 1), rows, rows.assign(part=rows.part + 7))
    assert {t.name: t.type for t in conversion.manifest.inputs} == {
        "heat": "float32", "city": "string", "shift": "bool", "line": "string", "part": "int64", "load": "float32",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["objects", "integers", "texts"])
def test_arrays_keep_their_categories(table, fresh, check, kind):
    rows, score = table
    columns = {"objects": list(rows), "integers": ["part", "part"], "texts": ["city", "line"]}[kind]
    positions = [i for i, name in enumerate(columns) if name in NAMES]
    array, other = (np.array(part[columns].astype(object)) for part in (rows, fresh))
    if kind == "integers":
        array, other = array.astype("int64"), other.astype("int64")
    check(CatBoostClassifier(**{**CAT, "cat_features": positions}).fit(array, score > 1), array, other)


def test_categories_pass_through_pipelines_and_searches(table, fresh, check):
    rows, score = table
    gaps, other = rows.copy(), fresh.copy()
    for part in (gaps, other):
        part.loc[::9, "city"] = None
    parts = [
        ("scaled", StandardScaler(), NUMBERS),
        ("names", SimpleImputer(strategy="constant", fill_value="?"), ["city"]),
    ]
    filled = ColumnTransformer([*parts, ("kept", "passthrough", ["line", "part"])])
    check(
        make_pipeline(filled, CatBoostClassifier(**{**BARE, "cat_features": [2, 3, 4]})).fit(gaps, score > 1),
        gaps,
        other,
    )
    coded = OrdinalEncoder(dtype=int, handle_unknown="use_encoded_value", unknown_value=-1)
    named = ColumnTransformer(
        [("codes", coded, NAMES), ("kept", "passthrough", NUMBERS)], verbose_feature_names_out=False
    )
    named.set_output(transform="pandas")
    conversion = check(make_pipeline(named, CatBoostRegressor(**CAT)).fit(rows, score), rows, fresh)
    assert "catboost" in conversion.manifest.provenance.libraries
    search = GridSearchCV(
        make_pipeline("passthrough", CatBoostClassifier(**BARE)), {"catboostclassifier__depth": [3]}, cv=2
    )
    check(search.fit(rows, score > 1, catboostclassifier__cat_features=NAMES), rows, fresh)
    positive = TransformedTargetRegressor(CatBoostRegressor(**BARE), func=np.log1p, inverse_func=np.expm1)
    check(positive.fit(rows, score.abs(), cat_features=NAMES), rows, fresh)


def test_own_file_keeps_categories_and_labels(table, fresh, check, tmp_path):
    rows, score = table
    CatBoostClassifier(**CAT).fit(rows, labels(score)).save_model(str(tmp_path / "model.cbm"))
    conversion = check(native_boosters.load(tmp_path / "model.cbm", "catboost"), rows, fresh)
    assert conversion.manifest.class_labels == ["high", "low", "middle"]


def test_device_refuses_the_missing_category_that_catboost_refuses(table, ask):
    rows, score = table
    model = CatBoostClassifier(**CAT).fit(rows, score > 1)
    conversion = convert_model(model, rows)
    row = rows.head(1).astype(object)
    for name, is_taken in {"heat": True, "city": False, "part": False}.items():
        columns = {column: row[column].tolist() for column in row} | {name: [None]}
        if is_taken:
            expected = model.predict_proba(row.assign(heat=np.nan))
            assert np.allclose(ask(conversion, columns)["probability"], expected, rtol=0, atol=EXACT)
        else:
            with pytest.raises(InvalidInput, match=name):
                ask(conversion, columns)


def test_sample_that_lacks_categories_of_training_is_refused(table):
    rows, score = table
    model = CatBoostClassifier(**CAT, max_ctr_complexity=2).fit(rows, score > 1)
    with pytest.raises(ConversionRefused, match="lacks 3 categories of column 'part' that the model knows") as refusal:
        convert_model(model, rows[rows.part < 47])
    assert "every category of training" in refusal.value.next_step
    with pytest.raises(ConversionRefused, match="lacks 1 category of column 'city'"):
        convert_model(model, rows[rows.city != "Köln 7 東"])
    one_hot = CatBoostClassifier(**CAT, one_hot_max_size=100).fit(rows, score > 1)
    with pytest.raises(ConversionRefused, match=r"categor.* of column 'city'"):
        convert_model(one_hot, rows[rows.city.str.len() < 8])


def test_few_rows_are_enough_when_they_hold_every_category(table, fresh, check):
    rows, score = table
    model = CatBoostClassifier(**CAT, max_ctr_complexity=4).fit(rows, score > 1)
    first = [rows.drop_duplicates(name) for name in NAMES]
    check(model, pd.concat(first, ignore_index=True), fresh)


def test_what_cannot_be_exact_is_refused_by_name(table):
    rows, score = table
    targets = np.column_stack([score, -score])
    notes = rows.assign(note="the " + rows.city + " of " + rows.line)
    texts = rows[["city", "line"]].to_numpy(dtype=object)
    calibrated = CalibratedClassifierCV(CatBoostClassifier(**BARE), cv=2)
    calibrated.fit(texts, score > 1, cat_features=[0, 1])
    models = {
        "several tables": CatBoostRegressor(**CAT, loss_function="MultiRMSE").fit(rows, targets),
        "several tables of": CatBoostRegressor(**CAT, simple_ctr=[f"Borders:{CUTS}=5", f"Borders:{CUTS}=2"]).fit(
            rows, score
        ),
        "text features": CatBoostClassifier(**CAT, text_features=["note"]).fit(notes, score > 1),
        "inside another estimator": calibrated,
    }
    samples = {"text features": notes, "inside another estimator": texts}
    for reason, model in models.items():
        with pytest.raises(ConversionRefused, match=f"CatBoost.*{reason}"):
            convert_model(model, samples.get(reason, rows))


def test_lint_takes_categories_and_refuses_texts():
    assert not [step for step in lint(CatBoostClassifier(**CAT)) if step.found]
    assert [step for step in lint(CatBoostClassifier(**BARE, text_features=["note"])) if "text" in step.found]


HASH = st.integers(-(2**31), 2**31 - 1)


def combined(parts):
    """Return the hash of a combination as CatBoost's CalcHash defines it, one part after the other."""
    result = 0
    for part in parts:
        result = categories._FACTOR * (result + categories._FACTOR * (part % 2**64)) % 2**64
    return result


@given(st.lists(HASH, min_size=1, max_size=6))
def test_hash_of_a_combination_is_linear_in_its_parts(parts):
    factors = categories.factors(len(parts))
    assert sum(factor * part for factor, part in zip(factors, parts, strict=True)) % 2**64 == combined(parts)


def test_onnxruntime_wraps_unsigned_sums_modulo_2_64():
    rng = np.random.default_rng(0)
    parts, factors = rng.integers(-(2**63), 2**63 - 1, (50, 6)), rng.integers(-(2**63), 2**63 - 1, (6, 4))
    nodes = [
        helper.make_node("Cast", ["parts"], ["unsigned"], to=TensorProto.UINT64),
        helper.make_node("MatMul", ["unsigned", "factors"], ["summed"]),
        helper.make_node("Cast", ["summed"], ["hashes"], to=TensorProto.INT64),
    ]
    entries = [helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in ("parts", "hashes")]
    weights = numpy_helper.from_array(factors.view(np.uint64), "factors")
    graph = helper.make_graph(nodes, "wraps", entries[:1], entries[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"parts": parts})[0]
    expected = (parts.astype(object) @ factors.astype(object)) % 2**64
    assert (found.view(np.uint64).astype(object) == expected).all()


def ctr(elements, keys):
    """Return a column of target statistics over some keys."""
    table = categories.Table(np.array(keys, dtype=np.uint64), np.ones((len(keys), 2)), 0)
    return categories.Ctr("Borders", elements, (0.5,), table, 0, (0.0, 1.0), 0.0, 1.0)


@given(st.lists(HASH, min_size=4, max_size=8, unique=True), st.integers(0, 3))
def test_tables_tell_which_categories_the_sample_lacks(hashes, count):
    line, flag = categories.Element("category", 0), categories.Element("float", 0, border=0.5)
    part = categories.Element("category", 1)
    keys = [combined([one, other, bit]) for one in hashes for other in hashes for bit in (0, 1)]
    alone = [combined([one, bit]) for one in hashes for bit in (0, 1)]
    held = np.array(hashes[count:])
    known = categories.Known([held, np.array(hashes)], [held, np.array(hashes)], np.column_stack([held, held]))
    content = {"features_info": {"categorical_features": [{}, {}]}, "model_info": {"params": {}}}
    both, one = ctr((line, part, flag), keys), ctr((line, flag), alone)
    assert list(categories.lacking(content, [one, both], known)) == ([((0,), count)] if count else [])
    lost = 2 * count * len(hashes)
    assert list(categories.lacking(content, [both], known)) == ([((0, 1), lost)] if count else [])


def test_texts_that_share_a_hash_are_both_known(table):
    rows, score = table
    model = CatBoostClassifier(**CAT).fit(rows, score > 1)
    numbers = np.arange(200_000)  # so many that some of the 2^32 hashes are met twice
    columns = [numbers, *(np.resize(rows[name], 200_000) for name in NAMES[1:])]
    known, _ = categories.known(columns, model, lambda pool: boosting_catboost._content(model, pool))
    unique, times = np.unique(known.hashes[0], return_counts=True)
    assert len(known.hashes[0]) == 200_000 > len(unique)
    assert times.max() == 2


def test_text_that_catboost_does_not_give_back_is_refused(table):
    rows, score = table
    model = CatBoostClassifier(**CAT).fit(rows, score > 1)
    silent = {"features_info": {"cat_features_hash": [{"value": "other", "hash": 1}]}}
    with pytest.raises(ConversionRefused, match="writes the category"):
        categories.known([rows[name] for name in NAMES], model, lambda pool: silent)

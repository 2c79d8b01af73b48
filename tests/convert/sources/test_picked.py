"""Pickles that hold more than the model: which part is meant, and what else a file holds instead of one."""

import collections
import sys
import types

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from appliance.errors import ConversionRefused
from convert.sources.local_file import load

MODEL = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
Named = collections.namedtuple("Named", "scaler model")


class Kept:
    """A model as an attribute of an object, as applications keep it."""

    def __init__(self):
        self.model, self.columns = MODEL, ["a"]


@pytest.fixture
def held(tmp_path):
    def held(value, item=""):
        joblib.dump(value, tmp_path / "model.pkl")
        return load(tmp_path / "model.pkl", item=item).model

    return held


@pytest.mark.parametrize(
    ("value", "item"),
    [
        ({"model": MODEL, "columns": ["a"]}, "model"),
        ([StandardScaler(), MODEL], "1"),
        (Named(StandardScaler(), MODEL), "model"),
        ({"fold": {"best": MODEL}}, "fold.best"),
        ({"v1.2": MODEL}, "v1.2"),
        ({3: MODEL}, "3"),
        (Kept(), "model"),
    ],
)
def test_a_part_is_picked_by_its_key_position_or_attribute(held, value, item):
    assert isinstance(held(value, item), LogisticRegression)


@pytest.mark.parametrize(
    ("value", "found", "next_step"),
    [
        ({"model": MODEL, "columns": ["a"]}, "a dict with the keys 'model' (LogisticRegression)", "say --item model"),
        ((StandardScaler(), MODEL), "a tuple with the items '0' (StandardScaler)", "--item 0 or --item 1; .*Pipeline"),
        ({"fold": {"best": MODEL}}, "a dict with the keys 'fold' (dict)", "say --item fold.best"),
        (Kept(), "a Kept with the attributes 'model' (LogisticRegression)", "say --item model"),
        (LogisticRegression, "the class LogisticRegression itself", "the trained object"),
        (np.zeros(3), r"a ndarray of shape (3,)", "write the trained estimator itself"),
        ("weights", "a text ('weights')", "write the trained estimator itself"),
        ({n: n for n in range(30)}, "20 more", "write the trained estimator itself"),
        (None, "a NoneType", "write the trained estimator itself"),
    ],
)
def test_what_is_no_estimator_is_told_with_what_to_do(held, value, found, next_step):
    with pytest.raises(ConversionRefused, match=next_step) as caught:
        held(value)
    assert found in caught.value.found


@pytest.mark.parametrize("item", ["wrong", "model.coef", "."])
def test_a_part_that_is_not_there_is_told_with_those_that_are(held, item):
    if item == ".":
        with pytest.raises(ConversionRefused, match="keys 'model'"):
            held({"model": MODEL}, item)
        return
    with pytest.raises(ConversionRefused, match="there is no") as caught:
        held({"model": MODEL}, item)
    assert caught.value.next_step == "say --item model"


def test_a_class_of_the_script_that_wrote_the_model_and_missing_packages_are_named(tmp_path, monkeypatch):
    module = types.ModuleType("imblearn")
    module.Sampler = type("Sampler", (), {"__module__": "imblearn", "fit": None})
    monkeypatch.setitem(sys.modules, "imblearn", module)
    joblib.dump(module.Sampler(), tmp_path / "sampler.pkl")
    monkeypatch.delitem(sys.modules, "imblearn")
    with pytest.raises(ConversionRefused, match="pip install imbalanced-learn"):
        load(tmp_path / "sampler.pkl")
    monkeypatch.setattr(sys.modules["__main__"], "Own", type("Own", (), {"__module__": "__main__"}), raising=False)
    joblib.dump(sys.modules["__main__"].Own(), tmp_path / "own.pkl")
    monkeypatch.delattr(sys.modules["__main__"], "Own")
    with pytest.raises(ConversionRefused, match=r"Own stands in the script .* PYTHONPATH"):
        load(tmp_path / "own.pkl")

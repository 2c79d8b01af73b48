import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris

from appliance.inference.session import Session
from appliance.inference.tensors import InputSchema


@pytest.fixture(scope="session")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="session")
def plant():
    """Rows of a machine: decimals, integers, texts and booleans, under names that are no C identifiers."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "temp-C": rng.normal(20, 5, 300).round(1),
            "serial no": rng.integers(0, 5, 300),
            "größe": rng.choice(["S", "M", "L"], 300),
            "on": rng.random(300) < 0.5,
        }
    )
    return table, (table["temp-C"] + 2 * table["serial no"] + 3 * (table["größe"] == "L") > 25).to_numpy()


@pytest.fixture
def ask():
    """Ask a conversion as a device would: rows by column in, {output name: array} out."""

    def ask(conversion, columns):
        feeds = InputSchema(conversion.manifest.inputs).from_columns(columns)
        names = [output.name for output in conversion.manifest.outputs]
        return dict(zip(names, Session(conversion.onnx).run(feeds, names), strict=True))

    return ask


def rows_of(frame):
    """Rows as a client sends them: plain numbers, texts and null by column."""
    listed = {}
    for name in frame:
        values = [None if pd.isna(value) else value for value in frame[name].astype(object)]
        if any(value is None for value in values):  # a boolean that may be missing travels as 0 and 1
            values = [float(value) if isinstance(value, bool) else value for value in values]
        listed[name] = values
    return listed


@pytest.fixture
def agrees(ask):
    """Return a function: whether the device gives every label and number of the original for the sample's rows.

    agrees(model, conversion, sample, pandas=None); `pandas` is the sample as such a table where it is none.
    """

    def agrees(model, conversion, sample, pandas=None):
        frame = sample if pandas is None else pandas
        names = [column for tensor in conversion.manifest.inputs for column in tensor.columns]
        found = ask(conversion, rows_of(frame[names]))
        number = hasattr(model, "predict_proba") and "probability" in found
        labels = np.asarray(model.predict(sample))
        same = np.allclose(found["prediction"], labels, rtol=1e-5, atol=1e-5) if labels.dtype.kind == "f" else True
        same = same and (
            labels.dtype.kind == "f" or (found["prediction"] == labels.reshape(found["prediction"].shape)).all()
        )
        return same and (
            not number or np.allclose(found["probability"], model.predict_proba(sample), rtol=1e-5, atol=1e-5)
        )

    return agrees

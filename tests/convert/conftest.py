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

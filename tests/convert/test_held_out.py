"""A sample that the model was not trained on: its outputs, its calibration and its errors go into the bundle."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression

from appliance.bundle import archive, baseline
from appliance.errors import InvalidInput
from convert import convert_model
from convert.cli import convert
from convert.held_out import Sample


@pytest.fixture(scope="module")
def classifier():
    x, y = make_classification(1200, 4, random_state=0, flip_y=0.1)
    return LogisticRegression().fit(x[:400], y[:400]), pd.DataFrame(x[400:800]), y[400:800]


def test_held_out_labels_bring_calibration_and_a_quantile_for_label_sets(classifier):
    model, sample, y = classifier
    made = convert_model(model, sample.to_numpy(), known=Sample(True, pd.DataFrame({"y": y}))).baseline
    assert made.unseen
    assert sum(one.rows for one in made.calibration) == pytest.approx(400, abs=25)
    assert made.conformal.score == "label"
    own = model.predict_proba(sample.to_numpy())[np.arange(400), y]
    assert made.conformal.quantiles == pytest.approx([np.sort(1 - own)[360]])  # the 361st of 400: ceil(401 * 0.9)


def test_labels_that_a_table_writes_as_numbers_or_texts_are_the_same(classifier):
    model, sample, y = classifier
    plain, floats, texts = (
        convert_model(model, sample.to_numpy(), known=Sample(True, pd.DataFrame({"y": one}))).baseline
        for one in (y, y.astype(float), y.astype(str))
    )
    assert plain == floats == texts
    with pytest.raises(InvalidInput, match="none is a label of the model: x"):
        convert_model(model, sample.to_numpy(), known=Sample(True, pd.DataFrame({"y": ["x"] * 400})))


def test_rows_of_the_training_bring_neither(classifier):
    model, sample, y = classifier
    made = convert_model(model, sample.to_numpy(), known=Sample(False, pd.DataFrame({"y": y}))).baseline
    assert (made.unseen, made.calibration, made.conformal) == (False, [], None)


def test_the_command_takes_the_truth_from_the_target(tmp_path):
    x, y = make_regression(600, 3, noise=10, random_state=0)
    model = RandomForestRegressor(10, random_state=0, n_jobs=1).fit(x[:300], y[:300])
    frame = pd.DataFrame(x[300:], columns=["a", "b", "c"]).assign(y=y[300:])
    frame.loc[0, "y"] = np.nan  # an answer that nobody knows
    frame.to_csv(tmp_path / "rows.csv", index=False)
    import joblib

    joblib.dump(model, tmp_path / "m.joblib")
    options = ["--name", "m", "--version", "1.0.0", "--sample", str(tmp_path / "rows.csv"), "--target", "y"]
    done = CliRunner().invoke(
        convert, [str(tmp_path / "m.joblib"), *options, "--sample-is", "held-out", "-o", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    made = baseline.read(archive.open_bundle(tmp_path / "m-1.0.0.bundle").members["baseline.json"])
    errors = np.sort(np.abs(model.predict(x[301:]) - y[301:]))
    assert made.unseen
    assert made.conformal.score == "absolute"
    assert made.conformal.quantiles == pytest.approx([errors[int(np.ceil(300 * 0.9)) - 1]])

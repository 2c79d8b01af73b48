"""Every model of docs/coverage.md that a bundle takes: score gives the answers of /predict, in CSV and JSON Lines."""

import re

import pytest

from appliance.errors import ConversionRefused, InvalidInput
from benchmarks.coverage import cells_of, table
from benchmarks.coverage_cases import cases
from benchmarks.score_parity import differences, rows_of, served


@pytest.fixture(scope="module")
def verdicts():
    """Return {cells that name a case: the table's verdict}."""
    return {named: verdict for named, (verdict, _, _) in table().items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", cases(), ids=lambda case: re.sub(r"\s+", "", f"{case.estimator}({case.options})"))
def test_score_answers_as_predict_does(case, tmp_path, verdicts):
    try:
        version = served(case, tmp_path)
    except (ConversionRefused, InvalidInput) as error:
        if verdicts.get(cells_of(case)) == "exact":
            raise
        pytest.skip(f"no bundle takes it: {error}")
    assert differences(version, rows_of(case, version), tmp_path) == []

"""Every model of docs/coverage.md that a bundle takes: score gives the answers of /predict, in CSV and JSON Lines."""

import re

import pytest

from benchmarks.coverage_cases import cases
from benchmarks.score_parity import differences, rows_of, served


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", cases(), ids=lambda case: re.sub(r"\s+", "", f"{case.estimator}({case.options})"))
def test_score_answers_as_predict_does(case, tmp_path):
    version = served(case, tmp_path)
    if version is None:
        pytest.skip("no bundle takes it: docs/coverage.md")
    assert differences(version, rows_of(case, version), tmp_path) == []

"""Converted models give the same answers by `appliance score` as by /predict; all of them: make score-coverage-test."""

import pytest

from benchmarks.coverage_cases import cases
from benchmarks.score_parity import ROWS, differences, rows_of, served

CHOSEN = {
    "LogisticRegression": "three",
    "LinearRegression": "two numbers",
    "Pipeline": "table",
    "TfidfVectorizer": "texts",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", CHOSEN)
def test_score_answers_as_predict_does(estimator, tmp_path):
    found = [case for case in cases() if case.estimator == estimator]
    case = next((case for case in found if case.data == CHOSEN[estimator]), found[0])
    version = served(case, tmp_path)
    rows = rows_of(case, version)
    assert len(rows) == ROWS or estimator == "TfidfVectorizer"
    assert differences(version, rows, tmp_path) == []

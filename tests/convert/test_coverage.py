"""Every row of docs/coverage.md: each estimator and set of options is trained, converted and asked fresh rows."""

import re
from importlib.metadata import version

import pytest

from benchmarks.coverage import DOCS, cells_of, table, word_of
from benchmarks.coverage_cases import cases
from benchmarks.coverage_measure import measure

CASES = cases()
IS_OF_THESE_VERSIONS = f" scikit-learn {version('scikit-learn')}," in DOCS.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def verdicts():
    """Return {cells that name a case: the table's verdict}, whether a bundle has a place for it or not."""
    return {named: verdict.removesuffix(", not served") for named, (verdict, _, _) in table().items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: re.sub(r"\s+", "", f"{case.estimator}({case.options})"))
def test_converts_as_the_table_says(case, verdicts):
    outcome = measure(case, "ours")
    assert outcome.verdict != "wrong", outcome
    if IS_OF_THESE_VERSIONS:  # what another scikit-learn has or lacks is no row of this table
        assert word_of(outcome) == verdicts[cells_of(case)], outcome


def test_table_lists_each_case_once():
    listed = list(table())
    assert len(listed) > 500
    assert IS_OF_THESE_VERSIONS is (set(listed) == {cells_of(case) for case in CASES})


def test_table_has_no_wrong_answer():
    assert {verdict for verdict, _, _ in table().values()} <= {"exact", "exact, not served", "refused"}

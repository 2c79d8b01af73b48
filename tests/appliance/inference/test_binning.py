"""Values in bins: nothing is lost, nothing is counted twice, and dependent rows are told from independent ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from appliance.inference import binning

FLOATS = st.floats(-1e6, 1e6, width=32)


@given(arrays.arrays(np.float32, st.integers(1, 200), elements=FLOATS), st.lists(FLOATS, min_size=1, max_size=20))
def test_each_value_is_counted_in_its_own_bin(values, wanted):
    edges = np.array(sorted(set(wanted)), np.float32)
    found = binning.counts(values, edges)
    assert found.tolist() == np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1).tolist()


@given(arrays.arrays(np.float32, st.integers(2, 200), elements=FLOATS))
def test_edges_ascend_and_part_the_values_as_the_quantiles_do(values):
    values = np.sort(values)
    wanted = np.quantile(values.astype(float), [0.1, 0.5, 0.9])
    edges = binning.edges_between(values, wanted)
    assert edges == sorted(set(edges))
    assert all(np.float32(edge) == edge for edge in edges)
    for quantile in wanted[wanted < values[-1]]:
        assert (values <= quantile).sum() in np.searchsorted(values, np.array(edges, np.float32), side="right")


def test_independent_rows_have_a_design_effect_of_about_one():
    rng = np.random.default_rng(1)
    bins = rng.integers(0, 10, 20_000)
    assert binning.design_effect(binning.consecutive(bins, 10)) < 1.5


def test_readings_that_resemble_those_before_them_count_for_fewer():
    rng = np.random.default_rng(1)
    readings = np.repeat(rng.normal(size=400), 50)  # each stays for 50 rows
    bins = np.searchsorted(np.quantile(readings, np.linspace(0.1, 0.9, 9)), readings)
    effect = binning.design_effect(binning.consecutive(bins, 10))
    assert 30 < effect < 80


@pytest.mark.parametrize(
    "blocks", [np.zeros((0, 4)), np.zeros((5, 4)), np.array([[3.0, 4.0]]), np.array([[5.0, 0]] * 3)]
)
def test_where_nothing_can_be_said_rows_count_as_independent(blocks):
    assert binning.design_effect(blocks) == 1.0


def test_too_few_rows_make_no_blocks():
    assert binning.consecutive(np.zeros(199, np.int64), 3).shape == (0, 3)
    assert binning.consecutive(np.zeros(200, np.int64), 3).sum() == 200

"""baseline.json: what was written is read back, and whatever else is refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle import baseline
from appliance.bundle.baseline import Baseline, Categories, Numbers
from appliance.errors import BundleRefused

KNOWN = Baseline(
    format=1,
    rows=100,
    probabilities=baseline.PROBABILITIES,
    inputs={"größe": Numbers(0.25, [float(p) for p in baseline.PROBABILITIES], 0.5, 0.2)},
    outputs={"prediction": Categories(0.0, {"setosa": 60, "virginica": 38}, 2)},
)


def test_baseline_reads_back_as_it_was_written():
    assert baseline.read(baseline.write(KNOWN)) == KNOWN
    assert baseline.write(KNOWN) == baseline.write(KNOWN)


def test_unknown_format_and_unknown_fields_are_refused():
    with pytest.raises(BundleRefused, match="format 2 is unknown"):
        baseline.read(baseline.write(msgspec.structs.replace(KNOWN, format=2)))
    with pytest.raises(BundleRefused, match="unknown field"):
        baseline.read(baseline.write(KNOWN).replace(b'"rows"', b'"extra": 1, "rows"'))


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(content):
    with pytest.raises(BundleRefused):
        baseline.read(content)


@given(st.integers(0, len(baseline.write(KNOWN)) - 1), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_reads_as_a_baseline(index, byte):
    content = bytearray(baseline.write(KNOWN))
    content[index] = byte
    try:
        found = baseline.read(bytes(content))
    except BundleRefused:
        return
    assert found.format == 1

"""baseline.json: what was written is read back, and whatever else is refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle import baseline
from appliance.bundle.baseline import Baseline, CalibrationBin, Categories, Conformal, Numbers
from appliance.errors import BundleRefused

KNOWN = Baseline(
    format=2,
    rows=100,
    probabilities=baseline.PROBABILITIES,
    inputs={"größe": Numbers(0.25, [float(p) for p in baseline.PROBABILITIES], 0.5, 0.2, [-1.0, 2.0], [0, 75, 0], 1.5)},
    outputs={"prediction": Categories(0.0, {"setosa": 60, "virginica": 38}, 2)},
    unseen=True,
    calibration=[CalibrationBin(0.7, 0.6, 0.55, 50), CalibrationBin(1.0, 0.9, 0.8, 50)],
    conformal=Conformal("label", 0.9, 100, [0.4]),
)
OF_FORMAT_1 = b"""{"format": 1, "rows": 100, "probabilities": [0.01,0.05,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.95,0.99],
 "inputs": {"x": {"type": "numbers", "missing": 0.25, "quantiles": [1,2,3,4,5,6,7,8,9,10,11,12,13], "mean": 7.0,
  "deviation": 2.0}}, "outputs": {"prediction": {"type": "categories", "missing": 0.0, "counts": {"a": 60},
  "others": 40}}}"""


def test_baseline_reads_back_as_it_was_written():
    assert baseline.read(baseline.write(KNOWN)) == KNOWN
    assert baseline.write(KNOWN) == baseline.write(KNOWN)


def test_unknown_format_and_unknown_fields_are_refused():
    with pytest.raises(BundleRefused, match="format 3 is unknown"):
        baseline.read(baseline.write(msgspec.structs.replace(KNOWN, format=3)))
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
    assert found.format in baseline.READABLE_FORMATS


def test_format_1_is_still_read():
    found = baseline.read(OF_FORMAT_1)
    assert found.inputs["x"] == Numbers(0.25, [float(one) for one in range(1, 14)], 7.0, 2.0)
    assert (found.unseen, found.calibration, found.conformal) == (False, [], None)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (b"[-1.0, 2.0]", b"[2.0, -1.0]", "edges of 'gr\\xf6\\xdfe' do not ascend"),
        (b"[0, 75, 0]", b"[0, 75]", "2 edges and 2 counts"),
        (b'"design": 1.5', b'"design": 0.5', ">= 1.0"),
        (b'"upto": 0.7', b'"upto": 1.0', "do not ascend"),
        (b'"score": "label"', b'"score": "else"', "else"),
        (b"[0.4]", b"[-0.4]", ">= 0"),
    ],
)
def test_what_no_conversion_writes_is_refused(before, after, found):
    content = b"".join(baseline.write(KNOWN).split()).replace(b",", b", ").replace(b":", b": ")
    assert before in content
    with pytest.raises(BundleRefused) as refused:
        baseline.read(content.replace(before, after))
    assert found.encode().decode("unicode_escape") in str(refused.value)

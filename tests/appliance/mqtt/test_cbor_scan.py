"""CBOR is judged before anything of it is built: what may be, what is refused, and how much it would become."""

import sys
import time
import tracemalloc
from datetime import UTC

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.mqtt.cbor_scan import cost

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.datetimes(timezones=st.just(UTC))
)
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(max_size=30), inner, max_size=30)
)


def nested(first: bytes, levels: int) -> bytes:
    return first * levels + b"\x00"


def bytes_of(value) -> int:
    """Return what a decoded document takes in memory."""
    own = sys.getsizeof(value)
    if isinstance(value, dict):
        return own + sum(bytes_of(key) + bytes_of(one) for key, one in value.items())
    return own + sum(map(bytes_of, value)) if isinstance(value, list) else own


@given(DOCUMENTS, st.booleans())
def test_what_a_usual_encoder_writes_is_taken_and_takes_no_more_than_said(document, named):
    payload = b"\xd9\xd9\xf7" * named + cbor2.dumps(document)
    assert bytes_of(cbor2.loads(payload)) <= cost(payload) + 64


@given(st.binary(max_size=80))
@settings(max_examples=2000)
def test_any_bytes_are_judged_and_what_is_taken_the_decoder_never_finds_longer(payload):
    try:
        cost(payload)
    except ValueError:
        return
    said = ""
    try:
        cbor2.loads(payload)
    except cbor2.CBORDecodeError as error:  # no UTF-8, no time: said by the decoder, in no time
        said = str(error)
    assert "premature end" not in said


@given(DOCUMENTS, st.data())
def test_a_payload_that_was_cut_off_or_goes_on_is_refused(document, data):
    payload = cbor2.dumps(document)
    with pytest.raises(ValueError, match=r"early|announces|length"):
        cost(payload[: data.draw(st.integers(0, len(payload) - 1))])
    with pytest.raises(ValueError, match="length"):
        cost(payload + b"\x00")


@pytest.mark.parametrize(
    "payload",
    [
        b"\x9f\x01\x02\xff", b"\xbf\x61a\x01\xff", b"\x7f\x61a\x61b\xff", b"\x5f\x41a\xff", b"\x9f\x9f\xff\xbf\xff\xff",
        b"\xf9\x7e\x00", b"\xc1\x1a\x00\x00\x00\x00", b"\xc0\x74" + b"2013-03-21T20:04:00Z",
    ],
)  # fmt: skip
def test_lengths_that_are_not_said_and_times_are_taken(payload):
    assert cost(payload) < 2000
    cbor2.loads(payload)


REFUSED = {
    "references to a text": b"\xd9\x01\x00\x82\x78\x20" + b"x" * 32 + b"\xd8\x19\x00",
    "shared value": b"\x82\xd8\x1c\x80\xd8\x1d\x00",
    "cycle": b"\xd8\x1c\x81\xd8\x1d\x00",
    "bignum": b"\xc2\x49" + b"\xff" * 9,
    "negative bignum": b"\xc3\x42\xff\xff",
    "decimal": b"\xc4\x82\x1a\x3b\x9a\xca\x00\xc2\x5a\x00\x03\xf0\x00" + b"\xff" * 258_048,
    "bigfloat": b"\xc5\x82\x1a\x3b\x9a\xca\x00\x01",
    "rational": b"\xd8\x1e\x82\x01\x02",
    "regular expression": b"\xd8\x23\x62a+",
    "set": b"\xd9\x01\x02\x81\x01",
    "tag within a tag": b"\xc0\xc0\x60",
    "time with a long text": b"\xc0\x78\x50" + b"9" * 80,
    "time of true": b"\xc1\xf5",
    "self-described twice": b"\xd9\xd9\xf7\xd9\xd9\xf7\x00",
    "nested lists": nested(b"\x81", 40),
    "nested endless lists": b"\x9f" * 40 + b"\xff" * 40,
    "nested objects": nested(b"\xa1\x61a", 40),
    "nested tags": nested(b"\xc0", 100_000),
    "announced items": b"\x9b\x00\x00\x00\xff\xff\xff\xff\xff",
    "announced pairs": b"\xba\x7f\xff\xff\xff",
    "announced bytes": b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    "announced text in pieces": b"\x7f\x7a\xff\xff\xff\xff",
    "bytes within a text": b"\x7f\x41a\xff",
    "text in pieces within a text": b"\x7f\x7f\xff\xff",
    "break": b"\xff",
    "break in a list": b"\x82\x01\xff",
    "simple value": b"\xf8\x20",
    "reserved": b"\x1c",
    "nothing": b"",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_multiply_or_never_ends_is_refused_before_it_is_built(name):
    payload = REFUSED[name]
    tracemalloc.start()
    started = time.thread_time()
    with pytest.raises(ValueError, match=r"\w"):
        cost(payload)
    seconds, (_, peak) = time.thread_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 1
    assert peak < 300_000


def test_a_quarter_of_a_mebibyte_that_becomes_much_is_told():
    assert cost(b"\x9a\x00\x03\xff\x00" + b"\xa0" * 0x3FF00) > 60 * 1024**2
    assert cost(b"\x9a\x00\x03\xff\x00" + b"\x01" * 0x3FF00) < 24 * 1024**2

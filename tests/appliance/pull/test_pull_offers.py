"""index.json as it may be written, and as it must not be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import Refused
from appliance.pull import offers as index_of_offers
from appliance.pull.offers import MAX_OFFERS, Offer, encode_index

OFFER = {"name": "iris", "version": "1.0.0", "file": "iris-1.0.0.bundle", "sha256": "0" * 64, "size": 10}


def decode_index(raw: bytes, where: str) -> list[Offer]:
    """Return what an index offers; raise what is wrong with its first broken entry."""
    listing = index_of_offers.decode_index(raw, where)
    for fault in listing.faults:
        raise fault.error
    return listing.offers


def index(*entries: dict[str, Any], **rest: Any) -> bytes:
    return json.dumps({"format": 1, "bundles": list(entries), **rest}).encode()


def test_an_index_is_read_as_it_was_written():
    offers = [Offer(name="iris", version="1.0.0", file="a/b/iris.bundle", sha256="ab" * 32, size=1)]
    assert decode_index(encode_index(offers), "here") == offers
    assert decode_index(index(), "here") == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"file": "../iris.bundle"}, "no plain path"),
        ({"file": "/etc/passwd"}, "no plain path"),
        ({"file": "a//b.bundle"}, "no plain path"),
        ({"file": "./a.bundle"}, "no plain path"),
        ({"file": "a\\b"}, "no plain path"),
        ({"file": "http://other/x.bundle"}, "no plain path"),
        ({"file": "a?b"}, "no plain path"),
        ({"file": ".hidden"}, "no plain path"),
        ({"file": ""}, "no plain path"),
        ({"file": "a" * 513}, "no plain path"),
        ({"name": "Iris"}, "model name"),
        ({"name": ""}, "model name"),
        ({"version": "1"}, "SemVer"),
        ({"sha256": "0" * 63}, "sha256"),
        ({"sha256": "G" * 64}, "sha256"),
        ({"size": 0}, "size"),
        ({"size": -1}, "size"),
        ({"size": "10"}, "size"),
        ({"more": 1}, "more"),
    ],
)
def test_an_offer_that_cannot_be_meant_is_refused(change, found):
    with pytest.raises(Refused, match=found):
        decode_index(index({**OFFER, **change}), "here")


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", "truncated"),
        (b"<html>not found</html>", "malformed"),
        (b"[]", "Expected `object`"),
        (b'{"bundles": []}', "format"),
        (index(format=2), "format 2 is unknown"),
        (index(OFFER, {**OFFER, "version": "2.0.0"}), "there twice"),
        (index(*[OFFER] * (MAX_OFFERS + 1)), "1000"),
        (b'{"format": 1, "bundles": ' + b"[" * 100_000, "ecursion|nesting|depth"),
    ],
)
def test_a_document_that_is_no_index_is_refused(raw, found):
    with pytest.raises(Refused, match=found):
        decode_index(raw, "here")


def test_what_the_index_says_cannot_move_the_cursor_of_a_terminal():
    with pytest.raises(Refused) as caught:
        decode_index(index({**OFFER, "file": "\x1b[2J"}), "here")
    assert "\x1b" not in str(caught.value)


def test_a_broken_entry_does_not_keep_the_others_away():
    other = {**OFFER, "name": "pump"}
    twice = [{**OFFER, "name": "twice"}, {**OFFER, "name": "twice", "version": "2.0.0"}]
    broken = [{**OFFER, "file": "../x"}, {"name": 3}, 7, None, {**OFFER, "version": "1", "name": "\x1b[2J"}]
    listing = index_of_offers.decode_index(index(*broken, OFFER, *twice, other), "here")
    assert [offer.name for offer in listing.offers] == ["iris", "pump"]
    assert [fault.label for fault in listing.faults] == [*(f"bundle {n} of the index" for n in range(1, 6)), "twice"]


@given(st.binary(max_size=200))
def test_any_bytes_give_offers_or_a_refusal(raw):
    try:
        found = decode_index(raw, "here")
    except Refused as error:
        found = [error.next_step]
    assert all(found)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({key: st.just(value) | anything for key, value in OFFER.items()}))
def test_any_entry_gives_a_file_below_the_index_or_a_refusal(entry):
    try:
        offers = decode_index(index(entry), "here")
    except Refused:
        return
    for offer in offers:
        assert ".." not in offer.file.split("/")
        assert not offer.file.startswith("/")
        assert offer.size > 0

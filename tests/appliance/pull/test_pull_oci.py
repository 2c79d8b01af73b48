"""What a registry may answer: manifests, challenges, tokens; and references as people write them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ConfigError, Refused
from appliance.pull import oci
from appliance.pull.offers import Offer

HEX = "ab" * 32
LAYER = {"mediaType": oci.BUNDLE_TYPE, "digest": f"sha256:{HEX}", "size": 5}


def manifest(*layers: dict[str, Any], **rest: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": oci.MANIFEST_TYPE, "layers": layers, **rest}).encode()


def decode(raw: bytes, where: str) -> list[Offer]:
    """Return the bundles of an artefact; raise what is wrong with its first broken layer."""
    listing = oci.decode_manifest(raw, where)
    for fault in listing.faults:
        raise fault.error
    return listing.offers


def test_a_broken_layer_does_not_keep_the_others_away():
    listing = oci.decode_manifest(manifest({**LAYER, "size": 0}, LAYER, {**LAYER, "digest": "sha512:x"}), "here")
    assert [offer.sha256 for offer in listing.offers] == [HEX]
    assert [fault.label for fault in listing.faults] == ["bundle 1 of the artefact", "bundle 3 of the artefact"]


def test_the_number_of_bundles_in_an_artefact_is_bounded():
    layers = [{**LAYER, "digest": f"sha256:{number:064x}"} for number in range(oci.MAX_BUNDLES + 1)]
    with pytest.raises(Refused, match=f"{len(layers)} of its"):
        oci.decode_manifest(manifest(*layers), "here")


def test_layers_that_are_bundles_are_offered_and_others_passed_over():
    other = {**LAYER, "mediaType": "application/json", "digest": "sha512:xyz"}
    titled = {
        **LAYER,
        "digest": f"sha256:{'cd' * 32}",
        "annotations": {"org.opencontainers.image.title": "pump.bundle"},
    }
    offers = decode(manifest(other, LAYER, titled, LAYER, subject=None, future=1), "here")
    assert [(offer.sha256, offer.size, offer.file) for offer in offers] == [
        (HEX, 5, f"sha256:{HEX}"),
        ("cd" * 32, 5, "pump.bundle"),
    ]


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", "truncated"),
        (b"[]", "object"),
        (manifest(), "0 of its 0 layers"),
        (manifest({**LAYER, "mediaType": "application/zip"}), "0 of its 1 layers"),
        (manifest(LAYER, schemaVersion=1), "media type"),
        (manifest(LAYER, mediaType="application/vnd.oci.image.index.v1+json"), "index of several"),
        (manifest(LAYER, mediaType="application/vnd.docker.distribution.manifest.v2+json"), "docker"),
        (manifest({**LAYER, "digest": "sha512:" + HEX * 2}), "no SHA-256"),
        (manifest({**LAYER, "digest": HEX}), "no SHA-256"),
        (manifest({**LAYER, "digest": "sha256:../../etc"}), "no SHA-256"),
        (manifest({**LAYER, "size": 0}), "size"),
        (manifest({**LAYER, "size": 1e300}), "size"),
    ],
)
def test_a_manifest_without_a_bundle_is_refused_with_the_reason(raw, found):
    with pytest.raises(Refused, match=found):
        decode(raw, "here")


@given(
    st.binary(max_size=100)
    | st.recursive(st.text() | st.integers() | st.none(), st.lists).map(json.dumps).map(str.encode)
)
def test_any_bytes_give_offers_or_a_refusal(raw):
    try:
        found = decode(raw, "here")
    except Refused as error:
        found = [error.next_step]
    assert found
    assert all(found)


@given(st.fixed_dictionaries({"mediaType": st.just(oci.BUNDLE_TYPE), "digest": st.text(), "size": st.integers()}))
def test_any_layer_gives_a_digest_that_can_be_a_file_name_or_a_refusal(layer):
    try:
        offers = decode(manifest(layer), "here")
    except Refused:
        return
    assert all(len(offer.sha256) == 64 and offer.sha256.isalnum() for offer in offers)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("registry.plant:5000/models/iris:stable", "https://registry.plant:5000/v2/models/iris/manifests/stable"),
        ("r/iris:1.0", "https://r/v2/iris/manifests/1.0"),
        (f"[::1]:5000/a-b/c_d:t@sha256:{HEX}", f"https://[::1]:5000/v2/a-b/c_d/manifests/sha256:{HEX}"),
        (f"r/iris@sha256:{HEX}", f"https://r/v2/iris/manifests/sha256:{HEX}"),
    ],
)
def test_a_reference_says_where_its_manifest_is(text, url):
    assert oci.parse_reference(text, "https").manifest_url == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "iris:1",
        "r/iris",
        "r/Iris:1",
        "r/../iris:1",
        "r//iris:1",
        "u:p@r/iris:1",
        "r/iris:1@sha256:12",
        "r/iris:a b",
        "r/i:1?x",
    ],
)
def test_what_is_no_reference_is_an_error(text):
    with pytest.raises(ConfigError, match="no reference"):
        oci.parse_reference(text, "https")


@given(st.text())
def test_any_text_is_a_reference_or_an_error(text):
    try:
        found = oci.parse_reference(text, "https")
    except ConfigError:
        return
    assert found.manifest_url.isascii()
    assert found.manifest_url.isprintable()


def test_a_challenge_says_where_a_token_is_had():
    header = 'Bearer realm="https://auth.plant/token?x=1",service="registry",scope="repository:a/b:pull"'
    challenge = oci.parse_challenge(header)
    assert challenge.token_url("a/b") == "https://auth.plant/token?x=1&service=registry&scope=repository%3Aa%2Fb%3Apull"
    plain = oci.parse_challenge("Bearer realm=https://auth.plant/token")
    assert plain.token_url("a/b") == "https://auth.plant/token?scope=repository%3Aa%2Fb%3Apull"


@pytest.mark.parametrize(
    "header", ['Bearer realm="file:///etc/passwd"', "Bearer", 'Basic realm="plant"', "Bearer realm="]
)
def test_a_challenge_without_such_a_place_names_none(header):
    assert oci.parse_challenge(header).token_url("a/b") == ""


@given(st.text())
def test_any_header_is_a_challenge_or_none(header):
    challenge = oci.parse_challenge(header)
    assert challenge is None or challenge.token_url("a") == "" or challenge.token_url("a").startswith("http")


def test_a_token_is_had_under_either_name():
    assert oci.decode_token(b'{"token": "abc", "expires_in": 60}', "there") == "abc"
    assert oci.decode_token(b'{"access_token": "abc"}', "there") == "abc"


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"token": 3}', b'{"token": "a\\r\\nX: y"}', b'{"token": ""}', b"null"]
)
def test_an_answer_without_a_token_that_can_be_sent_is_refused(raw):
    with pytest.raises(Refused, match="holds none"):
        oci.decode_token(raw, "there")

"""Pulling from a real OCI registry (docker-registry): tags and digests, passwords, tokens, TLS."""

import base64
import hashlib
import json
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from appliance.errors import NotAllowed, NotFound, Refused
from appliance.pull.oci import BUNDLE_TYPE


def source(registry, reference: str = "plant/models:stable", scheme: str = "oci+http") -> str:
    return f"{scheme}://{registry.address}/{reference}"


def test_the_bundles_of_a_tag_come_and_the_next_pull_asks_for_the_manifest_alone(host, registry, signed):
    layers = [
        (BUNDLE_TYPE, signed(version, name=name).read_bytes()) for name, version in (("a", "1.0.0"), ("b", "2.0.0"))
    ]
    registry.push("stable", [*layers, ("text/plain", b"read me")])
    assert host.pull(source(registry)) == [("a", "1.0.0", "activated"), ("b", "2.0.0", "activated")]
    record = json.loads((host.state / "pull" / "record.json").read_text())
    assert record["etag"]
    assert host.pull(source(registry)) == [("a", "1.0.0", "unchanged"), ("b", "2.0.0", "unchanged")]
    assert host.leftovers() == []


def test_a_moved_tag_brings_the_new_version_and_a_digest_stays(host, registry, signed):
    digest = registry.push("stable", [(BUNDLE_TYPE, signed("1.0.0").read_bytes())])
    registry.push("stable", [(BUNDLE_TYPE, signed("2.0.0").read_bytes())])
    assert host.pull(source(registry, f"plant/models@{digest}")) == [("iris", "1.0.0", "activated")]
    assert host.pull(source(registry)) == [("iris", "2.0.0", "activated")]
    assert host.pull(source(registry, f"plant/models:stable@{digest}")) == [("iris", "1.0.0", "refused")]


def test_what_another_key_signed_is_refused(host, registry, signed, other_key):
    registry.push("stable", [(BUNDLE_TYPE, signed("1.0.0", key=other_key).read_bytes())])
    assert host.pull(source(registry)) == [("iris", "1.0.0", "refused")]
    assert host.receipts() == [("install", "1.0.0", "refused")]


def test_what_is_no_bundle_is_refused(host, registry):
    registry.push("stable", [(BUNDLE_TYPE, b"no zip")])
    assert host.pull(source(registry)) == [("", "", "refused")]
    registry.push("stable", [("application/vnd.oci.image.layer.v1.tar+gzip", b"an image's layer")])
    with pytest.raises(Refused, match="0 of its 1 layers"):
        host.pull(source(registry))


@pytest.mark.parametrize("reference", ["plant/models:none", "plant/nothing:stable", f"plant/models@sha256:{'0' * 64}"])
def test_what_is_not_there_is_said(host, registry, reference):
    registry.push("stable", [("text/plain", b"x")])
    with pytest.raises(NotFound, match="404"):
        host.pull(source(registry, reference))


def test_a_begun_blob_is_completed(host, registry, signed):
    content = signed("1.0.0").read_bytes()
    registry.push("stable", [(BUNDLE_TYPE, content)])
    (host.state / "pull").mkdir(parents=True)
    (host.state / "pull" / f"{hashlib.sha256(content).hexdigest()}.partial").write_bytes(content[:1000])
    assert host.pull(source(registry)) == [("iris", "1.0.0", "activated")]


def test_a_registry_with_passwords_and_tls(host, start_registry, signed, authority, tmp_path):
    closed = start_registry(password=True, authority=authority)
    closed.push("stable", [(BUNDLE_TYPE, signed("1.0.0").read_bytes())])
    trusted = {"ca_file": str(authority / "ca.pem")}
    with pytest.raises(NotAllowed, match="401"):
        host.pull(source(closed, scheme="oci"), **trusted)
    (tmp_path / "token").write_text("plant:wrong")
    with pytest.raises(NotAllowed, match="401"):
        host.pull(source(closed, scheme="oci"), **trusted, token_file=str(tmp_path / "token"))
    (tmp_path / "token").write_text("plant:secret\n")
    found = host.pull(source(closed, scheme="oci"), **trusted, token_file=str(tmp_path / "token"))
    assert found == [("iris", "1.0.0", "activated")]


def test_a_registry_that_sends_to_a_token_server(host, registry, start_registry, tls_site, signed, authority, tmp_path):
    registry.push("stable", [(BUNDLE_TYPE, signed("1.0.0").read_bytes())])
    token = {
        "realm": f"{tls_site.base}/token",
        "service": "plant",
        "issuer": "issuer",
        "rootcertbundle": str(authority / "ca.pem"),
    }
    closed = start_registry(token=token, authority=authority)
    tls_site.files["/token"] = json.dumps({"token": json_web_token(authority)}).encode()
    tls_site.authorization = f"Basic {base64.b64encode(b'plant:secret').decode()}"
    trusted = {"ca_file": str(authority / "ca.pem")}
    with pytest.raises(NotAllowed, match="401"):
        host.pull(source(closed, scheme="oci"), **trusted)
    (tmp_path / "token").write_text("plant:secret")
    known = {"token_file": str(tmp_path / "token"), "auth_hosts": (tls_site.base.removeprefix("https://"),)}
    found = host.pull(source(closed, scheme="oci"), **trusted, **known)
    assert found == [("iris", "1.0.0", "activated")]
    path = tls_site.requests[-1][0]
    assert "service=plant" in path
    assert "scope=repository%3Aplant%2Fmodels%3Apull" in path


def json_web_token(authority) -> str:
    """Return a token for reading plant/models, as the registry's documentation of tokens has it."""
    key = serialization.load_pem_private_key((authority / "server.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate((authority / "server.pem").read_bytes())
    der = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    now = int(time.time())
    claims = {
        "iss": "issuer", "sub": "plant", "aud": "plant", "exp": now + 3600, "nbf": now - 60, "iat": now, "jti": "1",
        "access": [{"type": "repository", "name": "plant/models", "actions": ["pull"]}],
    }  # fmt: skip
    signed = ".".join(
        unpadded(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ES256", "x5c": [der]}, claims)
    )
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{unpadded(r.to_bytes(32) + s.to_bytes(32))}"


def unpadded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")

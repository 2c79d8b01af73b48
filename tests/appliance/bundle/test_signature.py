"""model.sig against the specification: both ways with its own implementation, and every way of being wrong."""

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.bundle import archive, keys, signature
from appliance.errors import BundleRefused, Misuse

MEMBERS = {
    "manifest.json": b'{"name": "iris", "version": "1.0.0"}',
    "model.onnx": bytes(range(256)),
    "parity.json": b"{}",
    "examples.npz": b"PK",
}
PAYLOAD_TYPE = "application/vnd.in-toto+json"


@cache
def pair(number: int = 0, password: bytes | None = None) -> tuple[bytes, bytes]:
    """Return the same pair of keys for the same number."""
    return keys.generate_key(password)


def pem_of(key) -> bytes:
    """Return a private key in PEM, unencrypted."""
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def public_pem_of(key) -> bytes:
    """Return the public half of a private key in PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


def signed(
    change: Callable[[dict], object] | None = None, *, payload: bytes | None = None, key=None, **outside
) -> bytes:
    """Return a model.sig over MEMBERS whose statement was changed, then rightly signed.

    `outside` replaces `payload_type` (also in what is signed), `algorithm`.
    """
    document = json.loads(signature.sign(MEMBERS, pair()[0]))
    statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    if change:
        change(statement)
    payload = json.dumps(statement).encode() if payload is None else payload
    kind = outside.get("payload_type", PAYLOAD_TYPE)
    key = key or keys.load_private_key(pair()[0])
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    proof = key.sign(message, outside.get("algorithm", ec.ECDSA(hashes.SHA256())))
    document["dsseEnvelope"] = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(proof).decode(), "keyid": ""}],
    }
    return json.dumps(document).encode()


def altered(change: Callable[[dict], object]) -> bytes:
    """Return a right model.sig whose unsigned outside was changed."""
    document = json.loads(signature.sign(MEMBERS, pair()[0]))
    change(document)
    return json.dumps(document).encode()


def verify(content: bytes | None, members: dict[str, bytes] = MEMBERS, *trusted: bytes) -> signature.Signer:
    """Verify with the key that signs here, or with `trusted`."""
    return signature.verify(members, content, trusted or [pair()[1]])


# What it is for


def test_signer_is_told_by_the_fingerprint_of_the_key() -> None:
    der = serialization.load_pem_public_key(pair()[1]).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert verify(signature.sign(MEMBERS, pair()[0])).fingerprint == hashlib.sha256(der).hexdigest()


def test_same_members_and_key_give_the_same_bytes() -> None:
    assert signature.sign(MEMBERS, pair()[0]) == signature.sign(dict(reversed(MEMBERS.items())), pair()[0])


def test_signature_among_the_members_is_passed_over() -> None:
    content = signature.sign({**MEMBERS, "model.sig": b"an older one"}, pair()[0])
    assert verify(content, {**MEMBERS, "model.sig": content}) == verify(content)


def test_encrypted_key_signs_with_its_password() -> None:
    private, public = pair(1, b"secret")
    assert b"ENCRYPTED" in private
    assert verify(signature.sign(MEMBERS, private, b"secret"), MEMBERS, public)


def test_any_of_several_trusted_keys_will_do_for_rotation() -> None:
    old, new = pair(2)[1], pair(3)
    content = signature.sign(MEMBERS, new[0])
    assert verify(content, MEMBERS, old, new[1]).fingerprint == keys.fingerprint(keys.load_public_key(new[1]))


def test_bundle_keeps_every_other_member_when_it_is_signed(bundle_bytes) -> None:
    plain = archive.read(bundle_bytes(baseline=b"{}"))
    content = archive.with_signature(plain, signature.sign(plain.members, pair()[0]))
    bundle = archive.read(content)
    assert {**plain.members, "model.sig": bundle.members["model.sig"]} == dict(bundle.members)
    assert verify(bundle.members["model.sig"], bundle.members)
    assert archive.with_signature(bundle, bundle.members["model.sig"]) == content


# Both ways with the specification's own implementation, model-signing of PyPI


@pytest.fixture
def folder(tmp_path: Path, bundle_bytes) -> Path:
    """A bundle unpacked into NAME-VERSION, without model.sig, and a pair of keys beside it: key, key.pub."""
    folder = tmp_path / "iris-1.0.0"
    folder.mkdir()
    for name, content in archive.read(bundle_bytes(baseline=b"{}")).members.items():
        (folder / name).write_bytes(content)
    (tmp_path / "key").write_bytes(pair()[0])
    (tmp_path / "key.pub").write_bytes(pair()[1])
    return folder


def unpacked(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def official(what: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `model_signing WHAT key` on a folder with the keys beside it."""
    given = ["--signature", str(folder / "model.sig"), *options, str(folder)]
    command = [sys.executable, "-m", "model_signing", what, "key", *given]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_official_verifier_accepts_our_signature(folder: Path) -> None:
    (folder / "model.sig").write_bytes(signature.sign(unpacked(folder), pair()[0]))
    done = official("verify", folder, "--public_key", str(folder.parent / "key.pub"))
    assert (done.returncode, done.stdout.strip()) == (0, "Verification succeeded"), done.stderr


def test_official_verifier_refuses_our_signature_over_an_altered_member(folder: Path) -> None:
    (folder / "model.sig").write_bytes(signature.sign(unpacked(folder), pair()[0]))
    (folder / "model.onnx").write_bytes(b"another")
    assert official("verify", folder, "--public_key", str(folder.parent / "key.pub")).returncode == 1


def test_our_verifier_accepts_the_official_signature(folder: Path) -> None:
    done = official("sign", folder, "--private_key", str(folder.parent / "key"))
    assert done.returncode == 0, done.stderr
    members = unpacked(folder)
    assert verify(members["model.sig"], members) == verify(signature.sign(members, pair()[0]), members)
    with pytest.raises(BundleRefused, match=r"model\.onnx: is not as it was"):
        verify(members["model.sig"], {**members, "model.onnx": b"another"})


def test_what_we_sign_follows_the_specification() -> None:
    document = json.loads(signature.sign(MEMBERS, pair()[0]))
    digests = {name: hashlib.sha256(content) for name, content in sorted(MEMBERS.items())}
    root = hashlib.sha256(b"".join(digest.digest() for digest in digests.values())).hexdigest()
    assert document["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert document["verificationMaterial"]["publicKey"] == {"hint": hashlib.sha256(pair()[1]).hexdigest()}
    assert json.loads(base64.b64decode(document["dsseEnvelope"]["payload"])) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "iris-1.0.0", "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "resources": [
                {"name": name, "digest": digest.hexdigest(), "algorithm": "sha256"} for name, digest in digests.items()
            ],
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": ["model.sig"],
            },
        },
    }


# What is said outside the signed payload, or in ways that the specification allows, decides nothing


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["verificationMaterial"].update(publicKey={"hint": "0" * 64}),
        lambda d: d["verificationMaterial"].update(
            publicKey={"rawBytes": "AA==", "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
        ),
        lambda d: d["verificationMaterial"].pop("tlogEntries"),
        lambda d: d["dsseEnvelope"]["signatures"][0].pop("keyid"),
        lambda d: d["dsseEnvelope"]["signatures"][0].update(keyid=None),
    ],
    ids=["hint of another key", "rawBytes of before 1.1", "no tlogEntries", "no keyid", "keyid null"],
)
def test_unsigned_hints_do_not_matter(change) -> None:
    assert verify(altered(change))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["subject"][0].update(name="model"),
        lambda s: s["predicate"]["resources"][0].update(media_type="application/json"),
        lambda s: s["predicate"]["serialization"].pop("ignore_paths"),
        lambda s: s["predicate"]["serialization"].update(allow_symlinks=True),
    ],
    ids=["subject's name", "further key of a resource", "no ignore_paths", "allow_symlinks"],
)
def test_statement_may_vary_where_the_specification_lets_it(change) -> None:
    assert verify(signed(change))


# Every way of being wrong


def test_unsigned_bundle_is_refused() -> None:
    with pytest.raises(BundleRefused, match=r"unsigned: it has no model\.sig"):
        verify(None)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({**MEMBERS, "model.onnx": b"another"}, r"model\.onnx: is not as it was"),
        ({**MEMBERS, "baseline.json": b"{}"}, r"baseline\.json: was not signed"),
        ({name: MEMBERS[name] for name in list(MEMBERS)[:3]}, r"examples\.npz.* is missing"),
        ({}, "is missing"),
    ],
    ids=["altered", "extra", "missing", "empty"],
)
def test_other_members_than_the_signed_ones_are_refused(members, reason) -> None:
    with pytest.raises(BundleRefused, match=reason):
        verify(signature.sign(MEMBERS, pair()[0]), members)


def resources(statement: dict) -> list[dict]:
    return statement["predicate"]["resources"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "_type: is"),
        (lambda s: s.update(predicateType="https://model_signing/Digests/v0.1"), "predicateType: is"),
        (lambda s: s.pop("predicateType"), "missing required field `predicateType`"),
        (lambda s: s.update(more=1), "unknown field `more`"),
        (lambda s: s["predicate"].update(more=1), "unknown field `more`"),
        (lambda s: s["predicate"].pop("serialization"), "missing required field `serialization`"),
        (lambda s: s["predicate"]["serialization"].update(method="shards"), "method: is 'shards'"),
        (lambda s: s["predicate"]["serialization"].update(hash_type="blake3"), "hash_type: is 'blake3'"),
        (lambda s: s["predicate"]["serialization"].update(shard_size=1), "shard_size"),
        (lambda s: s["predicate"]["serialization"].update(allow_symlinks="no"), "Expected `bool`"),
        (lambda s: s.update(subject=[]), "0 subjects"),
        (lambda s: s["subject"].append(s["subject"][0]), "2 subjects"),
        (lambda s: s["subject"][0].update(name=""), "subject: has no name"),
        (lambda s: s["subject"][0].update(digest={"sha256": "0" * 64}), "subject: its digest"),
        (lambda s: s["subject"][0].update(digest={"sha512": "0" * 128}), "subject: its digest"),
        (lambda s: resources(s).clear(), "there are none"),
        (lambda s: resources(s).reverse(), "not sorted"),
        (lambda s: resources(s).insert(0, resources(s)[0]), "there twice"),
        (lambda s: resources(s)[0].update(algorithm="blake2b"), "algorithm: is 'blake2b'"),
        (lambda s: resources(s)[0].update(digest="0" * 63), "no SHA-256"),
        (lambda s: resources(s)[0].update(digest=resources(s)[0]["digest"].upper()), "no SHA-256"),
        (lambda s: resources(s)[0].pop("digest"), "missing required field `digest`"),
        (lambda s: resources(s).pop(), "the resources"),
    ],
)
def test_statement_that_breaks_the_specification_is_refused_though_rightly_signed(change, reason) -> None:
    with pytest.raises(BundleRefused, match=reason):
        verify(signed(change))


def renamed(name: str) -> Callable[[dict], None]:
    """Return a change that renames a resource, the list sorted and the subject's digest made to fit again."""

    def change(statement: dict) -> None:
        resources(statement)[0]["name"] = name
        resources(statement).sort(key=lambda resource: resource["name"])
        joined = b"".join(bytes.fromhex(resource["digest"]) for resource in resources(statement))
        statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(joined).hexdigest()

    return change


@pytest.mark.parametrize(
    "name",
    ["../examples.npz", "/examples.npz", "./examples.npz", "a//examples.npz", "a/../b", "examples.npz/", "", "."],
)
def test_resource_name_that_is_no_plain_path_is_refused(name: str) -> None:
    with pytest.raises(BundleRefused, match="no plain relative path"):
        verify(signed(renamed(name)))


@pytest.mark.parametrize(
    "name", ["..\\examples.npz", "model.sig", "examples.npz\0", "\x1b[31mred", "é" * 9000, "\ud800"]
)
def test_signed_resource_that_is_no_member_is_refused_in_printable_words(name: str) -> None:
    with pytest.raises(BundleRefused, match="was signed, but is missing") as caught:
        verify(signed(renamed(name)))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_member_that_the_signer_ignored_is_refused() -> None:
    def change(statement: dict) -> None:
        resources(statement).pop(0)
        renamed(resources(statement)[0]["name"])(statement)
        statement["predicate"]["serialization"]["ignore_paths"].append("examples.npz")

    with pytest.raises(BundleRefused, match=r"examples\.npz: was not signed"):
        verify(signed(change))


def no_more_base64(text: str) -> str:
    """Return base64 that decodes to the same bytes, written in another way."""
    return text.rstrip("=") if text.endswith("=") else text + "===="


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.2"), "mediaType: is"),
        (lambda d: d.pop("mediaType"), "missing required field `mediaType`"),
        (lambda d: d.update(more=1), "unknown field `more`"),
        (lambda d: d.pop("dsseEnvelope"), "missing required field `dsseEnvelope`"),
        (lambda d: d.pop("verificationMaterial"), "missing required field `verificationMaterial`"),
        (lambda d: d.update(verificationMaterial={"certificate": {}, "tlogEntries": []}), "certificate"),
        (lambda d: d["verificationMaterial"].update(x509CertificateChain={"certificates": []}), "x509CertificateChain"),
        (lambda d: d["dsseEnvelope"].update(payloadType="application/octet-stream"), "payloadType: is"),
        (lambda d: d["dsseEnvelope"].update(signatures=[]), "0 signatures"),
        (lambda d: d["dsseEnvelope"]["signatures"].append(d["dsseEnvelope"]["signatures"][0]), "2 signatures"),
        (lambda d: d["dsseEnvelope"]["signatures"][0].update(sig=""), "sig: is empty"),
        (lambda d: d["dsseEnvelope"]["signatures"][0].update(sig="AAAA"), "not signed by the trusted key"),
        (lambda d: d["dsseEnvelope"].update(payload="AB=="), "payload: .* no canonical base64"),
        (lambda d: d["dsseEnvelope"].update(payload=no_more_base64(d["dsseEnvelope"]["payload"])), "payload: .*base64"),
        (lambda d: d["dsseEnvelope"].update(payload=d["dsseEnvelope"]["payload"] + "\n"), "payload: is no base64"),
        (lambda d: d["dsseEnvelope"].update(payload="é"), "payload: is no base64"),
        (lambda d: d["dsseEnvelope"].update(payload=7), "Expected `str`"),
    ],
)
def test_envelope_that_breaks_the_specification_is_refused(change, reason) -> None:
    with pytest.raises(BundleRefused, match=reason):
        verify(altered(change))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "model.sig: "),
        (b"[]", "Expected `object`"),
        (b"\xff", "utf-8"),
        (b"[" * 200_000, "recursion"),
        (b'{"mediaType": NaN}', "NaN is no JSON"),
        (b'{"mediaType": ' + b"1" * 5000 + b"}", "model.sig: "),
        (b'{"\\u001b[31m": 1}', "missing required field|unknown field"),
        (b" " * (4 * 1024 * 1024 + 1), "more than the 4194304"),
    ],
    ids=["empty", "list", "not UTF-8", "deep", "NaN", "long number", "control character", "large"],
)
def test_model_sig_that_is_no_sigstore_bundle_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(BundleRefused, match=reason) as caught:
        verify(content)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_key_that_is_there_twice_is_refused(where: str) -> None:
    if where == "outside":
        content = signature.sign(MEMBERS, pair()[0]).replace(b"{", b'{"mediaType":"x",', 1)
    else:
        statement = base64.b64decode(json.loads(signed())["dsseEnvelope"]["payload"])
        content = signed(payload=statement.replace(b'{"sha256"', b'{"sha256": "x", "sha256"'))
    with pytest.raises(BundleRefused, match="a key twice"):
        verify(content)


def test_other_payload_type_is_refused_though_rightly_signed() -> None:
    with pytest.raises(BundleRefused, match="payloadType: is 'application/json'"):
        verify(signed(payload_type="application/json"))


def test_signature_by_another_key_is_refused() -> None:
    with pytest.raises(BundleRefused, match="not signed by any of the 2 trusted keys"):
        verify(signature.sign(MEMBERS, pair()[0]), MEMBERS, pair(2)[1], pair(3)[1])


def test_nothing_is_accepted_when_no_key_is_trusted() -> None:
    with pytest.raises(BundleRefused, match="any of the 0 trusted keys"):
        signature.verify(MEMBERS, signature.sign(MEMBERS, pair()[0]), [])


def test_signature_with_another_digest_algorithm_is_refused() -> None:
    with pytest.raises(BundleRefused, match="not signed by the trusted key"):
        verify(signed(algorithm=ec.ECDSA(hashes.SHA384())))


def test_signature_on_another_curve_is_refused() -> None:
    with pytest.raises(BundleRefused, match="not signed by the trusted key"):
        verify(signed(key=ec.generate_private_key(ec.SECP384R1())))


@pytest.mark.parametrize(
    "trusted",
    [
        public_pem_of(ec.generate_private_key(ec.SECP384R1())),
        public_pem_of(ec.generate_private_key(ec.SECP256K1())),
        public_pem_of(ed25519.Ed25519PrivateKey.generate()),
        public_pem_of(rsa.generate_private_key(65537, 2048)),
        pair()[0],
        b"",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ],
    ids=["P-384", "secp256k1", "Ed25519", "RSA", "private key", "empty", "damaged"],
)
def test_trusted_key_that_cannot_be_used_is_never_passed_over(trusted: bytes) -> None:
    with pytest.raises(BundleRefused, match=r"a trusted key cannot be used: it is (no|not)"):
        verify(signature.sign(MEMBERS, pair()[0]), MEMBERS, pair()[1], trusted)


@pytest.mark.parametrize(
    ("key", "password", "reason"),
    [
        (pem_of(ec.generate_private_key(ec.SECP384R1())), None, "not an ECDSA key on the curve P-256"),
        (pem_of(ed25519.Ed25519PrivateKey.generate()), None, "not an ECDSA key on the curve P-256"),
        (pair()[1], None, "no private key"),
        (b"", None, "no private key"),
        (pair(1, b"secret")[0], None, "no password was given"),
        (pair(1, b"secret")[0], b"guess", "the password is wrong"),
        (pair()[0], b"secret", "a password was given for nothing"),
    ],
    ids=["P-384", "Ed25519", "public key", "empty", "no password", "wrong password", "password for nothing"],
)
def test_private_key_that_cannot_be_used_is_a_misuse(key: bytes, password: bytes | None, reason: str) -> None:
    with pytest.raises(Misuse, match=reason):
        signature.sign(MEMBERS, key, password)


@pytest.mark.parametrize("manifest", [None, b"", b"[]", b'{"name": "iris"}'])
def test_members_without_a_name_are_not_signed(manifest: bytes | None) -> None:
    members = {"model.onnx": b""} if manifest is None else {"manifest.json": manifest}
    with pytest.raises(BundleRefused, match=r"manifest\.json does not name the model"):
        signature.sign(members, pair()[0])


# Whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=300) | JSON.map(lambda document: json.dumps(document).encode()))
def test_arbitrary_model_sig_is_refused(content: bytes) -> None:
    with pytest.raises(BundleRefused):
        verify(content)


def places(document: object) -> list[tuple]:
    """Return (container, key) of every value within a JSON document."""
    if not isinstance(document, dict | list):
        return []
    found = list(document.items() if isinstance(document, dict) else enumerate(document))
    return [(document, key) for key, _ in found] + [place for _, value in found for place in places(value)]


@given(st.data(), st.sampled_from(["outside", "inside"]), JSON)
def test_any_value_in_any_place_is_refused_or_decides_nothing(data, where: str, value: object) -> None:
    def change(document: dict) -> None:
        container, key = data.draw(st.sampled_from(places(document)))
        container[key] = value

    content = altered(change) if where == "outside" else signed(change)
    try:
        signer = verify(content)
    except BundleRefused as error:
        assert str(error).isprintable()  # noqa: PT017 - either outcome is right; this is one of them
    else:
        assert signer == verify(signature.sign(MEMBERS, pair()[0]))


@given(st.sampled_from(sorted(MEMBERS)), st.data())
def test_any_changed_byte_of_a_member_is_refused(name: str, data) -> None:
    position = data.draw(st.integers(0, len(MEMBERS[name]) - 1))
    content = bytearray(MEMBERS[name])
    content[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BundleRefused, match="is not as it was"):
        verify(signature.sign(MEMBERS, pair()[0]), {**MEMBERS, name: bytes(content)})


@settings(max_examples=200)
@given(st.data())
def test_any_changed_byte_of_the_payload_is_refused(data) -> None:
    def change(document: dict) -> None:
        payload = bytearray(base64.b64decode(document["dsseEnvelope"]["payload"]))
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
        document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()

    with pytest.raises(BundleRefused, match="not signed by the trusted key, or was altered"):
        verify(altered(change))

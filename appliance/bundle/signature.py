"""model.sig: the signature over a bundle's members, in the format of OpenSSF Model Signing v1.0.

A Sigstore bundle holds a DSSE envelope, that holds an in-toto statement, and that holds every member's SHA-256.
Sources: ossf/model-signing-spec spec/v1.0.md (the sections named below), secure-systems-lab/dsse protocol.md (1.0.2),
in-toto/attestation spec/v1/statement.md, sigstore/protobuf-specs sigstore_bundle.proto (0.3). Of what they allow, this
is the part that needs neither network nor clock: the method `key` on P-256, the serialization `files`, SHA-256.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.bundle import keys, strict_json
from appliance.bundle.members import MANIFEST, MAX_SIGNATURE_BYTES, SIGNATURE
from appliance.errors import BundleRefused, Misuse

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"

_VERIFY = "verify the bundle's signature"
_DISTRUST = "do not use this bundle; get it again from whoever signed it"
_SIGN_AGAIN = "sign the bundle with a key: appliance sign BUNDLE --key K"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that signed a bundle: the SHA-256, in hexadecimal, of its SubjectPublicKeyInfo in DER."""

    fingerprint: str


def sign(members: Mapping[str, bytes], private_key: bytes, password: bytes | None = None) -> bytes:
    """Return the model.sig for a bundle's members ({member name: content}); a model.sig among them is passed over.

    The same members and key give the same bytes where the OpenSSL below can sign deterministically (RFC 6979).
    Raises Misuse when the private key (PEM) cannot be used, BundleRefused when manifest.json names no model.
    """
    try:
        named = msgspec.json.decode(members[MANIFEST], type=_Named)
    except (KeyError, msgspec.MsgspecError) as error:
        found = f"{MANIFEST} does not name the model ({error})"
        raise BundleRefused("sign the bundle", found, "build the bundle again") from error
    return sign_digests(f"{named.name}-{named.version}", _digests(members), private_key, password)


def sign_digests(name: str, digests: Mapping[str, str], private_key: bytes, password: bytes | None = None) -> bytes:
    """Return the signature of a folder called `name`, whose files have these `digests` ({path: SHA-256 in hex}).

    `digests` leaves out the signature's own file. Raises Misuse when the private key (PEM) cannot be used.
    """
    key = keys.load_private_key(private_key, password)
    payload = msgspec.json.encode(_statement(name, digests))
    envelope = _Envelope(_base64(payload), PAYLOAD_TYPE, [_Signature(_base64(key.sign(_pae(payload), _ecdsa())))])
    material = _Material({"hint": hashlib.sha256(keys.public_pem(key.public_key())).hexdigest()})
    return msgspec.json.encode(_SigstoreBundle(MEDIA_TYPE, material, envelope)) + b"\n"


def verify(members: Mapping[str, bytes], signature: bytes | None, public_keys: Sequence[bytes]) -> Signer:
    """Return who signed a bundle's members ({member name: content}); a model.sig among them is passed over.

    `signature` is the content of model.sig, None when there is none. `public_keys` (PEM) are those that are trusted:
    one is enough. Raises BundleRefused, with the reason, unless one of them signed exactly these members.
    """
    if signature is None:
        raise unsigned()
    return verify_digests(_digests(members), signature, public_keys)


def verify_digests(digests: Mapping[str, str], signature: bytes, public_keys: Sequence[bytes]) -> Signer:
    """Return who signed the files that have these `digests` ({path: SHA-256 in hex}), the signature's own left out.

    Raises BundleRefused, with the reason, unless one of the keys (PEM) signed exactly these files.
    """
    signer, signed = vouched(signature, public_keys)
    _check_members(signed, digests)
    return signer


def vouched(signature: bytes, public_keys: Sequence[bytes]) -> tuple[Signer, dict[str, str]]:
    """Return who signed, and the digests that were signed ({path: SHA-256 in hex}); no file is needed for it.

    Raises BundleRefused, with the reason, unless one of the keys (PEM; a text may hold several) signed it.
    """
    trusted = [key for pem in public_keys for key in _trusted(pem)]
    payload, signed = _open(signature)
    # Nothing in the payload is looked at, let alone believed, before this line.
    signer = _signer(payload, signed, trusted)
    return signer, _resources(_decode(payload, _Statement, "the signed statement"))


def unsigned() -> BundleRefused:
    """Return the refusal of a bundle that has no signature."""
    return BundleRefused(_VERIFY, f"the bundle is unsigned: it has no {SIGNATURE}", _SIGN_AGAIN)


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A JSON object in which unknown keys are an error, as the specification's schemas have it."""


class _Material(_Part, frozen=True):
    """Section 4.1, method `key`. All of it is unsigned: the trusted keys are tried whatever it says."""

    public_key: dict[str, Any]
    tlog_entries: list[Any] | None = []
    timestamp_verification_data: dict[str, Any] | None = None


class _Signature(_Part, frozen=True):
    sig: str
    keyid: str | None = ""


class _Envelope(_Part, frozen=True):
    """DSSE's envelope."""

    payload: str
    payload_type: str
    signatures: list[_Signature]


class _SigstoreBundle(_Part, frozen=True):
    """The whole of model.sig."""

    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class _Subject(msgspec.Struct, frozen=True):
    """Section 6.5: the model as a whole. The name is for people; in-toto allows further keys."""

    name: str
    digest: dict[str, str]


class _Resource(msgspec.Struct, frozen=True):
    """Section 5.2.1: one member. A verifier must ignore further keys."""

    name: str
    digest: str
    algorithm: str


class _Serialization(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section 5.2.2: how files became resources.

    Every member must be signed, whatever `ignore_paths` says. `allow_symlinks` has no effect: a bundle has no links.
    """

    method: str
    hash_type: str
    allow_symlinks: bool
    ignore_paths: list[str] = []
    shard_size: int | None = None


class _Predicate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section 5.2."""

    serialization: _Serialization
    resources: list[_Resource]


class _Statement(_Part, frozen=True):
    """Section 6.6, in-toto's Statement v1."""

    type: str = msgspec.field(name="_type")
    subject: list[_Subject]
    predicate_type: str
    predicate: _Predicate


class _Named(msgspec.Struct):
    """What a signature needs of manifest.json."""

    name: str
    version: str


def _statement(name: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """Return the statement to sign, its keys in the specification's order."""
    resources = [{"name": path, "digest": digest, "algorithm": "sha256"} for path, digest in sorted(digests.items())]
    return {
        "_type": STATEMENT_TYPE,
        # Informational: the folder's name when the bundle is unpacked beside itself.
        "subject": [{"name": name, "digest": {"sha256": _root(digests)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "resources": resources,
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
        },
    }


def _open(signature: bytes) -> tuple[bytes, bytes]:
    """Return (payload, signature over it) of a model.sig whose outside is in order (sections 4 and 8.1)."""
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise _refused(f"{SIGNATURE} has {len(signature)} bytes, more than the {MAX_SIGNATURE_BYTES} that are read")
    bundle = _decode(signature, _SigstoreBundle, SIGNATURE)
    envelope = bundle.dsse_envelope
    _expect("mediaType", bundle.media_type, MEDIA_TYPE)
    _expect("payloadType", envelope.payload_type, PAYLOAD_TYPE)
    if len(envelope.signatures) != 1:  # sigstore_bundle.proto: an envelope in a bundle has exactly one
        raise _refused(f"the envelope has {len(envelope.signatures)} signatures, not one")
    return _unbase64("payload", envelope.payload), _unbase64("sig", envelope.signatures[0].sig)


def _signer(payload: bytes, signature: bytes, trusted: Sequence[ec.EllipticCurvePublicKey]) -> Signer:
    """Return the trusted key that made the signature over the payload (section 8.2)."""
    message = _pae(payload)
    for key in trusted:
        try:
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            continue
        return Signer(keys.fingerprint(key))
    count = "the trusted key" if len(trusted) == 1 else f"any of the {len(trusted)} trusted keys"
    found = f"it was not signed by {count}, or was altered afterwards"
    raise BundleRefused(_VERIFY, found, "check which key signed it, and that this one is meant to be trusted")


def _resources(statement: _Statement) -> dict[str, str]:
    """Return {name: digest} of a statement that follows the specification (sections 5, 6.5 and 8.3)."""
    _expect("_type", statement.type, STATEMENT_TYPE)
    _expect("predicateType", statement.predicate_type, PREDICATE_TYPE)
    _check_serialization(statement.predicate.serialization)
    resources = statement.predicate.resources
    if not resources or any(left.name >= right.name for left, right in pairwise(resources)):
        raise _refused("resources: there are none, or they are not sorted, or one is there twice")
    for resource in resources:
        _check_resource(resource)
    digests = {resource.name: resource.digest for resource in resources}
    _check_subject(statement.subject, digests)
    return digests


def _check_serialization(serialization: _Serialization) -> None:
    """Refuse ways to make resources of files that are not read here (section 6.3)."""
    _expect("serialization.method", serialization.method, "files")
    _expect("serialization.hash_type", serialization.hash_type, "sha256")
    if serialization.shard_size is not None:
        raise _refused("serialization.shard_size: is given for the method 'files'")


def _check_resource(resource: _Resource) -> None:
    """Refuse a name that is no canonical path (section 6.1.2), and other algorithms than SHA-256."""
    shown = f"resources: {resource.name[:80]!a}"
    if any(part in ("", ".", "..") for part in resource.name.split("/")):
        raise _refused(f"{shown}: is no plain relative path")
    _expect(f"{shown}: algorithm", resource.algorithm, "sha256")
    if not re.fullmatch("[0-9a-f]{64}", resource.digest):
        raise _refused(f"{shown}: its digest is no SHA-256 in hexadecimal")


def _check_subject(subjects: Sequence[_Subject], digests: Mapping[str, str]) -> None:
    """Refuse unless the one subject is the root digest of the resources (section 6.5)."""
    if len(subjects) != 1:
        raise _refused(f"the statement has {len(subjects)} subjects, not one")
    if not subjects[0].name:
        raise _refused("subject: has no name")
    if subjects[0].digest.get("sha256") != _root(digests):
        raise _refused("subject: its digest is not that of the resources")


def _check_members(signed: Mapping[str, str], present: Mapping[str, str]) -> None:
    """Refuse unless the files are exactly the signed ones (sections 8.4 and 8.5)."""
    for name in signed.keys() - present.keys():
        raise _refused(f"{name[:80]!a}: was signed, but is missing")
    for name, digest in present.items():
        if name not in signed:
            raise _refused(f"{name}: was not signed")
        if digest != signed[name]:
            raise _refused(f"{name}: is not as it was when it was signed")


def _digests(members: Mapping[str, bytes]) -> dict[str, str]:
    """Return {name: SHA-256 in hexadecimal} of what is signed: every member but model.sig (section 9)."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in members.items() if name != SIGNATURE}


def _root(digests: Mapping[str, str]) -> str:
    """Return the root digest: the SHA-256 of all digests' bytes, in order of the names (section 6.5.1)."""
    return hashlib.sha256(b"".join(bytes.fromhex(digests[name]) for name in sorted(digests))).hexdigest()


def _pae(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding: what is really signed. Binds the payload to its type."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _ecdsa() -> ec.ECDSA:
    """Return the signing algorithm, without randomness (RFC 6979) where the OpenSSL below knows how (3.2 and later)."""
    try:
        return ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    except UnsupportedAlgorithm:
        return ec.ECDSA(hashes.SHA256())


def _trusted(pem: bytes) -> list[ec.EllipticCurvePublicKey]:
    """Return the trusted keys in a text; one that cannot be used is an error, never skipped."""
    try:
        return keys.load_public_keys(pem)
    except Misuse as error:
        raise BundleRefused(_VERIFY, f"a trusted key cannot be used: {error.found}", error.next_step) from error


def _decode(raw: bytes, kind: type[T], what: str) -> T:
    """Return the JSON text `raw` as a `kind`. Raises BundleRefused."""
    try:
        return msgspec.convert(strict_json.load(raw), kind)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        # The text may quote the file, and a terminal obeys control characters.
        raise _refused(f"{what}: {ascii(str(error))[1:-1][:200]}") from error


def _expect(what: str, found: str, wanted: str) -> None:
    """Refuse any text but the one that is supported."""
    if found != wanted:
        raise _refused(f"{what}: is {found[:80]!a}, not {wanted!r}")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _unbase64(what: str, text: str) -> bytes:
    """Return the bytes in a base64 text (RFC 4648, section 4) that is written in the one canonical way."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(f"{what}: is no base64") from error
    if not content or _base64(content) != text:
        raise _refused(f"{what}: is empty, or no canonical base64")
    return content


def _refused(found: str) -> BundleRefused:
    return BundleRefused(_VERIFY, found, _DISTRUST)

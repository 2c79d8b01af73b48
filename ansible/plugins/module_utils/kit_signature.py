"""model.sig of an offline kit: which files the trusted key signed (OpenSSF Model Signing v1.0, key mode, ECDSA P-256).

The controller has neither the appliance nor msgspec, so this is a check of its own, as strict as the device's
(appliance/bundle/signature.py). tests/signatures gives both of them, and install.sh, the same vectors.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tarfile

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"

_MOST_BYTES = 4 * 1024 * 1024  # of a model.sig
_UNLISTED = ("SHA256SUMS", "model.sig")
_PUBLIC_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----[^-]*-----END PUBLIC KEY-----")


def check(file, trusted):
    """Raise ValueError unless every file of a kit (.tar.gz) is as a trusted key signed it; `trusted` is its PEM."""
    digests, kept = {}, {}
    with tarfile.open(file) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            if member.isfile():
                digests[name] = _digest(archive.extractfile(member))
                if name in _UNLISTED:
                    kept[name] = archive.extractfile(member).read(_MOST_BYTES + 1)
            elif not member.isdir():
                raise ValueError(f"{member.name} is neither a file nor a folder")
    if "model.sig" not in kept:
        raise ValueError("it is not signed")
    signed = signed_digests(kept["model.sig"], trusted)
    if signed.get("SHA256SUMS") != digests.get("SHA256SUMS"):
        raise ValueError("its SHA256SUMS is not what was signed")
    listed = {line[66:]: line[:64] for line in kept["SHA256SUMS"].decode().splitlines()}
    here = {name: digest for name, digest in digests.items() if name != "model.sig"}
    wrong = sorted(name for name in {*listed, *digests} - {*_UNLISTED} if listed.get(name) != digests.get(name))
    wrong += sorted(name for name in {*signed, *here} if signed.get(name) != here.get(name))
    if wrong:
        raise ValueError("damaged or not part of it: {}".format(", ".join(wrong[:3])))


def signed_digests(signature, trusted):
    """Return {path: SHA-256 in hexadecimal} that a model.sig signs; `trusted` are public keys (PEM).

    Raises ValueError with the reason unless one of the keys signed it.
    """
    keys = _public_keys(trusted)
    payload, proof = _opened(signature)
    # DSSE's pre-authentication encoding
    message = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    if not any(_signed_by(key, proof, message) for key in keys):
        raise ValueError("its signature is not of that key")
    # Nothing in the payload is read before this line.
    return _resources(_json(payload))


def _public_keys(pem):
    """Return the keys in a text, which holds nothing beside them; all are on P-256."""
    found = _PUBLIC_KEY.findall(pem)
    if not found or _PUBLIC_KEY.sub(b"", pem).strip():
        raise ValueError("the key's file holds no public key, or something beside public keys")
    try:
        keys = [load_pem_public_key(one) for one in found]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("the key's file holds a damaged public key") from error
    if not all(isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1) for key in keys):
        raise ValueError("the key's file holds a key that is not ECDSA on the curve P-256")
    return keys


def _signed_by(key, proof, message):
    """Return whether the key signed the message."""
    try:
        key.verify(proof, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _opened(signature):
    """Return (payload, signature over it). The keys and hints within are unsigned and decide nothing."""
    if len(signature) > _MOST_BYTES:
        raise ValueError(f"its model.sig has more than {_MOST_BYTES} bytes")
    document = _json(signature)
    _shape(document, "model.sig", {"mediaType": str, "verificationMaterial": dict, "dsseEnvelope": dict})
    null = type(None)
    may = {"tlogEntries": (list, null), "timestampVerificationData": (dict, null)}
    _shape(document["verificationMaterial"], "verificationMaterial", {"publicKey": dict}, may)
    envelope = document["dsseEnvelope"]
    _shape(envelope, "dsseEnvelope", {"payload": str, "payloadType": str, "signatures": list})
    _expect("mediaType", document["mediaType"], MEDIA_TYPE)
    _expect("payloadType", envelope["payloadType"], PAYLOAD_TYPE)
    if len(envelope["signatures"]) != 1:
        raise ValueError("its envelope has {} signatures, not one".format(len(envelope["signatures"])))
    _shape(envelope["signatures"][0], "signatures", {"sig": str}, {"keyid": (str, null)})
    return _unbase64("payload", envelope["payload"]), _unbase64("sig", envelope["signatures"][0]["sig"])


def _resources(statement):
    """Return {path: digest} of a signed statement that follows the specification."""
    _shape(statement, "statement", {"_type": str, "subject": list, "predicateType": str, "predicate": dict})
    _expect("_type", statement["_type"], STATEMENT_TYPE)
    _expect("predicateType", statement["predicateType"], PREDICATE_TYPE)
    predicate = statement["predicate"]
    _shape(predicate, "predicate", {"serialization": dict, "resources": list})
    _check_serialization(predicate["serialization"])
    for one in predicate["resources"]:
        _shape(one, "resources", {"name": str, "digest": str, "algorithm": str}, closed=False)
        if any(part in ("", ".", "..") for part in one["name"].split("/")):
            raise ValueError("its signature names a path that is not plain: {!a}".format(one["name"][:80]))
        if one["algorithm"] != "sha256" or not re.fullmatch("[0-9a-f]{64}", one["digest"]):
            raise ValueError("its signature has a digest that is no SHA-256")
    names = [one["name"] for one in predicate["resources"]]
    if not names or names != sorted(set(names)):
        raise ValueError("its signature names no files, or not each once and in order")
    digests = {one["name"]: one["digest"] for one in predicate["resources"]}
    _check_subject(statement["subject"], digests)
    return digests


def _check_serialization(serialization):
    """Refuse serializations that are not supported; every file must be signed, whatever `ignore_paths` says."""
    needed = {"method": str, "hash_type": str, "allow_symlinks": bool}
    _shape(serialization, "serialization", needed, {"ignore_paths": list, "shard_size": type(None)})
    _expect("method", serialization["method"], "files")
    _expect("hash_type", serialization["hash_type"], "sha256")
    if not all(isinstance(path, str) for path in serialization.get("ignore_paths", [])):
        raise ValueError("its signature's ignore_paths are not texts")


def _check_subject(subjects, digests):
    """Refuse unless the one subject is the digest of all digests."""
    if len(subjects) != 1:
        raise ValueError(f"its signature has {len(subjects)} subjects, not one")
    _shape(subjects[0], "subject", {"name": str, "digest": dict}, closed=False)
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in sorted(digests.items()))).hexdigest()
    found = subjects[0]["digest"]
    if (
        not subjects[0]["name"]
        or not all(isinstance(one, str) for one in found.values())
        or found.get("sha256") != root
    ):
        raise ValueError("its signature's subject does not fit the files that it names")


def _json(raw):
    """Return what a JSON text says; no key is there twice."""

    def pairs(found):
        if len(dict(found)) != len(found):
            raise ValueError("its signature has a key twice")
        return dict(found)

    def constant(name):
        raise ValueError(f"its signature holds {name}")

    try:
        return json.loads(raw.decode(), object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError as error:
        raise ValueError("its signature is nested too deeply") from error


def _shape(found, what, needed, may=None, closed=True):
    """Raise ValueError unless `found` is an object with these keys of these types, and no other where it is closed."""
    kinds = {**needed, **(may or {})}
    if not isinstance(found, dict):
        raise ValueError(f"its signature's {what} is no object")
    wrong = sorted(needed.keys() - found.keys())
    wrong += sorted(name for name, kind in kinds.items() if name in found and not isinstance(found[name], kind))
    wrong += sorted(found.keys() - kinds.keys()) if closed else []
    if wrong:
        raise ValueError(f"its signature's {what} lacks or has a wrong key: {wrong[0][:80]!a}")


def _expect(what, found, wanted):
    """Raise ValueError unless a text is the only one that is read here."""
    if found != wanted:
        raise ValueError(f"its signature's {what} is {found[:80]!a}, not {wanted}")


def _unbase64(what, text):
    """Return the bytes of a base64 text, which is written in the one canonical way."""
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"its signature's {what} is no base64") from error
    if not content or base64.b64encode(content).decode() != text:
        raise ValueError(f"its signature's {what} is empty, or no canonical base64")
    return content


def _digest(stream):
    """Return a stream's SHA-256."""
    digest = hashlib.sha256()
    for block in iter(lambda: stream.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()

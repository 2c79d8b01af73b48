"""Folders with a signature, right or wrong in one way each, for the three verifiers that cannot share code.

The device's (appliance/bundle/signature.py), the controller's (ansible/plugins/module_utils/kit_signature.py) and the
one of hosts without Python (packaging/offline/install.sh) must give the same verdict on each (test_verdicts.py).
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from appliance.bundle import keys, signature

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PRIVATE, PUBLIC = keys.generate_key()
OTHER = keys.generate_key()[1]

Files = dict[str, bytes]
Change = Callable[[Any], object]


@dataclass(frozen=True)
class Vector:
    """The files of a folder, model.sig among them; the text of the trusted keys; whether it is to be accepted."""

    name: str
    good: bool
    files: Files
    trusted: bytes

    def write(self, folder: Path) -> None:
        """Write the files into `folder`, which is made."""
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def vectors(kit: Files) -> list[Vector]:
    """Return every vector over the files of a kit without SHA256SUMS and model.sig, each good one first."""
    files = listed(kit)
    right = signature.sign_digests("kit", digests(files), PRIVATE)
    return [
        *(Vector(name, True, {**files, "model.sig": content}, PUBLIC) for name, content in _good(files, right)),
        *(Vector(name, False, {**files, "model.sig": content}, PUBLIC) for name, content in _bad(files, right)),
        *(Vector(name, good, {**files, "model.sig": right}, text) for name, good, text in _keys()),
        *(Vector(name, False, changed, PUBLIC) for name, changed in _files(kit, files, right)),
    ]


def listed(kit: Files) -> Files:
    """Return the files with their SHA256SUMS."""
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(kit.items()))
    return {**kit, "SHA256SUMS": sums.encode()}


def digests(files: Files) -> dict[str, str]:
    """Return {name: SHA-256 in hexadecimal}."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _good(files: Files, right: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what the specification leaves to the signer."""
    yield "right", right
    yield "indented", json.dumps(json.loads(right), indent=2).encode()
    for name, change in {
        "hint of another key": lambda d: d["verificationMaterial"].update(publicKey={"hint": "0" * 64}),
        "no tlogEntries": lambda d: d["verificationMaterial"].pop("tlogEntries"),
        "no keyid": lambda d: d["dsseEnvelope"]["signatures"][0].pop("keyid", None),
        "keyid null": lambda d: d["dsseEnvelope"]["signatures"][0].update(keyid=None),
    }.items():
        yield name, _outside(right, change)
    for name, change in {
        "subject's name": lambda s: s["subject"][0].update(name="model"),
        "further key of a resource": lambda s: _resources(s)[0].update(media_type="application/json"),
        "further key of the subject": lambda s: s["subject"][0].update(
            uri="urn:x", annotations={"a": [1, {"b": None}]}
        ),
        "second digest of the subject": lambda s: s["subject"][0]["digest"].update(sha512="0" * 128),
        "no ignore_paths": lambda s: s["predicate"]["serialization"].pop("ignore_paths"),
        "ignore_paths of the signer": lambda s: s["predicate"]["serialization"].update(ignore_paths=["a", ".git"]),
        "allow_symlinks": lambda s: s["predicate"]["serialization"].update(allow_symlinks=True),
        "shard_size null": lambda s: s["predicate"]["serialization"].update(shard_size=None),
    }.items():
        yield name, _inside(files, change)


def _bad(files: Files, right: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield signatures that break the specification or were not made by the trusted key."""
    yield from {
        "empty model.sig": b"",
        "model.sig is a list": b"[]",
        "model.sig is not UTF-8": right.replace(b'"hint":"', b'"hint":"\xff'),
        "model.sig is cut off": right[: len(right) // 2],
        "two documents": right + right,
        "text behind the document": right + b"more",
        "NaN": right.replace(b'"publicKey":{', b'"publicKey":{"a":NaN,'),
        "large": right + b" " * (4 * 1024 * 1024 + 1),
        "key twice outside": right.replace(b"{", b'{"mediaType":"x",', 1),
        "payload twice": right.replace(b'"payload":', b'"payload":"e30=","payload":', 1),
    }.items()
    for name, change in _BAD_OUTSIDE.items():
        yield name, _outside(right, change)
    for name, change in _BAD_INSIDE.items():
        yield name, _inside(files, change)
    yield "key twice inside", _inside(files, None, text=lambda t: t.replace(b'{"sha256"', b'{"sha256": "x", "sha256"'))
    yield "statement is no JSON", _inside(files, None, text=lambda t: t + b"}")
    yield "payload with spare bits", _not_canonical(files, "payload")
    yield "signature with spare bits", _not_canonical(files, "sig")
    yield "another payload type, signed", _inside(files, None, payload_type="application/json")
    yield "SHA-384", _inside(files, None, algorithm=ec.ECDSA(hashes.SHA384()))
    yield "key on P-384", _inside(files, None, key=ec.generate_private_key(ec.SECP384R1()))
    yield "another key", _inside(files, None, key=ec.generate_private_key(ec.SECP256R1()))
    for name, change in {"a file was not signed": "kit.conf", "SHA256SUMS was not signed": "SHA256SUMS"}.items():
        left = {one: content for one, content in files.items() if one != change}
        yield name, signature.sign_digests("kit", digests(left), PRIVATE)
    yield "signed file that is missing", signature.sign_digests("kit", digests({**files, "more": b""}), PRIVATE)
    yield "signed digest of another file", signature.sign_digests("kit", digests({**files, "kit.conf": b""}), PRIVATE)


_BAD_OUTSIDE: dict[str, Change] = {
    "media type of before 0.3": lambda d: d.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.2"),
    "no mediaType": lambda d: d.pop("mediaType"),
    "unknown key outside": lambda d: d.update(more=1),
    "unknown key of the envelope": lambda d: d["dsseEnvelope"].update(more=1),
    "unknown key of the signature": lambda d: d["dsseEnvelope"]["signatures"][0].update(more="x"),
    "no envelope": lambda d: d.pop("dsseEnvelope"),
    "no verification material": lambda d: d.pop("verificationMaterial"),
    "certificate": lambda d: d.update(verificationMaterial={"certificate": {}, "tlogEntries": []}),
    "public key is a text": lambda d: d["verificationMaterial"].update(publicKey="x"),
    "tlogEntries is an object": lambda d: d["verificationMaterial"].update(tlogEntries={}),
    "another payload type": lambda d: d["dsseEnvelope"].update(payloadType="application/octet-stream"),
    "no signature": lambda d: d["dsseEnvelope"].update(signatures=[]),
    "second signature": lambda d: d["dsseEnvelope"]["signatures"].append(d["dsseEnvelope"]["signatures"][0]),
    "second signature, by nobody": lambda d: d["dsseEnvelope"]["signatures"].append({"sig": "AAAA", "keyid": ""}),
    "empty signature": lambda d: d["dsseEnvelope"]["signatures"][0].update(sig=""),
    "signature is no DER": lambda d: d["dsseEnvelope"]["signatures"][0].update(sig="AAAA"),
    "keyid is a number": lambda d: d["dsseEnvelope"]["signatures"][0].update(keyid=1),
    "payload is cut off": lambda d: d["dsseEnvelope"].update(payload=d["dsseEnvelope"]["payload"][:100]),
    "payload is a number": lambda d: d["dsseEnvelope"].update(payload=7),
    "payload ends in a line feed": lambda d: d["dsseEnvelope"].update(payload=d["dsseEnvelope"]["payload"] + "\n"),
    "blank within the payload": lambda d: d["dsseEnvelope"].update(payload=_spread(d["dsseEnvelope"]["payload"])),
    "payload with too many =": lambda d: d["dsseEnvelope"].update(payload=d["dsseEnvelope"]["payload"] + "===="),
    "URL-safe base64": lambda d: d["dsseEnvelope"].update(
        payload=base64.urlsafe_b64encode(base64.b64decode(d["dsseEnvelope"]["payload"]) + b"\xff\xff\xff").decode()
    ),
    "altered payload": lambda d: d["dsseEnvelope"].update(
        payload=base64.b64encode(
            base64.b64decode(d["dsseEnvelope"]["payload"]).replace(b"kit.conf", b"kit.conG")
        ).decode()
    ),
}

_BAD_INSIDE: dict[str, Change] = {
    "statement of before 1": lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
    "unknown predicate": lambda s: s.update(predicateType="https://model_signing/Digests/v0.1"),
    "no predicate type": lambda s: s.pop("predicateType"),
    "unknown key of the statement": lambda s: s.update(more=1),
    "unknown key of the predicate": lambda s: s["predicate"].update(more=1),
    "unknown key of the serialization": lambda s: s["predicate"]["serialization"].update(more=1),
    "no serialization": lambda s: s["predicate"].pop("serialization"),
    "shards": lambda s: s["predicate"]["serialization"].update(method="shards"),
    "another hash": lambda s: s["predicate"]["serialization"].update(hash_type="blake3"),
    "shard_size": lambda s: s["predicate"]["serialization"].update(shard_size=1),
    "allow_symlinks is a text": lambda s: s["predicate"]["serialization"].update(allow_symlinks="no"),
    "ignore_paths is a text": lambda s: s["predicate"]["serialization"].update(ignore_paths="a"),
    "no subject": lambda s: s.update(subject=[]),
    "extra subject": lambda s: s["subject"].append(s["subject"][0]),
    "subject without a name": lambda s: s["subject"][0].update(name=""),
    "another root digest": lambda s: s["subject"][0].update(digest={"sha256": "0" * 64}),
    "no SHA-256 of the root": lambda s: s["subject"][0].update(digest={"sha512": "0" * 128}),
    "no resources": lambda s: _resources(s).clear(),
    "resources not sorted": lambda s: _resources(s).reverse(),
    "resource twice": lambda s: _resources(s).insert(0, _resources(s)[0]),
    "resource is a text": lambda s: _resources(s).insert(0, "kit.conf"),
    "algorithm of a resource": lambda s: _resources(s)[0].update(algorithm="blake2b"),
    "short digest": lambda s: _resources(s)[0].update(digest="0" * 63),
    "digest in capitals": lambda s: _resources(s)[0].update(digest=_resources(s)[0]["digest"].upper()),
    "no digest": lambda s: _resources(s)[0].pop("digest"),
    "last resource left out": lambda s: _resources(s).pop(),
    "name climbs": lambda s: _renamed(s, "../kit.conf"),
    "name is absolute": lambda s: _renamed(s, "/kit.conf"),
    "name with a dot": lambda s: _renamed(s, "./kit.conf"),
    "name with two slashes": lambda s: _renamed(s, "a//kit.conf"),
    "name that is empty": lambda s: _renamed(s, ""),
    "name of another file": lambda s: _renamed(s, "kit.confidential"),
    "file that the signer ignored": lambda s: (
        _renamed(s, None),
        s["predicate"]["serialization"].update(ignore_paths=["FILES.sha256"]),
    ),
}


def _keys() -> Iterator[tuple[str, bool, bytes]]:
    """Yield (name, whether it is good, text of trusted keys) for a right signature."""
    yield "old and new key", True, OTHER + PUBLIC
    yield "key with CRLF", True, PUBLIC.replace(b"\n", b"\r\n")
    yield "wrong key", False, OTHER
    yield "two wrong keys", False, OTHER * 2
    yield "no key", False, b""
    yield "private key", False, PRIVATE
    yield "text beside the key", False, PUBLIC + b"beside\n"
    yield "private key beside the key", False, PUBLIC + PRIVATE
    yield "damaged key", False, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    yield "damaged key beside the key", False, PUBLIC + b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    lines = PUBLIC.split(b"\n")
    yield "point beside the curve", False, b"\n".join([lines[0], lines[1], lines[2][:-8] + b"AAAAAA==", *lines[3:]])
    for name, key in {
        "P-384": ec.generate_private_key(ec.SECP384R1()),
        "secp256k1": ec.generate_private_key(ec.SECP256K1()),
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
        "RSA": rsa.generate_private_key(65537, 2048),
    }.items():
        yield f"{name} key", False, _public(key)
        yield f"{name} key beside the key", False, PUBLIC + _public(key)


def _files(kit: Files, files: Files, right: bytes) -> Iterator[tuple[str, Files]]:
    """Yield what may happen to the files once they are signed."""
    yield "tampered file", {**files, "kit.conf": files["kit.conf"] + b"\n", "model.sig": right}
    yield "tampered file and SHA256SUMS", {**listed({**kit, "kit.conf": kit["kit.conf"] + b"\n"}), "model.sig": right}
    yield "tampered SHA256SUMS", {**files, "SHA256SUMS": files["SHA256SUMS"] + b"\n", "model.sig": right}
    yield "extra file", {**files, "more": b"", "model.sig": right}
    yield "extra file and SHA256SUMS", {**listed({**kit, "more": b""}), "model.sig": right}
    yield (
        "missing file",
        {**{name: content for name, content in files.items() if name != "LICENSE"}, "model.sig": right},
    )
    yield "unsigned", files


def _resources(statement: Any) -> list[Any]:
    return statement["predicate"]["resources"]  # type: ignore[no-any-return]


def _renamed(statement: Any, name: str | None) -> None:
    """Rename the first resource, or leave it out; the list is sorted and the root digest fits again."""
    first = _resources(statement).pop(0)
    if name is not None:
        _resources(statement).append({**first, "name": name})
        _resources(statement).sort(key=lambda resource: resource["name"])
    joined = b"".join(bytes.fromhex(resource["digest"]) for resource in _resources(statement))
    statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(joined).hexdigest()


def _outside(right: bytes, change: Change) -> bytes:
    """Return a right model.sig whose unsigned outside was changed."""
    document = json.loads(right)
    change(document)
    return json.dumps(document).encode()


def _inside(
    files: Files,
    change: Change | None,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    text: Callable[[bytes], bytes] = bytes,
    payload_type: str = PAYLOAD_TYPE,
    algorithm: ec.ECDSA | None = None,
) -> bytes:
    """Return a model.sig whose statement was changed, then rightly signed."""
    document = json.loads(signature.sign_digests("kit", digests(files), PRIVATE))
    statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    if change:
        change(statement)
    payload = text(json.dumps(statement).encode())
    message = b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)
    proof = (key or keys.load_private_key(PRIVATE)).sign(message, algorithm or ec.ECDSA(hashes.SHA256()))
    document["dsseEnvelope"] = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"sig": base64.b64encode(proof).decode(), "keyid": ""}],
    }
    return json.dumps(document).encode()


def _spread(text: str) -> str:
    return f"{text[:40]} {text[40:]}"


def _spare_bits(content: bytes) -> str | None:
    """Return base64 whose last letter has bits that stand for nothing: another text, the same bytes."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    text = base64.b64encode(content).decode()
    bare = text.rstrip("=")
    if bare == text:
        return None
    return bare[:-1] + alphabet[alphabet.index(bare[-1]) + 1] + "=" * (len(text) - len(bare))


def _not_canonical(files: Files, where: str) -> bytes:
    """Return a right model.sig whose payload or signature is base64 that is not canonical."""
    for blanks in range(64):  # until one of a length that leaves spare bits
        document = json.loads(_inside(files, None, text=lambda text, blanks=blanks: text + b" " * blanks))
        held = document["dsseEnvelope"] if where == "payload" else document["dsseEnvelope"]["signatures"][0]
        if other := _spare_bits(base64.b64decode(held[where])):
            held[where] = other
            return json.dumps(document).encode()
    raise AssertionError("no length leaves spare bits")


def _public(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)  # type: ignore[no-any-return]

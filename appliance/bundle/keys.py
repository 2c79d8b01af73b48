"""The key pairs that sign bundles: ECDSA on the curve P-256 (FIPS 186-5), in PEM (RFC 7468)."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from appliance import ahead
from appliance.errors import Misuse, NotFound

_READ_PRIVATE = "read the private key"
_READ_PUBLIC = "read the public key"
# A key has some hundred bytes; a model named by mistake need not be read whole.
_MAX_BYTES = 65536
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----[^-]*-----END PUBLIC KEY-----")
_MAKE_ONE = "make a pair of keys: appliance keygen FILE"


def generate_key(password: bytes | None = None) -> tuple[bytes, bytes]:
    """Return a fresh (private key, public key), each in PEM; with a password the private one is encrypted (PKCS #8)."""
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return private, public_pem(key.public_key())


def load_private_key(pem: bytes, password: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """Return the private key in `pem`. Raises Misuse when it is none, not on P-256, or the password does not fit."""
    try:
        key = serialization.load_pem_private_key(pem, password)
    except TypeError as error:  # cryptography's way to say that there is a password too many or too few
        found = "it is encrypted, and no password was given" if password is None else "a password was given for nothing"
        raise Misuse(_READ_PRIVATE, found, "give --password-file exactly when the key is encrypted") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        found = "it is no private key in PEM form" if password is None else "it is damaged, or the password is wrong"
        raise Misuse(_READ_PRIVATE, found, "give the file that appliance keygen wrote, and its password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Misuse(_READ_PRIVATE, "it is not an ECDSA key on the curve P-256", _MAKE_ONE)
    return key


def load_public_keys(pem: bytes) -> list[ec.EllipticCurvePublicKey]:
    """Return every public key in `pem`, in their order: a file may hold the old and the new one of a rotation.

    Raises Misuse when there is none, when one cannot be used, and for anything else beside them: it could be a key
    that somebody believes to be trusted.
    """
    found = _PUBLIC.findall(pem)
    if not found or _PUBLIC.sub(b"", pem).strip():
        what = "it holds something beside public keys in PEM form" if found else "it is no public key in PEM form"
        raise Misuse(_READ_PUBLIC, what, "give the .pub file that appliance keygen wrote, or several of them in one")
    return [load_public_key(one) for one in found]


def load_public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key in `pem`. Raises Misuse when it is none, or not on P-256."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        found = "it is no public key in PEM form"
        raise Misuse(_READ_PUBLIC, found, "give the .pub file that appliance keygen wrote") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Misuse(_READ_PUBLIC, "it is not an ECDSA key on the curve P-256", _MAKE_ONE)
    return key


def is_encrypted(pem: bytes) -> bool:
    """Return whether a private key in PEM needs a password: PKCS #8 says so in its label, older forms in a header."""
    return b"ENCRYPTED" in pem


def password_of(private: bytes, file: Path | None, ask: Callable[[], bytes] | None) -> bytes | None:
    """Return a private key's password: what `file` says, else what `ask` is told; None where none is needed.

    `ask` is None where there is nobody to ask. Raises NotFound and Misuse.
    """
    if file is not None:
        return password_in(file)
    if not is_encrypted(private):
        return None
    if ask is None:
        raise Misuse(_READ_PRIVATE, "it is encrypted, and no password was given", "give --password-file FILE")
    return ask()


def password_in(file: Path) -> bytes:
    """Return the first line of a password file. Raises NotFound when it cannot be read, Misuse when it is empty."""
    try:
        password = file.read_bytes().partition(b"\n")[0].rstrip(b"\r")
    except OSError as error:
        raise NotFound(f"read the password in {file}", error.strerror or str(error), "check the path") from error
    if not password:
        raise Misuse(f"read the password in {file}", "its first line is empty", "write the password there")
    return password


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key in PEM: its SubjectPublicKeyInfo (RFC 5280)."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256, in hexadecimal, of a public key's SubjectPublicKeyInfo in DER."""
    info = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).hexdigest()


def read_file(path: Path) -> bytes:
    """Return the content of a key's file. Raises NotFound when it cannot be read, Misuse when it is too large."""
    try:
        with ahead.open_file(path) as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise NotFound(f"read the key {path}", error.strerror or str(error), "check the path and its rights") from error
    if len(content) > _MAX_BYTES:
        found = f"it has more than {_MAX_BYTES} bytes"
        raise Misuse(f"read the key {path}", found, "give the file that appliance keygen wrote")
    return content

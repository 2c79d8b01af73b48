"""Signatures over a folder, in the format of a bundle's: for the offline kit and for unpacked bundles."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from appliance.bundle import signature
from appliance.bundle.members import MAX_SIGNATURE_BYTES, SIGNATURE
from appliance.bundle.signature import Signer
from appliance.errors import BundleRefused

_AGAIN = "get the folder again from whoever signed it"


def digests(folder: Path) -> dict[str, str]:
    """Return {path within `folder`: SHA-256 in hexadecimal} of every file but model.sig; read in pieces.

    Raises BundleRefused for what is neither file nor folder (a link could lead anywhere), or cannot be read.
    """
    found: dict[str, str] = {}
    try:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise BundleRefused(f"read the folder {folder}", f"{name!a} is no plain file", _AGAIN)
            if path.is_file() and name != SIGNATURE:
                with path.open("rb") as file:
                    found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleRefused(f"read the folder {folder}", str(error), _AGAIN) from error
    return found


def sign(folder: Path, private_key: bytes, password: bytes | None = None) -> bytes:
    """Return the model.sig for all that `folder` holds. Raises Misuse for a bad key, BundleRefused for a bad folder."""
    return signature.sign_digests(folder.resolve().name, digests(folder), private_key, password)


def verify(folder: Path, public_keys: Sequence[bytes]) -> Signer:
    """Return who signed all that `folder` holds. Raises BundleRefused unless one of the keys (PEM) did."""
    try:
        with (folder / SIGNATURE).open("rb") as file:
            signed = file.read(MAX_SIGNATURE_BYTES + 1)
    except OSError as error:
        found = f"{SIGNATURE} cannot be read ({error.strerror})"
        raise BundleRefused(f"verify the signature of {folder}", found, _AGAIN) from error
    return signature.verify_digests(digests(folder), signed, public_keys)

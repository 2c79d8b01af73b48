"""The trusted signers: the public keys of [store] trusted_keys, read again for each check."""

from collections.abc import Sequence
from pathlib import Path

from appliance.bundle.opened import Vouched


class TrustedKeys:
    """The keys in some files (PEM); a key that was put into a file or taken out of it counts from the next question."""

    def __init__(self, files: Sequence[Path]) -> None:
        """`files` are read when vouched() is called, never before; they are small."""
        self._files = tuple(files)

    def mark(self) -> tuple[object, ...]:
        """Return something that differs once a file was changed, taken away or put back; cheap."""
        return tuple(_mark(file) for file in self._files)

    def vouched(self, signature: bytes | None) -> Vouched:
        """Return the signer and the digests that a model.sig signs (None: there is no model.sig).

        Raises BundleRefused, with the reason, when none of the keys signed it, and when a file holds no key.
        """
        # Not above: whoever trusts no key does not pay for the cryptography library.
        from appliance.bundle import keys
        from appliance.bundle import signature as signatures

        if signature is None:
            raise signatures.unsigned()
        signer, digests = signatures.vouched(signature, [keys.read_file(file) for file in self._files])
        return Vouched(signer.fingerprint, digests)


def trusted(files: Sequence[str]) -> TrustedKeys | None:
    """Return who is trusted by [store] trusted_keys; None where it is empty: any bundle is taken."""
    return TrustedKeys([Path(file) for file in files]) if files else None


def _mark(file: Path) -> object:
    """Return what tells two states of a file apart, None while it cannot be reached."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

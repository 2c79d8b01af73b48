"""A converted model as the command gets it from the process that made it: the parts of a bundle, and how it is written.

Nothing heavy is imported here: the command itself loads neither scikit-learn nor onnx.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.bundle import archive, signature
from appliance.bundle.baseline import Baseline
from appliance.bundle.baseline import write as write_baseline
from appliance.bundle.manifest import Manifest
from appliance.errors import ApplianceError, Misuse
from convert.proof.certificate import Parity


@dataclass(frozen=True, slots=True)
class Conversion:
    """A model that was converted and proved: the parts of its bundle."""

    onnx: bytes
    manifest: Manifest
    parity: Parity
    examples: bytes
    baseline: Baseline

    @property
    def file_name(self) -> str:
        """NAME-VERSION.bundle."""
        return f"{self.manifest.name}-{self.manifest.version}.bundle"

    def bundle(self, private_key: bytes | None = None, password: bytes | None = None) -> bytes:
        """Return the bundle, signed with a private key in PEM if one is given.

        The same conversion gives the same bytes. Raises Misuse for a key that cannot sign.
        """
        certificate = msgspec.json.format(msgspec.json.encode(self.parity), indent=1)
        drift = write_baseline(self.baseline)
        content = archive.write(self.manifest, self.onnx, certificate, self.examples, drift)
        if private_key is None:
            return content
        unsigned = archive.read(content)
        return archive.with_signature(unsigned, signature.sign(unsigned.members, private_key, password))

    def write(
        self, folder: Path, private_key: bytes | None = None, password: bytes | None = None, *, force: bool = False
    ) -> Path:
        """Write the bundle into `folder`, whole or not at all, and return its path; see `bundle` for the key.

        Raises Misuse where another bundle of this name and version stands there, unless `force` is set.
        """
        content = self.bundle(private_key, password)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.file_name
        if not force and path.exists() and _is_other(path, content):
            found = "a bundle with other content has this name and version"
            next_step = "give another --version, since devices tell bundles apart by it; or say --force"
            raise Misuse(f"write {path}", found, next_step)
        descriptor, partial = tempfile.mkstemp(dir=folder, prefix=f".{self.file_name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(partial).chmod(0o644)  # mkstemp makes 0600, which only the owner can read
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)
        return path


def _is_other(path: Path, content: bytes) -> bool:
    """Return whether a file is another bundle; the same may be signed in another way, or not at all."""
    try:
        return _unsigned(path.read_bytes()) != _unsigned(content)
    except (ApplianceError, OSError):  # it is no bundle, or half of one
        return False


def _unsigned(content: bytes) -> dict[str, bytes]:
    return {name: part for name, part in archive.read(content).members.items() if name != archive.SIGNATURE}

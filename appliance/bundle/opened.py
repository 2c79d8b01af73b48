"""A bundle that was judged by its outside and its manifest, its other members still unread where they are.

In this order, each step only when the one before found nothing: the zip's table or the folder's names (bounded), the
signature over the digests where keys are trusted, the manifest against the signature, the manifest's own form, what it
declares against what is there. A member is read, piece by piece, only after that, and held to its digest each time.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from appliance.bundle import onnx_wire, strict_json
from appliance.bundle.manifest import READABLE_FORMATS, Manifest, check_name, check_version
from appliance.bundle.members import (
    BASELINE,
    JSON,
    MANIFEST,
    MAX_JSON_BYTES,
    MAX_MEMBER_BYTES,
    MODEL,
    NOT_DIGESTED,
    OPTIONAL,
    ORDER,
    OWN_CAPS,
    PARITY,
    SIGNATURE,
)
from appliance.bundle.zipped import AGAIN
from appliance.errors import BundleRefused, Misuse

_SMALL_MODEL_BYTES = 16 * 1024 * 1024  # looked at field by field in seconds at most

Pieces = Callable[[str], Iterator[bytes]]
"""Yields a member's content; raises BundleRefused or OSError where it cannot be read."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """What a trusted key has signed: {member: SHA-256 in hexadecimal}; `signer` is the key's fingerprint."""

    signer: str
    digests: Mapping[str, str]


class Trust(Protocol):
    """Whoever knows which keys are trusted."""

    def vouched(self, signature: bytes | None) -> Vouched:
        """Return the signer and digests of a model.sig (None: there is none). Raises BundleRefused with the reason."""


class Opened:
    """A bundle whose outside, signature and manifest are in order; see the order at the top of this file."""

    def __init__(
        self, sizes: Mapping[str, int], pieces: Pieces, where: str, *, most_bytes: int, trust: Trust | None
    ) -> None:
        """`sizes` is {member: bytes}, as the zip's table or the folder says; `most_bytes` bounds their sum.

        Raises BundleRefused.
        """
        self.where = where
        self.sizes = sizes
        self._pieces = pieces
        _check_sizes(sizes, most_bytes, where)
        self._small: dict[str, bytes] = {}
        vouched = trust.vouched(self._keep(SIGNATURE) if SIGNATURE in sizes else None) if trust else None
        self.signer = vouched.signer if vouched else ""
        """The fingerprint of the trusted key that signed it; "" where no key was asked for."""
        raw = self._keep(MANIFEST)
        self.digest = hashlib.sha256(raw).hexdigest()
        """SHA-256 of the manifest, which holds the others': one text that stands for all members."""
        if vouched:
            _check_signed(vouched, self.digest, sizes, where)
        self.manifest: Manifest = decode_manifest(raw, where)
        _check_declared(self.manifest, sizes, where)
        if vouched:
            _check_vouched(self.manifest, vouched, where)

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(self.sizes.values())

    @property
    def names(self) -> list[str]:
        """The members that are there, in the order of ORDER."""
        return [name for name in ORDER if name in self.sizes]

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a member's content piece by piece; raises BundleRefused at its end when its digest is another."""
        if name in self._small:
            yield self._small[name]
            return
        digest, size = hashlib.sha256(), 0
        declared = self.manifest.members.get(name)
        for piece in self._pieces(name):
            size += len(piece)
            if size > self.sizes[name]:
                break
            digest.update(piece)
            yield piece
        if size != self.sizes[name] or (declared and digest.hexdigest() != declared.sha256):
            raise BundleRefused(self.where, f"{name}: its SHA-256 is not the one in {MANIFEST}", AGAIN)

    def read(self, name: str) -> bytes:
        """Return a member's content. Raises BundleRefused as pieces() does."""
        return b"".join(self.pieces(name))

    def check(self) -> None:
        """Read every member once, holding none but the JSON ones. Raises BundleRefused where one is not sound."""
        for name in self.names:
            if name in JSON:
                check_json(name, self.read(name), self.where)
            else:
                for _ in self.pieces(name):
                    pass

    def check_model(self) -> None:
        """Raise BundleRefused unless model.onnx is an ONNX model; a large one is not held in memory.

        Whether a large one names data elsewhere is asked by its self-test, which has a time limit.
        """
        scan = onnx_wire.Scan()
        for piece in self.pieces(MODEL):
            scan.feed(piece)
        if scan.end() and self.sizes[MODEL] <= _SMALL_MODEL_BYTES:
            onnx_wire.check(self.read(MODEL))

    def _keep(self, name: str) -> bytes:
        """Return a small member that the others are judged by, and keep it: it must not change meanwhile."""
        if name not in self._small:
            content = b"".join(self._pieces(name))
            if len(content) != self.sizes[name]:
                raise BundleRefused(self.where, f"{name}: changed while it was read", AGAIN)
            self._small[name] = content
        return self._small[name]


class _Format(msgspec.Struct):
    """The one key that every manifest of every format has."""

    format: int


def decode_manifest(raw: bytes, where: str) -> Manifest:
    """Return the manifest, its format number judged first: a newer one has keys that this appliance cannot know."""
    try:
        number = msgspec.json.decode(raw, type=_Format).format
        if number in READABLE_FORMATS:
            manifest = strict_json.decode(raw, Manifest)
            check_name(manifest.name)
            check_version(manifest.version)
            return manifest
    except Misuse as error:
        raise BundleRefused(where, f"{MANIFEST}: {error.tried} {error.found}", AGAIN) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleRefused(where, f"{MANIFEST}: {error}", AGAIN) from error
    least, most = min(READABLE_FORMATS), max(READABLE_FORMATS)
    if number > most:
        found = f"{MANIFEST}: format {number} is newer than this appliance (reads {least}-{most})"
        raise BundleRefused(where, found, "upgrade the appliance, or build the bundle with an older one")
    raise BundleRefused(where, f"{MANIFEST}: format {number} is unknown (reads {least}-{most})", AGAIN)


def check_json(name: str, content: bytes, where: str) -> None:
    """Refuse a member in JSON that two readers could understand differently."""
    try:
        strict_json.check(content)
    except (ValueError, RecursionError) as error:
        raise BundleRefused(where, f"{name}: {error}", AGAIN) from error


def _check_sizes(sizes: Mapping[str, int], most_bytes: int, where: str) -> None:
    """Refuse members that no bundle has, and those that are too large, each or together."""
    for name, size in sizes.items():
        if name not in ORDER:
            raise BundleRefused(where, f"{name!r}: is no member of a bundle", AGAIN)
        if size > (limit := OWN_CAPS.get(name, MAX_MEMBER_BYTES)):
            raise BundleRefused(where, f"{name}: has {size} bytes, more than the {limit} that are read", AGAIN)
    if (together := sum(sizes.values())) > most_bytes:
        found = f"has {together} bytes unpacked, more than the {most_bytes} that are read"
        raise BundleRefused(where, found, "raise [store] max_bundle_bytes where such a large model is meant")
    if MANIFEST not in sizes:
        raise BundleRefused(where, f"{MANIFEST}: is missing", AGAIN)


def _check_declared(manifest: Manifest, sizes: Mapping[str, int], where: str) -> None:
    """Refuse members that are missing, undeclared, or of another size than declared."""
    for name in ORDER:
        declared, present = name in manifest.members, name in sizes
        if name in NOT_DIGESTED:
            if declared:
                raise BundleRefused(where, f"{name}: cannot be digested by {MANIFEST}", AGAIN)
        elif not present and (declared or name not in OPTIONAL):
            raise BundleRefused(where, f"{name}: is missing", AGAIN)
        elif present and not declared:
            raise BundleRefused(where, f"{name}: is not declared in {MANIFEST}", AGAIN)
    for name, member in manifest.members.items():
        if name not in ORDER:
            raise BundleRefused(where, f"{MANIFEST}: declares {name!a}, which is no member of a bundle", AGAIN)
        if sizes[name] != member.size:
            raise BundleRefused(where, f"{name}: has {sizes[name]} bytes, {MANIFEST} says {member.size}", AGAIN)
    for name in (PARITY, BASELINE):
        if sizes.get(name, 0) > MAX_JSON_BYTES:
            found = f"{name}: has {sizes[name]} bytes, more than the {MAX_JSON_BYTES} that are read"
            raise BundleRefused(where, found, AGAIN)


def _check_signed(vouched: Vouched, manifest: str, sizes: Mapping[str, int], where: str) -> None:
    """Refuse a manifest with another digest than was signed, and members that were not, or are not there."""
    if vouched.digests.get(MANIFEST, manifest) != manifest:
        raise _distrusted(where, f"{MANIFEST}: is not as it was when it was signed")
    present = sizes.keys() - {SIGNATURE}
    for name in sorted(vouched.digests.keys() - present):
        raise _distrusted(where, f"{name[:80]!a}: was signed, but is missing")
    for name in sorted(present - vouched.digests.keys()):
        raise _distrusted(where, f"{name}: was not signed")


def _check_vouched(manifest: Manifest, vouched: Vouched, where: str) -> None:
    """Refuse a signature over other digests than the manifest has: then a member can only be as both say."""
    for name, member in manifest.members.items():
        if member.sha256 != vouched.digests[name]:
            raise _distrusted(where, f"{name}: {MANIFEST} has another digest than was signed")


def _distrusted(where: str, found: str) -> BundleRefused:
    return BundleRefused(
        f"verify the signature of {where}", found, "do not use this bundle; get it again from whoever signed it"
    )

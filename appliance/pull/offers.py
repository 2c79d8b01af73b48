"""What a source offers, and index.json, the list of it on a web server or in a folder; judged before it is believed.

The index is not signed: it says which bundles are wanted here, and the bundles themselves are signed.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec

from appliance.bundle.manifest import Digest, Manifest, check_name, check_version, version_order
from appliance.errors import Misuse, Refused

INDEX = "index.json"
FORMAT = 1
MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""Of an index or an OCI manifest; the OCI distribution specification asks clients to take this much."""
MAX_OFFERS = 1000
_PART = r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*"
_MEND = f"write it again on the server: appliance index FOLDER > {INDEX}"

Size = Annotated[int, msgspec.Meta(ge=1)]


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One bundle that a source offers."""

    sha256: Digest
    """Of the whole file."""
    size: Size
    """Its bytes."""
    file: str
    """Where it lies: a path relative to the index, or the blob's digest in a registry."""
    name: str = ""
    """The model; empty where only the bundle tells."""
    version: str = ""

    def __str__(self) -> str:
        """Return what to call it in a message."""
        return f"{self.name} {self.version}" if self.name else self.file


class _Format(msgspec.Struct):
    """The one key that every index of every format has."""

    format: int


class _Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of index.json."""

    format: int
    bundles: Annotated[list[Offer], msgspec.Meta(max_length=MAX_OFFERS)]


def decode_index(raw: bytes, where: str) -> list[Offer]:
    """Return what an index offers, at most one version of each model. Raises Refused with what is wrong."""
    try:
        number = msgspec.json.decode(raw, type=_Format).format
        if number != FORMAT:
            found = f"format {number} is unknown (this appliance reads {FORMAT})"
            raise Refused(f"read {where}", found, "upgrade the appliance, or write the index with an older one")
        offers = msgspec.json.decode(raw, type=_Index).bundles
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # The text may quote the file, and a terminal obeys control characters.
        raise Refused(f"read {where}", ascii(str(error))[1:-1][:200], _MEND) from error
    seen: set[str] = set()
    for offer in offers:
        fault = _fault(offer) or ("this model is there twice" if offer.name in seen else "")
        if fault:
            raise Refused(f"read {where}", f"bundle {offer.file[:80]!a}: {fault}", _MEND)
        seen.add(offer.name)
    return offers


def encode_index(offers: Sequence[Offer]) -> bytes:
    """Return index.json, for people to read as well."""
    return msgspec.json.format(msgspec.json.encode(_Index(FORMAT, list(offers))), indent=1) + b"\n"


def newest(found: Iterable[tuple[Offer, Manifest]]) -> list[Offer]:
    """Return, of each model, the offer with the greatest version (SemVer precedence), sorted by model."""
    best: dict[str, tuple[Offer, Manifest]] = {}
    for offer, manifest in found:
        held = best.get(manifest.name)
        if held is None or version_order(manifest.version) > version_order(held[1].version):
            best[manifest.name] = offer, manifest
    return [best[name][0] for name in sorted(best)]


def _fault(offer: Offer) -> str:
    """Return what is wrong with an offer of an index; "" if nothing is."""
    if len(offer.file) > 512 or not all(re.fullmatch(_PART, part) for part in offer.file.split("/")):
        return "is no plain path below the index"
    try:
        check_name(offer.name)
        check_version(offer.version)
    except Misuse as error:
        return f"{error.tried[:160]} {error.found}"
    return ""

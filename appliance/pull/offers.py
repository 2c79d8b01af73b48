"""What a source offers, and index.json, the list of it on a web server or in a folder; judged before it is believed.

The index is not signed: it says which bundles are wanted here, and the bundles themselves are signed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from appliance.bundle.manifest import Digest, check_name, check_version, version_order
from appliance.errors import ApplianceError, Misuse, Refused

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
    """The model; empty where only the bundle names it."""
    version: str = ""

    def __str__(self) -> str:
        """Return what to call it in a message."""
        return f"{self.name} {self.version}" if self.name else self.file


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that a source names and that is no offer: a broken entry, a file that is no bundle."""

    label: str
    """What to call it in a message."""
    error: ApplianceError
    model: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source offers, and what of it is broken: the one does not keep the other away."""

    offers: list[Offer]
    faults: list[Fault]


class _Format(msgspec.Struct):
    """The one key that every index of every format has."""

    format: int


class _Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of index.json."""

    format: int
    bundles: list[Offer]


class _Raw(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of index.json, its entries not judged yet."""

    format: int
    bundles: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_OFFERS)]


def decode_index(raw: bytes, where: str) -> Listing:
    """Return what an index offers, at most one version of each model. Raises Refused when it is no index at all."""
    try:
        number = msgspec.json.decode(raw, type=_Format).format
        if number != FORMAT:
            found = f"format {number} is unknown (this appliance reads {FORMAT})"
            raise Refused(f"read {where}", found, "upgrade the appliance, or write the index with an older one")
        entries = msgspec.json.decode(raw, type=_Raw).bundles
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # The text may quote the file, and a terminal obeys control characters.
        raise Refused(f"read {where}", ascii(str(error))[1:-1][:200], _MEND) from error
    offers, faults = [], []
    for number, entry in enumerate(entries, 1):
        try:
            offers.append(_decode_entry(entry))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            found = f"bundle {number}: {ascii(str(error))[1:-1][:200]}"
            faults.append(Fault(f"bundle {number} of the index", Refused(f"read {where}", found, _MEND)))
    times = Counter(offer.name for offer in offers)
    for name in sorted(name for name, count in times.items() if count > 1):
        found = f"bundle {name}: this model is there twice"
        faults.append(Fault(name, Refused(f"read {where}", found, _MEND)))
    return Listing([offer for offer in offers if times[offer.name] == 1], faults)


def encode_index(offers: Sequence[Offer]) -> bytes:
    """Return index.json, for people to read as well."""
    return msgspec.json.format(msgspec.json.encode(_Index(FORMAT, list(offers))), indent=1) + b"\n"


def _decode_entry(entry: msgspec.Raw) -> Offer:
    """Return the offer in an entry. Raises ValueError, msgspec.MsgspecError."""
    offer = msgspec.json.decode(entry, type=Offer)
    if fault := _fault(offer):
        raise ValueError(f"{offer.file[:80]}: {fault}")
    return offer


def newest(found: Iterable[Offer]) -> list[Offer]:
    """Return, of each model, the offer with the greatest version (SemVer precedence), sorted by model."""
    return [turn[0] for turn in in_turn(sorted(found, key=lambda offer: offer.name))]


def in_turn(found: Iterable[Offer]) -> list[list[Offer]]:
    """Return the offers of each model, the greatest version first; one whose model is not known stands alone."""
    turns: dict[str, list[Offer]] = {}
    for offer in found:
        turns.setdefault(offer.name or offer.sha256, []).append(offer)
    for name, turn in turns.items():
        turns[name] = sorted(turn, key=lambda offer: version_order(offer.version or "0.0.0"), reverse=True)
    return list(turns.values())


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

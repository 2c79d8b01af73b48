"""A bundle as one zip file or one folder: written the same way every time, and judged before it is believed."""

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import msgspec

from appliance import ahead, nofollow
from appliance.bundle import zipped
from appliance.bundle.manifest import Manifest, Member
from appliance.bundle.members import (
    BASELINE,
    EXAMPLES,
    JSON,
    MANIFEST,
    MAX_BUNDLE_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_MEMBER_BYTES,
    MAX_MEMBERS,
    MAX_SIGNATURE_BYTES,
    MAX_TABLE_BYTES,
    MODEL,
    OPTIONAL,
    ORDER,
    PARITY,
    SIGNATURE,
)
from appliance.bundle.opened import Opened, Trust, check_json, decode_manifest
from appliance.bundle.zipped import AGAIN, Entry
from appliance.errors import BundleRefused, NotFound

__all__ = [
    "BASELINE", "EXAMPLES", "MANIFEST", "MAX_BUNDLE_BYTES", "MAX_MANIFEST_BYTES", "MAX_MEMBER_BYTES",
    "MAX_SIGNATURE_BYTES", "MODEL", "OPTIONAL", "ORDER", "PARITY", "SIGNATURE", "Bundle", "Opened", "encode_manifest",
    "open_bundle", "open_folder", "opened", "read", "read_folder", "read_manifest", "whole", "with_signature", "write",
]  # fmt: skip

_EPOCH = (1980, 1, 1, 0, 0, 0)
# Whoever builds or signs a bundle has its parts in memory already; the device's budget is not theirs.
_BUILDERS_BYTES = 2 * MAX_MEMBER_BYTES


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read whole and found intact; `members` is {member name: content}, in the order of ORDER."""

    manifest: Manifest
    members: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(len(content) for content in self.members.values())


def write(
    manifest: Manifest,
    model: bytes,
    parity: bytes,
    examples: bytes,
    baseline: bytes | None = None,
    signature: bytes | None = None,
) -> bytes:
    """Return the bundle as zip bytes; the same arguments give the same bytes (deflated by the same zlib).

    `manifest.members` is filled here. What `read` would refuse is not written: raises BundleRefused.
    """
    contents = {MODEL: model, PARITY: parity, EXAMPLES: examples}
    if baseline is not None:
        contents[BASELINE] = baseline
    members = {
        name: Member(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    }
    manifest = msgspec.structs.replace(manifest, members=members)
    contents[MANIFEST] = encode_manifest(manifest)
    if signature is not None:
        contents[SIGNATURE] = signature
    content = _zip({name: contents[name] for name in ORDER if name in contents})
    read(content)
    return content


def with_signature(bundle: Bundle, signature: bytes) -> bytes:
    """Return the zip bytes of `bundle` with `signature` as its model.sig, every other member byte for byte as it is.

    A model.sig that it has is replaced. What `read` would refuse is not written: raises BundleRefused.
    """
    contents = {**bundle.members, SIGNATURE: signature}
    content = _zip({name: contents[name] for name in ORDER if name in contents})
    read(content)
    return content


def encode_manifest(manifest: Manifest) -> bytes:
    """Return manifest.json: indented for people, keys of its tables sorted so that it never varies."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1) + b"\n"


@contextmanager
def opened(path: Path, *, most_bytes: int = MAX_BUNDLE_BYTES, trust: Trust | None = None) -> Iterator[Opened]:
    """Give the bundle in the file `path`, checked by all but its members' content (see Opened.check), while it is open.

    `most_bytes` bounds what it has unpacked; with `trust` nothing but model.sig is read before its signature was found
    good. Raises NotFound when there is no such file, BundleRefused when it is not sound or not trusted.
    """
    if not ahead.is_file(path) and not os.path.exists(path):  # noqa: PTH110 - pathlib raises where the way is closed
        raise NotFound(f"open bundle {path}", "there is no such file", "check the path")
    if not ahead.is_file(path):
        raise BundleRefused(f"open bundle {path}", "is no regular file", "name the .bundle file itself")
    with _opening(path):
        file = ahead.open_file(path)
    with file:  # what the caller does meanwhile may raise an OSError of its own
        with _opening(path):
            found = _open_zip(file, path.name, most_bytes, trust)
        yield found


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Turn an OSError within into the error of a bundle's file."""
    try:
        yield
    except OSError as error:
        found = error.strerror or str(error)
        raise BundleRefused(f"open bundle {path}", found, "check the file and its rights") from error


def open_folder(
    folder: Path, *, within: Path | None = None, most_bytes: int = MAX_BUNDLE_BYTES, trust: Trust | None = None
) -> Opened:
    """Return the installed (unpacked) version in `folder`, held to the same rules as a zip.

    No link is followed below `within`, the state folder; by default in `folder`. Raises NotFound when the folder is
    absent, BundleRefused when it is not sound or not trusted, StoreError at a link.
    """
    base = within or folder

    def pieces(name: str) -> Iterator[bytes]:
        with os.fdopen(nofollow.open_file(folder / name, within=base), "rb") as file:
            while piece := file.read(zipped.PIECE_BYTES):
                yield piece

    with _reading(folder):
        sizes = _folder_sizes(folder, base)
        return Opened(sizes, pieces, str(folder), most_bytes=most_bytes, trust=trust)


def whole(found: Opened) -> Bundle:
    """Return an opened bundle with all its members in memory. Raises BundleRefused where one is not sound."""
    contents = {name: found.read(name) for name in found.names}
    for name in JSON:
        if name in contents:
            check_json(name, contents[name], found.where)
    return Bundle(found.manifest, MappingProxyType(contents))


def open_bundle(path: Path, *, most_bytes: int = _BUILDERS_BYTES) -> Bundle:
    """Return the bundle in the file `path`, whole in memory: for those who build and sign; see opened().

    Raises NotFound when there is none, BundleRefused when it is not sound.
    """
    with opened(path, most_bytes=most_bytes) as found:
        return whole(found)


def read(content: bytes) -> Bundle:
    """Return the bundle whose zip bytes are `content`. Raises BundleRefused when it is not sound."""
    return whole(_open_zip(io.BytesIO(content), "bundle", _BUILDERS_BYTES, None))


def read_folder(
    folder: Path, *, within: Path | None = None, most_bytes: int = MAX_BUNDLE_BYTES, trust: Trust | None = None
) -> Bundle:
    """Return the installed (unpacked) version in `folder`, whole in memory; raises what open_folder() raises."""
    with _reading(folder):
        return whole(open_folder(folder, within=within, most_bytes=most_bytes, trust=trust))


def read_manifest(folder: Path, *, within: Path | None = None) -> Manifest:
    """Return the manifest of an installed version without reading (or proving) the other members.

    Raises NotFound when there is none, BundleRefused when it cannot be understood, StoreError at a link.
    """
    try:
        with os.fdopen(nofollow.open_file(folder / MANIFEST, within=within or folder), "rb") as file:
            raw = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise NotFound(f"read {folder / MANIFEST}", error.strerror or str(error), "see: appliance models") from error
    return decode_manifest(raw, str(folder))


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turn an OSError within into the error of a version's folder."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"read {folder}", "there is no such folder", "see: appliance models") from error
    except OSError as error:
        raise BundleRefused(f"read {folder}", str(error), "install the bundle again as another version") from error


def _zip(contents: Mapping[str, bytes]) -> bytes:
    """Return a zip of `contents` in its order, with nothing in it that depends on when or where it is made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            member = zipfile.ZipInfo(name, _EPOCH)
            member.create_system = 3  # Unix on every platform, else the byte tells which one wrote it
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(member, content, zipfile.ZIP_DEFLATED, 6)
    return buffer.getvalue()


def _open_zip(file: BinaryIO, where: str, most_bytes: int, trust: Trust | None) -> Opened:
    """Return the bundle in an open, seekable zip file; `where` names it in messages."""
    table = zipped.read_table(file, where, most_entries=MAX_MEMBERS, most_bytes=MAX_TABLE_BYTES)
    entries: dict[str, Entry] = {}
    for entry in table:
        if entry.name in entries:
            raise BundleRefused(where, f"{entry.name}: is there twice", AGAIN)
        if fault := _entry_fault(entry):
            raise BundleRefused(where, f"{entry.name!r}: {fault}", AGAIN)
        entries[entry.name] = entry
    sizes = {name: entry.size for name, entry in entries.items()}

    def pieces(name: str) -> Iterator[bytes]:
        with _opening(Path(where)):
            yield from zipped.pieces(file, entries[name], where)

    return Opened(sizes, pieces, where, most_bytes=most_bytes, trust=trust)


def _entry_fault(entry: Entry) -> str | None:
    """Return what is wrong with an entry, by its header alone."""
    name = entry.name
    if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
        return "is a path that climbs out of the bundle"
    kind = stat.S_IFMT(entry.attributes >> 16)
    if name.endswith("/") or kind not in (0, stat.S_IFREG):
        return "is a link or a folder, not a file"
    if entry.encrypted:
        return "is encrypted"
    if entry.method not in (zipped.STORED, zipped.DEFLATED):
        return f"is compressed by method {entry.method} (0 and 8 can be read)"
    return None if name in ORDER else "is no member of a bundle"


def _folder_sizes(folder: Path, base: Path) -> dict[str, int]:
    """Return {file name: bytes} of a version's folder, or refuse what is no plain file."""
    found = nofollow.entries(folder, within=base)
    for name, status in found.items():
        if not stat.S_ISREG(status.st_mode):
            raise BundleRefused(str(folder), f"{name!r}: is a link or a folder, not a file", AGAIN)
    return {name: status.st_size for name, status in found.items()}

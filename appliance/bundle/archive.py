"""A bundle as one zip file or one folder: written the same way every time, and judged whole before it is believed.

The zip follows PKWARE's APPNOTE 6.3.10 in its smallest subset: stored or deflated regular members, one after the other
from the first byte, then the central directory, then nothing. Whatever lies outside that subset is refused.
"""

import hashlib
import io
import os
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import msgspec

from appliance import nofollow
from appliance.bundle.manifest import READABLE_FORMATS, Manifest, Member, check_name, check_version
from appliance.errors import BundleRefused, Misuse, NotFound

MANIFEST = "manifest.json"
MODEL = "model.onnx"
PARITY = "parity.json"
EXAMPLES = "examples.npz"
BASELINE = "baseline.json"
SIGNATURE = "model.sig"

ORDER = (MANIFEST, MODEL, PARITY, EXAMPLES, BASELINE, SIGNATURE)
"""Every member there is, in the order in which the zip has them."""
OPTIONAL = frozenset({BASELINE, SIGNATURE})

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_SIGNATURE_BYTES = 4 * 1024 * 1024
MAX_MEMBER_BYTES = 2 * 1024**3
"""protobuf, and so ONNX without external data, ends at 2 GiB."""

# The manifest digests the others; the signature signs them all. Neither can stand in the manifest's own list.
_NOT_DIGESTED = frozenset({MANIFEST, SIGNATURE})
_OWN_CAPS = {MANIFEST: MAX_MANIFEST_BYTES, SIGNATURE: MAX_SIGNATURE_BYTES}
_EPOCH = (1980, 1, 1, 0, 0, 0)
_END_RECORD = struct.Struct("<4s4H2LH")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_AGAIN = "build the bundle again, or copy it again from where it was built"


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
    members = {name: Member(size=len(content), sha256=_sha256(content)) for name, content in contents.items()}
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


def open_bundle(path: Path) -> Bundle:
    """Return the bundle in the file `path`. Raises NotFound when there is none, BundleRefused when it is not sound."""
    if not path.exists():
        raise NotFound(f"open bundle {path}", "there is no such file", "check the path")
    if not path.is_file():
        raise BundleRefused(f"open bundle {path}", "is no regular file", "name the .bundle file itself")
    try:
        with path.open("rb") as file:
            return _read_zip(file, path.name)
    except OSError as error:
        raise BundleRefused(
            f"open bundle {path}", error.strerror or str(error), "check the file and its rights"
        ) from error


def read(content: bytes) -> Bundle:
    """Return the bundle whose zip bytes are `content`. Raises BundleRefused when it is not sound."""
    return _read_zip(io.BytesIO(content), "bundle")


def read_folder(folder: Path, *, within: Path | None = None) -> Bundle:
    """Return the installed (unpacked) version in `folder`, held to the same rules as a zip.

    No link is followed below `within`, the state folder; by default in `folder`. Raises NotFound when the folder is
    absent, BundleRefused when it is not sound, StoreError at a link.
    """
    base = within or folder

    def read_file(name: str) -> bytes:
        return nofollow.read(folder / name, within=base)

    try:
        return _judge(_folder_sizes(folder, base), read_file, str(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"read {folder}", "there is no such folder", "see: appliance models") from error
    except OSError as error:
        raise BundleRefused(f"read {folder}", str(error), "install the bundle again as another version") from error


def read_manifest(folder: Path, *, within: Path | None = None) -> Manifest:
    """Return the manifest of an installed version without reading (or proving) the other members.

    Raises NotFound when there is none, BundleRefused when it cannot be understood, StoreError at a link.
    """
    try:
        with os.fdopen(nofollow.open_file(folder / MANIFEST, within=within or folder), "rb") as file:
            raw = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise NotFound(f"read {folder / MANIFEST}", error.strerror or str(error), "see: appliance models") from error
    return _decode_manifest(raw, str(folder))


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


def _read_zip(file: BinaryIO, where: str) -> Bundle:
    """Return the bundle in an open, seekable zip file; `where` names it in messages."""
    try:
        with zipfile.ZipFile(file) as archive:
            _check_layout(file, archive, where)
            infos = _check_entries(archive, where)
            return _judge({name: info.file_size for name, info in infos.items()}, archive.read, where)
    except BundleRefused:
        raise
    except Exception as error:  # zipfile and zlib raise many kinds for damaged bytes; all mean the same here
        raise BundleRefused(
            where, f"is damaged or no zip file ({str(error) or type(error).__name__})", _AGAIN
        ) from error


def _check_layout(file: BinaryIO, archive: zipfile.ZipFile, where: str) -> None:
    """Refuse a zip in which anything lies before, between or after the members: two readers could see two bundles."""
    position = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset != position:
            raise BundleRefused(where, f"{info.filename}: does not follow the member before it", _AGAIN)
        file.seek(position)
        header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        position += _LOCAL_HEADER.size + header[-2] + header[-1] + info.compress_size
    if position != archive.start_dir:
        raise BundleRefused(where, "holds bytes that belong to no member", _AGAIN)
    file.seek(-_END_RECORD.size, io.SEEK_END)
    signature, *_, directory_size, directory_offset, comment_size = _END_RECORD.unpack(file.read(_END_RECORD.size))
    end = file.tell() - _END_RECORD.size
    if signature != b"PK\5\6" or comment_size or (directory_offset, directory_size) != (position, end - position):
        raise BundleRefused(where, "does not end with its table of members", _AGAIN)


def _check_entries(archive: zipfile.ZipFile, where: str) -> dict[str, zipfile.ZipInfo]:
    """Return {name: entry}, or refuse: nothing was read yet."""
    infos: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        # orig_filename: zipfile itself cuts a name at a NUL byte and replaces the other system's separator.
        name = info.orig_filename
        if name in infos:
            raise BundleRefused(where, f"{name}: is there twice", _AGAIN)
        if fault := _entry_fault(info):
            raise BundleRefused(where, f"{name!r}: {fault}", _AGAIN)
        infos[name] = info
    return infos


def _entry_fault(info: zipfile.ZipInfo) -> str | None:
    """Return what is wrong with an entry, judged by its header alone."""
    name = info.orig_filename
    if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
        return "is a path that climbs out of the bundle"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.is_dir() or kind not in (0, stat.S_IFREG):
        return "is a link or a folder, not a file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {info.compress_type} (0 and 8 can be read)"
    return None if name in ORDER else "is no member of a bundle"


def _folder_sizes(folder: Path, base: Path) -> dict[str, int]:
    """Return {file name: bytes} of a version's folder, or refuse what is no plain file."""
    found = nofollow.entries(folder, within=base)
    for name, status in found.items():
        if not stat.S_ISREG(status.st_mode):
            raise BundleRefused(str(folder), f"{name!r}: is a link or a folder, not a file", _AGAIN)
    return {name: status.st_size for name, status in found.items()}


def _judge(sizes: Mapping[str, int], read_member: Callable[[str], bytes], where: str) -> Bundle:
    """Return the bundle whose members have `sizes` and are read by `read_member`, or raise BundleRefused.

    Every size is held against the manifest before its member is read, so nothing is inflated beyond what was declared.
    """
    for name, size in sizes.items():
        if name not in ORDER:
            raise BundleRefused(where, f"{name!r}: is no member of a bundle", _AGAIN)
        if size > (limit := _OWN_CAPS.get(name, MAX_MEMBER_BYTES)):
            raise BundleRefused(where, f"{name}: has {size} bytes, more than the {limit} that are read", _AGAIN)
    if MANIFEST not in sizes:
        raise BundleRefused(where, f"{MANIFEST}: is missing", _AGAIN)
    contents = {MANIFEST: read_member(MANIFEST)}
    manifest = _decode_manifest(contents[MANIFEST], where)
    _check_declared(manifest, sizes, where)
    contents |= {name: read_member(name) for name in ORDER if name in sizes and name != MANIFEST}
    for name, member in manifest.members.items():
        if len(contents[name]) != member.size or _sha256(contents[name]) != member.sha256:
            raise BundleRefused(where, f"{name}: its SHA-256 is not the one in {MANIFEST}", _AGAIN)
    return Bundle(manifest, MappingProxyType(contents))


def _check_declared(manifest: Manifest, sizes: Mapping[str, int], where: str) -> None:
    """Refuse members that are missing, undeclared, or of another size than declared."""
    for name in ORDER:
        declared, present = name in manifest.members, name in sizes
        if name in _NOT_DIGESTED:
            if declared:
                raise BundleRefused(where, f"{name}: cannot be digested by {MANIFEST}", _AGAIN)
        elif not present and (declared or name not in OPTIONAL):
            raise BundleRefused(where, f"{name}: is missing", _AGAIN)
        elif present and not declared:
            raise BundleRefused(where, f"{name}: is not declared in {MANIFEST}", _AGAIN)
    for name, member in manifest.members.items():
        if name not in ORDER:
            raise BundleRefused(where, f"{MANIFEST}: declares {name!r}, which is no member of a bundle", _AGAIN)
        if sizes[name] != member.size:
            raise BundleRefused(where, f"{name}: has {sizes[name]} bytes, {MANIFEST} says {member.size}", _AGAIN)


class _Format(msgspec.Struct):
    """The one key that every manifest of every format has."""

    format: int


def _decode_manifest(raw: bytes, where: str) -> Manifest:
    """Return the manifest, its format number judged first: a newer one has keys that this appliance cannot know."""
    try:
        number = msgspec.json.decode(raw, type=_Format).format
        if number in READABLE_FORMATS:
            manifest = msgspec.json.decode(raw, type=Manifest)
            check_name(manifest.name)
            check_version(manifest.version)
            return manifest
    except Misuse as error:
        raise BundleRefused(where, f"{MANIFEST}: {error.tried} {error.found}", _AGAIN) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleRefused(where, f"{MANIFEST}: {error}", _AGAIN) from error
    least, most = min(READABLE_FORMATS), max(READABLE_FORMATS)
    if number > most:
        found = f"{MANIFEST}: format {number} is newer than this appliance (reads {least}-{most})"
        raise BundleRefused(where, found, "upgrade the appliance, or build the bundle with an older one")
    raise BundleRefused(where, f"{MANIFEST}: format {number} is unknown (reads {least}-{most})", _AGAIN)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""The part of the zip format that a bundle uses, read with nothing trusted and nothing built before it was bounded.

PKWARE's APPNOTE 6.3.10 in its smallest subset: stored or deflated regular members, one after the other from the first
byte, then the central directory (the table), then its end record, then nothing. No zip64 table, no comment, no data
descriptor, no encryption. Python's zipfile builds an object for each entry of the table before anybody can count them.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from appliance.errors import BundleRefused

STORED, DEFLATED = 0, 8
AGAIN = "build the bundle again, or copy it again from where it was built"

PIECE_BYTES = 256 * 1024
"""Of content that is held at once."""

_END = struct.Struct("<4s4H2LH")  # 4.3.16
_ENTRY = struct.Struct("<4s6H3L5H2L")  # 4.3.12
_LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7
_LONGEST_COMMENT = 0xFFFF
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075  # extra fields that give an entry other sizes, or another name
_ENCRYPTED, _SIZES_AFTERWARDS = 0x1, 0x8  # general purpose bits 0 and 3
# deflate cannot do better: 258 bytes from 2 bits (RFC 1951).
_BEST_RATIO, _RATIO_SLACK = 1032, 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One member as the table has it: `size` bytes that stand as `packed` bytes at `start` in the file."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    attributes: int
    """External file attributes: the Unix mode in the upper 16 bits."""
    header: int
    """Where its local header is."""
    start: int = 0

    @property
    def encrypted(self) -> bool:
        """Whether its content is encrypted."""
        return bool(self.flags & _ENCRYPTED)


def read_table(file: BinaryIO, where: str, *, most_entries: int, most_bytes: int) -> list[Entry]:
    """Return the members of an open, seekable zip file, in the order of their content; `where` names it in messages.

    Raises BundleRefused for what is outside of the subset, before more than `most_bytes` of the table were read.
    """
    end = file.seek(0, io.SEEK_END) - _END.size
    count, size, offset = _end_record(file, end, where)
    if count > most_entries:
        several = f"{count} or more" if count == 0xFFFF else str(count)
        raise BundleRefused(where, f"has {several} members, more than the {most_entries} that are read", AGAIN)
    if size > most_bytes:
        found = f"its table of members has {size} bytes, more than the {most_bytes} that are read"
        raise BundleRefused(where, found, AGAIN)
    if offset + size != end:
        raise BundleRefused(where, "does not end with its table of members", AGAIN)
    file.seek(offset)
    entries = _entries(file.read(size), count, where)
    return _laid_out(file, sorted(entries, key=lambda entry: entry.header), offset, where)


def pieces(file: BinaryIO, entry: Entry, where: str) -> Iterator[bytes]:
    """Yield the content of a member; never more than its `size`, checked against its CRC-32 at the end."""
    file.seek(entry.start)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == DEFLATED else None
    left, size, crc = entry.packed, 0, 0
    waiting = b""
    while left or waiting:
        if not waiting:
            waiting = file.read(min(left, PIECE_BYTES))
            left -= len(waiting)
        if not waiting:
            _damaged(where, f"{entry.name!a} is cut off")
        if inflater is None:
            piece, waiting = waiting, b""
        else:
            try:
                piece = inflater.decompress(waiting, PIECE_BYTES)
            except zlib.error as error:
                _damaged(where, f"{entry.name!a}: {error}", error)
            waiting = inflater.unconsumed_tail
        size, crc = size + len(piece), zlib.crc32(piece, crc)
        if size > entry.size:
            _damaged(where, f"{entry.name!a} is larger than its header says")
        if inflater is not None and (inflater.unused_data or (inflater.eof and (left or waiting))):
            _damaged(where, f"{entry.name!a} ends before its header says")
        if piece:
            yield piece
    if size != entry.size or crc != entry.crc or (inflater is not None and not inflater.eof):
        _damaged(where, f"{entry.name!a} is not what its header says")


def _end_record(file: BinaryIO, end: int, where: str) -> tuple[int, int, int]:
    """Return (entries, bytes, offset) of the table by the record that is the last thing in the file."""
    if end < 0:
        _damaged(where, "it is too short")
    file.seek(end)
    signature, disk, table_disk, here, count, size, offset, comment = _END.unpack(file.read(_END.size))
    if signature != b"PK\5\6" or comment:
        file.seek(max(0, end - _LONGEST_COMMENT))
        if b"PK\5\6" in file.read(_LONGEST_COMMENT + _END.size):
            raise BundleRefused(where, "does not end with its table of members", AGAIN)
        _damaged(where, "there is no table of members at its end")
    if disk or table_disk or here != count:
        raise BundleRefused(where, "is one part of several", AGAIN)
    return count, size, offset


def _entries(table: bytes, count: int, where: str) -> list[Entry]:
    """Return the entries of the table, which holds exactly `count` of them."""
    found: list[Entry] = []
    position = 0
    for _ in range(count):
        if len(table) - position < _ENTRY.size:
            _damaged(where, "its table of members is cut off")
        fields = _ENTRY.unpack_from(table, position)
        signature, _, _, flags, method, _, _, crc, packed, size, named, extra, comment, disk, _, attributes, at = fields
        position += _ENTRY.size
        raw, more = table[position : position + named], table[position + named : position + named + extra]
        position += named + extra + comment
        if signature != b"PK\1\2" or position > len(table) or disk:
            _damaged(where, "its table of members is damaged")
        name = _text(raw)
        if comment:
            raise BundleRefused(where, f"{name!a}: has a comment", AGAIN)
        if {_ZIP64, _UNICODE_PATH} & _extra(more).keys():
            raise BundleRefused(where, f"{name!a}: has its size or its name twice", AGAIN)
        found.append(Entry(name, flags, method, crc, packed, size, attributes, at))
    if position != len(table):
        raise BundleRefused(where, "holds bytes that belong to no member", AGAIN)
    return found


def _laid_out(file: BinaryIO, entries: list[Entry], table: int, where: str) -> list[Entry]:
    """Return the entries with their `start`; refuse whatever lies before, between or behind them.

    Else two readers, one by the table and one by the local headers, could see two bundles.
    """
    position = 0
    placed: list[Entry] = []
    for entry in entries:
        name = entry.name
        if entry.header != position:
            raise BundleRefused(where, f"{name}: does not follow the member before it", AGAIN)
        file.seek(position)
        raw = file.read(_LOCAL.size)
        if len(raw) < _LOCAL.size:
            _damaged(where, f"{name!a} is cut off")
        signature, _, flags, method, _, _, crc, packed, size, named, extra = _LOCAL.unpack(raw)
        same_name = _text(file.read(named)) == name
        if signature != b"PK\3\4" or not same_name or (flags, method) != (entry.flags, entry.method):
            _damaged(where, f"{name!a} has another header than the table says")
        if flags & _SIZES_AFTERWARDS:
            raise BundleRefused(where, f"{name!a}: its size stands behind it", AGAIN)
        zip64 = _extra(file.read(extra)).get(_ZIP64)
        if zip64 is not None and (packed, size) == (0xFFFFFFFF, 0xFFFFFFFF):  # as numpy writes an npz
            size, packed = struct.unpack("<QQ", zip64) if len(zip64) == 16 else (-1, -1)
        if (crc, packed, size) != (entry.crc, entry.packed, entry.size):
            _damaged(where, f"{name!a} has another size or checksum than the table says")
        _check_ratio(entry, where)
        start = position + _LOCAL.size + named + extra
        position = start + packed
        placed.append(Entry(name, flags, method, crc, packed, size, entry.attributes, entry.header, start))
    if position != table:
        raise BundleRefused(where, "holds bytes that belong to no member", AGAIN)
    return placed


def _check_ratio(entry: Entry, where: str) -> None:
    """Refuse a size that the packed bytes cannot give."""
    if entry.method == STORED and not entry.encrypted and entry.size != entry.packed:
        _damaged(where, f"{entry.name!a} is stored, and has two sizes")
    if entry.method == DEFLATED and entry.size > entry.packed * _BEST_RATIO + _RATIO_SLACK:
        _damaged(where, f"{entry.name!a}: {entry.packed} bytes cannot become {entry.size}")


def _extra(raw: bytes) -> dict[int, bytes]:
    """Return {id: content} of extra fields (4.5.1); what is no such field is passed over: nothing is read from it."""
    found: dict[int, bytes] = {}
    position = 0
    while len(raw) - position >= 4:
        kind, size = struct.unpack_from("<HH", raw, position)
        found[kind] = raw[position + 4 : position + 4 + size]
        position += 4 + size
    return found


def _text(raw: bytes) -> str:
    """Return a member's name; the names that can be read are ASCII, others need only be shown."""
    return raw.decode("ascii", "backslashreplace")


def _damaged(where: str, found: str, cause: Exception | None = None) -> NoReturn:
    raise BundleRefused(where, f"is damaged or no zip file ({found})", AGAIN) from cause

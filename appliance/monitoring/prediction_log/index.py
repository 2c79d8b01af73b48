"""Where the ids of a sealed segment stand: sorted 64-bit hashes of them, then the offsets of their lines.

12 bytes a line: all hashes (little-endian, 8 bytes each), then all offsets into the unpacked segment (4 bytes each). An
index can be made again from its segment at any time. It is only a hint: the line itself is read and checked.
"""

import hashlib
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance import nofollow
from appliance.monitoring.prediction_log import lines
from appliance.monitoring.prediction_log.segments import Segment
from appliance.store import durable

_ENTRY = 12


_empty = hashlib.blake2b(digest_size=8)  # to copy it takes less time than to make one


def digest_of(identifier: bytes) -> bytes:
    """Return the 64-bit hash of an id in UTF-8, as 8 bytes."""
    digest = _empty.copy()
    digest.update(identifier)
    return digest.digest()


class Index:
    """The ids of one segment."""

    def __init__(self, hashes: NDArray[Any], offsets: NDArray[Any]) -> None:
        """`hashes` uint64 [lines], sorted; `offsets` uint32 [lines]."""
        self.hashes = hashes
        self.offsets = offsets

    @classmethod
    def of_content(cls, content: bytes) -> "Index":
        """Return the index of a segment's content."""
        found = OpenIndex()
        found.add(content.split(b"\n"), 0)
        return found.sorted()

    def to_bytes(self) -> bytes:
        """Return the index as it is kept."""
        return bytes(self.hashes.astype("<u8").tobytes() + self.offsets.astype("<u4").tobytes())

    def find(self, wanted: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return (places in `wanted`, offsets) of all lines whose hash is wanted; `wanted` uint64 [ids]."""
        first = np.searchsorted(self.hashes, wanted, "left")
        last = np.searchsorted(self.hashes, wanted, "right")
        counts = last - first
        if not counts.any():
            return np.empty(0, np.int64), np.empty(0, np.uint32)
        places = np.repeat(np.arange(len(wanted)), counts)
        within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        return places, self.offsets[np.repeat(first, counts) + within]


class OpenIndex:
    """The ids of a segment that is being written, in the order of its lines."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._offsets = array("I")

    def add(self, added: Iterable[bytes], offset: int) -> None:
        """Add lines, of which the first stands at `offset`."""
        for line in added:
            if (identifier := lines.id_bytes(line)) is not None:
                self._digests += digest_of(identifier)
                self._offsets.append(offset)
            offset += len(line) + 1

    def sorted(self) -> Index:
        """Return the index of a sealed segment."""
        keys, places = np.frombuffer(bytes(self._digests), "<u8"), np.array(self._offsets, dtype="<u4")
        order = np.argsort(keys, kind="stable")
        return Index(keys[order], places[order])


def read(segment: Segment) -> Index:
    """Return a sealed segment's index; one that is absent or damaged is made again, and written if possible."""
    state_dir = segment.writer.state_dir
    try:
        content = nofollow.read(segment.index, within=state_dir)
        count, rest = divmod(len(content), _ENTRY)
        if not rest:
            found = Index(np.frombuffer(content, "<u8", count), np.frombuffer(content, "<u4", count, 8 * count))
            if bool((found.hashes[1:] >= found.hashes[:-1]).all()):
                return found
    except FileNotFoundError:
        pass
    found = Index.of_content(segment.read())
    write(segment, found)
    return found


def write(segment: Segment, index: Index) -> None:
    """Keep a sealed segment's index; if it cannot be written, it is made again when it is needed."""
    try:
        durable.write_atomically(segment.index, index.to_bytes(), within=segment.writer.state_dir)
    except OSError:
        return


def hashes_of(identifiers: Iterable[str]) -> NDArray[Any]:
    """Return the hashes of ids as a uint64 array."""
    return np.frombuffer(b"".join([digest_of(one.encode("utf-8", "replace")) for one in identifiers]), "<u8")

"""Merkle trees over lines: leaves, roots, proofs of one line, and the chain of seals. Pure.

Source: RFC 6962 (Certificate Transparency), sections 2.1 and 2.1.1. A leaf is SHA-256(0x00 || line), a node
SHA-256(0x01 || left || right); a tree of n leaves is split at the largest power of two below n.
"""

import hashlib
import hmac
from collections.abc import Sequence

START = bytes(32)
"""The chain before the first seal."""

_sha256 = hashlib.sha256


def leaf(line: bytes) -> bytes:
    """Return the leaf of a line, which is without its newline: 32 bytes."""
    return _sha256(b"\0" + line).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the root of a tree of at least one leaf.

    Level by level, where an odd last node goes up as it is: the same tree as the recursive one of the RFC.
    """
    level = list(leaves)
    while len(level) > 1:
        pairs = [_sha256(b"\1" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(level) & ~1 :]
    return level[0] if level else _sha256(b"").digest()


def path(leaves: Sequence[bytes], index: int) -> list[tuple[str, bytes]]:
    """Return the proof of leaf `index`: ("left" | "right", sister) from the leaf up to the root."""
    found, level = [], list(leaves)
    while len(level) > 1:
        sister = index ^ 1
        if sister < len(level):
            found.append(("left" if sister < index else "right", level[sister]))
        pairs = [_sha256(b"\1" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(level) & ~1 :]
        index //= 2
    return found


def root_by(leaf: bytes, path: Sequence[tuple[str, bytes]]) -> bytes:
    """Return the root that a leaf and its proof make."""
    node = leaf
    for side, sister in path:
        node = _sha256(b"\1" + (sister + node if side == "left" else node + sister)).digest()
    return node


def chained(previous: bytes, root: bytes, rows: int, segment: int, seal: int, milliseconds: int) -> bytes:
    """Return the chain after a seal: SHA-256(previous || root || rows || segment || seal || time), numbers as 8 bytes.

    The time is in it so that no byte of a seal can be changed unseen; Unix time in milliseconds.
    """
    numbers = b"".join(number.to_bytes(8, "big", signed=True) for number in (rows, segment, seal, milliseconds))
    return _sha256(previous + root + numbers).digest()


def next_key(key: bytes) -> bytes:
    """Return the sealing key after `key`, from which nobody can go back.

    Source: forward secure sealing, as systemd-journald has it (Marson and Poettering, 2013).
    """
    return _sha256(b"next" + key).digest()


def key_after(key: bytes, steps: int) -> bytes:
    """Return the sealing key `steps` after `key`."""
    for _ in range(steps):
        key = next_key(key)
    return key


def mac(key: bytes, chain: bytes) -> bytes:
    """Return the code by which only who had the key could seal: HMAC-SHA-256(key, chain)."""
    return hmac.digest(key, chain, "sha256")


def writer_key(key: bytes, writer: str) -> bytes:
    """Return the first sealing key of one writer ("VERSION/SLOT") from its model's."""
    return hmac.digest(key, writer.encode(), "sha256")

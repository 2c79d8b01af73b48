"""Walks the chain of a log and tells where it is broken: a changed byte, a missing, added or moved line or segment.

The chain alone does not show whether the whole log was rewritten, or its end cut off. A head that was kept elsewhere
(`status --json`, `GET /log/head`, MQTT) or the sealing key shows it. Of an erased line the id is not covered.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from appliance.errors import StoreError
from appliance.monitoring.prediction_log import lines, segments, tree
from appliance.monitoring.prediction_log.segments import Segment, Writer
from appliance.store import receipts

MOST_PROBLEMS = 100
"""The most faults that are reported of one writer."""


@dataclass(slots=True)
class Checked:
    """What was found in one writer's segments."""

    writer: Writer
    segments: int = 0
    lines: int = 0
    """That are sealed."""
    unsealed: int = 0
    """Whole lines behind the last seal of the open segment."""
    torn: int = 0
    """Bytes behind the last whole line of the open segment."""
    erased: int = 0
    gaps: int = 0
    """Rows that the log itself says are lacking."""
    head: str = ""
    """The last chain."""
    sealed: float = 0.0
    """When the last seal was made."""
    problems: list[str] = field(default_factory=list)
    chains: set[str] = field(default_factory=set)
    """Of all its seals: a head that was kept elsewhere must be one of them."""

    def problem(self, where: str, found: str) -> None:
        """Add a fault."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(f"{self.writer} {where}: {found}")

    def as_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        named = {"version": self.writer.version, "slot": self.writer.slot}
        keys = ("segments", "lines", "unsealed", "torn", "erased", "gaps", "head", "sealed", "problems")
        return named | {key: getattr(self, key) for key in keys}


def verify(writer: Writer, *, key: bytes | None = None) -> Checked:
    """Return what a writer's segments hold and what is wrong with them.

    `key` is the model's sealing key, by which every seal is checked that has a code.
    """
    checked = Checked(writer)
    walk = _Walk(checked, key)
    expected: int | None = None
    found = segments.of_writer(writer)
    for segment in found:
        if expected is None:
            _check_start(checked, segment, writer.state_dir, walk)
        elif segment.number != expected:
            missing = f"{expected}" if segment.number == expected + 1 else f"{expected} to {segment.number - 1}"
            checked.problem(f"segment {missing}", "it is missing")
        expected = segment.number + 1
        walk.segment(segment, last=segment is found[-1])
    kept = segments.kept_head(writer)
    if kept and (expected is None or kept.segment >= expected):
        if not _was_cut(writer, kept.segment, kept.chain):
            checked.problem(f"segment {kept.segment}", "it is missing, and was the last one")
    elif kept and kept.chain not in checked.chains and found and kept.segment >= found[0].number:
        checked.problem(f"segment {kept.segment}", "its last seal is not the one that head.json has")
    checked.head = walk.chain.hex()
    return checked


class _Walk:
    """One pass over a writer's segments, in their order."""

    def __init__(self, checked: Checked, key: bytes | None) -> None:
        self.checked = checked
        self.chain = tree.START
        self._model_key = key
        self._key = b""
        self._key_index = 0
        self._sealed_from = False

    def segment(self, segment: Segment, *, last: bool) -> None:
        """Check one segment; of the open one the lines behind the last seal are not sealed yet."""
        where = f"segment {segment.number}"
        try:
            whole, torn = segments.split(segment.read())
        except (OSError, StoreError) as error:
            self.checked.problem(where, str(error))
            return
        self.checked.segments += 1
        header = segments.header_of(whole)
        if header is None:
            self.checked.problem(where, "its first line is no header")
            return
        self._header(where, header, segment)
        leaves: list[bytes] = []
        seals, start = 0, 0
        for place, line in enumerate(whole):
            if line.startswith(lines.SEAL):
                seals += 1
                if not self._seal(f"{where} seal {seals} (lines {start + 1} to {place})", line, leaves, segment, seals):
                    return
                leaves, start = [], place + 1
                continue
            leaves.append(self._leaf(f"{where} line {place + 1}", line))
        if torn and (segment.packed or not last):
            self.checked.problem(where, "its last line is torn")
        if leaves and (segment.packed or not last):
            self.checked.problem(where, f"{len(leaves)} lines stand behind its last seal")
        self.checked.unsealed += len(leaves) if last and not segment.packed else 0
        self.checked.torn += len(torn) if last and not segment.packed else 0

    def _header(self, where: str, header: lines.Header, segment: Segment) -> None:
        """Check that a segment is the one that its place says, and follows the one before."""
        writer = segment.writer
        own = (writer.model, writer.version, writer.slot, segment.number)
        said = (header.model, header.version, header.slot, header.segment)
        if own != said:
            self.checked.problem(where, "its header is of {} {} slot {} segment {}".format(*said))
        if header.prev != self.chain.hex():
            self.checked.problem(where, "it does not follow the segment before it")
            try:
                self.chain = bytes.fromhex(header.prev)
            except ValueError:
                return
        if header.key is None:
            if self._sealed_from:
                self.checked.problem(where, "it has no sealing key, and those before it have")
            return
        self._sealed_from = True
        if self._model_key is not None and len(header.key) == 2 and 0 <= header.key[0] < 1_000_000:
            base = tree.key_after(self._model_key, header.key[0])
            self._key, self._key_index = tree.writer_key(base, str(writer)), 0

    def _leaf(self, where: str, line: bytes) -> bytes:
        """Return a line's leaf."""
        erased = lines.read_erased(line)
        if erased is None:
            if line.startswith(lines.GAP):
                self._gap(line)
            elif not line.startswith(lines.KINDS):
                self.checked.problem(where, "it is no line of a log")
            return tree.leaf(line)
        self.checked.erased += 1
        try:
            leaf = bytes.fromhex(erased.erased)
        except ValueError:
            leaf = b""
        # The appliance writes only this spelling; another one is a changed byte.
        if len(leaf) != len(tree.START) or lines.line_of(erased) != line:
            self.checked.problem(where, "it is no erased line")
        return leaf

    def _gap(self, line: bytes) -> None:
        try:
            self.checked.gaps += lines.read_gap(line).gap or 0
        except lines.FAILURES:
            return  # its block tells

    def _seal(self, where: str, line: bytes, leaves: list[bytes], segment: Segment, number: int) -> bool:
        """Check a seal; return whether what follows can be checked."""
        try:
            seal = lines.read_seal(line)
            chain = bytes.fromhex(seal.chain)
        except lines.FAILURES:
            self.checked.problem(where, "the seal cannot be read")
            return False
        root = tree.root(leaves)
        if seal.rows != len(leaves) or seal.root != root.hex():
            self.checked.problem(where, "a line was changed, taken away, added or moved")
        elif seal.seal != number:
            self.checked.problem(where, f"it is numbered {seal.seal}: a block is missing")
        try:
            made = tree.chained(self.chain, root, len(leaves), segment.number, number, seal.milliseconds)
        except OverflowError:
            made = b""
        # A seal is written in one way only: another space or a capital letter is a changed byte too.
        if made.hex() != seal.chain or lines.line_of(seal) != line:
            self.checked.problem(where, "the chain is broken")
        self._check_code(where, seal, chain)
        self.chain = chain
        self.checked.chains.add(seal.chain)
        self.checked.lines += len(leaves)
        self.checked.sealed = seal.t
        return True

    def _check_code(self, where: str, seal: lines.Seal, chain: bytes) -> None:
        """Check the code of a seal, where the key is at hand."""
        if not self._sealed_from or self._model_key is None:
            return
        steps = -1 if isinstance(seal.k, msgspec.UnsetType) else seal.k - self._key_index
        if isinstance(seal.mac, msgspec.UnsetType) or not 0 <= steps < 1_000_000:
            self.checked.problem(where, "it has no code, or one of an earlier key")
            return
        self._key, self._key_index = tree.key_after(self._key, steps), self._key_index + steps
        if tree.mac(self._key, chain).hex() != seal.mac:
            self.checked.problem(where, "its code is not of the sealing key")


def _check_start(checked: Checked, first: Segment, state_dir: Path, walk: _Walk) -> None:
    """Take the chain before the first segment there is; what was before must have been deleted by us."""
    if first.number == 1:
        return
    try:
        header = segments.header_of(segments.split(first.read())[0])
    except (OSError, StoreError):
        return  # told by the walk
    prev = header.prev if header else ""
    if not _was_cut(first.writer, first.number - 1, prev):
        checked.problem(
            f"segments 1 to {first.number - 1}", "they are missing, and no receipt says that they were deleted"
        )
    try:
        walk.chain = bytes.fromhex(prev)
    except ValueError:
        walk.chain = tree.START


def _was_cut(writer: Writer, number: int, chain: str) -> bool:
    """Return whether a receipt says that the segments up to `number` were deleted, with this chain at the cut."""
    for receipt in receipts.read(writer.state_dir / "receipts"):
        if (receipt.what, receipt.model, receipt.version) == ("cut log", writer.model, writer.version):
            slot, _, rest = receipt.why.partition(", segments ")
            numbers, _, at = rest.partition(", chain ")
            if slot == f"slot {writer.slot}" and at == chain and numbers.rpartition(" ")[2] == str(number):
                return True
    return False

"""Finds, proves and erases lines by id, for the commands on the log."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance import nofollow
from appliance.errors import NotFound, NotReady, StoreError
from appliance.monitoring.prediction_log import index, lines, segments, tree
from appliance.monitoring.prediction_log.index import Index
from appliance.monitoring.prediction_log.segments import LOCK, Segment, Writer
from appliance.monitoring.prediction_log.writer import ROTATE, SegmentWriter, leaf_of, replace
from appliance.store import durable, receipts
from appliance.store.receipts import Receipt

ROTATION_SECONDS = 15.0
"""How long a command waits for the service to seal its open segment."""


@dataclass(frozen=True, slots=True)
class Found:
    """A line with an id."""

    segment: Segment
    offset: int
    """In the unpacked segment."""
    line: bytes

    @property
    def kind(self) -> str:
        """Return row, label or erased."""
        if lines.read_erased(self.line):
            return "erased"
        return "label" if self.line.startswith(lines.LABEL) else "row"


def by_ids(
    state_dir: Path, model: str, ids: Sequence[str], only: Sequence[Segment] | None = None
) -> dict[str, list[Found]]:
    """Return {id: its lines} of a model, a writer's in their order; an id without a line is left out."""
    hashes = index.hashes_of(ids)
    found: dict[str, list[Found]] = {}
    for segment in segments.all_of(state_dir, model) if only is None else only:
        content = None
        if not segment.packed:
            content = _content(segment)
            own = Index.of_content(content) if content is not None else None
        else:
            own = _index(segment)
        if own is None:
            continue
        places, offsets = own.find(hashes)
        if not len(places):
            continue
        content = _content(segment) if content is None else content
        for place, offset in sorted(zip(places.tolist(), offsets.tolist(), strict=True), key=lambda pair: pair[1]):
            line = _line_at(content or b"", offset)
            if lines.id_of(line) == ids[place]:  # 64 bits are not a proof
                found.setdefault(ids[place], []).append(Found(segment, offset, line))
    return found


def prove(state_dir: Path, model: str, identifier: str) -> dict[str, Any]:
    """Return the proof of the last prediction with this id; a check of it needs no other prediction.

    Raises NotFound, NotReady while it is not sealed yet, StoreError.
    """
    rows = [one for one in by_ids(state_dir, model, [identifier]).get(identifier, []) if one.kind != "label"]
    if not rows:
        raise NotFound(
            f"prove {identifier}", "the log has no such prediction", "see: appliance log tail, or log export"
        )
    with _damage_told(rows[-1].segment):
        return _prove(rows[-1], identifier)


def _prove(one: Found, identifier: str) -> dict[str, Any]:
    """Return the proof of a line."""
    whole, _ = segments.split(one.segment.read())
    header = segments.header_of(whole)
    leaves: list[bytes] = []
    offset, place, seals = 0, -1, 0
    previous = header.prev if header else ""
    for line in whole:
        if line.startswith(lines.SEAL):
            seal = lines.read_seal(line)
            seals += 1
            if place >= 0:
                return _proof(one, leaves, place, seal, previous, seals)
            leaves, previous = [], seal.chain
        else:
            if offset == one.offset:
                place = len(leaves)
            leaves.append(leaf_of(line))
        offset += len(line) + 1
    raise NotReady(f"prove {identifier}", "it is not sealed yet", "ask again in a second or two")


def _proof(one: Found, leaves: list[bytes], place: int, seal: lines.Seal, previous: str, number: int) -> dict[str, Any]:
    writer = one.segment.writer
    return {
        "form": "appliance prediction proof 1",
        "model": writer.model,
        "version": writer.version,
        "slot": writer.slot,
        "segment": one.segment.number,
        "line": one.line.decode(),
        "leaf": leaves[place].hex(),
        "path": [{"side": side, "hash": sister.hex()} for side, sister in tree.path(leaves, place)],
        "rows": seal.rows,
        "root": seal.root,
        "previous": previous,
        "seal": number,
        "t": seal.t,
        "chain": seal.chain,
    }


def check_proof(proof: Any) -> str:
    """Return what is wrong with a proof, "" for nothing.

    Whether its chain is the log's, only a head that was kept elsewhere shows.
    """
    try:
        line = str(proof["line"]).encode()
        leaf = leaf_of(line)
        path = [(str(step["side"]), bytes.fromhex(step["hash"])) for step in proof["path"]]
        root = tree.root_by(leaf, path)
        if proof["leaf"] != leaf.hex():
            return "the leaf is not the line's"
        if proof["root"] != root.hex():
            return "the root does not follow from the line"
        milliseconds = round(float(proof["t"]) * 1000)
        numbers = (int(proof["rows"]), int(proof["segment"]), int(proof["seal"]), milliseconds)
        chain = tree.chained(bytes.fromhex(proof["previous"]), root, *numbers)
    except (KeyError, TypeError, ValueError, OverflowError):
        return "it is no proof"
    return "" if chain.hex() == proof["chain"] else "the chain does not follow from the root"


def erase(state_dir: Path, model: str, ids: Sequence[str], why: str) -> int:
    """Erase every line of these ids, labels too, and return how many; the chain stays as it is.

    The file is replaced, so the lines are gone from the disk as far as a program can ensure it. Raises NotFound where
    no id is in the log, NotReady where the service does not seal its open segment, StoreError.
    """
    found = by_ids(state_dir, model, ids)
    lacking = [one for one in ids if one not in found]
    if lacking:
        next_step = "see: appliance log tail, or log export; nothing was erased"
        raise NotFound(f"erase {', '.join(lacking[:3])}", "the log has no such prediction", next_step)
    for writer in {one.segment.writer for lines_ in found.values() for one in lines_ if not one.segment.packed}:
        seal_now(writer)
    count = 0
    by_segment: dict[Segment, list[Found]] = {}
    for lines_ in by_ids(state_dir, model, ids).values():
        for one in lines_:
            by_segment.setdefault(one.segment, []).append(one)
    for segment, ones in by_segment.items():
        with _damage_told(segment):
            count += _erase(segment, ones)
        what = f"slot {segment.writer.slot}, segment {segment.number}, {len(ones)} lines" + (f": {why}" if why else "")
        receipts.append(
            state_dir / "receipts",
            Receipt(when=receipts.now(), what="erase", model=model, version=segment.writer.version, why=what),
        )
    return count


def seal_now(writer: Writer) -> None:
    """Have the open segment sealed and packed: by its writer, or by us where it has none. Raises NotReady."""
    import time

    with durable.reported(f"seal the log {writer.folder}"):
        lock = durable.try_lock(writer.folder / LOCK, within=writer.state_dir)
        if lock is not None:
            SegmentWriter.mend(writer, lock)
            return
        durable.write_atomically(writer.folder / ROTATE, b"", within=writer.state_dir)
        deadline = time.monotonic() + ROTATION_SECONDS
        while time.monotonic() < deadline:
            try:
                nofollow.status(writer.folder / ROTATE, within=writer.state_dir)
            except FileNotFoundError:
                return
            time.sleep(0.05)
    raise NotReady(f"seal the log {writer}", "the service does not do it", "see its log; then try again")


def lines_of(segment: Segment) -> Iterator[bytes]:
    """Yield the whole lines of a segment, without seals. Raises StoreError for a damaged one."""
    for line in segments.split(segment.read())[0]:
        if not line.startswith(lines.SEAL):
            yield line


def _erase(segment: Segment, ones: Sequence[Found]) -> int:
    """Put erased lines in the place of some lines of a packed segment."""
    content = segment.read()
    parts, last, count = [], 0, 0
    for one in sorted(ones, key=lambda one: one.offset):
        if one.kind == "erased":
            continue
        identifier = lines.id_of(one.line) or ""
        parts += [content[last : one.offset], lines.line_of(lines.Erased(identifier, leaf_of(one.line).hex()))]
        last = one.offset + len(one.line)
        count += 1
    if count:
        replace(segment, b"".join([*parts, content[last:]]))
    return count


@contextmanager
def _damage_told(segment: Segment) -> Iterator[None]:
    """Turn what cannot be read of a segment into an error that says so."""
    try:
        yield
    except lines.FAILURES as error:
        raise StoreError(f"read {segment.path}", f"it is damaged ({error})", "see: appliance log verify") from error


def _line_at(content: bytes, offset: int) -> bytes:
    end = content.find(b"\n", offset)
    return content[offset : end if end >= 0 else offset]


def _content(segment: Segment) -> bytes | None:
    """Return a segment's content; of one that was packed meanwhile that of the packed file, None where it is gone."""
    try:
        return segment.read()
    except FileNotFoundError:
        packed = Segment(segment.writer, segment.number, True, 0, 0.0)
        try:
            return packed.read()
        except FileNotFoundError:
            return None


def _index(segment: Segment) -> Index | None:
    try:
        return index.read(segment)
    except FileNotFoundError:
        return None

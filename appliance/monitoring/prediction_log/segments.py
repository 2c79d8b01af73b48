"""The files of the log: which segments there are, what they hold, and where the log's head is.

STATE_DIR/log/NAME/VERSION/SLOT/00000042.jsonl       being written
                                00000041.jsonl.gz    sealed, compressed
                                00000041.idx         where its ids stand, see index.py
                                head.json            the head when the last segment was sealed
                                lock                 held by the one process that writes here
"""

import io
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance import nofollow
from appliance.errors import NotFound, StoreError
from appliance.monitoring.prediction_log import lines

FOLDER = "log"
PLAIN, PACKED, INDEX, HEAD, LOCK = ".jsonl", ".jsonl.gz", ".idx", "head.json", "lock"
MOST_BYTES = 1024**3
"""Of one segment, unpacked; more is no segment of ours."""
_NAME = re.compile(r"([0-9]{8})\.jsonl(\.gz)?")
_TAIL = 64 * 1024  # bytes at the end of an open segment in which its last seal is looked for first


class Head(msgspec.Struct, frozen=True):
    """The end of one writer's chain: with a copy kept elsewhere, every later change of older lines is found."""

    segment: int
    seal: int
    chain: str
    t: float


@dataclass(frozen=True, slots=True)
class Writer:
    """The folder of one writer."""

    state_dir: Path
    model: str
    version: str
    slot: int

    @property
    def folder(self) -> Path:
        """Where its segments are."""
        return self.state_dir / FOLDER / self.model / self.version / str(self.slot)

    def __str__(self) -> str:
        """Return how it is named to people."""
        return f"{self.version}/{self.slot}"


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment's file."""

    writer: Writer
    number: int
    packed: bool
    size: int
    """Bytes on disk."""
    modified: float

    @property
    def path(self) -> Path:
        """Its file."""
        return self.writer.folder / f"{self.number:08d}{PACKED if self.packed else PLAIN}"

    @property
    def index(self) -> Path:
        """The file of its index."""
        return self.writer.folder / f"{self.number:08d}{INDEX}"

    def read(self) -> bytes:
        """Return what it holds, unpacked. Raises StoreError for what cannot be read, OSError where it is gone."""
        content = nofollow.read(self.path, within=self.writer.state_dir)
        return unpacked(content, self.path) if self.packed else content


def unpacked(content: bytes, path: Path) -> bytes:
    """Return a packed segment's content. Raises StoreError for a damaged or torn one."""
    decoder = zlib.decompressobj(31)
    try:
        plain = decoder.decompress(content, MOST_BYTES)
    except zlib.error as error:
        raise StoreError(f"read {path}", f"it is damaged ({error})", "see: appliance log verify") from error
    if not decoder.eof or decoder.unused_data:
        raise StoreError(f"read {path}", "it is cut off, or something follows it", "see: appliance log verify")
    return plain


def models(state_dir: Path) -> list[str]:
    """Return the models that have a log."""
    return _folders(state_dir, state_dir / FOLDER)


def writers(state_dir: Path, model: str, version: str | None = None) -> list[Writer]:
    """Return the writers of a model, of one version or of all."""
    base = state_dir / FOLDER / model
    versions = _folders(state_dir, base) if version is None else [version]
    return [
        Writer(state_dir, model, one, int(slot))
        for one in versions
        for slot in sorted(_folders(state_dir, base / one), key=lambda name: (len(name), name))
        if slot.isdecimal()
    ]


def known_writers(state_dir: Path, model: str, version: str | None = None) -> list[Writer]:
    """Return what writers() does. Raises NotFound where there is none."""
    found = writers(state_dir, model, version) if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", model) else []
    if not found:
        logged = ", ".join(models(state_dir)) or "none"
        named = model if version is None else f"{model} {version}"
        raise NotFound(
            f"read the log of {named}", "nothing was logged", f"set [log.predictions] enabled; logged: {logged}"
        )
    return found


def of_writer(writer: Writer) -> list[Segment]:
    """Return a writer's segments, oldest first; of one that is there twice (a kill while it was packed) the packed."""
    found: dict[int, Segment] = {}
    with suppress(FileNotFoundError):
        for name, status in nofollow.entries(writer.folder, within=writer.state_dir).items():
            if match := _NAME.fullmatch(name):
                number, packed = int(match[1]), bool(match[2])
                if packed or number not in found:
                    found[number] = Segment(writer, number, packed, status.st_size, status.st_mtime)
    return [found[number] for number in sorted(found)]


def all_of(state_dir: Path, model: str, version: str | None = None) -> Iterator[Segment]:
    """Yield every segment of a model, a writer's in their order."""
    for writer in known_writers(state_dir, model, version):
        yield from of_writer(writer)


def split(content: bytes) -> tuple[list[bytes], bytes]:
    """Return a segment's whole lines, and what a power cut left behind the last newline."""
    whole = content.split(b"\n")
    return whole[:-1], whole[-1]


def header_of(found: list[bytes]) -> lines.Header | None:
    """Return the header of a segment's lines, None where its first line is none."""
    try:
        return lines.read_header(found[0]) if found and found[0].startswith(lines.HEADER) else None
    except lines.FAILURES:
        return None


def head(writer: Writer) -> Head | None:
    """Return where a writer's chain ends now; None before its first seal."""
    for segment in reversed(of_writer(writer)):
        kept = kept_head(writer)
        if segment.packed:
            return kept if kept and kept.segment >= segment.number else head_of(segment)
        try:
            found = _last_seal(segment)
        except FileNotFoundError:  # packed just now
            return kept
        if found:
            return Head(segment.number, found.seal, found.chain, found.t)
    return kept_head(writer)


def head_of(segment: Segment) -> Head:
    """Return the head that a packed segment ends with. Raises StoreError where it has none."""
    for line in reversed(split(segment.read())[0]):
        if line.startswith(lines.SEAL):
            with suppress(*lines.FAILURES):
                seal = lines.read_seal(line)
                if is_chain(seal.chain):
                    return Head(segment.number, seal.seal, seal.chain, seal.t)
    raise StoreError(f"read {segment.path}", "it has no seal", "see: appliance log verify")


def kept_head(writer: Writer) -> Head | None:
    """Return the head when the last segment was sealed; None before it, or where its file is damaged."""
    try:
        found = msgspec.json.decode(nofollow.read(writer.folder / HEAD, within=writer.state_dir), type=Head)
    except (FileNotFoundError, *lines.FAILURES):
        return None
    return found if is_chain(found.chain) else None


def is_chain(text: str) -> bool:
    """Return whether a text is a chain as it is written: 64 hex digits."""
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def heads(state_dir: Path) -> list[dict[str, object]]:
    """Return the head of every writer: {model, version, slot, segment, seal, chain, t}.

    One whose files are damaged has none here; verify() says what is wrong with them.
    """
    found = []
    for model in models(state_dir):
        for writer in writers(state_dir, model):
            now = None
            with suppress(StoreError):
                now = head(writer)
            if now:
                named = {"model": model, "version": writer.version, "slot": writer.slot}
                found.append(named | msgspec.structs.asdict(now))
    return found


def bytes_of(state_dir: Path) -> int:
    """Return the bytes that all logs take on disk."""
    return sum(
        status.st_size
        for model in models(state_dir)
        for writer in writers(state_dir, model)
        for status in _entries(writer).values()
    )


def _entries(writer: Writer) -> dict[str, os.stat_result]:
    with suppress(FileNotFoundError):
        return dict(nofollow.entries(writer.folder, within=writer.state_dir))
    return {}


def _last_seal(segment: Segment) -> lines.Seal | None:
    """Return the last seal of an open segment."""
    descriptor = nofollow.open_file(segment.path, within=segment.writer.state_dir)
    with io.FileIO(descriptor) as file:
        size = file.seek(0, io.SEEK_END)
        tail = _TAIL
        while True:
            file.seek(max(0, size - tail))
            for line in reversed(split(file.read(tail))[0]):
                if line.startswith(lines.SEAL):
                    with suppress(*lines.FAILURES):
                        return lines.read_seal(line)
            if tail >= size:
                return None
            tail *= 16


def _folders(state_dir: Path, path: Path) -> list[str]:
    """Return the names of the folders in a folder."""
    with suppress(FileNotFoundError):
        entries = nofollow.entries(path, within=state_dir)
        return [name for name, status in entries.items() if status.st_mode & 0o170000 == 0o040000]
    return []

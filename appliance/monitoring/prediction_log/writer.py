"""The only writer of a folder of segments: appends lines, seals blocks, rotates, and repairs the files after a kill.

What is on disk when. A line is in the open segment `N.jsonl` when append() returns, and survives a power cut once
sync() has. A seal follows each 256 lines, or a second; lines behind the last one are whole but not sealed yet.
rotate(): the last seal and sync; `N.jsonl.gz` beside, fsync, rename; `N.idx`; head.json; then `N.jsonl` is deleted, and
only then is there an `N+1.jsonl`.

What a crash leaves: a torn last line, unsealed lines, or `N.jsonl` beside a whole `N.jsonl.gz`. The next writer of the
folder (recover()) cuts the torn line off, writes a gap, since nobody knows how many rows were in memory, seals and
rotates. Where another process holds the folder's lock, the next free slot is taken.

One thread at a time uses a writer; the erasing command asks for a rotation by the file `rotate`.
"""

import io
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import msgspec

from appliance import nofollow
from appliance.errors import StoreError
from appliance.monitoring.prediction_log import index, lines, segments, tree
from appliance.monitoring.prediction_log.index import Index, OpenIndex
from appliance.monitoring.prediction_log.sealing import WriterKey
from appliance.monitoring.prediction_log.segments import HEAD, LOCK, PACKED, PLAIN, Head, Segment, Writer
from appliance.store import durable

log = logging.getLogger(__name__)

BLOCK = 256
"""Lines after which a block is sealed."""
ROTATE = "rotate"
_MOST_SLOTS = 4096
_CHUNK = 1024 * 1024  # bytes that are packed at once

MakeHeader = Callable[[int, int, str, list[int] | None], lines.Header]
"""(slot, segment, prev, key) -> the header of a new segment."""


class SegmentWriter:
    """Appends to the log of one version; open() takes the folder. Raises OSError and StoreError from every method."""

    def __init__(self, writer: Writer, lock: int, make_header: MakeHeader, clock: Callable[[], float]) -> None:
        """`lock` is the descriptor that holds the folder; see open()."""
        self.writer = writer
        self._lock = lock
        self._make_header = make_header
        self._clock = clock
        self._leaves: list[bytes] = []
        self._key = WriterKey(writer)
        self._chain = tree.START
        self._seals = 0
        self.number = 0
        """Of the open segment."""
        self.size = 0
        """Bytes of the open segment that are surely ours: what a failed write left behind them is cut off."""
        self._ids = OpenIndex()
        self._file = -1
        self.unsynced = False
        self.fault: OSError | StoreError | None = None
        """Why the last append() did not append all."""

    @classmethod
    def open(cls, writer: Writer, make_header: MakeHeader, clock: Callable[[], float]) -> "SegmentWriter":
        """Take the folder of `writer`, or of the next slot that no process has, mend it and begin a segment."""
        for slot in range(writer.slot, writer.slot + _MOST_SLOTS):
            taken = Writer(writer.state_dir, writer.model, writer.version, slot)
            durable.make_folder(taken.folder, within=taken.state_dir)
            lock = durable.try_lock(taken.folder / LOCK, within=taken.state_dir)
            if lock is None:
                continue
            own = None
            try:
                own = cls(taken, lock, make_header, clock)
                own._recover()
            except StoreError as error:  # damaged more than by a kill: it stays as it is, for verify
                log.error("a prediction log is damaged; another slot is taken", extra={"error": str(error)})
                own.abandon() if own else os.close(lock)
                continue
            except BaseException:
                own.abandon() if own else os.close(lock)
                raise
            try:
                own._begin()
            except BaseException:
                own.abandon()
                raise
            return own
        raise StoreError(f"write the log of {writer.model}", "every slot is taken", "see: appliance doctor")

    @classmethod
    def mend(cls, writer: Writer, lock: int) -> None:
        """Seal and pack what a process that has ended left, and let go of `lock`."""
        own = cls(writer, lock, _no_header, time.time)
        try:
            own._recover()
        finally:
            own.abandon()

    @property
    def segment(self) -> Segment:
        """The open segment."""
        return Segment(self.writer, self.number, False, self.size, 0.0)

    def append(self, added: Sequence[bytes]) -> int:
        """Append lines, seal the blocks that are full, and return how many lines are there.

        Where the disk takes no more, `fault` says why and the rest is not there; a seal is tried again by the next one.
        """
        self.fault = None
        for start in range(0, len(added), BLOCK):
            try:
                if self._file < 0:
                    self._begin()
                self._write(added[start : start + BLOCK])
            except (OSError, StoreError) as error:
                self.fault = error
                return start
            if len(self._leaves) >= BLOCK:
                with suppress(OSError):
                    self.seal()
        return len(added)

    def seal(self) -> None:
        """Seal the lines since the last seal, even if there are none."""
        root, rows, now = tree.root(self._leaves), len(self._leaves), round(self._clock() * 1000)
        chain = tree.chained(self._chain, root, rows, self.number, self._seals + 1, now)
        seal = lines.Seal(self._seals + 1, rows, root.hex(), chain.hex(), t=now / 1000)
        if self._key:
            seal.mac, seal.k = self._key.mac(chain)
        self._put(lines.line_of(seal) + b"\n")
        self._chain, self._seals, self._leaves = chain, self._seals + 1, []

    def sync(self) -> None:
        """Have the disk keep what was appended."""
        if self.unsynced:
            os.fdatasync(self._file)
            self.unsynced = False

    def advance_key(self) -> None:
        """Replace the sealing key, after a seal."""
        self._key.advance()

    def unsealed(self) -> int:
        """Return how many lines are not sealed yet."""
        return len(self._leaves)

    def rotate(self) -> None:
        """Seal and pack the open segment and begin the next one."""
        if self._file >= 0:
            self._finish()
        self._begin()
        with suppress(FileNotFoundError):
            durable.delete(self.writer.folder / ROTATE, within=self.writer.state_dir)

    def close(self) -> None:
        """Seal and pack the open segment and let go of the folder."""
        try:
            if self._file >= 0:
                self._finish()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of the folder as a kill would."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def _finish(self) -> None:
        if self._leaves:
            self.seal()
        self.unsynced = True
        self.sync()
        _pack(
            self.segment, self._ids.sorted(), Head(self.number, self._seals, self._chain.hex(), round(self._clock(), 3))
        )
        os.close(self._file)
        self._file = -1
        self._key.advance()

    def _begin(self) -> None:
        """Begin the segment after `number`; a model that is sealed from now on has a key from now on."""
        if not self._key:
            self._key = WriterKey(self.writer)
        state = self._key.state
        key = [state.base, state.index] if state else None
        following = Segment(self.writer, self.number + 1, False, 0, 0.0)
        header = self._make_header(self.writer.slot, following.number, self._chain.hex(), key)
        self.size, self._seals, self._leaves = 0, 0, []
        self._ids = OpenIndex()
        self._file = durable.open_or_make(following.path, os.O_RDWR | os.O_APPEND, within=self.writer.state_dir)
        try:
            os.ftruncate(self._file, 0)  # of an earlier try
            self._write([lines.line_of(header)])
            self.sync()
            with nofollow.folder(self.writer.folder, within=self.writer.state_dir) as above:
                os.fsync(above)
        except OSError:
            os.close(self._file)
            self._file = -1
            raise
        self.number = following.number

    def _write(self, part: Sequence[bytes]) -> None:
        """Write lines of one block, and only then take note of them."""
        offset = self.size
        self._put(lines.joined(part))
        self._leaves += map(tree.leaf, part)
        self._ids.add(part, offset)

    def _put(self, content: bytes) -> None:
        """Write at the end of the file; what an earlier failure left there, or this one leaves, is cut off."""
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(content)
        self.unsynced = True

    # What a kill left.

    def _recover(self) -> None:
        """Seal and pack every open segment, and take up number and chain behind the last one."""
        for segment in segments.of_writer(self.writer):
            if segment.packed:
                self._drop_plain_twin(segment)
            else:
                self._mend(segment)
        found, last = segments.of_writer(self.writer), segments.kept_head(self.writer)
        if found and (last is None or last.segment < found[-1].number):
            last = segments.head_of(found[-1])
        if last:  # one behind the last segment there is: what is missing stays missed
            self.number, self._chain = last.segment, bytes.fromhex(last.chain)

    def _drop_plain_twin(self, segment: Segment) -> None:
        """Delete what was packed already; a packed one that cannot be read, packed by a dying disk, gives way."""
        plain = self.writer.folder / f"{segment.number:08d}{PLAIN}"
        try:
            nofollow.status(plain, within=self.writer.state_dir)
        except FileNotFoundError:
            return
        try:
            segment.read()
        except StoreError:
            durable.delete(segment.path, within=self.writer.state_dir)
            self._mend(Segment(self.writer, segment.number, False, 0, 0.0))
            return
        durable.delete(plain, within=self.writer.state_dir)

    def _mend(self, segment: Segment) -> None:
        """Cut off what is torn, say that rows may be lacking, seal and pack."""
        content = segment.read()
        whole, good = _readable(content)
        if not whole:  # killed before its header was on disk: it never began
            durable.delete(segment.path, within=self.writer.state_dir)
            return
        self.number, self.size = segment.number, good
        self._file = durable.open_or_make(segment.path, os.O_RDWR | os.O_APPEND, within=self.writer.state_dir)
        os.ftruncate(self._file, good)
        self._take_up(whole)
        if self._leaves or good != len(content) or not whole[-1].startswith(lines.SEAL):
            since = self._clock()
            self._write([lines.line_of(lines.Gap(None, round(since, 3), "the process ended without warning"))])
        self._finish()

    def _take_up(self, whole: Sequence[bytes]) -> None:
        """Take chain, unsealed leaves and index of a segment's lines."""
        header = segments.header_of(list(whole[:1]))
        chain, self._seals, self._leaves = tree.START, 0, []
        with suppress(ValueError, AttributeError):
            chain = bytes.fromhex(header.prev) if header else tree.START
        self._ids = OpenIndex()
        self._ids.add(whole, 0)
        for line in whole:
            if line.startswith(lines.SEAL):
                seal = lines.read_seal(line)
                chain, self._seals, self._leaves = bytes.fromhex(seal.chain), seal.seal, []
            else:
                self._leaves.append(tree.leaf(line))
        self._chain = chain


def _no_header(slot: int, segment: int, prev: str, key: list[int] | None) -> lines.Header:
    raise AssertionError("nothing is begun")


def wants_rotation(writer: Writer) -> bool:
    """Return whether somebody waits for the open segment to be sealed."""
    try:
        nofollow.status(writer.folder / ROTATE, within=writer.state_dir)
    except FileNotFoundError:
        return False
    return True


def leaf_of(line: bytes) -> bytes:
    """Return the leaf of a line; of an erased one the leaf that it keeps. Raises ValueError for one that keeps none."""
    erased = lines.read_erased(line)
    if erased is None:
        return tree.leaf(line)
    leaf = bytes.fromhex(erased.erased)
    if len(leaf) != len(tree.START):
        raise ValueError("no leaf")
    return leaf


def replace(segment: Segment, content: bytes) -> None:
    """Put other content into a packed segment, as erasing does; its time stays, since its age is that of its rows."""
    path, state_dir = segment.path, segment.writer.state_dir
    durable.write_atomically(path, _packed(content), within=state_dir)
    with nofollow.folder(path.parent, within=state_dir) as above:
        os.utime(path.name, (segment.modified, segment.modified), dir_fd=above, follow_symlinks=False)
    index.write(segment, Index.of_content(content))


def _readable(content: bytes) -> tuple[list[bytes], int]:
    """Return a segment's lines up to the first that is no line of ours, and how many bytes they take."""
    whole, good = [], 0
    for line in segments.split(content)[0]:
        if not line.startswith(lines.KINDS):
            break
        try:
            if line.startswith(lines.SEAL):
                if not segments.is_chain(lines.read_seal(line).chain):
                    break
            else:
                msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        except lines.FAILURES:
            break
        whole.append(line)
        good += len(line) + 1
    return (whole, good) if whole and whole[0].startswith(lines.HEADER) else ([], 0)


def _pack(segment: Segment, found: Index, last: Head) -> None:
    """Make the packed file, index and head of a segment, then delete the plain one."""
    writer = segment.writer
    packed = writer.folder / f"{segment.number:08d}{PACKED}"
    durable.write_pieces(packed, _pieces(segment), within=writer.state_dir)
    index.write(Segment(writer, segment.number, True, 0, 0.0), found)
    with suppress(OSError):  # it can be read of the packed file
        durable.write_atomically(writer.folder / HEAD, msgspec.json.encode(last), within=writer.state_dir)
    durable.delete(segment.path, within=writer.state_dir)


def _pieces(segment: Segment) -> Iterable[bytes]:
    """Yield a segment's file packed, a part at a time: never all of it in memory."""
    descriptor = nofollow.open_file(segment.path, within=segment.writer.state_dir)
    encoder = zlib.compressobj(1, wbits=31)
    with io.FileIO(descriptor) as file:
        while chunk := file.read(_CHUNK):
            yield encoder.compress(chunk)
    yield encoder.flush()


def _packed(content: bytes) -> bytes:
    encoder = zlib.compressobj(1, wbits=31)
    return encoder.compress(content) + encoder.flush()

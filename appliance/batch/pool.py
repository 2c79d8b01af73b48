"""Blocks scored in order, in this process or in several: each other process loads the version for itself.

A block goes to the processes in turn, two at most to each, and results are taken in the same turn, so that the order is
kept without asking which process is ready. Texts cross by memory that both processes see; what does not fit goes
through the pipe. The processes are forked before anything runs a model: onnxruntime's threads survive no fork.

A process of the pool ends when its pipe is closed, however this one ends.
"""

import mmap
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from appliance import errors, memory, signals
from appliance.batch.blocks import Block, Position
from appliance.batch.work import Facts, Rejected, Result
from appliance.errors import ApplianceError, Unfinished

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

SLOT_BYTES = 8 * 1024 * 1024
"""Of memory for one block's text, or its result; what is not used takes none."""
_AHEAD = 2  # blocks that a process has at most
_PATIENCE = 15.0  # seconds for a process to end, as to write what it keeps for the log
_TRIM = 64  # blocks after which a process gives back what it no longer needs


class Work(Protocol):
    """What a process does, once it is loaded."""

    close: Callable[[], None]
    """Called when it has no more to do."""

    def facts(self, choose: bool) -> Facts:
        """Return what is known once it is loaded; with `choose` how many rows a block has, too."""

    def __call__(self, block: Block) -> Result:
        """Return what becomes of a block."""


class Engine(Protocol):
    """Whoever scores blocks."""

    def start(self, choose: bool) -> Facts:
        """Load the version; return what is known then."""

    def results(self, blocks: Iterable[Block]) -> Iterator[tuple[Block, Result]]:
        """Yield each block with what became of it, in order. A result's output is good until the next is asked for."""

    def close(self) -> None:
        """End what runs."""


class Inline:
    """Scores in this process."""

    def __init__(self, load: Callable[[], Work]) -> None:
        self._load = load
        self._work: Work | None = None

    def start(self, choose: bool) -> Facts:
        """Load the version."""
        self._work = self._load()
        return self._work.facts(choose)

    def results(self, blocks: Iterable[Block]) -> Iterator[tuple[Block, Result]]:
        """Yield each block with what became of it."""
        assert self._work is not None  # noqa: S101 - start() comes first
        for number, block in enumerate(blocks, 1):
            yield block, self._work(block)
            if number % _TRIM == 0:
                memory.give_back()

    def close(self) -> None:
        """Let what was loaded end its work."""
        if self._work is not None:
            self._work.close()


class _Meta(msgspec.Struct, array_like=True):
    """A block or a result beside its bytes, which lie in a slot where `size` says so."""

    slot: int
    size: int
    """Bytes in the slot; -1 where they follow through the pipe."""
    start: Position = Position()
    end: Position = Position()
    rows: int = 0
    bad: int = 0
    first: Rejected | None = None
    rejected: bytes = b""
    counts: bytes = b""
    error: tuple[str, str, str, str] | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Meta).decode


class Pool:
    """Scores in several processes."""

    def __init__(self, load: Callable[[], Work], processes: int) -> None:
        self._load = load
        self._members: list[_Member] = []
        for _ in range(processes):
            self._members.append(_Member(load, [other.connection for other in self._members]))

    def start(self, choose: bool) -> Facts:
        """Have every process load the version; the first one chooses."""
        for number, member in enumerate(self._members):
            member.send_raw(b"choose" if choose and number == 0 else b"start")
        facts = [member.facts() for member in self._members]
        return facts[0]

    def results(self, blocks: Iterable[Block]) -> Iterator[tuple[Block, Result]]:
        """Yield each block with what became of it, in order."""
        waiting: deque[tuple[Block, _Member, int]] = deque()
        most = _AHEAD * len(self._members)
        for number, block in enumerate(blocks):
            member = self._members[number % len(self._members)]
            slot = number // len(self._members) % _AHEAD
            if len(waiting) == most:
                yield self._next(waiting)
            member.send(block, slot)
            waiting.append((block, member, slot))
        while waiting:
            yield self._next(waiting)

    def _next(self, waiting: "deque[tuple[Block, _Member, int]]") -> tuple[Block, Result]:
        """Return the oldest block with what became of it."""
        block, member, _ = waiting.popleft()
        return block, member.result()

    def close(self) -> None:
        """End the processes."""
        for member in self._members:
            member.close()


class _Member:
    """One process of the pool, and this one's end of the way to it."""

    def __init__(self, load: Callable[[], Work], others: list[Any]) -> None:
        self._given = [mmap.mmap(-1, SLOT_BYTES) for _ in range(_AHEAD)]
        self._taken = [mmap.mmap(-1, SLOT_BYTES) for _ in range(_AHEAD)]
        import multiprocessing  # which one process does without

        context = multiprocessing.get_context("fork")
        self.connection: Connection[Any, Any]
        self.connection, other = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_serve, args=(load, other, [*others, self.connection], self._given, self._taken), daemon=True
        )
        self._process.start()
        other.close()

    def send_raw(self, word: bytes) -> None:
        """Send a word."""
        self.connection.send_bytes(word)

    def facts(self) -> Facts:
        """Return what the process knows once it has loaded the version."""
        data = self._received()
        if data[:1] == b"!":
            raise _error(msgspec.msgpack.decode(data[1:], type=tuple[str, str, str, str]))
        return msgspec.msgpack.decode(data, type=Facts)

    def send(self, block: Block, slot: int) -> None:
        """Give the process a block."""
        data = block.data if isinstance(block.data, bytes) else memoryview(block.data.serialize())
        meta = _Meta(slot, len(data), block.start, block.end, block.rows)
        fits = len(data) <= SLOT_BYTES
        if fits:
            self._given[slot][: len(data)] = data
        else:
            meta.size = -1
        try:
            self.connection.send_bytes(_encode(meta))
            if not fits:
                self.connection.send_bytes(data)
        except OSError as error:
            raise self._died() from error

    def result(self) -> Result:
        """Return what became of the block that was given first."""
        meta = _decode(self._received())
        if meta.error:
            raise _error(meta.error)
        output: Any
        output = self._received() if meta.size < 0 else memoryview(self._taken[meta.slot])[: meta.size]
        return Result(meta.rows, meta.bad, meta.first, meta.rejected, output, meta.counts)

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _received(self) -> bytes:
        """Return what the process sends. Raises Unfinished where it has died."""
        try:
            return self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._died() from error

    def _died(self) -> Unfinished:
        self._process.join(5)
        code = self._process.exitcode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        step = "repeat the command, with fewer --processes if memory is short: it goes on there"
        return Unfinished("score", f"one of its processes ended {how}", step)


def _serve(
    load: Callable[[], Work], connection: Any, others: list[Any], given: list[mmap.mmap], taken: list[mmap.mmap]
) -> None:
    """Answer blocks until the pipe is closed; in a process of the pool."""
    for number in (*signals.STOPPING, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the first process is told, and ends this one
    for other in others:
        other.close()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        word = connection.recv_bytes()
        try:
            work = load()
            connection.send_bytes(msgspec.msgpack.encode(work.facts(word == b"choose")))
        except ApplianceError as error:
            connection.send_bytes(b"!" + msgspec.msgpack.encode(_plain(error)))
            os._exit(1)
        try:
            for done in count(1):
                _answer(work, connection, given, taken)
                if done % _TRIM == 0:
                    memory.give_back()
        finally:
            work.close()


def _answer(work: Work, connection: Any, given: list[mmap.mmap], taken: list[mmap.mmap]) -> None:
    """Take one block and send what becomes of it."""
    meta = _decode(connection.recv_bytes())
    data = connection.recv_bytes() if meta.size < 0 else given[meta.slot][: meta.size]
    try:
        result = work(Block(meta.start, meta.end, meta.rows, data))
    except ApplianceError as error:
        connection.send_bytes(_encode(_Meta(meta.slot, 0, error=_plain(error))))
        return
    size = len(result.output)
    told = _Meta(
        meta.slot, size, rows=result.rows, bad=result.bad, first=result.first, rejected=result.rejected,
        counts=result.counts,
    )  # fmt: skip
    if size <= SLOT_BYTES:
        taken[meta.slot][:size] = result.output
        connection.send_bytes(_encode(told))
    else:
        told.size = -1
        connection.send_bytes(_encode(told))
        connection.send_bytes(result.output)


def _plain(error: ApplianceError) -> tuple[str, str, str, str]:
    """Return an error as texts."""
    return type(error).__name__, error.tried, error.found, error.next_step


def _error(texts: tuple[str, str, str, str]) -> ApplianceError:
    """Return the error of some texts."""
    kind, *parts = texts
    found: ApplianceError = getattr(errors, kind, ApplianceError)(*parts)
    return found

"""The outbox: answers on disk until their broker has acknowledged them, within a quota of size and age."""

import logging
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import msgspec

from appliance.errors import Overloaded
from appliance.mqtt.clock import PLAUSIBLE, Clock
from appliance.mqtt.disk import ROW_OVERHEAD, Disk, Write

log = logging.getLogger(__name__)

LOCAL, UPSTREAM = 0, 1
"""The ways of an answer: to the broker that its message came from, or to the one upstream."""
EXPIRED_AT_ONCE = 10_000
"""Answers after which expire() ends; there may be more then."""

LARGEST_READ = 16 * 1024 * 1024
"""Bytes of a payload beyond which it is left on disk: it is larger than any answer that is given today."""

_READ_TOGETHER = 4 * 1024 * 1024  # bytes of payloads after which a read ends
_CHUNK = 500  # answers looked at together
_COLUMNS = "seq, way, created, topic, payload, qos, retain, expiry, content_type, correlation, model, version, user"
_READ = _COLUMNS.replace("payload", f"case when length(payload) > {LARGEST_READ} then x'' else payload end")
_SIZE = (
    f"length(cast(topic as blob)) + length(payload) + length(correlation) + length(cast(user as blob)) + {ROW_OVERHEAD}"
)
_INSERT = f"insert into answers ({_COLUMNS}) values ({', '.join('?' * 13)})"  # noqa: S608 - constants
_DELETE = "delete from answers where seq = ?"


@dataclass(frozen=True, slots=True)
class Answer:
    """One message to be published."""

    topic: str
    payload: bytes
    way: int = LOCAL
    qos: int = 1
    retain: bool = False
    expiry: int = 0
    """Seconds, 0 for never."""
    content_type: str = ""
    correlation: bytes = b""
    model: str = ""
    version: str = ""
    user: tuple[tuple[str, str], ...] = ()
    """User properties (MQTT 5) beside our own: those of the message."""

    @property
    def size(self) -> int:
        """Bytes that count for the quota."""
        user = len(user_text(self.user).encode()) if self.user else 0
        return len(self.topic.encode()) + len(self.payload) + len(self.correlation) + user + ROW_OVERHEAD


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer on disk; `created` is the moment of its prediction by the Clock."""

    seq: int
    created: float
    answer: Answer
    unread: int = 0
    """Bytes of a payload that was left on disk."""

    @property
    def size(self) -> int:
        """Bytes that count for the quota."""
        return self.answer.size + self.unread


@dataclass(frozen=True, slots=True)
class Addition:
    """Answers that have their place in the outbox and are not written yet."""

    stored: list[Stored]
    writes: list[Write]
    acknowledged: list[int]
    """Answers whose acknowledgement the writes take into account."""
    gone: dict[int, int]
    """Number -> size of what the writes delete."""
    size: int
    dropped: int
    """Answers that the quota's policy drops, new or old."""


class Outbox:
    """The table of answers. Not thread-safe: one thread has it."""

    def __init__(
        self,
        disk: Disk,
        *,
        max_bytes: int,
        max_age: float = 0.0,
        when_full: str = "refuse",
        clock: Clock | None = None,
    ) -> None:
        """`max_age` in seconds, 0 for none; `when_full`: refuse, oldest or newest (which of them gives way)."""
        self._disk = disk
        self.clock = clock or Clock(disk)
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._when_full = when_full
        self._acknowledged: dict[int, int] = {}  # seq -> size of what the next commit deletes
        self.dropped = 0
        """Answers that were dropped by size or age since the start."""
        found = disk.read(f"select count(*), coalesce(sum({_SIZE}), 0), coalesce(max(seq), 0) from answers")  # noqa: S608
        self.count, self.bytes, self.last = found[0]
        """Answers that wait, their bytes, and the number of the last one."""

    def prepare(self, answers: Sequence[Answer], now: float | None = None, *, others: int = 0) -> Addition:
        """Return the addition of answers, which nothing has written yet.

        `others` are bytes of other tables that count for the quota, which one addition may exceed: a batch larger than
        the quota would otherwise wait for ever. Raises Overloaded when it is reached and the policy is to refuse.
        """
        created = self.clock.now() if now is None else now
        acknowledged = list(self._acknowledged)
        gone = self._deletable()
        size = sum(answer.size for answer in answers)
        held = self.bytes - sum(gone.values()) + others
        dropped = 0
        if answers and self._when_full == "oldest":
            oldest = self._oldest(held + size - self._max_bytes, gone.keys())
            gone |= oldest
            dropped = len(oldest)
        elif answers and held >= self._max_bytes:
            if self._when_full == "refuse":
                raise self.full()
            answers, size, dropped = (), 0, len(answers)
        stored = [Stored(self.last + place, created, answer) for place, answer in enumerate(answers, 1)]
        writes: list[Write] = [(_DELETE, [(seq,) for seq in gone])] if gone else []
        if stored:
            writes.append((_INSERT, [_row(one) for one in stored]))
        return Addition(stored, writes, acknowledged, gone, size, dropped)

    def added(self, addition: Addition) -> None:
        """Update the counts: an addition was committed."""
        self.bytes += addition.size - sum(addition.gone.values())
        self.count += len(addition.stored) - len(addition.gone)
        for seq in addition.acknowledged:
            self._acknowledged.pop(seq, None)
        if addition.stored:
            self.last = addition.stored[-1].seq
        if addition.dropped:
            self.dropped += addition.dropped
            log.error(
                "outbox is full and drops answers", extra={"dropped": addition.dropped, "policy": self._when_full}
            )

    def acknowledge(self, stored: Stored) -> None:
        """Mark an answer as acknowledged by its broker; it is deleted with the next commit."""
        self._acknowledged[stored.seq] = stored.size

    @property
    def acknowledged(self) -> int:
        """How many acknowledged answers wait to be deleted."""
        return len(self._acknowledged)

    def flush(self) -> None:
        """Delete what was acknowledged. Raises StoreError."""
        if self._acknowledged:
            addition = self.prepare(())
            self._disk.commit(addition.writes)
            self.added(addition)

    def read(self, way: int, first: int, last: int, limit: int) -> list[Stored]:
        """Return the next answers of one way from number `first` to `last`, by number, at most `limit`.

        Fewer where their payloads are large. Raises StoreError.
        """
        query = (
            f"select {_READ}, length(payload) from answers "  # noqa: S608 - constants
            "where seq between ? and ? and way = ? order by seq limit ?"
        )
        rows = self._disk.read_some(query, (first, last, way, limit), 4, _READ_TOGETHER)
        return [_stored(row) for row in rows]

    def is_acknowledged(self, seq: int) -> bool:
        """Return whether an answer was acknowledged and only waits to be deleted."""
        return seq in self._acknowledged

    def expire(self, now: float | None = None) -> int:
        """Drop what is older than the age limit and return how many. Raises StoreError."""
        if not self._max_age:
            return 0
        now = self.clock.now() if now is None else now
        before = now - self._max_age
        first = PLAUSIBLE if now > PLAUSIBLE else 0.0  # times of a clock that was never set, by earlier versions
        old: list[tuple[int, int]] = []
        for rows in self._by_age():
            found = [(seq, size) for seq, size, created in rows if first < created < before]
            old += [row for row in found if row[0] not in self._acknowledged]
            if rows[-1][2] >= before or len(old) >= EXPIRED_AT_ONCE:
                break
        if not old:
            return 0
        self._disk.commit([(_DELETE, [(seq,) for seq, _ in old])])
        self.count -= len(old)
        self.bytes -= sum(size for _, size in old)
        self.dropped += len(old)
        log.error("outbox drops answers that are too old", extra={"dropped": len(old), "seconds": self._max_age})
        return len(old)

    def full(self) -> Overloaded:
        """Return the error of an outbox without room."""
        found = f"{self.bytes} bytes wait, {self._max_bytes} may"
        return Overloaded("keep the answers", found, "see why the broker takes none, or raise [mqtt] outbox_bytes")

    def _deletable(self) -> dict[int, int]:
        """Return {number: size} of the acknowledged answers on disk: what was dropped on its way is gone already."""
        if not self.dropped or not self._acknowledged:
            return dict(self._acknowledged)
        found: dict[int, int] = {}
        for some in _in_pieces(self._acknowledged):
            query = f"select seq from answers where seq in ({', '.join('?' * len(some))})"  # noqa: S608
            found |= {seq: self._acknowledged[seq] for (seq,) in self._disk.read(query, some)}
        return found

    def _oldest(self, excess: int, passed: Container[int]) -> dict[int, int]:
        """Return {number: size} of the oldest answers that take `excess` bytes together, but for those passed over."""
        found: dict[int, int] = {}
        if excess <= 0:
            return found
        for seq, size, _ in chain.from_iterable(self._by_age()):
            if excess <= 0:
                break
            if seq not in passed:
                found[seq] = size
                excess -= size
        return found

    def _by_age(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield some (number, size, creation) at a time, oldest first: days of answers are too many for one look."""
        last = -1
        query = f"select seq, {_SIZE}, created from answers where seq > ? order by seq limit {_CHUNK}"  # noqa: S608
        while rows := self._disk.read(query, (last,)):
            yield rows
            last = rows[-1][0]


def _in_pieces(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Yield some of the numbers at a time."""
    left = iter(numbers)
    while piece := list(islice(left, _CHUNK)):
        yield piece


def _row(stored: Stored) -> tuple[Any, ...]:
    """Return the columns of an answer."""
    one = stored.answer
    return (
        stored.seq, one.way, stored.created, one.topic, one.payload, one.qos, int(one.retain), one.expiry,
        one.content_type, one.correlation, one.model, one.version, user_text(one.user),
    )  # fmt: skip


def _stored(row: tuple[Any, ...]) -> Stored:
    """Return the answer of a row."""
    seq, way, created, topic, payload, qos, retain, *rest, user, length = row
    answer = Answer(topic, payload, way, qos, bool(retain), *(*rest, user_of(user)))
    return Stored(seq, created, answer, length - len(payload))


def user_text(user: Sequence[tuple[str, str]]) -> str:
    """Return user properties as they are kept on disk."""
    return msgspec.json.encode(user).decode() if user else ""


def user_of(text: str) -> tuple[tuple[str, str], ...]:
    """Return user properties as they were kept."""
    return msgspec.json.decode(text, type=tuple[tuple[str, str], ...]) if text else ()

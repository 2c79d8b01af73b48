"""Messages whose model is not ready: on disk, in order, until it is."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.mqtt.disk import ROW_OVERHEAD, Disk, Write
from appliance.mqtt.messages import Message
from appliance.mqtt.outbox import user_of, user_text

_INSERT = "insert into parked values (?, ?, ?, ?, ?, ?, ?)"
_DELETE = "delete from parked where seq = ?"
# Beside the table, so that an earlier version of this program can still add to it.
_INSERT_USER = "insert or replace into parked_users values (?, ?)"
_DELETE_USER = "delete from parked_users where seq = ?"
_READ_TOGETHER = 1024 * 1024  # bytes of payloads after which a read ends


@dataclass(frozen=True, slots=True)
class Parked:
    """One message on disk, and the key of the subscription that it waits for."""

    seq: int
    subscription: str
    message: Message


@dataclass(frozen=True, slots=True)
class Parking:
    """What is added and taken by the next commit."""

    added: list[Parked]
    taken: list[Parked]


class ParkingLot:
    """The table of waiting messages. Not thread-safe: one thread has it."""

    def __init__(self, disk: Disk) -> None:
        """Count what waits. Raises StoreError."""
        self._disk = disk
        size = f"sum(length(cast(topic || response as blob)) + length(payload) + length(correlation) + {ROW_OVERHEAD})"
        rows = disk.read(f"select subscription, count(*), {size}, max(seq) from parked group by subscription")  # noqa: S608
        self._counts = Counter({subscription: count for subscription, count, _, _ in rows})
        self.bytes = sum(row[2] for row in rows)
        self._last = max((row[3] for row in rows), default=0)

    @property
    def count(self) -> int:
        """How many messages wait."""
        return self._counts.total()

    def holds(self, subscription: str) -> bool:
        """Return whether messages of a subscription wait: later ones must wait behind them."""
        return self._counts[subscription] > 0

    def subscriptions(self) -> list[str]:
        """Return the subscriptions whose messages wait."""
        return [name for name, count in self._counts.items() if count]

    def prepare(self, add: Sequence[tuple[str, Message]], take: Sequence[Parked] = ()) -> Parking:
        """Return what the next commit adds, (subscription, message) each, and takes away."""
        added = [Parked(self._last + place, name, message) for place, (name, message) in enumerate(add, 1)]
        return Parking(added, list(take))

    @staticmethod
    def writes(parking: Parking) -> list[Write]:
        """Return the statements of a preparation."""
        now = time.time()
        rows = [
            (one.seq, now, one.subscription, one.message.topic, one.message.payload, one.message.response,
             one.message.correlation)
            for one in parking.added
        ]  # fmt: skip
        users = [(one.seq, user_text(one.message.user)) for one in parking.added if one.message.user]
        taken = [(one.seq,) for one in parking.taken]
        gone = [(one.seq,) for one in parking.taken if one.message.user]
        writes = ((_INSERT, rows), (_INSERT_USER, users), (_DELETE, taken), (_DELETE_USER, gone))
        return [write for write in writes if write[1]]

    def committed(self, parking: Parking) -> None:
        """Update the counts: a preparation was committed."""
        for one in parking.added:
            self._counts[one.subscription] += 1
            self.bytes += size_of(one.message)
            self._last = one.seq
        for one in parking.taken:
            self._counts[one.subscription] -= 1
            self.bytes -= size_of(one.message)

    def oldest(self, subscription: str, limit: int) -> list[Parked]:
        """Return the first messages that wait for a subscription, fewer where they are large. Raises StoreError."""
        query = (
            "select seq, topic, payload, response, correlation, coalesce(user, '') from parked "
            "left join parked_users using (seq) where subscription = ? order by seq limit ?"
        )
        return [
            Parked(
                seq,
                subscription,
                Message(topic, payload, response=response, correlation=correlation, user=user_of(user)),
            )
            for seq, topic, payload, response, correlation, user in self._disk.read_some(
                query, (subscription, limit), 2, _READ_TOGETHER
            )
        ]


def size_of(message: Message) -> int:
    """Return the bytes of a message that count for the quota."""
    texts = len(message.topic.encode()) + len(message.response.encode())
    return texts + len(message.payload) + len(message.correlation) + ROW_OVERHEAD

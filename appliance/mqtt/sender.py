"""Which answer is sent next, to one broker: within its window, in order, and after an outage at a limited rate.

States of an answer, which is on disk all the while: live (committed while connected; in memory), in a range (a number
that is to be read from disk), read (a replay, in memory), flying (sent, not acknowledged), acknowledged (the outbox
deletes it with its next commit). Two states are ends of this connection's tries: refused (tried again later, by topic:
refusals.py), and unsendable (told to the error topic and deleted by the caller: take_unsendable()).

down() forgets all states but refused and unsendable; up() begins with everything that is on disk as one range.

Threads: the loop's thread has it. pump() may read the disk while the committer's thread commits (Disk has the lock).
add() must be given answers that are committed, in the order of their numbers: what is sent must survive a power cut.
"""

from collections import deque
from collections.abc import Callable, Sequence

from appliance.mqtt.codec import flagged, iso_time
from appliance.mqtt.messages import TOO_LARGE, PublishProperties
from appliance.mqtt.outbox import Outbox, Stored
from appliance.mqtt.packets import PACKET_TOO_LARGE
from appliance.mqtt.refusals import Refusals

Publish = Callable[[Stored, bytes, PublishProperties], int]
"""(answer, payload, properties) -> the broker's number for it, 0 when there is no connection, or TOO_LARGE."""

LOSSES = 5
"""Connections in a row that ended before the broker took anything, after which the one answer on its way is suspected:
MQTT 3.1.1 knows no other way to refuse one."""

WINDOW_BYTES = 8 * 1024 * 1024
"""Of answers in memory that wait or are on their way; there is always room for one."""

_CAREFUL = 2  # such connections after which one answer is sent at a time, to tell which it is
_CHUNK = 200  # answers read from the disk at once
_BURST = 0.25  # seconds of the replay rate that may be sent together


class Sender:
    """Takes one way's answers from the outbox to its broker.

    What was committed while the broker was there is live and sent from memory. Everything else (what a broker had not
    acknowledged when it went, what came while it was away, what memory had no room for) is read from the disk by
    number; what is older than the connection is flagged. In order: the disk goes first. Live first: both go side by
    side, the disk at `rate` a second.
    """

    def __init__(self, outbox: Outbox, way: int, publish: Publish, *, window: int, rate: float | None = None) -> None:
        """`rate` in answers a second makes it live first; None keeps the order."""
        self._outbox = outbox
        self._way = way
        self._publish = publish
        self._wanted_window = self._most = self._window = window
        self._rate = rate
        self._up = False
        self._mark = 0  # answers up to this number were given before the connection
        self._live: deque[Stored] = deque()
        self._ranges: deque[tuple[int, int]] = deque()  # numbers to be read from the disk
        self._replays: deque[Stored] = deque()  # read from the disk, not sent yet
        self._flying: dict[int, Stored] = {}
        self._live_bytes = self._flying_bytes = 0
        self._unsendable: dict[int, tuple[Stored, str]] = {}  # by number: what no broker takes, and why
        self._allowance = 0.0
        self._counted = 0.0
        self._now = 0.0
        self._losses = 0
        self._refused = Refusals()
        self.refusal = ""
        """The topic and reason of the last answer that the broker refused."""
        self.unheard = ""
        """The topic and reason of the last report of a bad message, if the broker refused it; it is dropped."""
        self.sent = 0
        self.replayed = 0

    def up(self, receive_maximum: int, now: float) -> None:
        """Begin with a broker that takes `receive_maximum` unacknowledged messages: all that is on disk comes first."""
        self.down()
        self._up = True
        self._most = min(self._wanted_window, receive_maximum)
        self._window = self._most if self._losses < _CAREFUL else 1
        self._counted = self._now = now
        self._mark = self._outbox.last
        if self._outbox.count:
            self._ranges.append((0, self._outbox.last))

    def down(self) -> None:
        """Forget what was on its way: the disk has it."""
        if self._up and self._flying:
            self._losses += 1
            if self._losses >= LOSSES and len(self._flying) == 1:
                (stored,) = self._flying.values()
                self._refuse(stored, "the connection ends whenever it is sent", self._now)
                self._losses = 0
        self._up = False
        for waiting in (self._live, self._ranges, self._replays):
            waiting.clear()
        self._flying.clear()
        self._live_bytes = self._flying_bytes = 0

    def add(self, stored: Sequence[Stored]) -> None:
        """Take answers that were just committed, this way's among them."""
        own = [one for one in stored if one.answer.way == self._way]
        if not self._up or not own:
            return
        in_order = self._rate is None
        size = sum(one.size for one in own)
        many = len(self._live) + len(own) > 4 * self._wanted_window
        if many or self._live_bytes + size > WINDOW_BYTES or (in_order and (self._ranges or self._replays)):
            self._ranges.append((own[0].seq, own[-1].seq))
        else:
            self._live.extend(own)
            self._live_bytes += size

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent or acknowledged."""
        return not (self._live or self._ranges or self._replays or self._flying)

    @property
    def congested(self) -> bool:
        """Whether the broker takes answers more slowly than they come, so that no more should be given for now."""
        many = len(self._live) >= self._window or self._live_bytes >= WINDOW_BYTES // 2
        return self._up and self._rate is None and many

    @property
    def refused(self) -> int:
        """How many answers the broker refused that wait to be tried again."""
        return len(self._refused)

    def pump(self, now: float) -> None:
        """Send what the window and the rate let through. Raises StoreError when the disk cannot be read."""
        self._now = now
        if self._up and self._refused.is_due(now):
            oldest = self._outbox.read(self._way, 0, self._outbox.last, 1)
            self._again(self._refused.due(now, oldest[0].seq if oldest else self._outbox.last + 1))
        while self._up and self._live and self._has_room():
            if not self._send(self._live[0], now):
                return
            self._live_bytes -= self._live.popleft().size
        if self._rate is not None:
            self._allowance = min(max(1.0, self._rate * _BURST), self._allowance + (now - self._counted) * self._rate)
            self._counted = now
        while self._up and self._has_room() and self._may_replay() and self._next_replay():
            if not self._send(self._replays[0], now):
                return
            self._replays.popleft()
            self._allowance -= 1.0

    def due(self, now: float) -> float:
        """Return when pump() may send more by the clock alone."""
        if self._rate is None or not (self._ranges or self._replays) or len(self._flying) >= self._window:
            return float("inf")
        return now + max(0.0, 1.0 - self._allowance) / self._rate

    def published(self, packet_id: int, refusal: str, now: float) -> None:
        """Take the broker's acknowledgement of a message, or its refusal."""
        stored = self._flying.pop(packet_id, None)
        if stored is None:
            return
        self._flying_bytes -= stored.size
        self._losses, self._window = 0, self._most
        if refusal == PACKET_TOO_LARGE:
            self._give_up(stored, f"the broker says: {refusal}", now)
            return
        if refusal:
            self._refuse(stored, refusal, now)
            return
        self.sent += 1
        self.unheard = self.unheard if stored.answer.model else ""
        self._outbox.acknowledge(stored)
        self._again(self._refused.taken(stored.seq))

    def _again(self, numbers: Sequence[int]) -> None:
        """Read answers from the disk again."""
        for seq in numbers:
            if self._ranges and self._ranges[-1][1] == seq - 1:
                self._ranges[-1] = self._ranges[-1][0], seq
            else:
                self._ranges.append((seq, seq))

    def _refuse(self, stored: Stored, refusal: str, now: float) -> None:
        """Keep an answer that the broker does not take for a later try.

        Not the report of a bad message: where nobody may read them, they would fill the outbox and stop the flow.
        """
        if not stored.answer.model:
            self.unheard = f"{stored.answer.topic}: {refusal}"
            self._outbox.acknowledge(stored)
            return
        self._refused.add(stored.seq, stored.answer.topic, now)
        self.refusal = f"{stored.answer.topic}: {refusal}"

    def take_unsendable(self) -> list[tuple[Stored, str]]:
        """Return what can never be sent, each with the reason, once: the caller deletes it from the outbox at once."""
        found = list(self._unsendable.values())
        self._unsendable.clear()
        return found

    def _give_up(self, stored: Stored, found: str, now: float) -> None:
        """Give up an answer that is too large for the broker; the report of a bad message is dropped silently."""
        if stored.answer.model:
            self._unsendable[stored.seq] = stored, found
        else:
            self._refuse(stored, found, now)

    def _has_room(self) -> bool:
        """Return whether one more answer may be on its way."""
        return len(self._flying) < self._window and self._flying_bytes < WINDOW_BYTES

    def _may_replay(self) -> bool:
        """Return whether the rate lets one more through."""
        return self._rate is None or self._allowance >= 1.0

    def _next_replay(self) -> bool:
        """Read from the disk until there is an answer to send; return whether there is."""
        while not self._replays and self._ranges:
            first, last = self._ranges[0]
            found = self._outbox.read(self._way, first, last, _CHUNK)
            if found and found[-1].seq < last:
                self._ranges[0] = (found[-1].seq + 1, last)
            else:
                self._ranges.popleft()
            held = {stored.seq for stored in self._flying.values()} | self._unsendable.keys()
            self._replays.extend(
                one
                for one in found
                if not self._outbox.is_acknowledged(one.seq) and one.seq not in held and one.seq not in self._refused
            )
        return bool(self._replays)

    def _send(self, stored: Stored, now: float) -> bool:
        """Publish one answer, flagged when it is older than the connection; return whether there was one."""
        answer, replayed = stored.answer, stored.seq <= self._mark
        if stored.unread:
            self._give_up(stored, f"it has {stored.unread} bytes, more than any answer may have", now)
            return True
        user = answer.user
        if answer.model:
            user = (*user, ("model", answer.model), ("version", answer.version))
        payload = answer.payload
        if replayed:
            predicted = self._outbox.clock.label(stored.created)
            user = (*user, ("replayed", "true"), ("predicted_at", iso_time(predicted)))
            payload = flagged(payload, answer.content_type, predicted)
        packet_id = self._publish(
            stored, payload, PublishProperties(answer.expiry, answer.content_type, answer.correlation, user)
        )
        if not packet_id:
            return False
        if packet_id == TOO_LARGE:
            self._give_up(stored, f"it has {len(payload)} bytes, more than the broker takes", now)
            return True
        if replayed:
            self.replayed += 1
        if answer.qos:
            self._flying[packet_id] = stored
            self._flying_bytes += stored.size
        else:
            self.sent += 1
            self._outbox.acknowledge(stored)
        return True

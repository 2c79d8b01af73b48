"""From a message to its answer on disk: what is committed together, and only then may be acknowledged."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from appliance.config import MqttConfig
from appliance.errors import ApplianceError
from appliance.mqtt.answering import Answerer, Job, Outcome
from appliance.mqtt.codec import too_large
from appliance.mqtt.disk import Disk, Write
from appliance.mqtt.messages import Message
from appliance.mqtt.outbox import Addition, Outbox, Stored
from appliance.mqtt.parking import Parked, Parking, ParkingLot
from appliance.mqtt.plan import Plan
from appliance.mqtt.repeats import Repeats
from appliance.mqtt.rows import RowBuilder
from appliance.predictor import Predictor

log = logging.getLogger(__name__)

DECODED_BYTES, ROWS_TOGETHER = 128 * 1024, 256
"""Of messages that are decoded together before they are answered: decoded they take up to a hundred times as much."""
ANSWERS_BYTES = 8 * 1024 * 1024
"""Of the answers of one work, after which it takes no more messages."""


@dataclass(slots=True)
class Work:
    """Some messages, answered, with all that one commit must write before any of them is acknowledged."""

    messages: list[Message] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    park: list[tuple[str, Message]] = field(default_factory=list)
    """(subscription, message) of what must wait for its model."""
    taken: list[Parked] = field(default_factory=list)
    """Messages that have waited and need not any more."""
    fed: list[Message] = field(default_factory=list)
    """Messages that fed rows: should they come again, they feed nothing more."""
    writes: list[Write] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pending:
    """A work that was written and not committed yet."""

    work: Work
    addition: Addition
    parking: Parking
    is_open: bool
    """Whether there is something to commit."""


class Flow:
    """Answers messages and keeps what must not be lost. Not thread-safe: one thread has it."""

    def __init__(
        self,
        config: MqttConfig,
        plan: Plan,
        predictor: Predictor,
        answerer: Answerer,
        disk: Disk,
        outbox: Outbox,
    ) -> None:
        """Read what was kept. Raises StoreError."""
        self._plan = plan
        self._predictor = predictor
        self._answerer = answerer
        self._disk = disk
        self._outbox = outbox
        self._max_payload = config.max_payload_bytes
        self._bytes = config.outbox_bytes
        self._refuses = config.outbox_full == "refuse"
        self.reload()
        self.received = self.answered = self.dropped = 0
        self.refused: dict[str, int] = {}

    def reload(self) -> None:
        """Read what was kept and forget what was not: as after a start. Raises StoreError."""
        self.parking = ParkingLot(self._disk)
        self._repeats = Repeats(self._disk)
        since = self._outbox.clock.known_since
        self._rows = [
            RowBuilder(rows, self._disk, max_bytes=self._max_payload, since=since) for rows in self._plan.rows
        ]

    def work(self, messages: Sequence[Message]) -> Work:
        """Answer messages, the first of them where answers are large; begin() then writes what they came to."""
        work = Work()
        now = self._outbox.clock.now()
        jobs: list[Job] = []
        decoded = rows = 0
        for message in messages:
            work.messages.append(message)
            decoded += message.size
            for job in self._jobs(message, now, work):
                jobs.append(job)
                rows += len(job.call.rows)
            if decoded >= DECODED_BYTES or rows >= ROWS_TOGETHER:
                self._answer(jobs, work)
                jobs, decoded, rows = [], 0, 0
                if sum(len(answer.payload) for answer in work.outcome.answers) >= ANSWERS_BYTES:
                    break
        self._answer(jobs, work)
        self._collect_rows(work)
        return work

    def timed(self) -> Work | None:
        """Answer the rows whose time has come; None when there are none."""
        now = self._outbox.clock.now()
        jobs = [job for builder in self._rows for job in builder.timed(now)]
        if not jobs:
            return None
        work = Work()
        self._answer(jobs, work)
        self._collect_rows(work)
        return work

    def unpark(self, limit: int) -> Work | None:
        """Answer up to `limit` messages that waited and whose model is ready now; None when there are none."""
        for name in self.parking.subscriptions():
            subscription = next((one for one in self._plan.subscriptions if one.key == name), None)
            if subscription is None or not self._is_ready(subscription.target.model, subscription.target.version):
                continue
            work = Work()
            jobs: list[Job] = []
            rows = 0
            for parked in self.parking.oldest(name, limit):
                work.taken.append(parked)
                topic = self._plan.answer_topic(subscription, parked.message.topic)
                if job := self._answerer.job(subscription, topic, parked.message, work.outcome):
                    jobs.append(job)
                    rows += len(job.call.rows)
                if rows >= ROWS_TOGETHER:
                    break
            self._answerer.answer(jobs, work.outcome)
            still = {id(job.message) for job in work.outcome.unready}
            work.taken = [parked for parked in work.taken if id(parked.message) not in still]
            return work if work.taken else None
        return None

    def given_up(self, unsendable: Sequence[tuple[Stored, str]]) -> Work:
        """Return the work that deletes answers which no broker takes, and tells the error topic why."""
        work = Work()
        for stored, found in unsendable:
            self._answerer.unsendable(work.outcome, stored, found)
            self._outbox.settle(stored)
        return work

    def begin(self, work: Work) -> Pending:
        """Write a work, which the disk's end() must then commit; until ended() nothing else may be begun.

        Raises StoreError when the disk takes nothing and Overloaded when the quota does: nothing was kept, and the same
        work may be begun again later.
        """
        if work.park and self._outbox.bytes + self.parking.bytes >= self._bytes:
            if self._refuses:
                raise self._outbox.full()
            self.dropped += len(work.park)
            log.error("outbox is full and drops messages that wait for a model", extra={"dropped": len(work.park)})
            work.park.clear()
        addition = self._outbox.prepare(work.outcome.answers, others=self.parking.bytes)
        parking = self.parking.prepare(work.park, work.taken)
        writes = [*addition.writes, *self.parking.writes(parking), *work.writes, *self._repeats.writes(work.fed)]
        if writes:
            self._disk.begin(writes)
        return Pending(work, addition, parking, bool(writes))

    def ended(self, pending: Pending) -> list[Stored]:
        """Take note that a work is on disk and return its answers; its messages may then be acknowledged."""
        self._outbox.added(pending.addition)
        self.parking.committed(pending.parking)
        self._repeats.committed(pending.work.fed)
        self._count(pending.work)
        return pending.addition.stored

    def note_clock(self) -> None:
        """Have the next start know of a wall clock that was set. Raises StoreError."""
        clock = self._outbox.clock
        if clock.has_jumped():
            self._disk.commit([clock.write()])

    def prune(self) -> None:
        """Delete what no window holds any more. Raises StoreError."""
        now = self._outbox.clock.now()
        writes = [write for builder in self._rows for write in builder.prune(now)]
        if writes:
            self._disk.commit(writes)

    def lost(self) -> list[str]:
        """Return the subscriptions that messages wait for and that the configuration no longer has."""
        known = {one.key for one in self._plan.subscriptions}
        return [name for name in self.parking.subscriptions() if name not in known]

    def _fed(self, message: Message, now: float, work: Work) -> list[Job]:
        """Return the rows that a message completes; one that was kept before has its answers on disk."""
        feeds = self._plan.fed(message.topic, message.identifiers)
        if not feeds or self._repeats.holds(message):
            return []
        work.fed.append(message)
        jobs = []
        for index, feed, key in feeds:
            try:
                job = self._rows[index].observe(feed, key, message, now)
            except Exception as error:  # noqa: BLE001 - see Answerer.refuse
                self._answerer.refuse(work.outcome, self._plan.rows[index].target, message, error)
                continue
            if job:
                jobs.append(job)
        return jobs

    def _jobs(self, message: Message, now: float, work: Work) -> list[Job]:
        """Return the answers that a message asks for; what it comes to beside goes to `work`."""
        if message.unread:
            self._refuse_large(message, work)
            return []
        jobs = []
        for subscription, topic in self._plan.asked(message.topic, message.identifiers):
            if self.parking.holds(subscription.key) or any(key == subscription.key for key, _ in work.park):
                work.park.append((subscription.key, message))
            elif job := self._answerer.job(subscription, topic, message, work.outcome):
                jobs.append(job)
        return jobs + self._fed(message, now, work)

    def _refuse_large(self, message: Message, work: Work) -> None:
        """Tell the error topic of a message that was passed over, once."""
        targets = [one.target for one, _ in self._plan.asked(message.topic, message.identifiers)]
        targets += [self._plan.rows[index].target for index, _, _ in self._plan.fed(message.topic, message.identifiers)]
        if targets:
            self._answerer.refuse(work.outcome, targets[0], message, too_large(message.unread, self._max_payload))

    def _answer(self, jobs: list[Job], work: Work) -> None:
        """Answer jobs; those of a model that is not ready wait, but for rows, whose values are kept anyway."""
        self._answerer.answer(jobs, work.outcome)
        work.park += [(job.subscription, job.message) for job in work.outcome.unready if job.subscription]

    def _collect_rows(self, work: Work) -> None:
        """Add what the rows must write."""
        for builder in self._rows:
            work.writes += builder.writes()

    def _is_ready(self, model: str | None, version: str | None) -> bool:
        """Return whether somebody answers for a model."""
        try:
            self._predictor.route(model, version)
        except ApplianceError:
            return False
        return True

    def _count(self, work: Work) -> None:
        """Add a finished work to the counters."""
        self.received += len(work.messages)
        self.answered += work.outcome.answered
        for reason, count in work.outcome.refused.items():
            self.refused[reason] = self.refused.get(reason, 0) + count

"""From a message to its answer on disk: what is committed together, and only then may be acknowledged.

States of a Batch: answered (answer(), timed(), unpark() or given_up() made it; in memory alone), begun (begin() has
written it in a transaction), ended (the transaction is committed and ended() was told). Until ended() nothing counts:
a commit that fails may be begun again with the same batch, or reload() goes back to what the disk has.

On disk a message is one of these: an answer in the outbox; parked, where its model is not ready; values of rows, where
it feeds one. Messages of a subscription that has parked ones are parked behind them, so that the order holds.

Threads: the loop's thread has it. Between begin() and ended() the committer's thread may be in Disk.end(); answer() may
be called meanwhile, since it writes nothing to disk. begin(), prune() and note_clock() may not, since they write.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from appliance.config import MqttConfig
from appliance.errors import ApplianceError
from appliance.mqtt.answering import Answerer, BatchOutcome, Job
from appliance.mqtt.bad_message import too_large
from appliance.mqtt.deduplicator import Deduplicator
from appliance.mqtt.disk import Disk, Write
from appliance.mqtt.messages import Message
from appliance.mqtt.outbox import Addition, Outbox, Stored
from appliance.mqtt.parking import Parked, Parking, ParkingLot
from appliance.mqtt.rows import RowBuilder
from appliance.mqtt.topic_table import TopicTable
from appliance.predictor import Predictor

log = logging.getLogger(__name__)

DECODED_BYTES, ROWS_TOGETHER = 128 * 1024, 256
"""Of messages that are decoded together before they are answered: decoded they take up to a hundred times as much."""
ANSWERS_BYTES = 8 * 1024 * 1024
"""Of the answers of one batch, after which it takes no more messages."""


@dataclass(slots=True)
class Batch:
    """Some messages, answered, with all that one commit must write before any of them is acknowledged."""

    messages: list[Message] = field(default_factory=list)
    outcome: BatchOutcome = field(default_factory=BatchOutcome)
    park: list[tuple[str, Message]] = field(default_factory=list)
    """(subscription, message) of what must wait for its model."""
    taken: list[Parked] = field(default_factory=list)
    """Messages that were parked and are answered now."""
    fed: list[Message] = field(default_factory=list)
    """Messages that fed rows: if they come again, they are ignored."""
    writes: list[Write] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pending:
    """A batch whose transaction is open, and what it writes."""

    batch: Batch
    addition: Addition
    parking: Parking
    is_open: bool
    """Whether there is something to commit."""


class Flow:
    """Answers messages and keeps what must not be lost. Not thread-safe: one thread has it."""

    def __init__(
        self,
        config: MqttConfig,
        topic_table: TopicTable,
        predictor: Predictor,
        answerer: Answerer,
        disk: Disk,
        outbox: Outbox,
    ) -> None:
        """Read what was kept. Raises StoreError."""
        self._topics = topic_table
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
        self._deduplicator = Deduplicator(self._disk)
        since = self._outbox.clock.known_since
        self._rows = [
            RowBuilder(rows, self._disk, max_bytes=self._max_payload, since=since) for rows in self._topics.rows
        ]

    def answer(self, messages: Sequence[Message]) -> Batch:
        """Answer messages, the first of them where answers are large; begin() then writes what they came to."""
        batch = Batch()
        now = self._outbox.clock.now()
        jobs: list[Job] = []
        decoded = rows = 0
        for message in messages:
            batch.messages.append(message)
            decoded += message.size
            for job in self._jobs(message, now, batch):
                jobs.append(job)
                rows += len(job.call.rows)
            if decoded >= DECODED_BYTES or rows >= ROWS_TOGETHER:
                self._answer_jobs(jobs, batch)
                jobs, decoded, rows = [], 0, 0
                if sum(len(answer.payload) for answer in batch.outcome.answers) >= ANSWERS_BYTES:
                    break
        self._answer_jobs(jobs, batch)
        self._collect_rows(batch)
        return batch

    def timed(self) -> Batch | None:
        """Answer the rows whose time has come; None when there are none."""
        now = self._outbox.clock.now()
        jobs = [job for builder in self._rows for job in builder.timed(now)]
        if not jobs:
            return None
        batch = Batch()
        self._answer_jobs(jobs, batch)
        self._collect_rows(batch)
        return batch

    def unpark(self, limit: int) -> Batch | None:
        """Answer up to `limit` messages that waited and whose model is ready now; None when there are none."""
        for name in self.parking.subscriptions():
            subscription = next((one for one in self._topics.subscriptions if one.key == name), None)
            if subscription is None or not self._is_ready(subscription.target.model, subscription.target.version):
                continue
            batch = Batch()
            jobs: list[Job] = []
            rows = 0
            for parked in self.parking.oldest(name, limit):
                batch.taken.append(parked)
                topic = self._topics.answer_topic(subscription, parked.message.topic)
                if job := self._answerer.job(subscription, topic, parked.message, batch.outcome):
                    jobs.append(job)
                    rows += len(job.call.rows)
                if rows >= ROWS_TOGETHER:
                    break
            self._answerer.answer(jobs, batch.outcome)
            still = {id(job.message) for job in batch.outcome.unready}
            batch.taken = [parked for parked in batch.taken if id(parked.message) not in still]
            return batch if batch.taken else None
        return None

    def given_up(self, unsendable: Sequence[tuple[Stored, str]]) -> Batch:
        """Return the batch that deletes answers which no broker takes, and tells the error topic why."""
        batch = Batch()
        for stored, found in unsendable:
            self._answerer.unsendable(batch.outcome, stored, found)
            self._outbox.acknowledge(stored)
        return batch

    def begin(self, batch: Batch) -> Pending:
        """Write a batch, which the disk's end() must then commit; until ended() nothing else may be begun.

        Raises StoreError when the disk takes nothing and Overloaded when the quota does: nothing was kept, and the same
        batch may be begun again later.
        """
        if batch.park and self._outbox.bytes + self.parking.bytes >= self._bytes:
            if self._refuses:
                raise self._outbox.full()
            self.dropped += len(batch.park)
            log.error("outbox is full and drops messages that wait for a model", extra={"dropped": len(batch.park)})
            batch.park.clear()
        addition = self._outbox.prepare(batch.outcome.answers, others=self.parking.bytes)
        parking = self.parking.prepare(batch.park, batch.taken)
        writes = [*addition.writes, *self.parking.writes(parking), *batch.writes, *self._deduplicator.writes(batch.fed)]
        if writes:
            self._disk.begin(writes)
        return Pending(batch, addition, parking, bool(writes))

    def ended(self, pending: Pending) -> list[Stored]:
        """Take note that a batch is on disk and return its answers; its messages may then be acknowledged."""
        self._outbox.added(pending.addition)
        self.parking.committed(pending.parking)
        self._deduplicator.committed(pending.batch.fed)
        self._count(pending.batch)
        return pending.addition.stored

    def note_clock(self) -> None:
        """Write down that the wall clock was set, for the next start. Raises StoreError."""
        clock = self._outbox.clock
        if clock.has_jumped():
            self._disk.commit([clock.write()])

    def prune(self) -> None:
        """Delete values that no window needs. Raises StoreError."""
        now = self._outbox.clock.now()
        writes = [write for builder in self._rows for write in builder.prune(now)]
        if writes:
            self._disk.commit(writes)

    def lost(self) -> list[str]:
        """Return the subscriptions that messages wait for and that the configuration no longer has."""
        known = {one.key for one in self._topics.subscriptions}
        return [name for name in self.parking.subscriptions() if name not in known]

    def _fed(self, message: Message, now: float, batch: Batch) -> list[Job]:
        """Return the rows that a message completes; one that was kept before has its answers on disk."""
        feeds = self._topics.fed(message.topic, message.identifiers)
        if message.retain:
            feeds = tuple(one for one in feeds if self._topics.rows[one[0]].config.retained)
        if not feeds or self._deduplicator.holds(message):
            return []
        batch.fed.append(message)
        jobs = []
        for index, feed, key in feeds:
            try:
                job = self._rows[index].observe(feed, key, message, now)
            except Exception as error:  # noqa: BLE001 - see Answerer.refuse
                self._answerer.refuse(batch.outcome, self._topics.rows[index].target, message, error)
                continue
            if job:
                jobs.append(job)
        return jobs

    def _jobs(self, message: Message, now: float, batch: Batch) -> list[Job]:
        """Return the answers that a message asks for; anything else that it causes is added to `batch`."""
        if message.unread:
            self._refuse_large(message, batch)
            return []
        jobs = []
        for subscription, topic in self._topics.asked(message.topic, message.identifiers):
            if message.retain and not subscription.config.retained:
                continue  # the broker says `retain` of what it kept alone, not of what is published now
            if self.parking.holds(subscription.key) or any(key == subscription.key for key, _ in batch.park):
                batch.park.append((subscription.key, message))
            elif job := self._answerer.job(subscription, topic, message, batch.outcome):
                jobs.append(job)
        return jobs + self._fed(message, now, batch)

    def _refuse_large(self, message: Message, batch: Batch) -> None:
        """Report a message that was dropped as too large to the error topic, once."""
        targets = [one.target for one, _ in self._topics.asked(message.topic, message.identifiers)]
        fed = self._topics.fed(message.topic, message.identifiers)
        targets += [self._topics.rows[index].target for index, _, _ in fed]
        if targets:
            self._answerer.refuse(batch.outcome, targets[0], message, too_large(message.unread, self._max_payload))

    def _answer_jobs(self, jobs: list[Job], batch: Batch) -> None:
        """Answer jobs; those of a model that is not ready wait, but for rows, whose values are kept anyway."""
        self._answerer.answer(jobs, batch.outcome)
        batch.park += [(job.subscription, job.message) for job in batch.outcome.unready if job.subscription]

    def _collect_rows(self, batch: Batch) -> None:
        """Add what the rows must write."""
        for builder in self._rows:
            batch.writes += builder.writes()

    def _is_ready(self, model: str | None, version: str | None) -> bool:
        """Return whether a model has a version that answers."""
        try:
            self._predictor.route(model, version)
        except ApplianceError:
            return False
        return True

    def _count(self, batch: Batch) -> None:
        """Add a finished batch to the counters."""
        self.received += len(batch.messages)
        self.answered += batch.outcome.answered
        for reason, count in batch.outcome.refused.items():
            self.refused[reason] = self.refused.get(reason, 0) + count

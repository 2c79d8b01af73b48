"""A batch of messages in, their answers out in the same order: one run of the graph for all that ask one model."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import UNSET

from appliance import trace_context
from appliance.arms import Arms
from appliance.correlation import request_id
from appliance.errors import ApplianceError, InvalidInput, NotLogged, NotReady
from appliance.inference.tensors import Feeds
from appliance.inference.version import LoadedVersion
from appliance.labels import TakeLabels
from appliance.mqtt import user_properties
from appliance.mqtt.bad_message import BadMessage, error_payload, reason_of
from appliance.mqtt.codec import Call, feeds_of, message_id
from appliance.mqtt.labels import labels_of
from appliance.mqtt.messages import Message
from appliance.mqtt.outbox import LOCAL, Answer, Stored
from appliance.mqtt.rights import Rights
from appliance.mqtt.topic_table import Subscription, Target
from appliance.predictor import Predictor
from appliance.response import response_format

log = logging.getLogger(__name__)

LARGEST_ANSWER = 8 * 1024 * 1024
"""Bytes of one answer, as it is kept on disk and published."""
LONGEST_CORRELATION = 1024
"""Bytes of Correlation Data: it goes back with the answer, and waits with it on disk."""
MOST_VALUES = 250_000
"""Values of the answers of one run: as Python's own they take 100 bytes each."""
ROWS_PER_RUN = 4096
"""Rows after which a run is closed: what one takes in memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Job:
    """One answer to be given: to a message, or to a row put together from several."""

    target: Target
    message: Message
    call: Call
    topic: str
    """Where the answer goes."""
    responds: bool = False
    """Whether that is the message's Response Topic, so that it goes back to the broker that the message came from."""
    subscription: str = ""
    """The subscription's key; "" for a row."""
    partial: bool = False
    """Whether it is skipped while a required column is missing."""
    key: str = ""
    """By which a row is routed while an experiment runs; a message's key is found when it is needed."""


@dataclass(slots=True)
class BatchOutcome:
    """The result of a batch."""

    answers: list[Answer] = field(default_factory=list)
    """In the order of the jobs; reports for the error topic are among them."""
    unready: list[Job] = field(default_factory=list)
    """Jobs whose model is not ready."""
    refused: dict[str, int] = field(default_factory=dict)
    """Bad messages by reason."""
    answered: int = 0
    responded: set[str] = field(default_factory=set)
    """Response Topics among the topics of the answers."""
    units: dict[str, str] = field(default_factory=dict)
    """Topic of an answer -> the unit of its prediction, where the configuration says one."""


class Answerer:
    """Turns messages into answers. Raises nothing: every job ends as an answer, an error or unready."""

    def __init__(
        self, predictor: Predictor, errors: str, rights: Rights, take_labels: TakeLabels | None = None
    ) -> None:
        """`errors` is the error topic; `rights` say where a message may have its answer published.

        `take_labels` is where labels go; None where predictions are not logged.
        """
        self._take_labels = take_labels
        self._predictor = predictor
        self._errors = errors
        self._rights = rights

    def job(self, subscription: Subscription, topic: str, message: Message, outcome: BatchOutcome) -> Job | None:
        """Return what a message asks of a subscription; None when it is bad, which the outcome then has.

        The answer goes to `topic`, "" for nowhere, unless the message says where.
        """
        target = subscription.target
        if subscription.config.kind == "labels":
            self._take(subscription, message, outcome)
            return None
        try:
            responds = bool(message.response and subscription.respond)
            topic = self._response_topic(message, subscription) if responds else topic
            if not topic:
                next_step = "send a Response Topic (MQTT 5) that `respond` allows, or look at the subscription's answer"
                raise BadMessage("answer_topic", "find the answer's topic", "there is none", next_step)
            if len(message.correlation) > LONGEST_CORRELATION:
                found = f"it has {len(message.correlation)} bytes, {LONGEST_CORRELATION} may be"
                raise BadMessage("too_large", "read the Correlation Data", found, "send a short one")
            if message.user:
                user_properties.check(message)
            call = target.codec.read(message.topic, message.payload, message.correlation)
        except Exception as error:  # noqa: BLE001 - see refuse()
            self.refuse(outcome, target, message, error)
            return None
        if not call.rows and call.tensors is None:  # it asks nothing: a birth of Sparkplug
            return None
        return Job(target, message, call, topic, responds, subscription.key)

    def _take(self, subscription: Subscription, message: Message, outcome: BatchOutcome) -> None:
        """Take a message's labels, which are on disk then; while they cannot be kept, it waits as for a model."""
        try:
            if self._take_labels is None:
                next_step = "set [log.predictions] enabled = true"
                raise BadMessage("labels", "take the labels", "predictions are not logged", next_step)
            found = labels_of(subscription.config, subscription.target.codec.document(message.payload))
            self._take_labels(subscription.config.model, found, "mqtt")
            outcome.answered += 1
        except NotReady:
            call = Call(message_id(message.topic, message.payload, message.correlation))
            outcome.unready.append(Job(subscription.target, message, call, "", subscription=subscription.key))
        except Exception as error:  # noqa: BLE001 - see refuse()
            self.refuse(outcome, subscription.target, message, error)

    def answer(self, jobs: Sequence[Job], outcome: BatchOutcome) -> None:
        """Add the results of jobs."""
        slots: list[Answer | None] = [None] * len(jobs)
        # A row that was put together from several messages belongs to no one's trace.
        messages = [(one.call.id, one.message) for one in jobs if one.message.user and one.subscription]
        if messages:
            trace_context.begin_batch({key: trace for key, one in messages if (trace := user_properties.trace(one))})
        try:
            for indices in _groups(jobs):
                self._answer_group(jobs, indices, slots, outcome)
        finally:
            if messages:
                trace_context.end()
        outcome.answers += [answer for answer in slots if answer is not None]

    def refuse(self, outcome: BatchOutcome, target: Target, message: Message, error: Exception) -> None:
        """Add a report about a bad message for the error topic.

        Every error of a message ends here: it must neither stop the flow nor make the message come again forever.
        """
        known = _known(error, message)
        outcome.answers.append(self._told(outcome, target.model or "", target.version or "", message, known))

    def unsendable(self, outcome: BatchOutcome, stored: Stored, found: str) -> None:
        """Add a report about an answer that cannot be sent for the error topic."""
        answer = stored.answer
        error = _answer_too_large(found)
        message = Message(answer.topic, answer.payload, correlation=answer.correlation, unread=stored.unread)
        outcome.answers.append(self._told(outcome, answer.model, answer.version, message, error))

    def _answer_group(
        self, jobs: Sequence[Job], indices: list[int], slots: list[Answer | None], outcome: BatchOutcome
    ) -> None:
        """Answer jobs of one target, by one run for each version that answers some of them."""
        target = jobs[indices[0]].target
        arms = self._predictor.arms(target.model) if target.version is None else None
        keys: dict[int, str] = {}
        if arms is None:
            try:
                version = self._predictor.route(target.model, target.version)
            except ApplianceError:  # not installed, not active, none named: it may come, and the messages wait for it
                outcome.unready += [jobs[index] for index in indices]
                return
            of_version = {version: indices}
        else:
            keys = {index: _key(arms, jobs[index]) for index in indices}
            of_version = {}
            for index in indices:
                of_version.setdefault(arms.pick(keys[index]), []).append(index)
        for version, chosen in of_version.items():
            required = set(version.schema.columns) - version.schema.may_lack
            whole = [one for one in chosen if not (jobs[one].partial and required - jobs[one].call.rows[0].keys())]
            if whole:
                self._run(version, jobs, whole, slots, outcome, keys)

    def _run(
        self,
        version: LoadedVersion,
        jobs: Sequence[Job],
        indices: list[int],
        slots: list[Answer | None],
        outcome: BatchOutcome,
        keys: Mapping[int, str],
    ) -> None:
        """Answer jobs by one run; when it is refused, run the halves apart, until the bad job is alone."""
        started = time.perf_counter()
        chosen = [jobs[index] for index in indices]
        try:
            form = response_format(version)
            _check_room(version, chosen)
            feeds, counts = _feeds(version, chosen)
            shared_by = [(job.call.id, rows) for job, rows in zip(chosen, counts, strict=True)]
            routed_by = [keys[index] for index in indices] if keys else ()
            asked = any(_asks_quality(version, job) for job in chosen)
            prediction = self._predictor.run(
                version, feeds, form.outputs, started=started, shared_by=shared_by, keys=routed_by, quality=asked
            )
            answer = form.answer(prediction)
            told = not asked or self._predictor.judges(version.name)  # to all, or to those that ask
        except NotLogged:  # no answer may leave that is not in the log: the messages wait, as for a model
            outcome.unready += chosen
            return
        except Exception as error:  # noqa: BLE001 - see refuse()
            if len(indices) > 1:
                middle = len(indices) // 2
                self._run(version, jobs, indices[:middle], slots, outcome, keys)
                self._run(version, jobs, indices[middle:], slots, outcome, keys)
                return
            slots[indices[0]] = self._refusal(version, chosen[0], error, outcome, keys.get(indices[0], ""))
            return
        first = 0
        for index, job, rows in zip(indices, chosen, counts, strict=True):
            try:
                part = answer.part(first, first + rows)
                if not told and not _asks_quality(version, job):
                    part.quality = UNSET
                payload = job.target.codec.write(part, job.call)
                if len(payload) > LARGEST_ANSWER:
                    raise _answer_too_large(f"{len(payload)} bytes")
                slots[index] = _answer(job, payload, version)
            except Exception as error:  # noqa: BLE001 - see refuse()
                slots[index] = self._refusal(version, job, error, outcome, keys.get(index, ""))
            else:
                outcome.answered += 1
                if job.responds:
                    outcome.responded.add(job.topic)
                elif job.target.unit:
                    outcome.units[job.topic] = job.target.unit
            first += rows

    def _refusal(self, version: LoadedVersion, job: Job, error: Exception, outcome: BatchOutcome, key: str) -> Answer:
        """Count a job that cannot be answered and return the report for the error topic."""
        known = _known(error, job.message)
        return self._told(outcome, version.name, version.version, job.message, known, version.arm, key)

    def _told(
        self,
        outcome: BatchOutcome,
        model: str,
        version: str,
        message: Message,
        error: ApplianceError,
        arm: str = "",
        key: str = "",
    ) -> Answer:
        """Count a bad message, tell the observers and return the report for the error topic."""
        reason = reason_of(error)
        outcome.refused[reason] = outcome.refused.get(reason, 0) + 1
        identifier = message_id(message.topic, message.payload, message.correlation)
        token = request_id.set(identifier)
        outer, trace = trace_context.current(), user_properties.trace(message) if message.user else None
        if trace is not None:
            trace_context.begin_batch({identifier: trace})
        self._predictor.failed(model, version, error, arm=arm, key=key)
        request_id.reset(token)
        trace_context.begin_batch(outer)
        payload = error_payload(error, reason, message.topic, identifier, message.payload, size=message.unread)
        user = trace.fields if trace is not None else ()
        return Answer(self._errors, payload, LOCAL, content_type="application/json", user=user)

    def _response_topic(self, message: Message, subscription: Subscription) -> str:
        """Return where a message wants its answer. Raises BadMessage where it may not have it."""
        if not self._rights.may_respond(message.response, subscription.respond):
            found = f"no answer goes to {message.response[:80]!r}"
            raise BadMessage("answer_topic", "read the Response Topic", found, "name one that `respond` allows")
        return message.response


def _known(error: Exception, message: Message) -> ApplianceError:
    """Return an error as one of ours; a fault goes to the log."""
    if isinstance(error, ApplianceError):
        return error
    log.error("message cannot be answered", exc_info=error, extra={"topic": message.topic})
    found = f"unexpected {type(error).__name__}: {str(error)[:200]}"
    return BadMessage("internal", "answer the message", found, "report it with the log")


def _answer_too_large(found: str) -> BadMessage:
    """Return the error of an answer that cannot be sent."""
    next_step = "send fewer rows in one message, echo less, or have the broker take larger packets"
    return BadMessage("answer_too_large", "send the answer", found, next_step)


def _key(arms: Arms, job: Job) -> str:
    """Return the key by which a job is routed, "" where it has none; what is wrong with it is said when it is run."""
    found = job.key or (job.target.key.of(job.message) if job.target.key else "")
    if found or not arms.column:
        return found
    schema, call = arms.base.schema, job.call
    try:
        if call.tensors is None:
            feeds = feeds_of(schema, call.rows[:1], job.target.fields)
        else:
            feeds = schema.from_tensors(call.tensors)
    except InvalidInput:
        return ""
    return arms.key_of_feeds(feeds)


def _asks_quality(version: LoadedVersion, job: Job) -> bool:
    """Return whether a job's answer is to have the quality of its rows."""
    return job.target.quality or (job.call.quality and "quality" not in version.schema.columns)


def _check_room(version: LoadedVersion, jobs: Sequence[Job]) -> None:
    """Raise BadMessage where the answers of jobs would take too much memory: they are then given by halves."""
    values = sum(math.prod(size for size in output.shape[1:] if size > 0) for output in version.manifest.outputs)
    rows = sum(map(_rows_of, jobs))
    if rows * values > MOST_VALUES:
        raise _answer_too_large(f"it has {rows} rows of {values} values, {MOST_VALUES} values may be")


def _rows_of(job: Job) -> int:
    """Return how many rows a job has."""
    tensors = job.call.tensors
    return len(job.call.rows) if tensors is None else max((len(one) for one in tensors.values()), default=0)


def _groups(jobs: Sequence[Job]) -> list[list[int]]:
    """Return the places of jobs that one run can answer, tensors each alone."""
    groups: list[list[int]] = []
    open_: dict[int, tuple[list[int], int]] = {}
    for index, job in enumerate(jobs):
        if job.call.tensors is not None:
            groups.append([index])
            continue
        group, rows = open_.get(id(job.target), (None, 0))
        if group is None or rows + len(job.call.rows) > ROWS_PER_RUN:
            group, rows = [], 0
            groups.append(group)
        group.append(index)
        open_[id(job.target)] = group, rows + len(job.call.rows)
    return groups


def _feeds(version: LoadedVersion, jobs: Sequence[Job]) -> tuple[Feeds, list[int]]:
    """Return the feeds of jobs together, and how many rows each has. Raises InvalidInput."""
    tensors = jobs[0].call.tensors
    if tensors is not None:
        feeds = version.schema.from_tensors(tensors)
        return feeds, [len(next(iter(feeds.values())))]
    rows = [row for job in jobs for row in job.call.rows]
    return feeds_of(version.schema, rows, jobs[0].target.fields), [len(job.call.rows) for job in jobs]


def _answer(job: Job, payload: bytes, version: LoadedVersion) -> Answer:
    """Return a job's answer."""
    target = job.target
    return Answer(
        job.topic,
        payload,
        LOCAL if job.responds else target.way,
        target.qos,
        target.retain and not job.responds,
        target.expiry,
        target.codec.content_type,
        job.message.correlation,
        version.name,
        version.version,
        user_properties.passed_on(job.message) if job.subscription else (),  # a row is of several messages
    )

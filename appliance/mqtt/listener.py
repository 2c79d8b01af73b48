"""The loop of the MQTT door, in one thread: reads what waits, has it answered and kept, then acknowledges."""

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from appliance import __version__
from appliance.config import MqttConfig
from appliance.errors import ApplianceError, ConfigError
from appliance.mqtt.answering import Answerer
from appliance.mqtt.batch_sizer import BatchSizer
from appliance.mqtt.broker_link import NAMES, BrokerLink
from appliance.mqtt.codec import iso_time
from appliance.mqtt.committer import RETRY_SECONDS, Committer
from appliance.mqtt.discovery import Discovery
from appliance.mqtt.disk import Disk
from appliance.mqtt.flow import Batch, Flow
from appliance.mqtt.folder import OUTBOX, kept_id, only_one, stale_filters
from appliance.mqtt.messages import Message, Session
from appliance.mqtt.outbox import EXPIRED_AT_ONCE, LOCAL, UPSTREAM, Outbox, Stored
from appliance.mqtt.topic_table import TopicTable
from appliance.mqtt_state import MqttState
from appliance.predictor import Predictor
from appliance.store import durable

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.2
"""After which acknowledged answers are deleted when no commit of a batch did it."""
STOP_SECONDS = 2.0
"""For answers on their way to be acknowledged when the service stops; the others are sent again by the next start."""
REPORT_SECONDS = 1.0
PRUNE_SECONDS = 60.0
PAUSE_MESSAGES, PAUSE_BYTES = 4096, 8 * 1024 * 1024
"""Waiting in memory, after which nothing more is read: brokers have sent more than we asked for (mosquitto 2.0.11)."""
MOST_MESSAGES, MOST_BYTES = 16_384, 16 * 1024 * 1024
"""Waiting in memory, after which messages are let go of while nothing can be committed: acknowledgements that may make
room stand behind them. QoS 0 is lost then; the others come again over a new connection."""
_SPLIT = 32  # messages that are worth two commits


class MqttListener:
    """The MQTT door of one service. run() is for a thread of its own; stop() may be called from any."""

    def __init__(
        self,
        config: MqttConfig,
        predictor: Predictor,
        folder: Path,
        *,
        models: Callable[[], list[dict[str, Any]]] = list,
        report: Callable[[MqttState], None] = lambda state: None,
    ) -> None:
        """`folder` keeps the outbox; `models` says for the status what is served; `report` is told every second.

        Raises ConfigError for what cannot be meant, StoreError when the folder cannot be used.
        """
        self._config = config
        self._models = models
        self._report = report
        self._started = time.time()
        with durable.reported(f"make {folder}"):
            durable.make_folder(folder.parent)
            durable.make_folder(folder, within=folder.parent)
        self.client_id = config.client_id or kept_id(folder)
        self._topics = TopicTable(config, self.client_id, way=UPSTREAM if config.upstream.host else LOCAL)
        with contextlib.ExitStack() as undo:  # should the disk be full, the next try must find the folder free
            self._lock = only_one(folder)
            undo.callback(os.close, self._lock)
            self._disk = Disk(folder / OUTBOX)
            undo.callback(self._disk.close)
            self._no_more = stale_filters(self._disk, self._topics.filters())
            undo.pop_all()
        self._outbox = Outbox(
            self._disk, max_bytes=config.outbox_bytes, max_age=config.outbox_seconds, when_full=config.outbox_full
        )
        answerer = Answerer(predictor, self._topics.errors, self._topics.rights)
        self._flow = Flow(config, self._topics, predictor, answerer, self._disk, self._outbox)
        # A pair of sockets, so that stop() and connecting threads can end the loop's wait.
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._links = [self._link(way) for way in ((LOCAL, UPSTREAM) if config.upstream.host else (LOCAL,))]
        self._source = self._links[0]
        self._queue: list[Message] = []
        self._queue_bytes = 0
        self._let_go = False  # whether messages were let go of on this connection
        self._batch_sizer = BatchSizer(config.batch)
        self._committer = Committer(self._flow, self._disk.end, self._kept, self.wake)
        self._unparking = False  # whether there is more of what waited for its model
        self._hindrance = ""  # why nothing can be committed
        self._discovery = (
            Discovery(config.discovery_prefix, self.client_id, self._topics.online) if config.discovery else None
        )
        self._done: dict[str, float] = {}  # what the clock asks for -> when it was done last
        self._stop = threading.Event()

    def run(self) -> None:
        """Answer messages until stop() is called."""
        log.info("mqtt", extra={"broker": self._source.client.address, "client_id": self.client_id})
        while not self._stop.is_set():
            try:
                self._turn()
            except Exception:  # the last boundary of the thread: a fault must not end the door for ever
                log.exception("mqtt failed and goes on")
                self._hindrance = "an unexpected fault; see the log"
                self._restart()
        self._finish()

    def stop(self) -> None:
        """Have run() return soon."""
        self._stop.set()
        self.wake()

    def wake(self) -> None:
        """End the loop's wait."""
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed: it has ended
            self._wake_write.send(b"\0")

    def state(self) -> MqttState:
        """Return the counters and what is wrong, for metrics and health."""
        flow, outbox = self._flow, self._outbox
        return MqttState(
            connected={NAMES[link.way]: link.client.up for link in self._links},
            problems=self._problems(),
            received=flow.received,
            answered=flow.answered,
            refused=dict(flow.refused),
            sent=sum(link.sender.sent for link in self._links),
            replayed=sum(link.sender.replayed for link in self._links),
            dropped=outbox.dropped + flow.dropped,
            waiting=outbox.count - outbox.acknowledged,
            waiting_bytes=outbox.bytes,
            parked=flow.parking.count,
            updated=time.monotonic(),
        )

    # What the links tell.

    def link_up(self, link: BrokerLink, session: Session) -> None:
        """A broker is there: ask for messages, and send what waited for it."""
        if link.way == LOCAL:
            try:
                asks = self._topics.asks(with_identifiers=session.identifiers)
            except ConfigError as error:  # known only now: MQTT 5 without subscription identifiers
                link.client.begin_anew(f"the broker has no subscription identifiers: {error}")
                return
            chosen = {ask.text for ask in asks}
            link.client.unsubscribe([*self._no_more, *(text for text in self._topics.filters() if text not in chosen)])
            link.client.subscribe(asks)
        link.sender.up(session.receive_maximum, time.monotonic())
        self._announce_anew()

    def link_down(self, link: BrokerLink) -> None:
        """A broker is gone: what it sent and we had not acknowledged comes again, so it is let go of here."""
        if link.way == LOCAL:
            self._drop_queue()

    def take(self, message: Message) -> None:
        """A message arrived."""
        if message.topic == self._topics.birth:
            self._announce_anew()
        if self._let_go or len(self._queue) >= MOST_MESSAGES or self._queue_bytes >= MOST_BYTES:
            self._flow.dropped += not message.qos
            self._let_go = self._let_go or bool(message.qos)
            return
        self._queue.append(message)
        self._queue_bytes += message.size

    def _turn(self) -> None:
        """Wait until something is to be done and do all that is."""
        full = len(self._queue) >= PAUSE_MESSAGES or self._queue_bytes >= PAUSE_BYTES
        self._source.client.paused = full and not self._committer.stuck
        readable = self._wait()
        now = time.monotonic()
        for link in self._links:
            link.turn(now, readable=link.client.fileno() in readable)
        for step in (self._committer.collect, self._tend, self._work, self._send):
            try:
                step(now)
            except ApplianceError as error:  # the disk or the quota: nothing was acknowledged, so nothing is lost
                self._hinder(error)

    def _send(self, now: float) -> None:
        """Send what may be sent."""
        for link in self._links:
            link.send(now)

    def _wait(self) -> set[int]:
        """Wait for a socket, a call of wake() or the time of something due; return the sockets that can be read."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        for link in self._links:
            number = link.client.fileno()
            if number >= 0:
                poll.register(number, select.POLLIN * link.client.wants_read | select.POLLOUT * link.client.wants_write)
        found = {number for number, _ in poll.poll(self._patience(time.monotonic()) * 1000)}
        if self._wake_read.fileno() in found:
            with contextlib.suppress(BlockingIOError):
                self._wake_read.recv(4096)
        return found

    def _patience(self, now: float) -> float:
        """Return the seconds for which nothing is due."""
        if any(link.client.has_more for link in self._links) or self._may_answer() or self._may_unpark():
            return 0.0
        waits = [REPORT_SECONDS, self._committer.due(now) - now]
        waits += [link.client.due() - now for link in self._links]
        waits += [link.sender.due(now) - now for link in self._links]
        if self._outbox.acknowledged or self._flow.parking.count:
            waits.append(FLUSH_SECONDS)
        return max(0.0, min(waits))

    def _work(self, now: float) -> None:
        """Answer what is at hand, and have it committed."""
        self._committer.begin(now, beside=bool(self._queue))
        if self._flow.parking.count and self._is_time("unpark", now, FLUSH_SECONDS):
            self._unparking = True
        due = self._committer.room and self._is_time("rows", now, FLUSH_SECONDS)
        if due and (batch := self._flow.timed()):
            self._committer.put(batch)
        elif self._may_unpark():
            batch = self._flow.unpark(self._batch_sizer.size)
            self._unparking = batch is not None
            if batch:
                self._committer.put(batch)
                self._committer.begin(now, beside=False)
        if self._committer.room and (
            given_up := [one for link in self._links for one in link.sender.take_unsendable()]
        ):
            self._committer.put(self._flow.given_up(given_up))
            self._committer.begin(now, beside=False)
        if self._may_answer():
            self._committer.put(self._answered())
            self._committer.begin(now, beside=bool(self._queue))
        if self._let_go and not self._queue and self._committer.idle:
            self._source.client.begin_anew("messages were let go of while nothing could be committed; they come again")

    def _may_answer(self) -> bool:
        """Return whether messages can be answered now: not ahead of the disk while others want to be read from it."""
        ahead = not self._committer.idle
        return bool(self._queue) and self._committer.room and not (ahead and self._unparking) and not self._congested()

    def _may_unpark(self) -> bool:
        """Return whether what waited for its model can be looked at now."""
        return self._unparking and self._committer.idle

    def _answered(self) -> Batch:
        """Answer as many of the messages at hand as the budget lets one batch have.

        Where answering takes longer than a commit, half of them first: the others are answered during its commit, and a
        broker that waits for acknowledgements has some earlier. Where a commit takes longer, two would only take twice.
        """
        waiting = len(self._queue)
        split = waiting >= _SPLIT and self._batch_sizer.seconds(waiting) > self._committer.seconds
        size = min(self._batch_sizer.size, (waiting + 1) // 2 if split else waiting)
        with self._batch_sizer.measure(size):
            batch = self._flow.answer(self._queue[:size])
        del self._queue[: len(batch.messages)]
        self._queue_bytes -= sum(message.size for message in batch.messages)
        return batch

    def _congested(self) -> bool:
        """Return whether messages should wait at their broker, since it takes no more answers now.

        Not while nothing is read: its acknowledgements stand behind what is not, and answers can wait on disk.
        """
        return self._source.sender.congested and not self._source.client.paused

    def _drop_queue(self) -> None:
        """Let go of messages whose connection is gone: they come again."""
        self._queue.clear()
        self._queue_bytes = 0
        self._let_go = False
        self._committer.forget_messages()

    def _kept(self, batch: Batch, stored: list[Stored]) -> None:
        """Acknowledge the messages of a batch that is on disk, and have its answers sent."""
        self._hindrance = ""
        for message in batch.messages:
            self._source.client.acknowledge(message)
        for link in self._links:
            link.sender.add(stored)
        if self._discovery:
            self._discovery.tell(stored, batch.outcome.responded, self._publish_retained)

    def _hinder(self, error: ApplianceError) -> None:
        """Take note of why nothing can be committed."""
        if str(error) != self._hindrance:
            log.error("mqtt waits", extra={"error": str(error)})
        self._hindrance = str(error)

    def _tend(self, now: float) -> None:
        """Do what the clock asks for."""
        if self._is_time("report", now, REPORT_SECONDS):
            self._report(self.state())
        if self._is_time("status", now, self._config.status_seconds):
            self._publish_status()
        if self._committer.busy:
            return
        if self._outbox.acknowledged and self._is_time("flush", now, FLUSH_SECONDS):
            self._outbox.flush()
            self._hindrance = self._hindrance if not self._committer.idle else ""
            if not self._outbox.count:
                self._disk.shrink()
        self._flow.note_clock()
        if self._is_time("prune", now, PRUNE_SECONDS):
            self._flow.prune()
            if self._outbox.expire() >= EXPIRED_AT_ONCE:
                self._done["prune"] = now - PRUNE_SECONDS + FLUSH_SECONDS

    def _is_time(self, name: str, now: float, seconds: float) -> bool:
        """Return whether something was not done for `seconds`; it then is."""
        if now - self._done.get(name, float("-inf")) < seconds:
            return False
        self._done[name] = now
        return True

    def _announce_anew(self) -> None:
        """Have status and discovery published again."""
        self._done.pop("status", None)
        if self._discovery:
            self._discovery.forget()

    def _link(self, way: int) -> BrokerLink:
        """Return the link of one way."""
        return BrokerLink(
            self, way, self._config, self.client_id, self._outbox, online=self._topics.online, wake=self.wake
        )

    def _publish_status(self) -> None:
        """Publish the retained status."""
        state = self.state()
        status = {
            "appliance": __version__,
            "client_id": self.client_id,
            "started": iso_time(self._started),
            "models": self._models(),
            **{key: value for key, value in msgspec.structs.asdict(state).items() if key != "updated"},
        }
        for link in self._links:
            link.client.publish(self._topics.status, msgspec.json.encode(status), qos=0, retain=True)

    def _publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish what the broker is to keep."""
        self._source.client.publish(topic, payload, qos=0, retain=True)

    def _problems(self) -> list[str]:
        """Return what keeps messages from being answered or answers from being sent."""
        found = [f"{link.client.address}: {link.client.problem}" for link in self._links if not link.client.up]
        found += [self._hindrance] if self._hindrance else []
        found += [f"{self._source.client.address} refuses the filter {text!r}" for text in self._source.client.refused]
        found += [problem for link in self._links for problem in link.refusals()]
        if self._flow.parking.count:
            found.append(f"{self._flow.parking.count} messages wait for a model that is not ready")
        found += [f"messages wait for {name!r}, which is subscribed to no more" for name in self._flow.lost()]
        if self._disk.set_aside:
            found.append(f"the outbox was damaged and set aside as {self._disk.set_aside}")
        return found

    def _restart(self) -> None:
        """Begin anew with every broker after a fault: what was not acknowledged comes again."""
        self._drop_queue()
        self._unparking = False
        for link in self._links:
            link.renew()
        while not self._stop.wait(RETRY_SECONDS):
            with contextlib.suppress(ApplianceError):  # the disk; it is tried again
                self._committer.drain()
                self._flow.reload()
                return

    def _finish(self) -> None:
        """Wait shortly for answers on their way, then leave every broker in good order."""
        until = time.monotonic() + STOP_SECONDS
        self._source.client.paused = False
        with contextlib.suppress(ApplianceError):
            self._committer.drain()
            while time.monotonic() < until and any(link.client.up and not link.sender.idle for link in self._links):
                readable = self._wait()
                for link in self._links:
                    link.turn(time.monotonic(), readable=link.client.fileno() in readable)
                    link.send(time.monotonic())
                self._queue.clear()  # unacknowledged, so they come again
            self._outbox.flush()
        for link in self._links:
            link.leave()
        self._committer.close()
        self._disk.close()
        for end in (self._wake_read, self._wake_write):
            end.close()
        os.close(self._lock)

"""The loop of MQTT: reads what waits, has it answered and kept, then acknowledges.

Threads. The loop's thread calls run(); all objects are its own unless they say otherwise. stop() may be called from
any thread, and state() only reads. Two kinds of threads work beside it: `mqtt-connect`, one for each broker
while it connects (client.py), and `mqtt-commit` (committer.py). Both only hand over a result and call wake().

States of a message. Queued: in memory, unanswered. Answered: part of a Batch, which waits for its commit. Begun:
written, not committed. Kept: on disk; only now it is acknowledged, on the connection by which it came. When that
connection ends, the queue is cleared and the batches forget their messages, since the broker sends them again.

States of the loop. Paused: the queue is full, so nothing is read. Stuck: the disk or the quota refuses a commit, which
is tried again every second; the loop reads on then, for acknowledgements that make room. Letting go: the queue has
overflowed; once all that was queued is kept, a new connection brings the rest.

A turn, in this order: wait; connect, read and ping; collect a commit; do what the clock asks for; answer; send.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.config import MqttConfig
from appliance.errors import ApplianceError, ConfigError
from appliance.labels import TakeLabels
from appliance.mqtt.answering import Answerer
from appliance.mqtt.batch_sizer import BatchSizer
from appliance.mqtt.broker_link import BrokerLink
from appliance.mqtt.committer import RETRY_SECONDS, Committer
from appliance.mqtt.disk import Disk
from appliance.mqtt.flow import Batch, Flow
from appliance.mqtt.folder import OUTBOX, kept_id, only_one, stale_filters
from appliance.mqtt.message_queue import MessageQueue
from appliance.mqtt.messages import BrokerSession, Message
from appliance.mqtt.outbox import LOCAL, UPSTREAM, Outbox, Stored
from appliance.mqtt.status import REPORT_SECONDS, StatusReporter
from appliance.mqtt.timers import Timer
from appliance.mqtt.topic_table import TopicTable
from appliance.mqtt.upkeep import FLUSH_SECONDS, Upkeep
from appliance.mqtt.waker import Waker
from appliance.mqtt_state import MqttState
from appliance.predictor import Predictor
from appliance.store import durable

log = logging.getLogger(__name__)

STOP_SECONDS = 2.0
"""For answers on their way to be acknowledged when the service stops; the others are sent again by the next start."""
_SPLIT = 32  # messages that are worth two commits


class MqttListener:
    """MQTT's way in for one service. run() is for a thread of its own; stop() may be called from any."""

    def __init__(
        self,
        config: MqttConfig,
        predictor: Predictor,
        folder: Path,
        *,
        models: Callable[[], list[dict[str, Any]]] = list,
        report: Callable[[MqttState], None] = lambda state: None,
        take_labels: TakeLabels | None = None,
    ) -> None:
        """`folder` keeps the outbox; `models` says for the status what is served; `report` is told every second.

        Raises ConfigError for invalid settings, StoreError when the folder cannot be used.
        """
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
        self._outbox = outbox = Outbox(
            self._disk, max_bytes=config.outbox_bytes, max_age=config.outbox_seconds, when_full=config.outbox_full
        )
        answerer = Answerer(predictor, self._topics.errors, self._topics.rights, take_labels)
        self._flow = Flow(config, self._topics, predictor, answerer, self._disk, outbox)
        self._waker = Waker()
        ways = (LOCAL, UPSTREAM) if config.upstream.host else (LOCAL,)
        online, wake = self._topics.online, self._waker.wake
        self._links = [BrokerLink(self, way, config, self.client_id, outbox, online=online, wake=wake) for way in ways]
        self._source = self._links[0]  # the link that messages come by
        self._queue = MessageQueue()
        self._batch_sizer = BatchSizer(config.batch)
        self._committer = Committer(self._flow, self._disk.end, self._kept, wake)
        self._status = StatusReporter(
            config,
            self.client_id,
            self._topics,
            links=self._links,
            flow=self._flow,
            outbox=outbox,
            disk=self._disk,
            models=models,
            report=report,
        )
        self._upkeep = Upkeep(self._flow, outbox, self._disk)
        self._unparking = False  # whether there is more of what waited for its model
        self._unpark_timer, self._rows_timer = Timer(FLUSH_SECONDS), Timer(FLUSH_SECONDS)
        self._stop = threading.Event()

    def run(self) -> None:
        """Answer messages until stop() is called."""
        log.info("mqtt", extra={"broker": self._source.client.address, "client_id": self.client_id})
        while not self._stop.is_set():
            try:
                self._turn()
            except Exception:  # the outermost handler of the thread: an error must not end the listener
                log.exception("mqtt failed and goes on")
                self._status.hindrance = "an unexpected fault; see the log"
                self._restart()
        self._finish()

    def stop(self) -> None:
        """Make run() return soon."""
        self._stop.set()
        self._waker.wake()

    def state(self) -> MqttState:
        """Return the counters and what is wrong, for metrics and health."""
        return self._status.state()

    # What the links tell, on the loop's thread: from turn() of a link.

    def link_up(self, link: BrokerLink, session: BrokerSession) -> None:
        """Connected: ask for messages, and send what waited for this broker."""
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
        self._status.announce_anew()

    def link_down(self, link: BrokerLink) -> None:
        """Disconnected: the broker sends again what we had not acknowledged, so it is forgotten here."""
        if link.way == LOCAL:
            self._drop_queue()

    def take(self, message: Message) -> None:
        """Queue a message that arrived."""
        if message.topic == self._topics.birth:
            self._status.announce_anew()
        if not self._queue.put(message):
            self._flow.dropped += not message.qos

    # One turn of the loop.

    def _turn(self) -> None:
        """Wait until there is something to do, then do it."""
        self._source.client.paused = self._queue.is_full and not self._committer.stuck
        readable = self._wait()
        now = time.monotonic()
        for link in self._links:
            link.turn(now, readable=link.client.fileno() in readable)
        for step in (self._committer.collect, self._tend, self._work, self._send):
            try:
                step(now)
            except ApplianceError as error:  # the disk or the quota: nothing was acknowledged, so nothing is lost
                self._status.hinder(error)

    def _wait(self) -> set[int]:
        """Wait until something is due or to be read; return the sockets that can be read."""
        return self._waker.wait((link.client for link in self._links), self._patience(time.monotonic()))

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

    def _tend(self, now: float) -> None:
        """Do what is due: the status, rows by the clock, upkeep of the disk."""
        self._status.tend(now)
        if self._committer.busy:  # nothing else may be written until it has ended
            return
        if self._upkeep.flush(now) and self._committer.idle:
            self._status.hindrance = ""
        self._upkeep.prune(now)

    def _work(self, now: float) -> None:
        """Answer the messages that wait, and have the answers committed."""
        self._committer.begin(now, beside=bool(self._queue))
        if self._flow.parking.count and self._unpark_timer.is_due(now):
            self._unparking = True
        due = self._committer.room and self._rows_timer.is_due(now)
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
        if self._queue.let_go and not self._queue and self._committer.idle:
            self._source.client.begin_anew("messages were dropped while nothing could be committed; they come again")

    def _send(self, now: float) -> None:
        """Send what the windows and rates of the brokers allow."""
        for link in self._links:
            link.send(now)

    def _may_answer(self) -> bool:
        """Return whether messages can be answered now: not ahead of the disk while others want to be read from it."""
        ahead = not self._committer.idle
        return bool(self._queue) and self._committer.room and not (ahead and self._unparking) and not self._congested()

    def _may_unpark(self) -> bool:
        """Return whether what waited for its model can be looked at now."""
        return self._unparking and self._committer.idle

    def _congested(self) -> bool:
        """Return whether messages should wait at their broker, since it takes no more answers now.

        Not while nothing is read: its acknowledgements stand behind what is not, and answers can wait on disk.
        """
        return self._source.sender.congested and not self._source.client.paused

    def _answered(self) -> Batch:
        """Answer as many of the messages at hand as the budget lets one batch have.

        Where answering takes longer than a commit, half of them first: the others are answered during its commit, and a
        broker that waits for acknowledgements has some earlier. Where a commit takes longer, two would only take twice.
        """
        waiting = len(self._queue)
        split = waiting >= _SPLIT and self._batch_sizer.seconds(waiting) > self._committer.seconds
        size = min(self._batch_sizer.size, (waiting + 1) // 2 if split else waiting)
        with self._batch_sizer.measure(size):
            batch = self._flow.answer(self._queue.first(size))
        self._queue.remove(batch.messages)
        return batch

    def _kept(self, batch: Batch, stored: list[Stored]) -> None:
        """Acknowledge the messages of a batch that is on disk, and have its answers sent."""
        self._status.hindrance = ""
        for message in batch.messages:
            self._source.client.acknowledge(message)
        for link in self._links:
            link.sender.add(stored)
        self._status.announce(batch, stored)

    def _drop_queue(self) -> None:
        """Forget messages whose connection has ended: the broker sends them again."""
        self._queue.clear()
        self._committer.forget_messages()

    def _restart(self) -> None:
        """Reconnect to every broker after a fault: what was not acknowledged is sent again."""
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
        """Wait shortly for answers on their way, then disconnect from every broker."""
        until = time.monotonic() + STOP_SECONDS
        self._source.client.paused = False
        with contextlib.suppress(ApplianceError):
            self._committer.drain()
            while time.monotonic() < until and any(link.client.up and not link.sender.idle for link in self._links):
                readable = self._wait()
                for link in self._links:
                    link.turn(time.monotonic(), readable=link.client.fileno() in readable)
                    link.send(time.monotonic())
                self._queue.clear()  # not acknowledged, so the broker sends them again
            self._outbox.flush()
        for link in self._links:
            link.leave()
        self._committer.close()
        self._disk.close()
        self._waker.close()
        os.close(self._lock)

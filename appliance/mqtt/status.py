"""What the listener reports of itself: counters and problems, the retained status, announcements for Home Assistant."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from appliance import __version__
from appliance.config import MqttConfig
from appliance.errors import ApplianceError
from appliance.mqtt.broker_link import NAMES, BrokerLink
from appliance.mqtt.codec import iso_time
from appliance.mqtt.discovery import Discovery
from appliance.mqtt.disk import Disk
from appliance.mqtt.flow import Batch, Flow
from appliance.mqtt.outbox import Outbox, Stored
from appliance.mqtt.timers import Timer
from appliance.mqtt.topic_table import TopicTable
from appliance.mqtt_state import MqttState

log = logging.getLogger(__name__)

REPORT_SECONDS = 1.0
"""Between two reports to metrics and health."""


class StatusReporter:
    """Reads what the parts of the listener count. For the loop's thread; state() writes nothing, so any may call it."""

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        topics: TopicTable,
        *,
        links: Sequence[BrokerLink],
        flow: Flow,
        outbox: Outbox,
        disk: Disk,
        models: Callable[[], list[dict[str, Any]]],
        report: Callable[[MqttState], None],
    ) -> None:
        """`models` says what is served; `report` is told the state every second. The first link has our messages."""
        self.hindrance = ""
        """Why nothing can be committed; "" while it can."""
        self._client_id = client_id
        self._topic = topics.status
        self._alarm_topics = {"drift": topics.drift, "quality": topics.quality}
        self._alarms: dict[str, bytes] = {}  # topic -> what was last said there
        self._links = links
        self._source = links[0]
        self._flow = flow
        self._outbox = outbox
        self._disk = disk
        self._models = models
        self._report = report
        self._started = time.time()
        self._discovery = Discovery(config.discovery_prefix, client_id, topics.online) if config.discovery else None
        self._report_timer = Timer(REPORT_SECONDS)
        self._publish_timer = Timer(config.status_seconds)

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

    def tend(self, now: float) -> None:
        """Report and publish the status when their time has come."""
        if self._report_timer.is_due(now):
            self._report(self.state())
        if self._publish_timer.is_due(now):
            self._publish_status()

    def announce_anew(self) -> None:
        """Publish the status and announce every topic to Home Assistant again: subscribers may be new."""
        self._publish_timer.hurry()
        self._alarms.clear()
        if self._discovery:
            self._discovery.forget()

    def announce(self, batch: Batch, stored: Sequence[Stored]) -> None:
        """Tell Home Assistant of the topics of a batch's answers, but not of Response Topics."""
        if self._discovery:
            self._discovery.tell(stored, batch.outcome.responded, batch.outcome.units, self._publish_retained)

    def hinder(self, error: ApplianceError) -> None:
        """Store and log why nothing can be committed."""
        if str(error) != self.hindrance:
            log.error("MQTT is paused", extra={"error": str(error)})
        self.hindrance = str(error)

    def _publish_status(self) -> None:
        """Publish the retained status."""
        state, models = self.state(), self._models()
        self._publish_alarms(models)
        status = {
            "appliance": __version__,
            "client_id": self._client_id,
            "started": iso_time(self._started),
            "models": models,
            **{key: value for key, value in msgspec.structs.asdict(state).items() if key != "updated"},
        }
        self._publish_everywhere(self._topic, msgspec.json.encode(status))

    def _publish_alarms(self, models: list[dict[str, Any]]) -> None:
        """Publish each model's drift and quality, retained, where it has changed; and that it is gone with it."""
        alarms = {
            f"{topic}/{one['model']}": _alarm(one, kind)
            for kind, topic in self._alarm_topics.items()
            for one in models
            if kind in one
        }
        for topic in self._alarms.keys() - alarms.keys():
            self._publish_everywhere(topic, b"")
        for topic, payload in alarms.items():
            if self._alarms.get(topic) != payload:
                self._publish_everywhere(topic, payload)
        self._alarms = alarms

    def _publish_everywhere(self, topic: str, payload: bytes) -> None:
        """Publish a retained message to every broker."""
        for link in self._links:
            link.client.publish(topic, payload, qos=0, retain=True)

    def _publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish a retained message."""
        self._source.client.publish(topic, payload, qos=0, retain=True)

    def _problems(self) -> list[str]:
        """Return what keeps messages from being answered or answers from being sent."""
        found = [f"{link.client.address}: {link.client.problem}" for link in self._links if not link.client.up]
        found += [self.hindrance] if self.hindrance else []
        found += [f"{self._source.client.address} refuses the filter {text!r}" for text in self._source.client.refused]
        found += [problem for link in self._links for problem in link.refusals()]
        if self._flow.parking.count:
            found.append(f"{self._flow.parking.count} messages wait for a model that is not ready")
        found += [f"messages wait for {name!r}, which is no longer subscribed to" for name in self._flow.lost()]
        if self._disk.set_aside:
            found.append(f"the outbox was damaged and set aside as {self._disk.set_aside}")
        return found


def _alarm(model: dict[str, Any], kind: str) -> bytes:
    """Return what is said of a model's drift, or quality."""
    return msgspec.json.encode({"model": model["model"], "version": model["version"], **model[kind]})

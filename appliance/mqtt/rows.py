"""Rows put together from several topics: each key's last values, kept on disk, and when a row is complete."""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from appliance.config import FeedConfig
from appliance.errors import InvalidInput
from appliance.inference.values import kind_of
from appliance.mqtt.answering import Job
from appliance.mqtt.bad_message import BadMessage, too_large
from appliance.mqtt.codec import Call, at_path, is_absent, json_document, number_of, text_of
from appliance.mqtt.disk import Disk, Write
from appliance.mqtt.messages import Message
from appliance.mqtt.topic_table import RowRecipe
from appliance.mqtt.windows import Value, Window, is_number

_INSERT = "insert into observations (rows, key, feed, at, value) values (?, ?, ?, ?, ?)"
_PRUNE = "delete from observations where rows = ? and key = ? and feed = ? and at < ?"
_PREDICTED = ""  # the feed under which the time of the last prediction is kept
_PREDICTED_BEFORE = "delete from observations where rows = ? and key = ? and feed = ?"
_FORGET = "delete from observations where rows = ? and key = ?"

_OF_TEXTS = {"last", "count"}  # what can be told of texts, too

LONGEST_VALUE = 1024
"""Characters of a text in a window: each of its values stays in memory and on disk."""

Key = tuple[str, ...]


@dataclass(slots=True)
class _Device:
    """What is known under one key."""

    topic: str
    """Where its answers go."""
    windows: list[Window]
    fresh: set[int] = field(default_factory=set)
    """Feeds with a value since the last prediction."""
    predicted: float = 0.0
    """The moment of the last prediction."""


class RowBuilder:
    """The state of one `[[mqtt.rows]]`."""

    def __init__(self, rows: RowRecipe, disk: Disk, *, max_bytes: int, since: float = float("-inf")) -> None:
        """Read what was kept after the moment `since`. `max_bytes` of a payload. Raises StoreError."""
        self._max_bytes = max_bytes
        self._rows = rows
        self._config = rows.config
        self._names = rows.feeds[0].names
        self._devices: OrderedDict[Key, _Device] = OrderedDict()  # the one that was silent longest first
        self._writes: list[Write] = []
        self._load(disk, since)

    def observe(self, feed: int, key: dict[str, str], message: Message, now: float) -> Job | None:
        """Take a message and return the row that it completes, if any. Raises InvalidInput.

        `now` is the moment of its arrival by the Clock.
        """
        value = self._value(self._config.feeds[feed], message)
        place = tuple(key[name] for name in self._names)
        device = self._device(place)
        latest = device.windows[feed].latest
        if message.retain and latest and latest[1] == value:
            return None  # kept by the broker since who knows when: nothing new, and no younger than it was
        device.windows[feed].add(now, value)
        device.fresh.add(feed)
        self._devices.move_to_end(place)
        topic = self._config.feeds[feed].topic
        self._writes.append((_INSERT, [(self._config.name, _text(place), topic, now, _encode(value))]))
        self._forget_silent()
        if self._config.when == "every" or (
            self._config.when == "complete" and len(device.fresh) < len(device.windows)
        ):
            return None
        return self._job(place, device, now)

    def timed(self, now: float) -> Iterator[Job]:
        """Yield the rows that are due."""
        if self._config.when != "every":
            return
        for place, device in self._devices.items():
            if device.fresh and now - device.predicted >= self._config.seconds:
                job = self._job(place, device, now)
                if job:
                    yield job

    def writes(self) -> list[Write]:
        """Return what the next commit must write, and forget it."""
        writes, self._writes = self._writes, []
        return writes

    def prune(self, now: float) -> list[Write]:
        """Return the statements that delete what no window holds any more."""
        gone: list[tuple[str, str, str, float]] = []
        for place, device in self._devices.items():
            for feed, window in zip(self._config.feeds, device.windows, strict=True):
                window.age(now)
                first = now if window.first is None else window.first
                gone.append((self._config.name, _text(place), feed.topic, first))
        return [(_PRUNE, gone)] if gone else []

    def _job(self, place: Key, device: _Device, now: float) -> Job | None:
        """Return the row of a key as it is now; None where every value, or for `complete` any, is too old."""
        row: dict[str, Any] = {}
        digest = hashlib.blake2b(f"{self._config.name}\0{_text(place)}".encode(), digest_size=16)
        good = 0
        for window, feed in zip(device.windows, self._config.feeds, strict=True):
            window.age(now)
            latest = window.latest
            if latest is None or now - latest[0] > self._config.max_age:
                continue
            good += 1
            digest.update(repr(latest).encode())
            row |= {column: window.tell(statistic) for column, statistic in feed.columns.items()}
        if not good or (self._config.when == "complete" and good < len(device.windows)):
            return None
        device.fresh.clear()
        device.predicted = now
        row_of = (self._config.name, _text(place), _PREDICTED)
        self._writes += [(_PREDICTED_BEFORE, [row_of]), (_INSERT, [(*row_of, now, b"")])]
        call = Call(digest.hexdigest(), [row], echo=self._named(place))
        message = Message(device.topic, _encode(row), qos=0)
        return Job(self._rows.target, message, call, device.topic, partial=True, key="/".join(place))

    def _value(self, feed: FeedConfig, message: Message) -> Value:
        """Return the value that a message bears, a number as float. Raises BadMessage."""
        if len(message.payload) > self._max_bytes:
            raise too_large(len(message.payload), self._max_bytes)
        needs_number = bool(set(feed.columns.values()) - _OF_TEXTS)
        document = json_document(message.payload) if feed.path else _alone(message.payload, needs_number=needs_number)
        value = at_path(document, feed.path) if feed.path else document
        if is_absent(value):
            raise BadMessage("field", "read the payload", f"there is no {feed.path!r}", "send the value there")
        if isinstance(value, float) and math.isnan(value):
            value = None  # as everywhere: a missing value
        if not isinstance(value, (bool, int, float, str)):
            raise BadMessage("form", "read the value", f"it is {kind_of(value)}", "send one number or text")
        if isinstance(value, int) and not is_number(value):
            raise BadMessage("form", "read the value", "no float64 holds it", "send a smaller number")
        if needs_number and not is_number(value):
            raise BadMessage("form", "read the value", f"it is {str(value)[:40]!r}", "send a number")
        if isinstance(value, str) and len(value) > LONGEST_VALUE:
            found = f"its value has {len(value)} characters, {LONGEST_VALUE} may be"
            raise BadMessage("too_large", "read the value", found, "send a short text")
        return float(value) if type(value) is int else value

    def _device(self, place: Key) -> _Device:
        """Return the device of a key, made when first needed."""
        if place not in self._devices:
            windows = [Window(values=feed.values, seconds=feed.seconds) for feed in self._config.feeds]
            try:
                topic = self._rows.template.render(self._named(place), self._rows.guard)
            except InvalidInput as error:
                raise BadMessage("answer_topic", error.tried, error.found, error.next_step) from error
            self._devices[place] = _Device(topic, windows)
        return self._devices[place]

    def _named(self, place: Key) -> dict[str, str]:
        """Return a key by its names."""
        return dict(zip(self._names, place, strict=True))

    def _load(self, disk: Disk, since: float) -> None:
        """Read what was kept for the feeds that there still are, but for values whose age nobody knows."""
        feeds = {feed.topic: index for index, feed in enumerate(self._config.feeds)}
        query = "select key, feed, at, value from observations not indexed where rows = ? order by seq"
        for key, feed, at, value in disk.read(query, (self._config.name,)):
            place = tuple(msgspec.json.decode(key, type=list[str]))
            if len(place) != len(self._names) or at <= since:
                continue
            if feed == _PREDICTED:
                self._device(place).predicted = at
            elif feed in feeds:
                self._device(place).windows[feeds[feed]].add(at, json_document(value))
                self._devices.move_to_end(place)
        for device in self._devices.values():
            latest = [window.latest for window in device.windows]
            device.fresh = {place for place, last in enumerate(latest) if last and last[0] > device.predicted}
        self._forget_silent()

    def _forget_silent(self) -> None:
        """Drop the keys that were silent longest, beyond the allowed number."""
        while len(self._devices) > self._config.max_keys:
            place, _ = self._devices.popitem(last=False)
            self._writes.append((_FORGET, [(self._config.name, _text(place))]))


def _alone(payload: bytes, *, needs_number: bool) -> Any:
    """Return the value that is a whole payload: JSON, else a number in other spellings, else a text. Raises BadMessage.

    -inf and nan are numbers as everywhere; .5, +5 and 05 may be texts where no number is needed.
    """
    try:
        return json_document(payload)
    except BadMessage:
        text = text_of(payload)
    number = number_of(text)
    return text if number is None or not (needs_number or not math.isfinite(number)) else number


def _encode(value: Any) -> bytes:
    """Return a value as JSON, infinity too."""
    if isinstance(value, float) and math.isinf(value):
        return b"Infinity" if value > 0 else b"-Infinity"
    return msgspec.json.encode(value)


def _text(place: Key) -> str:
    """Return a key as the database has it."""
    return msgspec.json.encode(place).decode()

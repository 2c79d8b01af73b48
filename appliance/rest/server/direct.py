"""Answers a small request as soon as it is read, without the objects that waitress makes of each one.

Only a request that is like one before: its head has the same bytes, it came whole in one piece, its path may be
answered on the loop's thread, and nothing of its connection waits. Any other takes the long way, through waitress'
parser and task, and so does the first one with each head. The answer is the same to the byte. Measured (see
benchmarks/): on the long way a small prediction takes half as much processor time again.

All of it is for the loop's thread.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from appliance.rest.http_types import Environ, Response
from appliance.rest.server.dispatcher import Dispatcher
from appliance.rest.server.group import MOST, SMALL_BODY, Key, Together
from appliance.rest.server.header_cache import CachedHead, HeaderCache
from appliance.rest.server.tasks import head_of

if TYPE_CHECKING:
    from appliance.rest.server.channel import Channel

Answer = Callable[[Environ, bytes], Response]
"""(WSGI environment, without what differs between two requests of one head; body) -> answer. Raises nothing."""


class Direct:
    """What answers directly, for all connections of a server."""

    def __init__(
        self, answer: Answer, dispatcher: Dispatcher, cache: HeaderCache, together: Together | None = None
    ) -> None:
        self._answer = answer
        self._dispatcher = dispatcher
        self._cache = cache
        self._together = together
        self._waiting: dict[Channel, tuple[CachedHead, bytes]] = {}
        """Read in this turn of the loop, and answered together at its end, see flush()."""

    def take(self, channel: "Channel", data: bytes) -> bool:
        """Answer the one request that `data` is; return False, with nothing done, where it takes the long way."""
        if self._waiting and channel in self._waiting:
            self.flush()  # its answers keep their order
        if channel.requests or channel.request or channel.total_outbufs_len or channel.unread:
            return False  # no thread works for a connection that has none of these
        if channel.will_close or channel.close_when_flushed:
            return False
        end = data.find(b"\r\n\r\n") + 4
        head = self._cache.known(data[:end])
        if head is None or head.environ is None or len(data) - end != head.length:
            return False
        if head.direct is None:
            head.direct = self._may(head)
        if not head.direct or channel.server.stopping:
            return False
        path = head.fields["path"]
        if self._dispatcher.is_slow(path):
            return False
        if self._together is not None and self._together.shares_runs(path):
            self._waiting[channel] = head, data[end:]
            channel.unchanged = True
            return True
        begun = self._dispatcher.begins()
        answer = self._answer(head.environ, data[end:])
        channel.send_answer(self._head(channel, head, answer), answer.body)
        channel.last_active = self._dispatcher.took(path, begun)
        return True

    def flush(self) -> None:
        """Answer what waits: at the end of a turn of the loop, which has read whatever had come by then."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        groups: dict[Key, list[Channel]] = {}
        for channel, (head, _) in waiting.items():
            if channel.connected:
                key = head.fields["path"], head.fields["headers"].get("AUTHORIZATION")
                groups.setdefault(key, []).append(channel)
        for (path, _), channels in groups.items():
            for first in range(0, len(channels), MOST):
                self._answer_group(path, {channel: waiting[channel] for channel in channels[first : first + MOST]})

    def _answer_group(self, path: str, waiting: "dict[Channel, tuple[CachedHead, bytes]]") -> None:
        """Answer requests to one path."""
        begun = self._dispatcher.begins()
        assert self._together is not None  # noqa: S101 - else none waits
        sent = [(head.environ or {}, content) for head, content in waiting.values()]
        answers = [self._answer(*sent[0])] if len(sent) == 1 else self._together.answer(sent)
        for (channel, (head, _)), answer in zip(waiting.items(), answers, strict=True):
            channel.send_answer(self._head(channel, head, answer), answer.body)
            channel.last_active, channel.unchanged = time.monotonic(), False
        self._dispatcher.took(path, begun)

    def _may(self, head: CachedHead) -> bool:
        """Return whether requests with a head are answered directly, as far as the head alone says."""
        said = head.fields
        return (
            said["command"] == "POST"
            and said["version"] == "1.1"
            and 0 < head.length <= SMALL_BODY
            and not said["headers"].keys() & {"CONNECTION", "CONTENT_ENCODING"}
            and self._dispatcher.is_small(said["path"])
        )

    def _head(self, channel: "Channel", head: CachedHead, answer: Response) -> bytes:
        """Return the bytes of an answer's head, made once a second."""
        key = answer.status, answer.content_type, len(answer.body), answer.headers
        now = time.time()
        return self._cache.written(key, int(now), head_of, channel, head, answer, now)

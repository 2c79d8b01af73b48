"""Which thread answers a request: the loop's own, one of a few, or the one for requests that only read.

Measured (see benchmarks/): most of a small request's time in stock waitress is the hand-off to a thread, so small
prediction requests run where they were read, on the loop's own thread; everything else goes to the threads.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from waitress.task import ThreadedTaskDispatcher

from appliance.errors import Overloaded
from appliance.rest.server.framing import Parser
from appliance.rest.server.group import MOST, SMALL_BODY, Group, Together, key_of
from appliance.rest.server.tasks import Refusal

SLOW_SECONDS = 0.005
"""Of processor time: two requests that take more on the loop send their path to the threads for a while."""
MARK_SECONDS = 0.005
"""Between two looks at the loop's processor time: on a busy host each takes microseconds, more than a small request's
own parts.
"""
SLOW_MEMORY = 10.0
"""Seconds within which both must occur, and for which the path then stays with the threads."""
OTHERS_FIRST = 4
"""Requests of other clients answered between two of clients that pipeline many."""
UNSENT = 64 * 1024
"""Bytes of answers in a connection beyond which its next request waits until the client has read."""


class Waiting(Protocol):
    """A connection whose first request is whole: what the dispatcher knows of channel.py's Channel."""

    requests: list[Any]
    """Not answered yet, in their order."""
    unread: bytes
    """What was received behind them."""
    behind: int
    """Requests answered since the client last waited for an answer."""
    parked: bool
    """Whether the next request waits until the client has read the answers before it."""
    total_outbufs_len: int
    """Bytes of answers that are unsent."""
    connected: bool
    server: Any
    task_class: Any

    def service(self) -> None:
        """Answer the first request."""

    def cancel(self) -> None:
        """End the connection without an answer."""

    def handle_write(self) -> None:
        """Send what is unsent."""


class Turns:
    """The channels whose request waits for a thread; every call needs the lock of the threads.

    Those whose client waits for this answer come before those that have sent many requests ahead of it; of these, one
    is answered after every few others.
    """

    def __init__(self, together: Together | None = None) -> None:
        self._together = together
        self._first: deque[Waiting] = deque()
        self._behind: deque[Waiting] = deque()
        self._turns = 0

    def __len__(self) -> int:
        return len(self._first) + len(self._behind)

    def append(self, channel: Waiting) -> None:
        """Let a channel wait."""
        (self._behind if channel.behind else self._first).append(channel)

    def popleft(self) -> "Waiting | Group":
        """Return the channel whose turn it is, with those that are answered together with it."""
        self._turns += 1
        behind = self._behind and (not self._first or self._turns % OTHERS_FIRST == 0)
        channel = (self._behind if behind else self._first).popleft()
        others = self._alike(channel)
        return Group(self._together, [channel, *others]) if self._together and others else channel

    def _alike(self, channel: Waiting) -> list[Waiting]:
        """Take out those whose request is answered together with a channel's, in the order of their turns."""
        if self._together is None or not len(self):
            return []
        key = key_of(self._together, channel.requests[0])
        if key is None:
            return []
        found: list[Waiting] = []
        for queue in (self._first, self._behind):
            for _ in range(len(queue)):
                one = queue.popleft()
                alike = len(found) < MOST - 1 and key_of(self._together, one.requests[0]) == key
                (found if alike else queue).append(one)
        return found

    def give_way(self, channel: Waiting) -> Waiting:
        """Return the channel to refuse when there is no room for `channel`: the one whose client has pipelined most."""
        greedy = max((*self._first, *self._behind, channel), key=_ahead)
        if _ahead(greedy) <= _ahead(channel):
            return channel
        (self._behind if greedy in self._behind else self._first).remove(greedy)
        return greedy


def _ahead(channel: Waiting) -> int:
    """Return how many requests a client has sent without waiting for their answers."""
    return channel.behind + len(channel.requests) + bool(channel.unread)


class Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress has no types
    """Runs small requests on the loop's thread and hands the others to threads, up to a number.

    Requests that only read (health, metrics, status) have a thread of their own: a probe must not wait behind large
    predictions.
    """

    def __init__(
        self, threads: int, max_waiting: int, is_small: Callable[[str], bool], together: Together | None = None
    ) -> None:
        super().__init__()
        self.queue = Turns(together)
        self.loop_thread = 0
        self.ready: deque[Waiting] = deque()
        self._max_waiting = max_waiting
        self.is_small = is_small
        """Whether requests to a path may run on the loop."""
        self._slow: dict[str, float] = {}
        """Path -> monotonic time until which it stays with the threads."""
        self._suspected: dict[str, float] = {}
        """Path -> monotonic time until which one more slow request shows that the first was no accident."""
        self._marked = self._used = 0.0
        """When the loop's processor time was last taken (monotonic), and what it was."""
        self.set_thread_count(threads)
        self._readers = ThreadedTaskDispatcher()
        self._readers.queue = Turns()
        self._readers.set_thread_count(1)

    def add_task(self, task: Waiting) -> None:
        """Take a channel whose first request is complete."""
        request = task.requests[0]
        if task.total_outbufs_len >= UNSENT:
            task.parked = True  # handle_write goes on with it: no thread waits for a client that does not read
            task.server.pull_trigger()
            return
        if self.on_loop() and (request.error or self._runs_here(request)):
            self.ready.append(task)
            return
        threads = self._readers if _only_reads(request) else self
        refused: Waiting | None = None
        with threads.lock:
            if len(threads.queue) + threads.active_count >= self._max_waiting:
                refused = threads.queue.give_way(task)
            if refused is not task:
                threads.queue.append(task)
                threads.queue_cv.notify()
        if refused:
            found = f"{self._max_waiting} requests run or wait already"
            refused.requests[0].error = Refusal(Overloaded("take the request", found, "try again in a second"))
            self.ready.append(refused)
            task.server.pull_trigger()

    def on_loop(self) -> bool:
        """Return whether the caller is the loop's thread."""
        return threading.get_ident() == self.loop_thread

    def busy(self) -> bool:
        """Return whether a request runs or waits in a thread."""
        return bool(self.ready) or any(threads.queue or threads.active_count for threads in (self, self._readers))

    def half_full(self) -> bool:
        """Return whether half of the allowed requests run or wait: then extra work has no time."""
        waiting: int = len(self.queue) + self.active_count
        return 2 * waiting >= self._max_waiting

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        """End all threads, and wait for them up to `timeout` seconds; those that still run end with the process."""
        deadline = time.monotonic() + timeout
        ended = True
        for threads in (self._readers, self):
            threads.set_thread_count(0)
        for threads in (self._readers, self):
            with threads.lock:
                left = partial(len, threads.threads)
                ended &= threads.thread_exit_cv.wait_for(lambda left=left: not left(), deadline - time.monotonic())
                while cancel_pending and threads.queue:
                    threads.queue.popleft().cancel()
        return ended

    def run_ready(self) -> None:
        """Answer what was put aside for the loop's thread; called there, when no lock is held.

        One request of each connection: with the next ones, the other connections have their turn.
        """
        for _ in range(len(self.ready)):
            channel = self.ready.popleft()
            path = getattr(channel.requests[0], "path", "")
            begun = self.begins()
            channel.service()
            self.took(path, begun)
            if channel.connected:
                channel.handle_write()  # immediately: the next turn of the loop would cost a poll

    def begins(self) -> float:
        """Return the monotonic time at which a request begins to run on the loop."""
        now = time.monotonic()
        if now - self._marked > MARK_SECONDS:
            self._marked, self._used = now, time.thread_time()
        return now

    def took(self, path: str, begun: float) -> float:
        """Take note of a request that ran on the loop and has ended; return the monotonic time.

        Where other programs hold the cores, every request looks slow by the clock: the thread's own time tells, less
        what it can have used between the mark and the request's begin.
        """
        now = time.monotonic()
        if now - begun > SLOW_SECONDS:
            used = time.thread_time()
            if used - self._used - (begun - self._marked) > SLOW_SECONDS:
                self._was_slow(path)
            self._marked, self._used = now, used
        return now

    def is_slow(self, path: str) -> bool:
        """Return whether a path stays with the threads for now."""
        return bool(self._slow) and self._slow.get(path, 0.0) >= time.monotonic()

    def _was_slow(self, path: str) -> None:
        """Send a path to the threads when it was slow before: once, a garbage collection or a first page is enough."""
        now = time.monotonic()
        self._slow = {old: until for old, until in self._slow.items() if until > now}
        self._suspected = {old: until for old, until in self._suspected.items() if until > now}
        (self._slow if path in self._suspected else self._suspected)[path] = now + SLOW_MEMORY

    def _runs_here(self, request: Parser) -> bool:
        """Return whether a request is quick; a compressed body may be much larger than it looks."""
        return (
            request.content_length <= SMALL_BODY
            and not request.chunked
            and "CONTENT_ENCODING" not in request.headers
            and self.is_small(request.path)
            and not self.is_slow(request.path)
        )


def _only_reads(request: Parser) -> bool:
    """Return whether a request changes nothing, loads no version and runs nothing but a self-test."""
    return getattr(request, "command", "") in ("GET", "HEAD") and "/versions/" not in request.path

"""waitress, tuned for small answers, with limits for slow, large and many requests.

Measured (see benchmarks/): most of a small request's time in stock waitress is the hand-off to a thread, so small
prediction requests run where they were read, on the loop's own thread; everything else goes to the threads.
"""

import contextlib
import logging
import resource
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask

from appliance.config import HttpConfig
from appliance.errors import ApplianceError, InvalidInput, Overloaded, TooLarge
from appliance.rest.framing import Parser
from appliance.rest.problems import REASONS, form_for, status_of
from appliance.rest.shares import YIELD_SECONDS, Share

SMALL_BODY = 16 * 1024
"""Bytes; a larger prediction request goes to the threads."""
SLOW_SECONDS = 0.005
"""Of processor time: a request that takes more on the loop sends its path to the threads for a while."""
SLOW_MEMORY = 10.0
"""Seconds for which a path stays with the threads."""
LINGER_SECONDS = 2.0
"""After an error answer, so that the client can read it before its unread body resets the connection."""
UNSENT = 64 * 1024
"""Bytes of answers in a connection beyond which its next request waits until the client has read."""
SPARE_FILES = 64
"""Of those that the process may open, kept for models, logs and the store."""

log = logging.getLogger(__name__)

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Any]


class SlowRequest(InvalidInput):
    """A request that did not arrive in time."""

    status = 408


class _Refusal:
    """An error in waitress' shape: what an ErrorTask asks of `request.error`."""

    def __init__(self, error: ApplianceError) -> None:
        self.error = error


class _Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress has no types
    """Runs small requests on the loop's thread and hands the others to threads, up to a number.

    What only looks (health, metrics, status) has a thread of its own: a probe must not wait behind large predictions.
    """

    def __init__(self, threads: int, max_waiting: int, is_small: Callable[[str], bool]) -> None:
        super().__init__()
        self.loop_thread = 0
        self.ready: deque[_Channel] = deque()
        self._max_waiting = max_waiting
        self._is_small = is_small
        self._slow: dict[str, float] = {}
        self.set_thread_count(threads)
        self._looks = ThreadedTaskDispatcher()
        self._looks.set_thread_count(1)

    def add_task(self, task: "_Channel") -> None:
        """Take a channel whose first request is complete."""
        request = task.requests[0]
        if task.total_outbufs_len >= UNSENT:
            task.parked = True  # handle_write goes on with it: no thread waits for a client that does not read
            task.server.pull_trigger()
            return
        if self.on_loop() and (request.error or self._runs_here(request)):
            self.ready.append(task)
            return
        threads = self._looks if _only_looks(request) else self
        with threads.lock:
            if len(threads.queue) + threads.active_count < self._max_waiting:
                threads.queue.append(task)
                threads.queue_cv.notify()
                return
        request.error = _Refusal(
            Overloaded("take the request", f"{self._max_waiting} requests run or wait already", "try again in a second")
        )
        self.ready.append(task)

    def on_loop(self) -> bool:
        """Return whether the caller is the loop's thread."""
        return threading.get_ident() == self.loop_thread

    def busy(self) -> bool:
        """Return whether a request runs or waits in a thread."""
        return bool(self.ready) or any(threads.queue or threads.active_count for threads in (self, self._looks))

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        """End all threads."""
        self._looks.shutdown(cancel_pending, timeout)
        return bool(super().shutdown(cancel_pending, timeout))

    def run_ready(self) -> None:
        """Answer what was put aside for the loop's thread; called there, when no lock is held.

        One request of each connection: with the next ones, the other connections have their turn.
        """
        for _ in range(len(self.ready)):
            channel = self.ready.popleft()
            path = getattr(channel.requests[0], "path", "")
            # Of this thread's own time: where other programs hold the cores, every request looks slow by the clock.
            started = time.thread_time()
            channel.service()
            if time.thread_time() - started > SLOW_SECONDS:
                now = time.monotonic()
                self._slow = {old: until for old, until in self._slow.items() if until > now}
                self._slow[path] = now + SLOW_MEMORY
            if channel.connected:
                channel.handle_write()  # at once: the next turn of the loop would cost a poll

    def _runs_here(self, request: Parser) -> bool:
        """Return whether a request is quick; a compressed body may be much larger than it looks."""
        return (
            request.content_length <= SMALL_BODY
            and not request.chunked
            and "CONTENT_ENCODING" not in request.headers
            and self._is_small(request.path)
            and self._slow.get(request.path, 0.0) < time.monotonic()
        )


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    """Answers an error of waitress or of ours in the words of the path's protocol."""

    def execute(self) -> None:
        """Write the answer and close the connection after it."""
        error = self.request.error
        if isinstance(error, _Refusal):
            found, status = error.error, status_of(error.error)
        else:
            found, status = _translated(error), error.code
        answer = form_for(getattr(self.request, "path", ""))(status, found)
        self.status = f"{status} {REASONS.get(status, 'Error')}"
        self.response_headers.append(("Content-Type", answer.content_type))
        self.response_headers.extend(answer.headers)
        self.set_close_on_finish()
        self.channel.lingers = True
        self.content_length = len(answer.body)
        self.write(answer.body)


class _Task(WSGITask):  # type: ignore[misc]
    """A request to the application; the last one of its connection while the service stops."""

    def build_response_header(self) -> bytes:
        """Return the head of the answer."""
        if self.channel.server.stopping:
            self.set_close_on_finish()
        head: bytes = super().build_response_header()
        return head


class _Channel(HTTPChannel):  # type: ignore[misc]
    """One connection, with a deadline for each request and a lingering close after an error answer."""

    request: Any
    parser_class = Parser
    task_class = _Task
    error_task_class = _ErrorTask
    request_started = 0.0
    """Unix time of the first byte of a request that has not arrived whole; 0 when there is none."""
    parked = False
    """Whether the next request waits until the client has read the answers before it."""
    lingers = False
    linger_until = 0.0

    def received(self, data: bytes) -> bool:
        """Take bytes and answer at once what can be."""
        taken: bool = super().received(data)
        if self.request is None:
            self.request_started = 0.0
        elif not self.request_started:
            self.request_started = time.time()
        self.server.task_dispatcher.run_ready()
        return taken

    def readable(self) -> bool:
        """Return whether the loop should read from the connection."""
        return bool(self.linger_until) or bool(super().readable())

    def writable(self) -> bool:
        """Return whether the loop should write to the connection."""
        return not self.linger_until and (self.parked or bool(super().writable()))

    def handle_write(self) -> None:
        """Send, and go on with a request that waited for it."""
        if not self.parked:
            super().handle_write()
            return
        self._flush_exception(self._flush_some)
        if self.will_close:
            self.handle_close()
        elif self.connected and self.total_outbufs_len < UNSENT:
            self.parked = False
            with self.requests_lock:
                if self.requests:
                    self.server.add_task(self)

    def _flush_outbufs_below_high_watermark(self) -> None:
        """Never wait, as waitress would in the thread: a request begins when little is unsent, see UNSENT."""

    def handle_read(self) -> None:
        """Read, and while lingering throw away."""
        if not self.linger_until:
            super().handle_read()
        elif time.time() > self.linger_until:
            super().handle_close()
        else:
            self.recv(self.adj.recv_bytes)  # at the end of the stream this calls handle_close

    def handle_close(self) -> None:
        """Close; after an error answer, end only our direction first and wait for the client to end its own."""
        if self.lingers and self.connected and not self.linger_until:
            self.linger_until = time.time() + LINGER_SECONDS
            self.will_close = self.close_when_flushed = False
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:  # the client is gone already
                super().handle_close()
            return
        super().handle_close()

    def time_out(self, now: float, request_timeout: float) -> None:
        """End a connection that lingers, sends or reads too slowly."""
        if self.linger_until:
            if now > self.linger_until:
                self.handle_close()
        elif self.request_started and now - self.request_started > request_timeout:
            self._refuse_slow(request_timeout)
        elif self.total_outbufs_len and now - self.last_activity > request_timeout:
            super().handle_close()  # the client does not read its answer, so no event would ever come

    def _refuse_slow(self, request_timeout: float) -> None:
        """Answer 408 to the request that is still arriving."""
        with self.requests_lock:
            request, self.request, self.request_started = self.request, None, 0.0
            if request is None or self.requests:
                self.will_close = True
                return
            found = f"it did not arrive within {request_timeout:g} seconds"
            request.error = _Refusal(SlowRequest("read the request", found, "send it faster"))
            if not request.headers_finished:
                request.parse_header(b"GET / HTTP/1.0\r\n")
            self.requests.append(request)
            self.server.task_dispatcher.ready.append(self)


class Server(TcpWSGIServer):  # type: ignore[misc]
    """Serves a WSGI application on sockets that are bound already, until stop() is called."""

    channel_class = _Channel
    stopping = False
    share: Share | None = None
    yields_until = 0.0
    """Monotonic time until which a new connection is left to a process that holds fewer."""

    def handle_accept(self) -> None:
        """Take a new connection, or leave it for a moment to a process that holds fewer."""
        now = time.monotonic()
        if self.share and self.share.is_over() and now > self.yields_until + YIELD_SECONDS:
            self.yields_until = now + YIELD_SECONDS
            return
        self.yields_until = 0.0
        super().handle_accept()

    def readable(self) -> bool:
        """Return whether to accept a connection; for the last one, the one that was silent longest makes room."""
        if self.share:
            self.share.hold(len(self.active_channels))
            if self.yields_until > time.monotonic():
                return False
        if len(self._map) >= self.adj.connection_limit - 1:
            self._make_room()
        return bool(super().readable())

    def _make_room(self) -> None:
        """Close the connection without a whole request or an unsent answer that was silent longest, if there is one."""
        waiting = [one for one in self.active_channels.values() if not one.requests and not one.total_outbufs_len]
        if waiting and not any(channel.will_close for channel in waiting):
            silent = min(waiting, key=lambda channel: channel.last_activity)
            silent.lingers, silent.linger_until = False, 0.0
            silent.will_close = True  # not closed here: the loop is about to ask every connection what to wait for

    def maintenance(self, now: float) -> None:
        """Time out connections; runs on the loop's thread."""
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            channel.time_out(now, self.request_timeout)
        self.task_dispatcher.run_ready()

    def pull_trigger(self) -> None:
        """Wake the loop, unless the caller is the loop."""
        if not self.task_dispatcher.on_loop() or self.stopping:
            with contextlib.suppress(OSError):  # the loop has ended already
                super().pull_trigger()

    def run(self) -> None:
        """Serve until stop() was called and what ran then has ended, or its time is over."""
        self.task_dispatcher.loop_thread = threading.get_ident()
        while not self.stopping:
            self._turn(1.0)
        self._drain()
        self.task_dispatcher.shutdown(timeout=0.5)
        wasyncore.close_all(self._map)

    def stop(self) -> None:
        """Take no more connections and let run() return; safe in a signal handler and from any thread."""
        self.stopping = True
        self.pull_trigger()

    def _drain(self) -> None:
        """Finish running requests, then close every connection."""
        self.accepting = False
        # Refused at once, a new client asks elsewhere; in the queue of a listener that accepts no more, it would wait.
        wasyncore.dispatcher.close(self)
        deadline = time.time() + self.drain_timeout
        while time.time() < deadline:
            for channel in list(self.active_channels.values()):
                if not channel.requests and not channel.total_outbufs_len and not channel.request_started:
                    channel.will_close = True
            if not self.active_channels and not self.task_dispatcher.busy():
                return
            self._turn(0.05)

    def _turn(self, pause: float) -> None:
        """Wait up to `pause` seconds for something to do, and do it."""
        dispatcher = self.task_dispatcher
        if self.yields_until > time.monotonic():
            pause = YIELD_SECONDS
        wasyncore.loop(timeout=0 if dispatcher.ready else pause, use_poll=True, map=self._map, count=1)
        dispatcher.run_ready()


def make_server(
    app: WsgiApp,
    listener: socket.socket,
    http: HttpConfig,
    is_small: Callable[[str], bool],
    share: Share | None = None,
) -> Server:
    """Return a server of `app` on `listener`; `is_small` says of a path whether its requests may run on the loop.

    `share` is given where several processes share the listener.
    """
    adjustments = Adjustments(
        sockets=[listener],
        threads=http.threads,
        connection_limit=_connection_limit(http.max_connections)
        + 3,  # it counts the listener, the trigger and one spare
        channel_timeout=int(http.idle_timeout) or 1,
        # waitress refuses from this size on, we beyond the limit.
        max_request_body_size=http.max_body_bytes + 1,
        # Bodies stay in memory: the file system of a device may be read-only, and the limit bounds them.
        inbuf_overflow=http.max_body_bytes + 1,
        outbuf_overflow=64 * 1024 * 1024,
        recv_bytes=256 * 1024,
        ident=None,
        log_socket_errors=False,
        clear_untrusted_proxy_headers=False,  # nothing here reads them, and clearing costs each request
    )
    # Head and body leave in one packet: two cost a system call more and wait for each other's acknowledgement.
    adjustments.send_bytes = 256 * 1024  # set here: as an argument it is deprecated
    dispatcher = _Dispatcher(http.threads, http.max_waiting, is_small)
    sockinfo = (listener.family, listener.type, listener.proto, listener.getsockname())
    server = Server(
        app, {}, True, listener, dispatcher=dispatcher, adj=adjustments, bind_socket=False, sockinfo=sockinfo
    )
    server.adj.cleanup_interval = min(5.0, http.request_timeout / 4)
    server.request_timeout = http.request_timeout
    server.drain_timeout = http.drain_timeout
    server.share = share
    return server


def _only_looks(request: Parser) -> bool:
    """Return whether a request changes nothing, loads no version and runs nothing but a self-test."""
    return getattr(request, "command", "") in ("GET", "HEAD") and "/versions/" not in request.path


def _connection_limit(wanted: int) -> int:
    """Return how many connections there may be; where the system lets a process open fewer files, fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limit = wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - SPARE_FILES))
    if limit < wanted:
        log.warning("fewer connections than configured", extra={"wanted": wanted, "limit": limit})
    return limit


def _translated(error: Any) -> ApplianceError:
    """Return an error of waitress' parser as one of ours."""
    if error.code == 413:
        return TooLarge("read the body", "it is larger than allowed", "send fewer rows, or raise [http] max_body_bytes")
    return InvalidInput("read the request", str(error.body), "send a well-formed HTTP/1.1 request")

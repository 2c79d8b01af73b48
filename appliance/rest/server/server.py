"""waitress, tuned for small answers, with limits for slow, large and many requests."""

import contextlib
import errno
import logging
import os
import resource
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from appliance.budget import MOST, SMALL, Budget
from appliance.config import HttpConfig
from appliance.errors import ApplianceError, Overloaded
from appliance.limits import Limits
from appliance.rest.http_types import body_limit
from appliance.rest.server import deadlines, eviction
from appliance.rest.server.channel import Channel
from appliance.rest.server.connection_balance import YIELD_SECONDS, Share
from appliance.rest.server.direct import Answer, Direct
from appliance.rest.server.dispatcher import Dispatcher
from appliance.rest.server.group import Together
from appliance.rest.server.header_cache import HeaderCache
from appliance.rest.server.poller import Poller

SPARE_FILES = 64
"""File descriptors of the process that stay free for models, logs and the store."""

ACCEPTED_AT_ONCE = 16
"""Connections taken in one turn of the loop."""
CROWDED_SECONDS = 0.05
"""Seconds between two searches for connections to end while new ones wait."""
NO_FILE_SECONDS = 0.1
"""Until the next connection is tried after the system had no file or memory for one."""
QUIET_SECONDS = 0.5
"""Seconds for which a silent connection stays open when the service stops: a request may be on its way."""
KERNEL_UNSENT = 128 * 1024
"""Bytes of answers that the kernel takes of one connection before it sends them; else a client that reads nothing has
megabytes of them there (tcp(7)).
"""
_FULL = "read the request", "other requests and answers take the memory there is for them", "try again in a second"

log = logging.getLogger(__name__)

Admit = Callable[[str, str, Mapping[str, str], int | None], ApplianceError | None]
"""(method, path, fields, length or None) -> why the body is not waited for, None where it is."""
WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Any]


class Server(TcpWSGIServer):  # type: ignore[misc]
    """Serves a WSGI application on sockets that are bound already, until stop() is called.

    All of it is for the loop's thread, which is the one that calls run(), but stop(), call_soon() and pull_trigger().
    """

    channel_class = Channel
    stopping = False
    share: Share | None = None
    direct: Direct | None = None
    """What answers small requests without a task; None: nothing does."""
    certificates: Any = None
    """What makes a connection one of TLS (tls.py); None: they are plain."""
    yields_until = 0.0
    """Until when a new connection is left to a process that holds fewer, or to a moment with a free file."""
    admit: Admit
    http: HttpConfig
    most_connections: int
    most_held: int
    """Bytes of requests and answers that all connections may hold."""

    def __init__(self, *settings: Any, **named: Any) -> None:
        self._calls: deque[Callable[[], object]] = deque()
        self._next_look = time.monotonic()
        super().__init__(*settings, **named)
        os.set_blocking(self.trigger.trigger, False)  # a full pipe wakes the loop as well
        self.poller = Poller(self._map)
        self.poller.recheck(self.trigger)

    def handle_accept(self) -> None:
        """Take new connections, or leave them for a moment to a process that holds fewer."""
        for _ in range(ACCEPTED_AT_ONCE):
            now = time.monotonic()
            if self.share and self.share.is_over() and now > self.yields_until + YIELD_SECONDS:
                self.yields_until = now + YIELD_SECONDS
                return
            self.yields_until = 0.0
            if len(self.active_channels) >= self.most_connections or not self._accept():
                return
            if self.share:
                self.share.hold(len(self.active_channels))

    def _accept(self) -> bool:
        """Take one new connection; return whether there was one."""
        try:
            connection, address = self.socket.accept()
        except BlockingIOError:
            return False
        except OSError as error:  # no file is free, or the client is gone again
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self.yields_until = time.monotonic() + NO_FILE_SECONDS
                return False
            return True
        with contextlib.suppress(OSError):
            self.set_socket_options(connection)
        if self.certificates:
            try:
                connection = self.certificates.wrap(connection)
            except OSError:  # the client is gone again
                connection.close()
                return True
        self.channel_class(self, connection, address, self.adj, map=self._map)
        return True

    def readable(self) -> bool:
        """Return whether to accept a connection; where there are too many, others make room (see eviction.py)."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + min(5.0, self.http.request_timeout / 4, self.http.idle_timeout / 4)
            self._look(now)
        if not self.accepting:
            return False
        if self.share:
            self.share.hold(len(self.active_channels))
        if self.yields_until > now:
            return False
        if len(self.active_channels) >= self.most_connections:
            for channel in eviction.to_make_room(self.active_channels.values(), now):
                channel.drop()
        return len(self.active_channels) < self.most_connections

    def _look(self, now: float) -> None:
        """Time out connections."""
        for channel in list(self.active_channels.values()):
            deadlines.time_out(channel, now, self.http.request_timeout, self.http.idle_timeout)
        self.poller.recheck(*self.active_channels.values())
        self.give_back()
        self.task_dispatcher.run_ready()

    def held(self) -> int:
        """Return the bytes of requests and answers that all connections hold; safe in any thread."""
        return sum(channel.held() for channel in list(self.active_channels.values()))

    def give_back(self) -> None:
        """End connections while all of them hold too much: requests that still arrive, answers that are not read."""
        if self.held() > self.most_held:
            for channel in eviction.to_give_back(list(self.active_channels.values()), time.monotonic(), self.most_held):
                if channel.request_started and not channel.requests:
                    channel.refuse(Overloaded(*_FULL))
                else:
                    channel.drop()

    def call_soon(self, call: Callable[[], object]) -> None:
        """Have the loop's thread call something; safe in a signal handler and from any thread."""
        self._calls.append(call)
        self._wake()

    def pull_trigger(self) -> None:
        """Wake the loop, unless the caller is the loop."""
        if not self.task_dispatcher.on_loop():
            self._wake()

    def run(self) -> None:
        """Serve until stop() was called and what ran then has ended, or its time is over."""
        self.task_dispatcher.loop_thread = threading.get_ident()
        while not self.stopping:
            self._turn(1.0)
        self._drain()
        self.task_dispatcher.shutdown(timeout=0.5)
        wasyncore.close_all(self._map)
        self.poller.close()

    def stop(self) -> None:
        """Take no more connections and let run() return; safe in a signal handler and from any thread."""
        self.stopping = True
        self._wake()

    def _wake(self) -> None:
        """Have the loop take its next turn now."""
        with contextlib.suppress(OSError):  # the loop has ended already
            super().pull_trigger()

    def _drain(self) -> None:
        """Answer every request that has been sent whole, then end every connection."""
        begun = time.monotonic()
        self.accepting = False
        self.poller.forget(self._fileno)
        while self._accept():  # a client that connected while we listened is answered
            pass
        # Refused at once, a new client asks elsewhere; in the queue of a listener that accepts no more, it would wait.
        wasyncore.dispatcher.close(self)
        deadline, quiet = begun + self.http.drain_timeout, begun + min(QUIET_SECONDS, self.http.drain_timeout)
        while (now := time.monotonic()) < deadline:
            self._turn(0.02)
            for channel in list(self.active_channels.values()):
                deadlines.finish(channel, now, quiet)
            if not self.active_channels and not self.task_dispatcher.busy():
                return

    def _turn(self, pause: float) -> None:
        """Wait up to `pause` seconds for something to do, and do it."""
        dispatcher = self.task_dispatcher
        while self._calls:
            self._calls.popleft()()
        if self.yields_until > time.monotonic():
            pause = YIELD_SECONDS
        elif len(self.active_channels) >= self.most_connections:
            pause = min(pause, CROWDED_SECONDS)
        self.poller.recheck(self)  # the clock, too, decides whether to accept
        self.poller.wait(0 if dispatcher.ready else pause)
        if self.direct:
            self.direct.flush()
        dispatcher.run_ready()


def make_server(
    app: WsgiApp,
    listener: socket.socket,
    http: HttpConfig,
    is_small: Callable[[str], bool],
    share: Share | None = None,
    budget: Budget | None = None,
    admit: Admit = lambda *_: None,
    answer: Answer | None = None,
    together: Together | None = None,
) -> Server:
    """Return a server of `app` on `listener`; `is_small` says of a path whether its requests may run on the loop.

    `share` is given where several processes share the listener; `budget` is the memory that requests may take, half of
    which the connections may hold as bodies and answers. `admit` says why a body is not waited for. `answer` is the
    application without WSGI, for small requests; None: they all go through `app`. `together` says what shares a run.
    """
    budget = budget or Budget(http.max_decoded_bytes or MOST)
    longest = body_limit(Limits.of_http(http), budget)
    adjustments = Adjustments(
        sockets=[listener],
        threads=http.threads,
        # waitress refuses from this size on, we beyond the limit.
        max_request_body_size=longest + 1,
        # Bodies stay in memory: the file system of a device may be read-only, and the limit bounds them.
        inbuf_overflow=longest + 1,
        outbuf_overflow=64 * 1024 * 1024,
        recv_bytes=256 * 1024,
        ident=None,
        log_socket_errors=False,
        clear_untrusted_proxy_headers=False,  # nothing here reads them, and clearing costs each request
        url_scheme="https" if http.certificate else "http",
    )
    # Head and body leave in one packet: two cost a system call more and wait for each other's acknowledgement.
    adjustments.send_bytes = 256 * 1024  # set here: as an argument it is deprecated
    adjustments.header_cache = HeaderCache()
    with contextlib.suppress(OSError):  # another system
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_UNSENT)  # its connections inherit it
    dispatcher = Dispatcher(http.threads, http.max_waiting, is_small, together)
    sockinfo = (listener.family, listener.type, listener.proto, listener.getsockname())
    server = Server(
        app, {}, True, listener, dispatcher=dispatcher, adj=adjustments, bind_socket=False, sockinfo=sockinfo
    )
    server.http = http
    server.most_connections = _connection_limit(http.max_connections)
    server.most_held = max(SMALL, budget.total // 2)
    budget.outside = server.held
    server.share = share
    server.admit = admit
    server.direct = Direct(answer, dispatcher, adjustments.header_cache, together) if answer else None
    if http.certificate:
        from appliance.rest.server import tls  # OpenSSL takes memory that a plain port does not need

        server.certificates, server.channel_class = tls.Certificates(http), tls.TlsChannel
    return server


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

"""waitress, tuned for small answers, with limits for slow, large and many requests."""

import contextlib
import logging
import resource
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from appliance.config import HttpConfig
from appliance.rest.channel import Channel
from appliance.rest.dispatcher import Dispatcher
from appliance.rest.heads import Heads
from appliance.rest.shares import YIELD_SECONDS, Share
from appliance.rest.watch import Watch

SPARE_FILES = 64
"""Of those that the process may open, kept for models, logs and the store."""

log = logging.getLogger(__name__)

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Any]


class Server(TcpWSGIServer):  # type: ignore[misc]
    """Serves a WSGI application on sockets that are bound already, until stop() is called."""

    channel_class = Channel
    stopping = False
    share: Share | None = None
    yields_until = 0.0
    """Monotonic time until which a new connection is left to a process that holds fewer."""

    def __init__(self, *settings: Any, **named: Any) -> None:
        super().__init__(*settings, **named)
        self.watch = Watch(self._map)
        self.watch.stir(self.trigger)

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
            silent.will_close = True
            self.watch.stir(silent)

    def maintenance(self, now: float) -> None:
        """Time out connections; runs on the loop's thread."""
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            channel.time_out(now, self.request_timeout)
        self.watch.stir(*self.active_channels.values())
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
        self.watch.close()

    def stop(self) -> None:
        """Take no more connections and let run() return; safe in a signal handler and from any thread."""
        self.stopping = True
        self.pull_trigger()

    def _drain(self) -> None:
        """Finish running requests, then close every connection."""
        self.accepting = False
        self.watch.forget(self._fileno)
        # Refused at once, a new client asks elsewhere; in the queue of a listener that accepts no more, it would wait.
        wasyncore.dispatcher.close(self)
        deadline = time.time() + self.drain_timeout
        while time.time() < deadline:
            for channel in list(self.active_channels.values()):
                if not channel.requests and not channel.total_outbufs_len and not channel.request_started:
                    channel.will_close = True
                    self.watch.stir(channel)
            if not self.active_channels and not self.task_dispatcher.busy():
                return
            self._turn(0.05)

    def _turn(self, pause: float) -> None:
        """Wait up to `pause` seconds for something to do, and do it."""
        dispatcher = self.task_dispatcher
        if self.yields_until > time.monotonic():
            pause = YIELD_SECONDS
        self.watch.stir(self)  # the clock, too, decides whether to accept
        self.watch.wait(0 if dispatcher.ready else pause)
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
    adjustments.heads = Heads()
    dispatcher = Dispatcher(http.threads, http.max_waiting, is_small)
    sockinfo = (listener.family, listener.type, listener.proto, listener.getsockname())
    server = Server(
        app, {}, True, listener, dispatcher=dispatcher, adj=adjustments, bind_socket=False, sockinfo=sockinfo
    )
    server.adj.cleanup_interval = min(5.0, http.request_timeout / 4)
    server.request_timeout = http.request_timeout
    server.drain_timeout = http.drain_timeout
    server.share = share
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

"""One connection: requests read, answered in order and sent, with a deadline for the slow and a lingering close."""

import socket
import time
from typing import Any

from waitress.channel import HTTPChannel

from appliance.errors import InvalidInput
from appliance.rest.dispatcher import UNSENT
from appliance.rest.framing import Parser
from appliance.rest.tasks import Refusal, RefusalTask, Task

LINGER_SECONDS = 2.0
"""After an error answer, so that the client can read it before its unread body resets the connection."""


class SlowRequest(InvalidInput):
    """A request that did not arrive in time."""

    status = 408


class Channel(HTTPChannel):  # type: ignore[misc]
    """One connection, with a deadline for each request and a lingering close after an error answer."""

    request: Any
    parser_class = Parser
    task_class = Task
    error_task_class = RefusalTask
    request_started = 0.0
    """Unix time of the first byte of a request that has not arrived whole; 0 when there is none."""
    parked = False
    """Whether the next request waits until the client has read the answers before it."""
    lingers = False
    linger_until = 0.0

    def add_channel(self, map: dict[int, Any] | None = None) -> None:
        """Become one of the server's connections."""
        super().add_channel(map)
        self.server.watch.stir(self)

    def del_channel(self, map: dict[int, Any] | None = None) -> None:
        """Be none of the server's connections any more."""
        self.server.watch.forget(self._fileno)
        super().del_channel(map)

    def service(self) -> None:
        """Answer the first request, on the loop's thread or another."""
        super().service()
        self.server.watch.stir(self)
        self.server.pull_trigger()  # again: the loop may have turned before it was told of this connection

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
            request.error = Refusal(SlowRequest("read the request", found, "send it faster"))
            self.requests.append(request)
            self.server.task_dispatcher.ready.append(self)

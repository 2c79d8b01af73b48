"""One connection: requests read, answered in order and sent, with a deadline for the slow and a lingering close.

States, by what a connection waits for (`standing` tells which): idle for a request; arriving for the rest of one;
busy for an answer; unsent for the client to read answers; lingering for the client to close. All of it happens on the
loop's thread, but for service() and what that calls. `requests_lock` guards `requests`, `request` and `unread`.

Every time here is monotonic: a clock that is set must neither end a request nor keep one that is over.
"""

import contextlib
import socket
import struct
import time
from enum import IntEnum
from typing import Any

from waitress.channel import HTTPChannel

from appliance.errors import ApplianceError
from appliance.rest.server.dispatcher import UNSENT
from appliance.rest.server.framing import Parser
from appliance.rest.server.tasks import Refusal, RefusalTask, Task

LINGER_SECONDS = 2.0
"""After an error answer, so that the client can read it before its unread body resets the connection."""
MOST_PIPELINED = 16
"""Requests of a connection that are read ahead; what the client sent behind them waits as bytes."""
COUNTED = 64 * 1024
"""Bytes by which a body grows between two looks at what all connections hold."""
FIRST_BYTES = 64 * 1024
"""Bytes that are read at once while no body arrives. For a buffer of waitress' 256 KiB the memory is taken from the
system and given back each time, which takes longer than to read a small request.
"""
FRESH_SECONDS = 0.25
"""Seconds of silence after which a connection counts as idle."""


class Standing(IntEnum):
    """What a connection waits for; the first ones are the first to make room for others."""

    LINGERING = 0
    STUCK = 1
    """Answers are unsent, and the client has taken nothing lately."""
    IDLE = 2
    ARRIVING = 3
    UNSENT = 4
    """Answers are unsent, and the client is taking them, or has only begun not to."""
    BUSY = 5
    """A request is being answered, or the connection is too new to tell: it is never closed to make room."""


class Channel(HTTPChannel):  # type: ignore[misc]
    """One connection, with a deadline for each request and a lingering close after an error answer."""

    request: Any
    requests: list[Any]
    sent_continue: bool
    parser_class = Parser
    task_class = Task
    error_task_class = RefusalTask
    request_started = 0.0
    """When the first byte of a request came that has not arrived whole; 0 when there is none."""
    parked = False
    """Whether the next request waits until the client has read the answers before it."""
    unread = b""
    """What was received behind the requests that wait."""
    behind = 0
    """Requests answered since the client last waited for an answer: how far it is ahead of the others."""
    lingers = False
    unchanged = False
    """Whether what was just read has left all as it was: the loop need not ask again what the connection waits for."""
    linger_until = 0.0
    last_active = 0.0
    _counted = 0
    """Bytes of the body that arrives when the server last looked."""
    mark = (0.0, 0)
    """When how many bytes of answers had been taken by the client; see deadlines.py."""

    @property
    def last_activity(self) -> float:
        """When something was last sent or answered; at first, when the connection was made."""
        return self.last_active

    @last_activity.setter
    def last_activity(self, wall: float) -> None:  # waitress gives the wall's time
        self.last_active = time.monotonic()

    def add_channel(self, map: dict[int, Any] | None = None) -> None:
        """Become one of the server's connections."""
        super().add_channel(map)
        self.server.poller.recheck(self)

    def del_channel(self, map: dict[int, Any] | None = None) -> None:
        """Leave the server's connections."""
        self.server.poller.forget(self._fileno)
        super().del_channel(map)

    def service(self) -> None:
        """Answer the first waiting request, on the loop's thread or another."""
        self.behind += 1
        super().service()
        if self.unread:
            with self.requests_lock:
                # Otherwise the thread that answers the next request continues, or no thread does.
                if not (self.requests or self.will_close or self.close_when_flushed):
                    self._take(self.unread)
        self.server.poller.recheck(self)
        self.server.pull_trigger()  # again: the loop may have turned before it was told of this connection

    def received(self, data: bytes) -> bool:
        """Take bytes and answer at once what can be."""
        direct = self.server.direct
        if direct and direct.take(self, data):
            return True
        self.unchanged = False
        with self.requests_lock:
            # A thread may have decided meanwhile that the connection ends; later bytes are not read.
            if self.will_close or self.close_when_flushed:
                return False
            self.behind = 0
            self._take(data)
        if self.request is not None and self.request.body_rcv is not None:
            self._count_body(len(self.request.body_rcv))
        self.server.task_dispatcher.run_ready()
        return True

    def send_answer(self, head: bytes, body: bytes) -> None:
        """Send an answer, while nothing else is unsent; what the kernel does not take now is sent as it takes it."""
        answer = head + body
        sent = self.send(answer)
        self.behind = 0
        if sent == len(answer):
            self.unchanged = True
        else:
            self.server.poller.recheck(self)
            if self.connected:
                self.write_soon(answer[sent:])

    def _count_body(self, size: int) -> None:
        """Have the server look at what all connections hold, each time that the body that arrives has grown by much."""
        if size < self._counted:
            self._counted = 0  # another body
        if size - self._counted >= COUNTED:
            self._counted = size
            self.server.give_back()

    def _take(self, data: bytes) -> None:
        """Make requests of bytes, as many as may wait; with `requests_lock` held."""
        self.unread = b""
        while data:
            if len(self.requests) >= MOST_PIPELINED:
                self.unread = data
                break
            request = self.request
            if request is None:
                request = self.request = Parser(self.adj)
            consumed = request.received(data)
            if not request.completed and request.headers_finished and not request.admitted:
                consumed = self._admit(request, consumed, data)
            if request.expect_continue and request.headers_finished and not self.requests and not self.sent_continue:
                self.send_continue()  # else service() does, when the answers before it are on their way
            if request.completed:
                self.request = None
                self.sent_continue = False
                if not request.empty:
                    self.requests.append(request)
                    if len(self.requests) == 1:
                        self.server.add_task(self)
            data = data[consumed:]
        if self.request is None:
            self.request_started = 0.0
        else:
            self.request_started = self.request_started or time.monotonic()

    def _admit(self, request: Parser, consumed: int, data: bytes) -> int:
        """Refuse a request whose body is not to be waited for; return how many of the bytes were taken."""
        request.admitted = True
        length = None if request.chunked else request.content_length
        if length is not None and len(data) - consumed >= length:
            return consumed  # it is there already
        error = self.server.admit(request.command, request.path, request.headers, length)
        if error is None:
            return consumed
        request.error, request.completed, request.expect_continue = Refusal(error), True, False
        return len(data)

    def readable(self) -> bool:
        """Return whether the loop should read from the connection."""
        return bool(self.linger_until) or (not self.unread and bool(super().readable()))

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
        if self.linger_until and time.monotonic() > self.linger_until:
            super().handle_close()
            return
        try:
            # At the end of the stream this calls handle_close.
            data = self.recv(FIRST_BYTES if self.request is None else self.adj.recv_bytes)
        except OSError:
            self.handle_close()
            return
        if not data:
            self.connected = False
        elif not self.linger_until:
            self.received(data)

    def handle_close(self) -> None:
        """Close; after an error answer, end only our direction first and wait for the client to end its own."""
        if (self.lingers or self.server.stopping) and self.connected and not self.linger_until:
            self.linger_until = time.monotonic() + LINGER_SECONDS
            self.will_close = self.close_when_flushed = False
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:  # the client is gone already
                super().handle_close()
            return
        super().handle_close()

    def end(self) -> None:
        """End our direction of an idle connection, so that a request on its way is not answered by a reset."""
        self.lingers = True
        self.handle_close()
        self.server.poller.recheck(self)

    def drop(self) -> None:
        """Close at once, whatever is unsent; on the loop's thread, while no request of this connection runs."""
        self.parked = False
        self.requests, self.request, self.unread = [], None, b""
        if self.total_outbufs_len and self.socket:
            with contextlib.suppress(OSError):  # what the kernel has of it is forgotten as well: a reset
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        super().handle_close()

    def has_more(self) -> bool:
        """Return whether the client has sent something that was not read yet."""
        try:
            return bool(self.socket and self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def is_last(self) -> bool:
        """Return whether the client has sent nothing after the request that is being answered."""
        return len(self.requests) <= 1 and not self.unread and not self.has_more()

    def held(self) -> int:
        """Return the bytes of requests and answers that this connection holds."""
        bodies = sum(
            len(request.body_rcv) for request in (*self.requests, self.request) if request and request.body_rcv
        )
        return int(self.total_outbufs_len) + len(self.unread) + bodies

    def standing(self, now: float) -> tuple[Standing, float]:
        """Return what the connection waits for, and for how many seconds."""
        silent = now - self.last_activity
        if self.linger_until:
            return Standing.LINGERING, silent
        if self.parked or (self.total_outbufs_len and not self.requests):
            return Standing.STUCK if silent > FRESH_SECONDS else Standing.UNSENT, silent
        arriving = now - self.request_started if self.request_started else 0.0
        if self.requests or self.unread or max(silent, arriving) < FRESH_SECONDS:
            return Standing.BUSY, 0.0
        return (Standing.ARRIVING, arriving) if arriving else (Standing.IDLE, silent)

    def is_unfinished(self) -> bool:
        """Return whether a request arrives or waits, or an answer is unsent."""
        return bool(self.requests or self.unread or self.request_started or self.total_outbufs_len)

    def refuse(self, error: ApplianceError) -> None:
        """Answer the request that is still arriving with an error, which ends the connection."""
        with self.requests_lock:
            request, self.request, self.request_started = self.request, None, 0.0
            if request is None or self.requests:
                self.will_close = True
                return
            request.error = Refusal(error)
            self.requests.append(request)
            self.server.task_dispatcher.ready.append(self)

"""Lets the loop wait: for its brokers' sockets, for a time, or for another thread that wakes it."""

import contextlib
import select
import socket
from collections.abc import Iterable

from appliance.mqtt.client import Client


class Waker:
    """A pair of sockets that ends the loop's wait. wake() may be called from any thread, the rest is the loop's."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        for end in (self._read, self._write):
            end.setblocking(False)

    def wake(self) -> None:
        """End the wait, or the next one."""
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed: it has ended
            self._write.send(b"\0")

    def wait(self, clients: Iterable[Client], seconds: float) -> set[int]:
        """Wait for a client's socket, a call of wake() or `seconds`; return the sockets that have something to do."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        for client in clients:
            number = client.fileno()
            if number >= 0:
                poll.register(number, select.POLLIN * client.wants_read | select.POLLOUT * client.wants_write)
        found = {number for number, _ in poll.poll(seconds * 1000)}
        if self._read.fileno() in found:
            with contextlib.suppress(BlockingIOError):
                self._read.recv(4096)
        return found

    def close(self) -> None:
        """Close both ends; wake() then does nothing."""
        for end in (self._read, self._write):
            end.close()

"""Which connections can be read or written; each is asked what it waits for only after something happened to it.

waitress asks every connection at every turn of its loop: with 500 silent ones a small request took six times the
processor time (see benchmarks/).
"""

import select
import selectors
from collections import deque
from typing import Any

from waitress import wasyncore

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Poller:
    """Waits on what is in `members`, waitress' map of file descriptors and their owners.

    For the loop's thread, but for recheck().
    """

    def __init__(self, members: dict[int, Any]) -> None:
        self._members = members
        self._selector = selectors.DefaultSelector()
        self._events: dict[int, int] = {}
        self._to_ask: deque[Any] = deque()

    def recheck(self, *owners: Any) -> None:
        """Ask owners again what they wait for, before the loop waits the next time; safe in any thread."""
        self._to_ask.extend(owners)

    def forget(self, number: int | None) -> None:
        """Stop waiting on a file descriptor; to be called before it is closed."""
        if number is not None and self._events.pop(number, 0):
            self._selector.unregister(number)

    def wait(self, pause: float) -> None:
        """Wait up to `pause` seconds for something to do, and let its owners do it."""
        while self._to_ask:
            self._ask(self._to_ask.popleft())
        for key, events in self._selector.select(pause):
            flags = (select.POLLIN if events & READ else 0) | (select.POLLOUT if events & WRITE else 0)
            if self._members.get(key.fd) is not key.data:  # another owner has just closed it
                continue
            owner: Any = key.data
            wasyncore.readwrite(owner, flags)
            unchanged = getattr(owner, "unchanged", False)  # to ask costs more than this look
            if unchanged:
                owner.unchanged = False
            if not unchanged or events != READ:
                self._to_ask.append(owner)

    def close(self) -> None:
        """Stop waiting on anything."""
        self._events.clear()
        self._selector.close()

    def _ask(self, owner: Any) -> None:
        """Wait for what `owner` now wants to do."""
        number: int | None = owner._fileno
        if number is None or number not in self._members:
            return
        events = (READ if owner.readable() else 0) | (WRITE if owner.writable() and not owner.accepting else 0)
        before = self._events.get(number, 0)
        if events == before:
            return
        if not events:
            self.forget(number)
            return
        change = self._selector.modify if before else self._selector.register
        change(number, events, owner)
        self._events[number] = events

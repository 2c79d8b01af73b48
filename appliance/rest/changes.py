"""Long changes to the store that requests ask for: one at a time, on a thread of their own.

An activation tries the version first, for up to `[models] self_test_seconds`. The request waits WAIT_SECONDS for it;
then it is told to come again, and the same request joins the change that runs.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.errors import NotReady

WAIT_SECONDS = 10.0
"""Seconds for which a request waits on its thread."""

Key = tuple[str, ...]


@dataclass(slots=True)
class _Change:
    """One change on its way, or just made."""

    key: Key
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class Changes:
    """Runs one change at a time; safe in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: _Change | None = None

    def run(self, key: Key, work: Callable[[], object]) -> None:
        """Do `work`, or wait for the same (by its `key`) that runs already; raise what it raises.

        Raises NotReady when it, or another change before it, takes longer than a request may wait.
        """
        with self._lock:
            change = self._running
            if change is None:
                change = self._running = _Change(key)
                threading.Thread(target=self._do, args=(change, work), name="change-store", daemon=True).start()
        if not change.done.wait(WAIT_SECONDS):
            raise NotReady(" ".join(key), f"{' '.join(change.key)} still runs", "ask again in a few seconds")
        if change.key != key:  # another change has ended: now it is this one's turn
            self.run(key, work)
        elif change.error:
            raise change.error

    def _do(self, change: _Change, work: Callable[[], object]) -> None:
        """Do the work; on a thread of its own."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the waiting request raises it
            change.error = error
        with self._lock:
            self._running = None
        change.done.set()

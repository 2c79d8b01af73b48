"""When the next try to connect is due: after pauses that double, and differ from one host to the next."""

import random

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
"""Seconds before another try to connect: doubled each time and drawn between half and all of it, forever."""
STEADY_SECONDS = 10.0
"""After which a connection counts as good, and the next loss begins with the first pause again."""


class Backoff:
    """Times are time.monotonic(). For one thread."""

    def __init__(self) -> None:
        self.due = 0.0
        """When the next try is due."""
        self._pause = FIRST_PAUSE
        self._since = float("inf")  # of the connection that there is

    def connected(self, now: float) -> None:
        """Take note that a connection begins."""
        self._since = now

    def lost(self, now: float) -> None:
        """Set the next try: the connection has ended, or none could be made."""
        if now - self._since > STEADY_SECONDS:
            self._pause = FIRST_PAUSE
        self._since = float("inf")
        self.due = now + self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - so that a fleet does not come back as one
        self._pause = min(LONGEST_PAUSE, self._pause * 2)

    def stop(self) -> None:
        """Have no other try due, ever."""
        self.due = float("inf")

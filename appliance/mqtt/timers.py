"""Timers of the loop. Pure: the time is given."""


class Timer:
    """Is due every `seconds`, and immediately at first. Times are time.monotonic(); for one thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = float("-inf")

    def is_due(self, now: float) -> bool:
        """Return whether the time has come; the next one is then `seconds` after `now`."""
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True

    def hurry(self, until: float = float("-inf")) -> None:
        """Be due at `until`, or at once."""
        self._next = until

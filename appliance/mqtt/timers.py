"""When the loop does something again that it does every so often. Pure: the time is given."""


class Timer:
    """Is due once every `seconds`, and at once at first. Times are time.monotonic(); for one thread."""

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

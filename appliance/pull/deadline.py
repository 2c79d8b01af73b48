"""How long a pull may take: by the monotonic clock, and shared out, so that a slow bundle leaves some to the others."""

import time

from appliance.errors import NotReady


class Deadline:
    """A moment by which something must have ended, whatever a server does."""

    def __init__(self, seconds: float, *, of: float = 0.0) -> None:
        """`seconds` from now; `of` is the whole pull's time, for the message."""
        self._end = time.monotonic() + seconds
        self._of = of or seconds

    def left(self) -> float:
        """Return the seconds that are left, more than 0. Raises NotReady when none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            found = f"its share of the {self._of:g} s that a pull may take is used up"
            next_step = "the next pull goes on from here; where the line is slow, raise [pull] deadline"
            raise NotReady("pull", found, next_step)
        return left

    def share(self, parts: int) -> "Deadline":
        """Return the deadline of the next of `parts` equal pieces of what is left. Raises NotReady."""
        return Deadline(self.left() / max(parts, 1), of=self._of)

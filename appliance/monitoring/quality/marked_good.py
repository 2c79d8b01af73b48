"""When each version was marked good, for rows that are read from the log in their order."""

import math
from collections.abc import Callable, Sequence
from datetime import datetime

GoodSince = Callable[[str, str], Sequence[str]]
"""(model, version) -> when it was marked good (UTC, ISO 8601), each time, the oldest first."""


class MarkedGood:
    """The marks of each version; asked for again only for rows newer than the last look. For one thread."""

    def __init__(self, good_since: GoodSince, clock: Callable[[], float]) -> None:
        self._good_since = good_since
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[float, list[tuple[float, str]]]] = {}
        """(model, version) -> when its marks were read, and them: (Unix time, when it was marked good)."""

    def before(self, model: str, version: str, moment: float) -> str:
        """Return when a version was last marked good before a moment (Unix time), "" for never."""
        read, times = self._known.get((model, version), (-math.inf, []))
        if moment > read:
            read = self._clock()
            times = [(datetime.fromisoformat(one).timestamp(), one) for one in self._good_since(model, version)]
            self._known[model, version] = read, times
        return next((when for second, when in reversed(times) if second <= moment), "")

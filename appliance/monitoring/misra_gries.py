"""The most frequent values of a stream whose values are not known beforehand, in bounded memory. Pure."""

from collections.abc import Mapping

MOST = 10
"""Values that are kept."""
LEAST_SHOWN = 5
"""Rows below which a value is not shown: it may tell of one person."""


class MisraGries:
    """Counts of the values that are frequent (Misra and Gries 1982, Finding repeated elements).

    A value that more than 1 / (MOST + 1) of all rows hold is among those kept. A count is never too large; it is too
    small by at most rows / (MOST + 1).
    """

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        self.counts: dict[str, int] = dict(counts or {})

    def add(self, value: str, count: int = 1) -> None:
        """Count `count` more rows that hold a value."""
        self.counts[value] = self.counts.get(value, 0) + count
        if len(self.counts) > MOST:
            self._shrink()

    def merge(self, other: Mapping[str, int]) -> None:
        """Add what another process counted; the bound holds for both together."""
        for value, count in other.items():
            self.counts[value] = self.counts.get(value, 0) + count
        while len(self.counts) > MOST:
            self._shrink()

    def shown(self) -> list[tuple[str, int]]:
        """Return (value, rows) of those that enough rows hold, the most frequent first."""
        found = [(value, count) for value, count in self.counts.items() if count >= LEAST_SHOWN]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def _shrink(self) -> None:
        """Take the smallest count off all."""
        least = min(self.counts.values())
        self.counts = {value: count - least for value, count in self.counts.items() if count > least}

"""How many connections each process of a service holds, so that none takes more than its share.

The kernel wakes every process that waits on a shared listener, and a quick one can take all of a burst: one core then
works while the others are idle.
"""

import mmap

YIELD_SECONDS = 0.002
"""For which a process that holds more than another leaves a new connection to it."""


class Share:
    """One process' view of the counts; they live in memory that forked processes have in common."""

    def __init__(self, held: memoryview, slot: int) -> None:
        self._held = held
        self._slot = slot
        held[slot] = 0

    def hold(self, connections: int) -> None:
        """Set how many connections this process holds."""
        self._held[self._slot] = connections

    def is_over(self) -> bool:
        """Return whether another process holds fewer."""
        return self._held[self._slot] > min(self._held)


def counts(processes: int) -> memoryview:
    """Return zeroed counts for `processes`; to be made before they are forked."""
    return memoryview(mmap.mmap(-1, 4 * processes)).cast("i")

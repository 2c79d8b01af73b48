"""How many messages a batch may have, so that its first one does not wait longer than the budget for its last."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BUDGET_SECONDS = 0.005
"""For answering one batch; the commit comes on top, which costs as much for one message."""

_FIRST = 16  # messages of the first batch, when nothing is known of the model yet


class BatchSizer:
    """Learns from each batch how long a message takes, with all that it depends on."""

    def __init__(
        self, most: int, *, budget: float = BUDGET_SECONDS, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """A batch never has more than `most` messages. `budget` and `clock` are in seconds."""
        self._most = most
        self._budget = budget
        self._clock = clock
        self._each: deque[float] = deque(maxlen=2)  # seconds a message; two, since a busy machine makes one look slow

    @property
    def size(self) -> int:
        """Messages that the next batch may have, at least one."""
        return self._most if self.seconds(self._most) <= self._budget else max(1, int(self._budget / self.seconds(1)))

    def seconds(self, messages: int) -> float:
        """Return how long `count` messages would take, in seconds."""
        return messages * min(self._each, default=self._budget / _FIRST)

    @contextmanager
    def measure(self, messages: int) -> Iterator[None]:
        """Measure the answering of some messages, at least one."""
        started = self._clock()
        yield
        self._each.append((self._clock() - started) / messages)

"""A queue before a slow observer: bounded, drained by one thread, the oldest dropped first and counted.

Threads: those that answer call predicted() and failed(), which put a call into the queue and return. One thread of the
queue's own takes the calls out in their order and makes them. The lock guards queue, size and counts, and is never held
while the observer runs, so nobody who answers ever waits for it.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from appliance.errors import ApplianceError
from appliance.predictor import Observer, Prediction

log = logging.getLogger(__name__)

_FAILURE_BYTES = 512  # that a failure is taken to have: its names and its error's texts
_TEXT_BYTES = 64  # that a text of an input or output is taken to have, beside its reference


class ObserverQueue:
    """An Observer that tells another one later, or not at all where that one is too slow."""

    def __init__(
        self, observer: Observer, *, most: int = 1024, most_bytes: int = 4 * 1024 * 1024, name: str = "observer"
    ) -> None:
        """`most` calls of `most_bytes` in all may wait; `name` is the thread's, which start() starts."""
        self._observer = observer
        self._most = most
        self._most_bytes = most_bytes
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._drain, name=name, daemon=True)
        self.dropped = 0
        """Calls that were dropped because others waited."""
        self.faults = 0
        """Calls that the observer raised at."""

    def start(self) -> None:
        """Begin to tell the observer; in the process that answers, since a fork takes no thread along."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Tell the observer what waits, for `seconds` at most, and take nothing more."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(seconds)

    def predicted(self, prediction: Prediction) -> None:
        """Have the observer told of a prediction."""
        self._put(_size(prediction), partial(self._observer.predicted, prediction))

    def failed(
        self, model: str, version: str, error: ApplianceError, seconds: float, arm: str = "", key: str = ""
    ) -> None:
        """Have the observer told of a request that was not answered."""
        self._put(_FAILURE_BYTES, partial(self._observer.failed, model, version, error, seconds, arm, key))

    def _put(self, size: int, call: Callable[[], None]) -> None:
        """Put a call into the queue and drop the oldest ones beyond its bounds; drop one that is too large alone."""
        with self._changed:
            if self._ending or size > self._most_bytes:
                self.dropped += 1
                return
            self._waiting.append((size, call))
            self._bytes += size
            while len(self._waiting) > self._most or self._bytes > self._most_bytes:
                self._bytes -= self._waiting.popleft()[0]
                self.dropped += 1
            self._changed.notify()

    def _drain(self) -> None:
        """Make the calls one by one until stop(); on the queue's own thread."""
        while call := self._next():
            try:
                call()
            except Exception:  # the outermost handler of the thread: an error must not end it
                self.faults += 1
                log.exception("observer failed", extra={"observer": self._thread.name})
            del call  # or the last prediction stays in memory until the next one comes

    def _next(self) -> Callable[[], None] | None:
        """Return the oldest call, waiting for one; None when the queue has ended."""
        with self._changed:
            while not self._waiting:
                if self._ending:
                    return None
                self._changed.wait()
            size, call = self._waiting.popleft()
            self._bytes -= size
            return call


def _size(prediction: Prediction) -> int:
    """Return the bytes that a prediction's arrays take, near enough."""
    arrays = (*prediction.inputs.values(), *prediction.outputs.values())
    return sum(array.nbytes + (_TEXT_BYTES * array.size if array.dtype.kind == "O" else 0) for array in arrays)

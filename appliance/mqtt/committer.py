"""Answered messages on their way to the disk: while one batch is committed in a thread, the next is answered.

States of a batch: waiting (put()), begun (written, and the thread commits it), kept (told to `kept`). A batch whose
commit fails waits again, as the first one, and is tried after RETRY_SECONDS. At most one is begun.

Threads: all methods are for the loop's thread, on which `kept` is called too. The own thread, `mqtt-commit`, only calls
`end`, appends to `_took` and sets `_failure`, all of it between `_jobs.put()` and `_done.set()`, and then calls `wake`.
The loop's thread reads `_failure` after `_done` alone, and writes nothing else to the disk while `busy`.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from appliance.errors import ApplianceError
from appliance.mqtt.flow import Batch, Flow, Pending
from appliance.mqtt.outbox import Stored

RETRY_SECONDS = 1.0
"""Between two tries to commit what the disk or the quota refused."""


class Committer:
    """Commits batches in order."""

    def __init__(
        self,
        flow: Flow,
        end: Callable[[], None],
        kept: Callable[[Batch, list[Stored]], None],
        wake: Callable[[], None],
    ) -> None:
        """`end` commits what a flow has begun; `kept` is told of what is safe; `wake` is called by the own thread."""
        self._flow = flow
        self._commit = end
        self._kept = kept
        self._wake = wake
        self._waiting: deque[Batch] = deque()
        self._begun: Pending | None = None  # what the own thread commits
        self._failure: Exception | None = None
        self._done = threading.Event()
        self._retry = 0.0
        self._failed = False  # whether the last commit did
        self._took: deque[float] = deque(maxlen=2)  # two, since a busy machine makes one look slow
        self._jobs: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="mqtt-commit", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a commit is running, so that nothing else may be written."""
        return self._begun is not None

    @property
    def idle(self) -> bool:
        """Whether no batch waits or is being committed."""
        return self._begun is None and not self._waiting

    @property
    def stuck(self) -> bool:
        """Whether what waits could not be committed and is to be tried again."""
        return bool(self._waiting) and self._failed

    @property
    def room(self) -> bool:
        """Whether another batch may be answered now.

        Not ahead of one that leaves messages waiting for a model, which later ones must wait behind; nor of one whose
        messages come again over a new connection, since it is not known yet that they were kept.
        """
        begun = self._begun.batch if self._begun else None
        return not self._waiting and (begun is None or bool(begun.messages and not begun.park))

    @property
    def seconds(self) -> float:
        """What a commit takes, by the last ones."""
        return min(self._took, default=0.0)

    def due(self, now: float) -> float:
        """Return the time.monotonic() at which begin() may have something to do, infinity when the thread will say."""
        return max(now, self._retry) if self._waiting and not self._begun else float("inf")

    def put(self, batch: Batch) -> None:
        """Take a batch to be committed."""
        self._waiting.append(batch)

    def collect(self, now: float) -> None:
        """Tell what the thread has committed. Raises StoreError when it could not: the same batch is tried again."""
        if not self._begun or not self._done.is_set():
            return
        begun, self._begun = self._begun, None
        if self._failure:
            self._waiting.appendleft(begun.batch)
            self._retry, self._failed = now + RETRY_SECONDS, True
            raise self._failure
        self._failed = False
        self._kept(begun.batch, self._flow.ended(begun))

    def begin(self, now: float, *, beside: bool) -> None:
        """Commit what waits: in the thread when there is something to do `beside` it, else here.

        Raises StoreError when the disk takes nothing and Overloaded when the quota does: it is tried again later.
        """
        while self._waiting and not self._begun and now >= self._retry:
            try:
                begun = self._flow.begin(self._waiting[0])
                if begun.is_open and not beside:
                    self._end()
            except ApplianceError:
                self._retry, self._failed = now + RETRY_SECONDS, True
                raise
            self._waiting.popleft()
            if begun.is_open and beside:
                self._begun, self._failure = begun, None
                self._done.clear()
                self._jobs.put(True)
            else:
                self._failed = False
                self._kept(begun.batch, self._flow.ended(begun))

    def forget_messages(self) -> None:
        """Acknowledge none of the messages that are on their way: their connection is gone, and they come again.

        What they came to is kept all the same, since rows have taken their values already.
        """
        for batch in (*self._waiting, *([self._begun.batch] if self._begun else ())):
            batch.messages.clear()

    def drain(self) -> None:
        """Wait for the thread and tell what it has committed; forget what waits. Raises StoreError."""
        self._waiting.clear()
        if self._begun:
            self._done.wait()
            self.collect(0.0)

    def close(self) -> None:
        """End the commit thread; it must be idle."""
        self._jobs.put(False)
        self._thread.join()

    def _end(self) -> None:
        """Commit what the flow has begun. Raises StoreError."""
        started = time.perf_counter()
        self._commit()
        self._took.append(time.perf_counter() - started)

    def _run(self) -> None:
        """Run commits, one for each item of the queue (the thread `mqtt-commit`)."""
        while self._jobs.get():
            try:
                self._end()
            except Exception as error:  # noqa: BLE001 - for collect() to raise
                self._failure = error
            self._done.set()
            self._wake()

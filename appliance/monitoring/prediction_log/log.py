"""The log of one process: what is answered goes into a bounded queue, and one thread writes it.

Threads: those that answer call record(), failed() and label(). The thread `prediction-log` alone has the writers. The
lock guards the queue, its sizes and the gaps, and is never held while anything is written.

What does not fit into the queue, or onto the disk, is dropped, counted, and written into the log as a gap: the log
never pretends to be whole. With `required` an answer waits for its lines, and is refused where they cannot be written.
"""

import hashlib
import logging
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

from appliance.config import PredictionLogConfig
from appliance.correlation import request_id
from appliance.errors import ApplianceError, NotLogged, StoreError
from appliance.inference.version import LoadedVersion
from appliance.labels import GivenLabel
from appliance.monitoring.prediction_log import lines, policy
from appliance.monitoring.prediction_log.hash_key import hash_key
from appliance.monitoring.prediction_log.keeper import Gap, Item, Keeper, Ticket
from appliance.monitoring.prediction_log.layout import Layout, sent_of, strided
from appliance.monitoring.prediction_log.writer import BLOCK
from appliance.predictor import Models, Prediction
from appliance.trace_context import current, of

MOST_ROWS, MOST_BYTES = 20_000, 8 * 1024 * 1024
"""Rows, and bytes of them, that may wait."""
STRIDE = 256
"""Rows that are kept of one request: of more, every so many, or it alone would fill the queue."""
TICK = 0.1
"""Seconds that rows wait, so that more rows are written together."""
REQUIRED_SECONDS = 5.0
"""How long an answer waits for its lines."""
QUEUE_FULL, DISK = "queue full", "disk"

log = logging.getLogger(__name__)


class PredictionLog:
    """Writes what one process answers. Safe in any thread; a slot's folder is held by one process at a time."""

    def __init__(
        self,
        config: PredictionLogConfig,
        state_dir: Path,
        models: Models,
        *,
        slot: int = 0,
        count: Callable[[str, str, str, int], None] = lambda model, version, reason, rows: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`count` is told of rows that are dropped: (model, version, reason, rows). Raises ConfigError."""
        policy.check(config.columns)
        self.config = config
        self._state_dir = state_dir
        self._models = models
        self._slot = slot
        self._count = count
        self._clock = clock
        self._key = _key(state_dir) if policy.hashes(config.columns) else b""
        self._layouts: WeakKeyDictionary[LoadedVersion, Layout | None] = WeakKeyDictionary()
        self._last: tuple[Callable[[], LoadedVersion | None], Layout | None] = lambda: None, None
        self._lock = threading.Lock()
        self._waiting: deque[Item] = deque()
        self._rows = self._bytes = 0
        self._gaps: dict[tuple[str, str, str], Gap] = {}
        self._wake, self._hurry, self._stopping = threading.Event(), threading.Event(), threading.Event()
        self._keeper = Keeper(config, state_dir, slot, clock)
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)

    @property
    def required(self) -> bool:
        """Whether an answer waits for the log."""
        return self.config.required

    @property
    def waiting(self) -> int:
        """Rows that wait to be written."""
        return self._rows

    def start(self) -> None:
        """Begin to write; in the process that answers, since a fork takes no thread along."""
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """Write what waits, seal and pack, for `seconds` at most."""
        self._stopping.set()
        self._hurry.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    # Called by the threads that answer.

    def record(self, version: LoadedVersion, prediction: Prediction) -> None:
        """Take a prediction. Raises NotLogged where it is required and cannot be written."""
        layout = self._layout(version)
        if layout is None or (self.config.sample < 1 and not self._sampled(prediction)):
            return
        rows, answered = prediction.rows, None
        if rows > STRIDE and len(prediction.shared_by) < 2:
            answered = strided(prediction, STRIDE)
            rows = answered.ids[0][1]
        size = layout.size(rows, answered.sent if answered else sent_of(prediction))
        item = Item(layout, rows, size, prediction.time, None, None if answered else prediction, answered)
        if traces := current():
            item.traces = traces
        if self.config.required:
            item.ticket = ticket = Ticket()
            self._await(ticket if self._put(item) else None)
        else:
            self._put(item)

    def predicted(self, prediction: Prediction) -> None:
        """Do nothing: record() is told before the answer is given."""

    def failed(self, model: str, version: str, error: ApplianceError, seconds: float = 0.0, *_: str) -> None:
        """Take a request that was refused; one whose model is not known leaves no line, or callers could make logs."""
        if isinstance(error, NotLogged):
            return
        try:
            loaded = self._models.get(model or None, version or None)
        except ApplianceError:
            return
        layout = self._layout(loaded)
        identifier = request_id.get() or secrets.token_hex(6)
        if layout is None or (self.config.sample < 1 and _share(identifier) >= self.config.sample):
            return
        now = self._clock()
        reason = getattr(error, "reason", "") or type(error).__name__
        column = getattr(error, "column", "") or ""
        line = lines.Row(identifier[:256], round(now, 3), error=str(reason), column=str(column)[:256])
        if (traces := current()) and (trace := of(identifier, traces)):
            line.trace = trace.trace_id
        self._put(Item(layout, 1, 256, now, made=(line,)))

    def take_labels(self, model: str, labels: list[GivenLabel], source: str) -> None:
        """Write labels of a model's predictions; as TakeLabels. Raises NotFound, NotReady, NotLogged."""
        now = round(self._clock(), 3)
        made = [
            lines.Label(label=one.label, id=one.id, t=now if one.time is None else one.time, source=source)
            for one in labels
        ]
        self.label(self._models.get(model), made)

    def label(self, version: LoadedVersion, found: Sequence[lines.Label]) -> None:
        """Write labels, and return once the disk has them. Raises NotLogged where it takes none."""
        layout = self._layout(version)
        if layout is None:
            raise NotLogged(
                f"take labels of {version.name}",
                "its predictions are not logged",
                "name it in [log.predictions] models",
            )
        for start in range(0, len(found), BLOCK):
            part = found[start : start + BLOCK]
            ticket = Ticket()
            taken = self._put(Item(layout, len(part), 256 * len(part), self._clock(), ticket, made=part))
            self._await(ticket if taken else None)

    def _await(self, ticket: Ticket | None) -> None:
        tried = "write the prediction log"
        if ticket is None:
            raise NotLogged(tried, "too much waits to be written", "ask again in a moment")
        if not ticket.done.wait(REQUIRED_SECONDS):
            raise NotLogged(tried, f"the disk did not take it within {REQUIRED_SECONDS:g} s", "see: appliance doctor")
        if ticket.failure:
            raise NotLogged(tried, ticket.failure, "free some disk space, or see: appliance doctor")

    def _layout(self, version: LoadedVersion) -> Layout | None:
        """Return how a version is logged, None where it is not."""
        reference, layout = self._last
        if reference() is version:  # nearly always: to look it up takes longer than all else
            return layout
        if version not in self._layouts:
            wanted = not self.config.models or version.name in self.config.models
            self._layouts[version] = Layout.of(version, self.config, self._key) if wanted else None
        layout = self._layouts[version]
        self._last = weakref.ref(version), layout
        return layout

    def _sampled(self, prediction: Prediction) -> bool:
        return _share(prediction.request_id) < self.config.sample

    def _put(self, item: Item) -> bool:
        """Have something written; return False where the queue is full, which becomes a gap."""
        with self._lock:
            full = self._rows + item.rows > MOST_ROWS or self._bytes + item.size > MOST_BYTES
            taken = not full and not self._stopping.is_set()
            if taken:
                self._waiting.append(item)
                self._rows += item.rows
                self._bytes += item.size
            rows = self._rows
        if not taken:
            if not item.ticket:
                self.miss(item.layout, item.rows, item.time, QUEUE_FULL)
            return False
        hurry = item.ticket is not None or rows >= BLOCK
        if hurry and not self._hurry.is_set():
            self._hurry.set()
        if (hurry or rows == item.rows) and not self._wake.is_set():
            self._wake.set()
        return True

    def miss(self, layout: Layout, rows: int, since: float, reason: str) -> None:
        """Take note of rows that are not logged."""
        key = layout.model, layout.version, reason
        with self._lock:
            gap = self._gaps.setdefault(key, Gap(layout, 0, since, reason))
            gap.rows += rows
        self._count(*key, rows)

    # The writing thread.

    def _run(self) -> None:
        """Write until stop()."""
        while not self._stopping.is_set():
            if self._wake.wait(self._keeper.patience(bool(self._gaps))):
                self._hurry.wait(TICK)
            self._wake.clear()
            self._hurry.clear()
            self._turn()
        self._turn()
        self._keeper.close()

    def _turn(self) -> None:
        """Write what waits, and do what is due."""
        try:
            while items := self._taken():
                for item, rows in self._keeper.write(items):
                    self.miss(item.layout, rows, item.time, DISK)
            self._write_gaps()
            self._keeper.tend(time.monotonic())
        except Exception:  # the outermost handler of the thread: an error must not end the log
            log.exception("prediction log failed and goes on")

    def _taken(self) -> list[Item]:
        """Return what waits, about a block of it."""
        taken: list[Item] = []
        rows = 0
        with self._lock:
            while self._waiting and rows < BLOCK:
                item = self._waiting.popleft()
                taken.append(item)
                rows += item.rows
                self._rows -= item.rows
                self._bytes -= item.size
        return taken

    def _write_gaps(self) -> None:
        """Write the gaps; those that cannot be written now wait."""
        with self._lock:
            gaps, self._gaps = self._gaps, {}
        for key, gap in gaps.items():
            if not self._keeper.write_gap(gap):
                with self._lock:
                    later = self._gaps.setdefault(key, Gap(gap.layout, 0, gap.since, gap.reason))
                    later.rows += gap.rows
                    later.since = gap.since


def _key(state_dir: Path) -> bytes:
    """Return the key for hashed columns; where the disk gives none, one for this process alone."""
    try:
        return hash_key(state_dir)
    except (OSError, StoreError) as error:
        log.error("hashes of columns will differ after the next start", extra={"error": str(error)})
        return secrets.token_bytes(32)


def _share(identifier: str) -> float:
    """Return a number from 0 to 1 that depends on the id alone, on every host."""
    digest = hashlib.blake2b(identifier.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64

"""Joins labels with predictions, by reading the log behind its writers; one thread of one process does it.

The log is the truth: labels are written there first. What was read so far and what came of it are in one file,
see state.py, replaced as a whole. After a kill the log is read on from there, so each label counts
once, and deleting the file makes the sums again.

A label belongs to the last prediction of its id before it. One that comes before its prediction is in the log waits for
PATIENCE; of several of one row the last one counts, and what the former added is taken out.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from appliance import nofollow
from appliance.errors import ApplianceError
from appliance.labels import LabelFeed, as_number, like
from appliance.monitoring.prediction_log import find, lines, segments
from appliance.monitoring.prediction_log.find import Found
from appliance.monitoring.prediction_log.lines import Label, Row
from appliance.monitoring.prediction_log.segments import Segment, Writer
from appliance.monitoring.quality import sums
from appliance.monitoring.quality.marked_good import GoodSince, MarkedGood
from appliance.monitoring.quality.standing import TOO_FEW, WORSE, Past, Standing
from appliance.monitoring.quality.state import Pending, Place, State, Window, day_of, read, write
from appliance.monitoring.quality.sums import Change, Sums

PATIENCE = 10.0
"""Seconds for which a label waits for its prediction."""
DAYS = 31
"""Windows that are kept: one for each day (UTC) of predictions."""
STEP, SAVE_SECONDS = 1.0, 10.0
MOST_PENDING = 20_000
"""Labels that are read at once."""
OUTCOMES = ("matched", "repeated", "changed", "late", "unknown")
DAY = 86_400.0

ToleranceOf = Callable[[str, str], tuple[float, float] | None]
"""(model, version) -> (absolute, relative), None where it is not known."""


class Judge(Protocol):
    """Who says whether a version's labels are worse than its past."""

    def __call__(
        self, model: str, version: str, days: dict[str, Sums], classes: Sequence[Any], own: Past | None
    ) -> tuple[str, str, Past | None]:
        """Return (state, because, its past by its first days here) of the sums of each day; as label_alarm has them."""


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Joined:
    """A prediction, as a label needs it."""

    version: str
    classes: list[Any]
    row: Row
    answer: Any


class Joiner:
    """Follows the log of every model. run() is for a thread of its own; one process alone may do it."""

    def __init__(
        self,
        state_dir: Path,
        *,
        max_label_days: float = 30,
        tolerance_of: ToleranceOf = lambda model, version: None,
        good_since: GoodSince = lambda model, version: (),
        judge: Judge | None = None,
        feeds: Sequence[LabelFeed] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`feeds` are told of each prediction whose label came; `judge` is asked when labels came."""
        self._good = MarkedGood(good_since, clock)
        self._judge = judge
        self._state_dir = state_dir
        self._latest = max_label_days * DAY
        self._tolerance_of = tolerance_of
        self._feeds = feeds
        self._clock = clock
        self._states: dict[str, State] = {}
        self._headers: dict[tuple[str, int], lines.Header] = {}
        self._saved: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Join until `stop` is set."""
        while not stop.wait(STEP):
            try:
                self.step()
            except Exception:  # the outermost handler of the thread: it continues with the next second
                log.exception("labels are not joined now")
        with suppress(OSError, ApplianceError):
            self.step(save=True)

    def step(self, *, save: bool = False) -> None:
        """Read what is new in the logs, join it, and keep what came of it."""
        for model in segments.models(self._state_dir):
            state = self._states.get(model) or self._states.setdefault(model, read(self._state_dir, model))
            rows, labels = self._read_on(model, state)
            joined = self._join(model, state) if state.pending else 0
            due = time.monotonic() - self._saved.get(model, 0.0) >= SAVE_SECONDS
            if joined and self._judge:
                self._stand(model, state, self._judge)
            if labels or joined or (rows and (due or save)):
                self._drop_old(state)
                write(self._state_dir, model, state)
                self._saved[model] = time.monotonic()

    def _read_on(self, model: str, state: State) -> tuple[int, int]:
        """Count the rows and take the labels that were written since; return how many of each."""
        rows = labels = 0
        windows = {one.key: one for one in state.windows}
        for writer in segments.writers(self._state_dir, model):
            place = state.places.setdefault(str(writer), Place())
            for segment, offset, line in self._lines(writer, place):
                if line.startswith(lines.HEADER):
                    self._remember(segment, line)
                elif line.startswith(lines.LABEL):
                    with suppress(*lines.FAILURES):
                        label = lines.read_label(line)
                        state.pending.append(Pending(label, str(writer), segment.number, offset, self._clock()))
                        labels += 1
                elif line.startswith(lines.ROW) and lines.ERASED not in line:
                    rows += self._count(model, state, windows, writer, segment, line)
        return rows, labels

    def _lines(self, writer: Writer, place: Place) -> Iterator[tuple[Segment, int, bytes]]:
        """Yield (segment, offset, line) behind a place, and move the place on."""
        for segment in segments.of_writer(writer):
            if segment.number < place.segment:
                continue
            if segment.number > place.segment:
                place.segment, place.offset = segment.number, 0
            if not segment.packed and segment.size == place.offset:
                continue
            content = self._behind(segment, place.offset)
            for line in segments.split(content)[0]:
                yield segment, place.offset, line
                place.offset += len(line) + 1

    def _behind(self, segment: Segment, offset: int) -> bytes:
        """Return what stands behind an offset."""
        with suppress(OSError, ApplianceError):
            if segment.packed:
                return segment.read()[offset:]

            descriptor = nofollow.open_file(segment.path, within=self._state_dir)
            with os.fdopen(descriptor, "rb") as file:
                file.seek(offset)
                return file.read()
        return b""

    def _remember(self, segment: Segment, line: bytes) -> None:
        header = segments.header_of([line])
        if header:
            self._headers[str(segment.writer), segment.number] = header

    def _header(self, segment: Segment) -> lines.Header | None:
        """Return a segment's header."""
        key = str(segment.writer), segment.number
        if key not in self._headers:
            with suppress(OSError, ApplianceError):
                self._remember(segment, segments.split(segment.read())[0][0])
        return self._headers.get(key)

    def _count(
        self,
        model: str,
        state: State,
        windows: dict[tuple[str, str, str, str], Window],
        writer: Writer,
        segment: Segment,
        line: bytes,
    ) -> int:
        """Count one answered row; return how many there were."""
        header = self._header(segment)
        try:
            row = lines.read_row(line)
        except lines.FAILURES:
            return 0
        if row.error or header is None:
            return 0
        key = writer.version, row.arm, day_of(row.t), self._good.before(model, writer.version, row.t)
        window = windows.get(key)
        if window is None:
            window = windows[key] = Window(*key[:3], header.classes, {}, key[3])
            state.windows.append(window)
        sums.add(window.sums, sums.predicted(_answer(row, header.classes), header.classes))
        return 1

    def _join(self, model: str, state: State) -> int:
        """Join the labels that wait, as far as their predictions are there; return how many are done."""
        waiting, rest = state.pending[:MOST_PENDING], state.pending[MOST_PENDING:]
        ids = [name for one in waiting for name in (one.label.id, f"{one.label.id}.0")]
        found = find.by_ids(self._state_dir, model, list(dict.fromkeys(ids)))
        loci = {(one.writer, one.segment, one.offset) for one in state.pending}
        former = {name: self._former(ones, loci, state) for name, ones in found.items()}
        still: list[Pending] = []
        for one in sorted(waiting, key=lambda one: one.label.t):
            predicted = self._prediction(model, found, one.label)
            if predicted is None and self._clock() - one.read < PATIENCE:
                still.append(one)
                continue
            outcome = self._apply(model, state, one.label, predicted, former) if predicted else "unknown"
            state.counts[outcome] = state.counts.get(outcome, 0) + 1
        state.pending = still + rest
        return len(waiting) - len(still)

    def _former(self, ones: Sequence[Found], loci: set[tuple[str, int, int]], state: State) -> list[Label]:
        """Return the labels of an id that were joined before, in the order of their time."""
        labels = []
        for one in ones:
            writer, segment = str(one.segment.writer), one.segment.number
            place = state.places.get(writer, Place())
            read_on = (segment, one.offset) < (place.segment, place.offset)
            if one.kind == "label" and read_on and (writer, segment, one.offset) not in loci:
                with suppress(*lines.FAILURES):
                    labels.append(lines.read_label(one.line))
        return sorted(labels, key=lambda label: label.t)

    def _prediction(self, model: str, found: dict[str, list[Found]], label: Label) -> Joined | None:
        """Return the last prediction of a label's id that is not later than it."""
        best: Joined | None = None
        for name in (label.id, f"{label.id}.0"):
            for one in found.get(name, ()):
                header = self._header(one.segment) if one.kind == "row" else None
                if header is None:
                    continue
                with suppress(*lines.FAILURES):
                    row = lines.read_row(one.line)
                    if not row.error and row.t <= label.t + 0.001 and (best is None or row.t >= best.row.t):
                        answer = _answer(row, header.classes)
                        best = Joined(one.segment.writer.version, header.classes, row, answer)
            if best:
                return best
        return None

    def _apply(self, model: str, state: State, label: Label, predicted: Joined, former: dict[str, list[Label]]) -> str:
        """Add what a label says, and take out what the one before it said; return the outcome."""
        delay = label.t - predicted.row.t
        if delay > self._latest:
            return "late"
        names = {label.id, predicted.row.id}
        before = [one for name in names for one in former.get(name, ()) if one.t >= predicted.row.t - 0.001]
        before = [one for one in before if one.t - predicted.row.t <= self._latest]
        last = max(before, key=lambda one: one.t, default=None)
        former.setdefault(predicted.row.id, []).append(label)
        if last is not None and last.label == label.label:
            return "repeated"
        window = self._window(model, state, predicted)
        if window is None:
            return "late"  # its day is kept no more
        if last is not None:
            sums.add(window.sums, self._changes(model, predicted, last), -1.0)
        sums.add(window.sums, self._changes(model, predicted, label))
        if last is not None:
            return "changed"
        self._tell(model, predicted, label)
        return "matched"

    def _window(self, model: str, state: State, predicted: Joined) -> Window | None:
        """Return the window that a prediction was counted in, None where it is kept no more."""
        row = predicted.row
        key = predicted.version, row.arm, day_of(row.t)
        found = [one for one in state.windows if one.key[:3] == key]
        good = self._good.before(model, predicted.version, row.t)
        return next((one for one in found if one.good == good), found[0] if found else None)

    def _stand(self, model: str, state: State, judge: Judge) -> None:
        """Take note of whether each version's labels are worse than its past; a line of the log on change alone."""
        for version in {one.version for one in state.windows}:
            own = [one for one in state.windows if one.version == version]
            days = {day: sums.together([one.sums for one in own if one.day == day]) for day in {one.day for one in own}}
            now, because, past = judge(model, version, days, own[-1].classes, state.pasts.get(version))
            if past is not None:
                state.pasts[version] = past
            before = state.standings.get(version, Standing(TOO_FEW, ""))
            state.standings[version] = before.followed_by(now, because)
            if before.state != now and WORSE in (before.state, now):
                extra = {"model": model, "version": version, "state": now, "because": because}
                log.log(logging.WARNING if now == WORSE else logging.INFO, "quality", extra=extra)

    def _changes(self, model: str, predicted: Joined, label: Label) -> Iterator[Change]:
        """Return what a label adds to the sums."""
        delay = max(0.0, label.t - predicted.row.t)
        if predicted.classes:
            truth = like(label.label, predicted.classes)
            return sums.labelled_class(predicted.answer, predicted.row.p, truth, predicted.classes, delay)
        tolerance = self._tolerance_of(model, predicted.version)
        return sums.labelled_number(lines.number(predicted.answer), label.label, tolerance, delay)

    def _tell(self, model: str, predicted: Joined, label: Label) -> None:
        """Tell the feeds of a prediction whose label came."""
        classes = predicted.classes
        truth = like(label.label, classes) if classes else as_number(label.label)
        answer = predicted.answer if classes else lines.number(predicted.answer)
        for feed in self._feeds:
            try:
                feed.labelled(model, predicted.version, predicted.row.id, answer, truth, predicted.row.arm)
            except Exception:  # an error of a listener must not end the counting
                log.exception("a feed of labels failed")

    def _drop_old(self, state: State) -> None:
        """Forget windows that are too old to be added to."""
        oldest = day_of(self._clock() - DAYS * DAY)
        state.windows = [one for one in state.windows if one.day >= oldest]
        self._headers = {key: self._headers[key] for key in list(self._headers)[-256:]}


def _answer(row: Row, classes: Sequence[Any]) -> Any:
    """Return the prediction of a row; where only probabilities were asked for, the most probable class."""
    if row.y is None and row.p and len(row.p) == len(classes):
        return classes[max(range(len(classes)), key=row.p.__getitem__)]
    return row.y

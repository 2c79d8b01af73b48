"""The clock that ages are measured by: it runs evenly, whatever is done to the wall clock, and goes on after a restart.

Its seconds look like Unix time but are counted by the monotonic clock, which the kernel starts with the machine and
which every process sees alike. What is kept on disk bears them. A note beside it says how to go on:

- the same boot: the monotonic clock has counted on;
- another boot: the wall clock says how long the machine was off, as the only one that ran. Where it lies before what
  was kept, or was never set, nobody knows: no time has passed for answers (none is dropped for its age), and values of
  rows from before count as too old.

The wall clock is a label: label() gives the Unix time of a moment as the wall clock has it today.
"""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from appliance.mqtt.disk import Disk, Write

PLAUSIBLE = 1_700_000_000.0
"""Unix time; a wall clock before it was never set."""

_JUMP = 1.0  # seconds by which the wall clock must be off what was noted before it is noted again
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_LATEST = "select max((select coalesce(max(at), 0) from observations), (select coalesce(max(created), 0) from answers))"


class _Note(msgspec.Struct, frozen=True):
    """What the next start needs: one moment, by all clocks."""

    boot: str
    monotonic: float
    steady: float
    wall: float


def _boot_id() -> str:
    """Return what names this boot of the kernel; "" where nothing does."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Clock:
    """For one thread."""

    def __init__(
        self,
        disk: Disk,
        *,
        wall: Callable[[], float] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        boot: Callable[[], str] = _boot_id,
    ) -> None:
        """Go on where the disk says; `wall` is another clock than time.time(). Raises StoreError."""
        self._wall, self._monotonic = wall or time.time, monotonic
        self._boot = boot()
        self._zero = monotonic()
        self.known_since = float("-inf")
        """Moments up to it have no age that is known."""
        self._begin = self._continued(disk)
        self._noted = 0.0
        disk.commit([self.write()])

    def now(self) -> float:
        """Return the moment, in seconds."""
        return self._begin + self._monotonic() - self._zero

    def label(self, moment: float) -> float:
        """Return the Unix time of a moment, to the millisecond."""
        return moment + round(self._offset(), 3)

    def has_jumped(self) -> bool:
        """Return whether the wall clock was set since it was noted, so that write() is due."""
        return abs(self._offset() - self._noted) > _JUMP

    def write(self) -> Write:
        """Return the statement that keeps the note."""
        now, wall = self.now(), self._wall()
        self._noted = wall - now
        note = msgspec.json.encode(_Note(self._boot, self._monotonic(), now, wall)).decode()
        return "insert or replace into notes values (?, ?)", [("clock", note)]

    def _offset(self) -> float:
        """Return by how much the wall clock is ahead."""
        return self._wall() - self.now()

    def _continued(self, disk: Disk) -> float:
        """Return this moment."""
        wall, monotonic = self._wall(), self._zero
        found = disk.read("select value from notes where name = 'clock'")
        if not found:
            return wall  # as versions without this clock have kept times
        note = msgspec.json.decode(found[0][0], type=_Note)
        if self._boot and note.boot == self._boot and monotonic >= note.monotonic:
            return note.steady + monotonic - note.monotonic
        latest = float(disk.read(_LATEST)[0][0])
        begin = max(note.steady, latest)
        off = wall - (note.wall + begin - note.steady)
        if note.wall >= PLAUSIBLE and off >= 0:
            return begin + off
        self.known_since = begin
        return begin

"""STATE_DIR/drift/NAME/VERSION.json: the windows of a version, its device reference, and what was found last.

The file is replaced whole when a window closes, with the store's lock held, by `appliance drift accept`, and by
`appliance score --observe`; whoever is killed leaves the old file or the new one, and a service loses the window that
was open. A file that is damaged or has other bins
is replaced by an empty one: no prediction needs it. What removes a version's file is prune().
"""

import logging
from contextlib import suppress
from pathlib import Path

import msgspec

from appliance import nofollow
from appliance.drift_report import DriftReport
from appliance.errors import StoreError
from appliance.monitoring.shared_cells import Key
from appliance.store import durable
from appliance.store.versions import Store

log = logging.getLogger(__name__)

FORMAT = 1
MOST_WINDOWS = 168
"""The most windows that are kept and that make a reference: a week of hours, to include weekly cycles."""
LEAST_WINDOWS = 72
"""Of which a reference is made: three days of hours."""
MOST_DAYS = 28


class KeptWindow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One closed window, or the windows of one day together: the cells of Tables, and the refusals of each column."""

    ended: str
    """Wall time, a label alone (UTC, ISO 8601)."""
    seconds: float
    cells: list[float]
    refused: dict[str, float] = {}


class KeptReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the device's own windows said of one measure when they were frozen, see drift.Reference."""

    counts: list[float]
    design: float
    window_rows: float
    blocks: float
    largest: float
    largest_from_training: float = 0.0


class DriftState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole of VERSION.json."""

    format: int
    layout: list[str]
    """Tables.layout of the windows."""
    windows: list[KeptWindow] = []
    """The last MOST_WINDOWS, the oldest first."""
    days: list[KeptWindow] = []
    """The last MOST_DAYS, the oldest first."""
    reference: dict[str, KeptReference] = {}
    """{COLUMN/MEASURE: the device's own reference}; empty before it is frozen."""
    frozen: str = ""
    """When it was (UTC, ISO 8601)."""
    frozen_windows: int = 0
    accepted: list[str] = []
    """Columns whose difference from training somebody accepted."""
    levels: dict[str, tuple[int, int]] = {}
    """{COLUMN/MEASURE/REFERENCE: (its state, the level of the window before)}."""
    alarm_windows: int = 0
    """Windows since the first one of the drift that is on: what accepting it makes a reference of."""
    report: DriftReport | None = None
    scored: list[str] = []
    """The runs of `appliance score --observe` whose rows are among the windows, see drift_scored.py."""


def path(store: Store, key: Key) -> Path:
    """Return where the state of a version is, or would be."""
    return store.state_dir / "drift" / key[0] / f"{key[1]}.json"


def decode(content: bytes) -> DriftState:
    """Return the state that a file holds. Raises ValueError for one that is damaged or of another format."""
    try:
        state = msgspec.json.decode(content, type=DriftState)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if state.format != FORMAT:
        raise ValueError(f"format {state.format} is not {FORMAT}")
    return state


def read(store: Store, key: Key) -> DriftState | None:
    """Return the state of a version, None where there is none or it cannot be used, which the log says."""
    file = path(store, key)
    try:
        return decode(nofollow.read(file, within=store.state_dir))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, StoreError) as error:
        log.error("drift counts start again", extra={"file": str(file), "error": str(error)})
        return None


def write(store: Store, key: Key, state: DriftState) -> None:
    """Replace the state of a version; the caller holds the store's lock. Raises OSError, StoreError."""
    file = path(store, key)
    folder = store.state_dir / "drift"
    durable.make_folder(folder, within=store.state_dir)
    durable.make_folder(file.parent, within=store.state_dir)
    durable.write_atomically(file, msgspec.json.encode(state) + b"\n", within=store.state_dir)


def mark(store: Store, key: Key) -> object:
    """Return something that differs once the file was replaced; None while there is none."""
    try:
        found = nofollow.status(path(store, key), within=store.state_dir)
    except (OSError, StoreError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class Reports:
    """The drift reports of all versions, read again when their files are replaced. Safe in any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[Key, tuple[object, DriftReport | None, KeptWindow | None, list[str]]] = {}

    def of(self, model: str, version: str) -> DriftReport | None:
        """Return the report of a version's last window, None where none has closed."""
        return self._now((model, version))[1]

    def window(self, model: str, version: str, layout: list[str]) -> KeptWindow | None:
        """Return a version's last window that had rows enough, None where none has closed with the same bins."""
        _, _, window, known = self._now((model, version))
        return window if known == layout else None

    def _now(self, key: Key) -> tuple[object, DriftReport | None, KeptWindow | None, list[str]]:
        """Return (mark, report, last window, layout) of a version's file."""
        now = mark(self._store, key)
        known = self._read.get(key)
        if known is None or known[0] != now:
            state = read(self._store, key) if now is not None else None
            window = state.windows[-1] if state and state.windows else None
            known = (now, state.report, window, state.layout) if state else (now, None, None, [])
            self._read[key] = known
        return known


def prune(store: Store) -> None:
    """Delete the files of versions that are installed no more; the caller holds the store's lock."""
    folder = store.state_dir / "drift"
    with suppress(FileNotFoundError):
        for name in nofollow.entries(folder, within=store.state_dir):
            kept = {f"{version}.json" for version in store.versions(name)}
            for file in set(nofollow.entries(folder / name, within=store.state_dir)) - kept:
                with suppress(FileNotFoundError):
                    durable.delete(folder / name / file, within=store.state_dir)

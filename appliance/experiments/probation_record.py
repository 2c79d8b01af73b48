"""STATE_DIR/probation/NAME.json: what was counted of a model's active version, and of the one before.

A record of what was seen, replaced atomically every few seconds while something changes; what a kill loses are the
counts since then. What was decided is in activation.json alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from appliance import nofollow
from appliance.errors import ApplianceError, StoreError
from appliance.store import activation, durable
from appliance.store.record import Activation, State
from appliance.store.versions import Store

if TYPE_CHECKING:
    from appliance.experiments.evidence import Rate

FOLDER = "probation"

Action = Literal["mark good", "go back", "wait"]


class Counts(msgspec.Struct, frozen=True):
    """What was counted of one version."""

    version: str
    requests: int = 0
    failures: int = 0
    run_buckets: tuple[int, ...] = ()
    """Runs of the graph by their time, see counters.BOUNDS; empty before the first."""

    def plus(self, requests: int, failures: int, run_buckets: Sequence[int]) -> "Counts":
        """Return the counts with more."""
        before = self.run_buckets if len(self.run_buckets) == len(run_buckets) else (0,) * len(run_buckets)
        buckets = tuple(one + more for one, more in zip(before, run_buckets, strict=True))
        return Counts(self.version, self.requests + requests, self.failures + failures, buckets)

    @property
    def failed(self) -> "Rate":
        """The share of the requests that failed."""
        from appliance.experiments.evidence import Rate  # what serves is counted always, and proved seldom

        return Rate(self.failures, self.requests)


class Watch(msgspec.Struct, frozen=True):
    """The counts of the version that serves, and of the one before."""

    since: str
    """When it became active, as activation.json says it."""
    now: Counts
    before: Counts | None = None
    nan: tuple[int, int] = (0, 0)
    """Requests that were looked at, and those answered NaN where the version before answers a number."""
    seconds: float = 0.0
    """Seconds for which it has served while the service ran, by a monotonic clock."""
    verdict: str = ""
    """What a person is told."""
    action: Action | None = None
    """What follows from it: `go back` stays where there is no version to go back to; None while nothing is judged."""


class Probation(msgspec.Struct, frozen=True):
    """This host's own verdict on the version that serves."""

    state: State
    verdict: str = ""
    """In words; "" where nothing is judged, as for a version that is good."""
    action: Action | None = None
    """What follows from it: `wait`, or `go back` where that is not possible; null where nothing is judged."""
    requests: int = 0
    failures: int = 0


def read(state_dir: Path, name: str) -> Watch | None:
    """Return what was seen of a model; None for nothing, or for a record that cannot be read: counting starts again."""
    try:
        return msgspec.json.decode(nofollow.read(_path(state_dir, name), within=state_dir), type=Watch)
    except (OSError, ValueError, msgspec.MsgspecError, StoreError):
        return None


def write(state_dir: Path, name: str, watch: Watch) -> None:
    """Replace what was seen of a model. Raises OSError, StoreError."""
    path = _path(state_dir, name)
    durable.make_folder(path.parent, within=state_dir)
    content = msgspec.json.format(msgspec.json.encode(watch), indent=1) + b"\n"
    durable.write_atomically(path, content, within=state_dir)


def followed(watch: Watch | None, activation: Activation) -> Watch:
    """Return the watch on the version that is active now; what was counted of it, or of the one before, goes on."""
    assert activation.active is not None  # noqa: S101 - asked for active versions alone
    if watch and (watch.now.version, watch.since) == (activation.active, activation.since):
        return watch
    known = {counts.version: counts for counts in (watch and watch.before, watch and watch.now) if counts}
    now = known.get(activation.active) or Counts(activation.active)
    before = known.get(activation.previous) if activation.previous else None
    if activation.state == "probation":
        now = Counts(activation.active)  # what it did in an earlier life is no proof of this one
        before = before or (Counts(activation.previous) if activation.previous else None)
    return Watch(activation.since, now, before)


def described(state_dir: Path, name: str, activation: Activation) -> Probation | None:
    """Return the host's own verdict on the version that serves; None where none serves."""
    if activation.active is None:
        return None
    watch = read(state_dir, name)
    if watch is None or (watch.now.version, watch.since) != (activation.active, activation.since):
        return Probation(activation.state)
    return Probation(activation.state, watch.verdict, watch.action, watch.now.requests, watch.now.failures)


def failing(store: Store, name: str) -> tuple[str, str] | None:
    """Return (version, why) of an active version that fails its probation and could not be taken back, else None."""
    try:
        now = activation.read(store, name)
    except ApplianceError:
        return None
    told = described(store.state_dir, name, now)
    return (now.active, told.verdict) if told and now.active and told.action == "go back" else None


def _path(state_dir: Path, name: str) -> Path:
    return state_dir / FOLDER / f"{name}.json"

"""routing.json: the experiment that runs on a model: its arms, its plan, and the evidence so far.

What is on disk when, and what a crash leaves:

    no file    no experiment: the active version answers every request that names none
    a file     the experiment runs, as long as the active version is the one that it began with (`base`)
    a leftover the active version has changed since: the experiment has ended, and its file counts for nothing.
               A promotion and a roll back replace activation.json first, which is the one step that decides, and
               delete this file afterwards; whoever changes the model next deletes what a crash left

The file is replaced whole, with the store's lock held: a power cut leaves the old record or the new one.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from appliance import nofollow
from appliance.config.section import Fraction, NotNegativeSeconds, Positive, Seconds
from appliance.errors import StoreError
from appliance.store import durable, record

FILE = "routing.json"
FORMAT = 1
MOST_ARMS = 16
"""Of one experiment."""
TOLERANCE = 1e-6
"""By which shares may miss 1 together."""

Kind = Literal["shadow", "canary", "split"]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version and its share of the requests."""

    version: str
    share: Share


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a step of a canary ends, and when any experiment is taken back."""

    steps: tuple[Share, ...] = ()
    """Shares of the canary, one for each step after the shadow; empty for a shadow or a split."""
    alpha: Fraction = 0.01
    """The chance, for each test, of ever acting though the versions are alike."""
    min_requests: Positive = 300
    """Requests of the challenger that a step takes at least."""
    min_seconds: NotNegativeSeconds = 300.0
    """Seconds that a step takes at least."""
    margin: Fraction = 0.025
    """How much greater the challenger's failure rate may be, at its upper bound, than the active version's."""
    max_seconds: Seconds = 604_800.0
    """Seconds of a step after which too little traffic is told of as such; it is held all the same."""
    hold: bool = False
    """Whether each step is held until a person says `appliance promote`, or `appliance abort`."""
    schema_may_differ: bool = False
    """Whether the versions may take other rows or give other answers."""


class Routing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What models/NAME/routing.json says."""

    id: str
    """Of the experiment: 8 hexadecimal digits."""
    salt: str
    """16 hexadecimal digits, random for each experiment, so that the same keys are not always the canary's."""
    kind: Kind
    base: str
    """The version that was active when it began; with another one active, the experiment has ended."""
    arms: tuple[Arm, ...]
    """Who answers requests that name no version, `base` first; together 1."""
    format: int = FORMAT
    shadow: Arm | None = None
    """Who is asked beside, and of which share of the rows."""
    key: str = "header"
    """Where a request's key is from: `header`, `caller` (the token's name), or `column:NAME`; see docs."""
    plan: Plan = Plan()
    step: int = 0
    """Of a canary: 0 is the shadow, 1 the first of the plan's steps. Else 0."""
    since: str = ""
    """When the step began: UTC, ISO 8601, to the second."""
    log_e: dict[str, float] = {}
    """{test and version: ln E of the steps that have ended}; what this step counts is in experiments/."""
    snapshot: dict[str, dict[str, float]] = {}
    """{version: {name: value}} when the step began: `slow_bound` of `base`, the seconds above which a run is slow."""
    why: str = ""

    @property
    def described(self) -> str:
        """The experiment in a few words: `canary 9f3c2a10 of 2.0.0`."""
        return f"{self.kind} {self.id} of {' and '.join(self.challengers) or self.base}"

    @property
    def challengers(self) -> list[str]:
        """The versions beside `base`, shadow among them."""
        named = [arm.version for arm in self.arms] + ([self.shadow.version] if self.shadow else [])
        return [version for version in dict.fromkeys(named) if version != self.base]


def path(folder: Path) -> Path:
    """Return where the record of the model in `folder` is, or would be."""
    return folder / FILE


def read(folder: Path) -> Routing | None:
    """Return the record of the model in `folder`, a leftover too; None where there is none.

    Raises StoreError when it is damaged, a link, or of a newer format.
    """
    file = path(folder)
    try:
        raw = nofollow.read(file, within=_state_dir(folder))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(folder, str(error)) from error
    try:
        told = msgspec.json.decode(raw, type=_Format).format
        if told > FORMAT:
            found = f"format {told} is newer than this appliance (reads {FORMAT})"
            raise StoreError(f"read {file}", found, f"upgrade the appliance, or: appliance abort {folder.name}")
        routing = msgspec.json.decode(raw, type=Routing)
        _check(routing)
        return routing
    except (ValueError, msgspec.MsgspecError) as error:
        raise _unreadable(folder, str(error)) from error


def _check(routing: Routing) -> None:
    """Raise ValueError for a record that no command writes: whoever follows it counts on what is checked here."""
    versions = [arm.version for arm in routing.arms]
    if not versions or versions[0] != routing.base or len(set(versions)) < len(versions):
        raise ValueError(f"its arms are {', '.join(versions) or 'none'}, which do not begin with {routing.base}")
    if len(versions) > MOST_ARMS:
        raise ValueError(f"it has {len(versions)} arms, {MOST_ARMS} are allowed")
    if abs(sum(arm.share for arm in routing.arms) - 1) > TOLERANCE:
        raise ValueError("its arms' shares are not 1 together")
    if not routing.challengers:
        raise ValueError(f"it has no version beside {routing.base}")
    canary = routing.kind == "canary"
    if canary and (routing.shadow is None or versions[1:] != [routing.shadow.version]):
        raise ValueError("a canary has two arms, the second of which shadows")
    if not 0 <= routing.step <= (len(routing.plan.steps) if canary else 0):
        raise ValueError(f"step {routing.step} is none of its {len(routing.plan.steps)} steps")


def running(folder: Path) -> Routing | None:
    """Return the experiment that runs on the model in `folder`; None where none does. Raises StoreError as read()."""
    routing = read(folder)
    return routing if routing is not None and record.read(folder).active == routing.base else None


def running_if_sound(folder: Path) -> Routing | None:
    """Return the experiment that runs; one that cannot be read does not: nothing is routed by it."""
    try:
        return running(folder)
    except StoreError:
        return None


def delete_ended(folder: Path) -> None:
    """Delete a record by which nothing is routed; the caller holds the store's lock. Raises OSError, StoreError."""
    if running_if_sound(folder) is None:
        remove(folder)


def write(folder: Path, routing: Routing) -> None:
    """Replace the record of the model in `folder`; the caller holds the store's lock. Raises OSError, StoreError."""
    content = msgspec.json.format(msgspec.json.encode(routing), indent=1) + b"\n"
    durable.write_atomically(path(folder), content, within=_state_dir(folder))


def remove(folder: Path) -> bool:
    """Delete the record of the model in `folder`, whatever it holds; return whether there was one.

    The caller holds the store's lock. Raises OSError, StoreError.
    """
    try:
        nofollow.status(path(folder), within=_state_dir(folder))
    except FileNotFoundError:
        return False
    except StoreError:
        pass  # a link is taken away as well: it is not followed
    durable.delete_file(path(folder), within=_state_dir(folder))
    return True


class _Format(msgspec.Struct):
    """The one field that every format has."""

    format: int = FORMAT


def _unreadable(folder: Path, found: str) -> StoreError:
    return StoreError(f"read {path(folder)}", found, f"end the experiment: appliance abort {folder.name}")


def _state_dir(folder: Path) -> Path:
    """Return the state folder around STATE_DIR/models/NAME."""
    return folder.parents[1]

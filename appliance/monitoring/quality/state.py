"""STATE_DIR/log/NAME/quality.json: what came of a model's labels so far, and how far its log was read.

The file is replaced whole. The log has it all: deleted or damaged, it is made again.
"""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from appliance import nofollow
from appliance.monitoring.prediction_log import segments
from appliance.monitoring.prediction_log.lines import Label
from appliance.monitoring.quality.standing import Past, Standing
from appliance.store import durable

FILE = "quality.json"

log = logging.getLogger(__name__)


class Window(msgspec.Struct):
    """The sums of one version, arm and day of predictions, before or after the version was marked good."""

    version: str
    arm: str
    day: str
    classes: list[Any]
    sums: dict[str, float]
    good: str = ""
    """When the version was last marked good before these predictions (UTC, ISO 8601)."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from the others."""
        return self.version, self.arm, self.day, self.good


class Place(msgspec.Struct):
    """How far a writer's log was read."""

    segment: int = 1
    offset: int = 0


class Pending(msgspec.Struct):
    """A label whose prediction is not found yet."""

    label: Label
    writer: str
    segment: int
    offset: int
    read: float


class State(msgspec.Struct):
    """The state of a model's labels: their outcomes, and all sums."""

    format: int = 1
    places: dict[str, Place] = {}
    windows: list[Window] = []
    counts: dict[str, int] = {}
    pending: list[Pending] = []
    pasts: dict[str, Past] = {}
    """{version: what its first days were}"""
    standings: dict[str, Standing] = {}
    """{version: whether it is worse now}"""


def day_of(moment: float) -> str:
    """Return the day (UTC) of a Unix time."""
    return datetime.fromtimestamp(min(max(moment, 0.0), 2e11), UTC).date().isoformat()


def read(state_dir: Path, model: str) -> State:
    """Return what came of a model's labels so far; a damaged file is passed over: the log has it all."""
    try:
        content = nofollow.read(state_dir / segments.FOLDER / model / FILE, within=state_dir)
        return msgspec.json.decode(content, type=State)
    except FileNotFoundError:
        return State()
    except msgspec.MsgspecError:
        log.exception("quality is computed again", extra={"model": model})
        return State()


def write(state_dir: Path, model: str, state: State) -> None:
    """Keep what came of a model's labels; at any moment the file is the old or the new one. Raises OSError."""
    durable.write_atomically(state_dir / segments.FOLDER / model / FILE, msgspec.json.encode(state), within=state_dir)

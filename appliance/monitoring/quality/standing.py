"""How a version's labels stand beside its own past: plain data, kept with the sums."""

from datetime import UTC, datetime
from typing import Any

import msgspec

FINE, WORSE, TOO_FEW = "fine", "worse", "too few labels"


class Past(msgspec.Struct, frozen=True):
    """What a version is measured against, once it is known."""

    rows: float
    """With a label."""
    total: float
    """Of classes how many were wrong, of numbers the sum of |error|."""
    squares: float
    """The sum of their squares."""
    until: str = ""
    """The last day of predictions that is in it; "" for rows at conversion, which the model was not trained on."""


class Standing(msgspec.Struct, frozen=True):
    """Whether a version's labels are worse than its past."""

    state: str
    """`fine`, `worse` or `too few labels`."""
    since: str
    """When it changed last (UTC, ISO 8601)."""
    because: str = ""
    """What is worse than what; "" where nothing is."""

    def followed_by(self, state: str, because: str) -> "Standing":
        """Return how its labels stand now."""
        since = self.since if self.state == state else datetime.now(UTC).isoformat(timespec="seconds")
        return Standing(state, since, because)

    def as_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        return msgspec.structs.asdict(self)

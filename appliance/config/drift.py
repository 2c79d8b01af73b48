"""`[drift]`: whether the rows of today still look like those of training, and of the device's own past."""

from typing import Annotated, Literal

import msgspec

from appliance.config.section import Positive, Section


class DriftConfig(Section, frozen=True):
    """`[drift]`: the watch over inputs and outputs of every version that answers; docs/drift.md says how."""

    enabled: bool = True
    """Whether rows are counted and compared. What is counted never leaves the host."""
    window_seconds: Annotated[float, msgspec.Meta(ge=60)] = 3600.0
    """Seconds of a window, at least 60; it lasts longer until `min_rows` rows have come, but 24 hours at most."""
    min_rows: Positive = 500
    """Rows that a window needs."""
    psi: Annotated[float, msgspec.Meta(gt=0)] = 0.1
    """Population stability index above which a column is watched; above twice of it, it is in drift."""
    false_alarms_a_year: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Alarms by chance alone that each version may have in a year; fewer find drift later."""
    on_drift: Literal["tell", "fallback"] = "tell"
    """What drift does: `tell` (status, log, metrics, MQTT), or also answer rows by the model's `[quality] fallback`."""

"""`[quality]`: the quality flag of each answer, and the fallback for rows that are not good."""

from appliance.config.section import Section

Fallback = float | int | bool | str


class QualityConfig(Section, frozen=True):
    """`[quality]`: a flag beside each prediction; docs/drift.md#the-quality-flag.

    A request may ask for it without this, by `"quality": true`.
    """

    enabled: bool = False
    """Whether every answer has the flag."""
    fallback: dict[str, Fallback] = {}  # noqa: RUF012 - msgspec copies an empty default
    """What is answered for a row that is not `good`, by model: `{ pump = 0.0, oven = "refuse" }`. A value stands in for
    the prediction; `refuse` refuses the request (400). Drift alone counts with `[drift] on_drift = "fallback"`. In the
    variable `pump=0.0,oven=refuse`.
    """

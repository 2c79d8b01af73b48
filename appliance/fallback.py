"""What is answered for rows whose quality is not good: the model's prediction, a configured value, or a refusal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from appliance.arrays import Array
from appliance.config import Config
from appliance.errors import InvalidInput, NotReady
from appliance.inference.quality import RowQuality

REFUSE = "refuse"
Value = float | int | bool | str


def no_drift(model: str, version: str) -> str:
    """Return "": no column is in drift."""
    return ""


@dataclass(frozen=True, slots=True)
class QualityPolicy:
    """Whether answers have the quality flag, and what stands in for predictions that are not good."""

    enabled: bool = False
    fallback: Mapping[str, Value] = field(default_factory=dict)
    """{model: a value, or REFUSE}."""
    drift_falls_back: bool = False
    """Whether drift alone is reason enough."""
    drifted: Callable[[str, str], str] = no_drift
    """(model, version) -> an input column that is in drift, "" for none."""

    @classmethod
    def of(cls, config: Config, drifted: Callable[[str, str], str] = no_drift) -> "QualityPolicy":
        """Return the policy of a configuration."""
        quality = config.quality
        return cls(quality.enabled, quality.fallback, config.drift.on_drift == "fallback", drifted)

    def judges(self, model: str) -> bool:
        """Return whether a model's rows are judged unasked."""
        return self.enabled or model in self.fallback

    def stands_in(self, model: str, quality: Sequence[RowQuality]) -> list[int]:
        """Return the rows that the model's fallback is for. Raises InvalidInput where it is a refusal."""
        if model not in self.fallback:
            return []
        rows = self.poor(quality)
        if rows and self.refuses(model):
            one = quality[rows[0]]
            found = f"row {rows[0]} is {one.flag}: column {one.column!r}"
            next_step = "send rows as the model was trained on, or change [quality] fallback"
            raise InvalidInput(f"answer by the model {model}", found, next_step)
        return rows

    def refuses(self, model: str) -> bool:
        """Return whether the model's fallback is a refusal."""
        return self.fallback.get(model) == REFUSE

    def poor(self, quality: Sequence[RowQuality]) -> list[int]:
        """Return the rows that are not good enough for the model's own prediction."""
        enough = ("good",) if self.drift_falls_back else ("good", "drifted")
        return [row for row, one in enumerate(quality) if one.flag not in enough]

    def replaced(self, model: str, prediction: Array, rows: Sequence[int]) -> Array:
        """Return predictions [rows, ...] with the fallback in some rows. Raises NotReady where it does not fit."""
        value: Any = _as(prediction.dtype, self.fallback[model])
        if value is None:
            found = f"{self.fallback[model]!r} is no {prediction.dtype}, which the model predicts"
            raise NotReady(f"answer by the fallback of {model}", found, "change [quality] fallback")
        changed = prediction.copy()
        changed[list(rows)] = value
        return changed


def with_fallback(quality: Sequence[RowQuality], rows: Sequence[int]) -> list[RowQuality]:
    """Return the quality of rows, of which some are answered by the fallback."""
    chosen = set(rows)
    return [msgspec.structs.replace(one, fallback=True) if row in chosen else one for row, one in enumerate(quality)]


def _as(dtype: np.dtype[np.generic], value: Value) -> object | None:
    """Return a value as a dtype holds it, None where it does not. The environment has texts alone."""
    if dtype.kind == "O":
        return value if isinstance(value, str) else None
    try:
        number = float(value)
    except ValueError:
        return None
    if dtype.kind in "iu":
        return int(number) if number.is_integer() else None
    return number if dtype.kind == "f" else None

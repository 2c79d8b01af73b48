"""A model's quality by its labels: for each version, arm and window its coverage, then its figures."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from appliance.errors import StoreError
from appliance.monitoring.prediction_log import segments
from appliance.monitoring.quality import figures, join
from appliance.monitoring.quality.join import OUTCOMES, State, Window
from appliance.monitoring.quality.sums import together

Json = dict[str, Any]


def of_model(state_dir: Path, model: str, *, now: float, good_since: dict[str, str] | None = None) -> Json:
    """Return the report: windows of each version and arm are all days kept, today, and since it was marked good.

    `good_since` is {version: day it was marked good}. Arms are apart, and together as arm null.
    """
    state = join.read(state_dir, model)
    today = join.day_of(now)
    found = []
    for version in sorted({one.version for one in state.windows}):
        own = [one for one in state.windows if one.version == version]
        arms: list[str | None] = [None, *sorted({one.arm for one in own if one.arm})]
        good = (good_since or {}).get(version)
        for arm in arms:
            parts = [one for one in own if arm is None or one.arm == arm]
            wanted = {"all": "", "day": today, **({"since mark good": good} if good else {})}
            for name, first in wanted.items():
                found += _entry(version, arm, name, first, [one for one in parts if one.day >= first])
    counts = {outcome: state.counts.get(outcome, 0) for outcome in OUTCOMES}
    return {"model": model, "labels": {**counts, "waiting": len(state.pending)}, "windows": found}


_SHOWN = ("accuracy", "f1_macro", "log_loss", "brier", "auc", "mae", "rmse", "bias", "r2")


@dataclass(frozen=True, slots=True)
class QualityFigures:
    """A model's labels and figures, for metrics."""

    labels: dict[str, int]
    """{outcome: labels}"""
    figures: dict[str, dict[str, float]]
    """{version: {figure: value}}, without what is not known."""


def of_all(state_dir: Path) -> dict[str, QualityFigures]:
    """Return the figures of every model that has a log, over all days; none where it cannot be read."""
    found = {}
    with suppress(OSError, StoreError):
        for model in segments.models(state_dir):
            state = join.read(state_dir, model)
            figures = {
                version: {
                    name: value
                    for name, value in {**one, "coverage": one["coverage"]["share"]}.items()
                    if (name in _SHOWN or name == "coverage") and isinstance(value, float)
                }
                for version, one in by_version(state).items()
            }
            counts = {outcome: state.counts.get(outcome, 0) for outcome in OUTCOMES}
            found[model] = QualityFigures(counts, figures)
    return found


def by_version(state: State) -> dict[str, Json]:
    """Return {version: its report over all days and arms}."""
    versions = sorted({one.version for one in state.windows})
    return {
        version: figures.report(together([one.sums for one in own]), own[-1].classes)
        for version in versions
        if (own := [one for one in state.windows if one.version == version])
    }


def _entry(version: str, arm: str | None, name: str, first: str, parts: Sequence[Window]) -> list[Json]:
    """Return the entry of one window, none where nothing was predicted in it."""
    if not parts:
        return []
    days = [one.day for one in parts]
    report = figures.report(together([one.sums for one in parts]), parts[-1].classes)
    until = (date.fromisoformat(max(days)) + timedelta(days=1)).isoformat()
    return [{"version": version, "arm": arm, "window": name, "from": first or min(days), "until": until, **report}]

"""A model's quality by its labels: for each version, arm and window its coverage, then its figures."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from appliance.errors import StoreError
from appliance.monitoring.prediction_log import segments
from appliance.monitoring.quality import figures
from appliance.monitoring.quality import state as kept
from appliance.monitoring.quality.join import OUTCOMES
from appliance.monitoring.quality.standing import TOO_FEW, WORSE
from appliance.monitoring.quality.state import State, Window, day_of
from appliance.monitoring.quality.sums import together

Json = dict[str, Any]


def of_model(state_dir: Path, model: str, *, now: float, good_since: dict[str, str] | None = None) -> Json:
    """Return the report: windows of each version and arm are all days kept, today, and since it was marked good.

    `good_since` is {version: when it was last marked good (UTC, ISO 8601)}. Arms are apart, and together as arm null.
    """
    state = kept.read(state_dir, model)
    today = day_of(now)
    found = []
    for version in sorted({one.version for one in state.windows}):
        own = [one for one in state.windows if one.version == version]
        arms: list[str | None] = [None, *sorted({one.arm for one in own if one.arm})]
        good = (good_since or {}).get(version)
        for arm in arms:
            parts = [one for one in own if arm is None or one.arm == arm]
            found += _entry(version, arm, "all", "", parts)
            found += _entry(version, arm, "day", today, [one for one in parts if one.day >= today])
            if good:
                found += _entry(version, arm, "since mark good", good, [one for one in parts if one.good >= good])
    counts = {outcome: state.counts.get(outcome, 0) for outcome in OUTCOMES}
    standings = [{"version": version, **one.as_dict()} for version, one in sorted(state.standings.items())]
    waiting = len(state.pending)
    return {"model": model, "labels": {**counts, "waiting": waiting}, "standings": standings, "windows": found}


_SHOWN = ("accuracy", "f1_macro", "log_loss", "brier", "auc", "mae", "rmse", "bias", "r2")


@dataclass(frozen=True, slots=True)
class QualityFigures:
    """A model's labels and figures, for metrics."""

    labels: dict[str, int]
    """{outcome: labels}"""
    figures: dict[str, dict[str, float]]
    """{version: {figure: value}}, without what is not known."""
    worse: dict[str, bool]
    """{version: whether its labels are worse than its past}, of those with labels enough."""


def of_all(state_dir: Path) -> dict[str, QualityFigures]:
    """Return the figures of every model that has a log, over all days; none where it cannot be read."""
    found = {}
    with suppress(OSError, StoreError):
        for model in segments.models(state_dir):
            state = kept.read(state_dir, model)
            figures = {
                version: {
                    name: value
                    for name, value in {**one, "coverage": one["coverage"]["share"]}.items()
                    if (name in _SHOWN or name == "coverage") and isinstance(value, float)
                }
                for version, one in by_version(state).items()
            }
            counts = {outcome: state.counts.get(outcome, 0) for outcome in OUTCOMES}
            known = {version: one for version, one in state.standings.items() if one.state != TOO_FEW}
            worse = {version: one.state == WORSE for version, one in known.items()}
            found[model] = QualityFigures(counts, figures, worse)
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

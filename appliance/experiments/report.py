"""The report on a model's experiment, read from the store: for users and for the judge.

Any process reads it, whether the service runs or not: `appliance experiment` and `GET /models/NAME/experiment`.
"""

from pathlib import Path
from typing import Any

import msgspec

from appliance.bundle.manifest import Label
from appliance.errors import ApplianceError
from appliance.experiments import comparison, counting, files, quality, step_clock, worst_rows
from appliance.experiments import verdict as verdicts
from appliance.experiments.counting import FAILED, NAN, SEEN, SLOW
from appliance.experiments.evidence import Rate
from appliance.experiments.shadow import shadow_key
from appliance.experiments.verdict import Seen, Verdict
from appliance.monitoring import shared_cells
from appliance.monitoring.experiment_figures import ArmFigures, ExperimentFigures
from appliance.store.routing_record import Routing
from appliance.store.versions import Store

_TOLD = (SEEN, FAILED, SLOW, NAN)
"""Kinds of events, in the order of ArmFigures."""
_WITHOUT_EVIDENCE = ("split", "quality")
"""Findings that are no test of worse counts: the arms' shares, and a confidence sequence."""


def seen(folder: Path, name: str, routing: Routing, *, within: Path | None) -> Seen:
    """Return all that was counted of an experiment, over all processes."""
    shadow = shared_cells.sum_of_all(folder, comparison.LAYOUT, within=within).get(shadow_key(name, routing))
    labelled = quality.of_versions(folder, name, within=within)
    prefix = f"{routing.id}."
    return Seen(
        arms=counting.read(folder, routing, name, within=within),
        shadow=shadow or [0.0] * comparison.CELLS,
        paired=quality.of_pairs(folder, name, routing, within=within),
        quality={one.removeprefix(prefix): found for one, found in labelled.items() if one.startswith(prefix)},
    )


def verdict(folder: Path, name: str, routing: Routing, seconds: float, *, within: Path | None) -> Verdict:
    """Return what follows for an experiment whose step began `seconds` ago."""
    return verdicts.judge(routing, seen(folder, name, routing, within=within), seconds)


def document(store: Store, name: str, routing: Routing, seconds: float) -> dict[str, Any]:
    """Return what is known of a running experiment, for JSON: the record, the verdict, the arms, the comparison."""
    folder, within = files.folder(store.state_dir), store.state_dir
    found = seen(folder, name, routing, within=within)
    told: dict[str, Any] = {
        "verdict": verdicts.judge(routing, found, seconds).document(),
        "arms": [_arm(routing, found, place) for place in range(len(routing.arms))],
    }
    if routing.shadow is not None:
        worst = worst_rows.read(folder, shadow_key(name, routing), within=within)
        told["comparison"] = comparison.report(found.shadow, _labels(store, name, routing.base), worst)
        told["comparison"]["with_labels"] = msgspec.to_builtins(found.paired)
    return told


def figures(store: Store, name: str, routing: Routing) -> ExperimentFigures:
    """Return what is known of a running experiment as numbers, for /metrics."""
    folder, within = files.folder(store.state_dir), store.state_dir
    found = seen(folder, name, routing, within=within)
    verdict = verdicts.judge(routing, found, step_clock.seconds(folder, name, routing, within=within))
    split_is_broken = any(one.test == "split" for one in verdict.findings)
    state = "inconclusive" if verdict.inconclusive else "routing broken" if split_is_broken else verdict.action
    arms = zip(routing.arms, found.arms, strict=True)
    return ExperimentFigures(
        name,
        routing.step,
        state,
        [ArmFigures(arm.version, arm.share, *(counts.events[kind] for kind in _TOLD)) for arm, counts in arms],
        (routing.shadow.version, routing.shadow.share) if routing.shadow else None,
        comparison.figures(found.shadow) if routing.shadow else {},
        {(one.version, one.test): one.log_e for one in verdict.findings if one.test not in _WITHOUT_EVIDENCE},
    )


def _arm(routing: Routing, found: Seen, place: int) -> dict[str, Any]:
    """Return what one arm did in the step that runs."""
    arm, counts = routing.arms[place], found.arms[place]
    requests = sum(one.events[SEEN] for one in found.arms)
    units = sum(one.units[SEEN] for one in found.arms)
    failed = Rate(counts.events[FAILED], counts.events[SEEN])
    return {
        "version": arm.version,
        "share": arm.share,
        "requests": counts.events[SEEN],
        "share_of_requests": counts.events[SEEN] / requests if requests else None,
        "share_of_keys": counts.units[SEEN] / units if units else None,
        "failures": counts.events[FAILED],
        "failure_rate": [round(bound, 6) for bound in failed.bounds()],
        "slow_runs": counts.events[SLOW],
        "runs": counts.runs,
        "nan": counts.events[NAN],
    }


def _labels(store: Store, name: str, version: str) -> list[Label]:
    """Return a version's class labels; none where its files are gone or damaged, which is told of elsewhere."""
    try:
        return list(store.manifest(name, version).class_labels)
    except ApplianceError:
        return []

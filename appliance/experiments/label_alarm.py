"""Whether a version's labels say that it is worse than it was: its errors now against those of its own past. Pure.

Its past is, of classes, the rows that it was not trained on at conversion (the baseline's calibration), and where there
are none, or labels are not of a fair share of all classes, its first days here: so many that LEAST rows have a label.
Two spans of predictions are looked at: the newest day that has labels, and the last RECENT days, both after the past.

Each test is valid at every look (see evidence.py), so labels may come at any time and the alarm may be asked for each
second. Each day has two tests of its own: with alpha = false alarms a year / (365 x 2) for each, that many false alarms
are to be expected in a year at most.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from appliance.experiments import evidence
from appliance.experiments.evidence import Rate
from appliance.monitoring.quality import figures
from appliance.monitoring.quality.standing import FINE, TOO_FEW, WORSE, Past
from appliance.monitoring.quality.sums import Sums, together

LEAST = 200
"""Labelled rows that make a past of the first days."""
RECENT = 7
"""Days that are looked at together."""

Days = Mapping[str, Sums]
"""{day of predictions (ISO 8601): the sums of all arms}"""


def past_of(days: Days, classes: Sequence[Any], today: str) -> Past | None:
    """Return what a version's first whole days make, None while they have too few labels."""
    taken: list[Sums] = []
    for day in sorted(one for one in days if one < today):
        taken.append(days[day])
        found = _wrongness(together(taken), classes)
        if found.count >= LEAST:
            return Past(found.count, found.total, found.squares, day)
    return None


def judged(
    days: Days, classes: Sequence[Any], known: Past | None, own: Past | None, false_alarms_a_year: float
) -> tuple[str, str]:
    """Return (state, because) of a version; `known` is its past by the baseline, `own` by its first days here."""
    alpha = min(0.5, false_alarms_a_year / (365 * 2))
    state, labelled = TOO_FEW, sorted(day for day in days if days[day].get("labelled"))
    for name, span in _spans(labelled):
        recent = together([days[day] for day in span])
        past = known if known and not figures.report(recent, classes)["coverage"].get("weighted") else own
        if past is None:
            continue
        later = [days[day] for day in span if day > past.until]
        now = _wrongness(together(later), classes)
        if not now.count:
            continue
        state = FINE
        if _is_worse(now, past, alpha, numbers=not classes):
            return WORSE, _says(now, past, name, numbers=not classes)
    return state, ""


def _spans(labelled: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return (what it is called, its days) of each span that is looked at."""
    if not labelled:
        return []
    newest = labelled[-1]
    first = (date.fromisoformat(newest) - timedelta(days=RECENT - 1)).isoformat()
    return [(newest, [newest]), (f"the {RECENT} days to {newest}", [day for day in labelled if day >= first])]


def _wrongness(sums: Sums, classes: Sequence[Any]) -> evidence.Sums:
    """Return how wrong the labelled rows are, together: 1 or 0 for each of classes, else |error|."""
    rows = sums.get("labelled", 0.0)
    if classes:
        wrong = rows - sums.get("right", 0.0)
        return evidence.Sums(round(rows), wrong, wrong)
    return evidence.Sums(round(rows), sums.get("absolute", 0.0), sums.get("squares", 0.0))


def _is_worse(now: evidence.Sums, past: Past, alpha: float, *, numbers: bool) -> bool:
    """Return whether the errors now are proved to be more than those of the past."""
    before = evidence.Sums(round(past.rows), past.total, past.squares)
    if numbers:
        return evidence.difference(now, before, alpha)[0] > 0
    new, old = Rate(round(now.total), now.count), Rate(round(before.total), before.count)
    return evidence.rate_is_higher(new, old, 0.0, alpha)


def _says(now: evidence.Sums, past: Past, span: str, *, numbers: bool) -> str:
    """Return what is worse than what, for people."""
    then = f"its days to {past.until}" if past.until else "unseen rows at conversion"
    mean = past.total / past.rows
    if numbers:
        return f"off by {now.mean:.4g} on average of {now.count} labelled rows of {span}; {mean:.4g} in {then}"
    return f"wrong on {now.mean:.1%} of {now.count} labelled rows of {span}; {mean:.1%} in {then}"

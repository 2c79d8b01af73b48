"""The proof's last rows: those that the falsifier searches for, and those that are asked again under another clock."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from convert.converters import rehearsal
from convert.model.arrays import Array
from convert.model.steps import BOOSTERS, steps
from convert.proof import falsifier, moves
from convert.proof.both_sides import BothSides
from convert.proof.boundaries import numbered
from convert.proof.certificate import RowKind, Search
from convert.proof.comparison import ELSEWHEN, FAR, SEARCHED, ParityComparison
from convert.proof.falsifier import CLIMBERS, Asked
from convert.proof.rows import Batch

_DRAWN = (
    "one column of a row moved at a time, as long as that enlarges the difference; jumps of an answer narrowed down"
)
_CALLS = 32  # to part the rows of a round that the original refuses from the others
_COSTLY_OF_A_BATCH = 8
_ROWS_ELSEWHEN = 64


class Costly:
    """The rows of a proof that took the largest shares of the tolerance, for the falsifier to begin with."""

    def __init__(self) -> None:
        self._found: list[tuple[float, pd.DataFrame]] = []

    def add(self, batch: Batch, share: Array) -> None:
        """Take note of a batch's rows, by the share of the tolerance that each took; far rows do not count."""
        if batch.kind in FAR:
            return
        for index in np.argsort(-share, kind="stable")[:_COSTLY_OF_A_BATCH]:
            if share[index] > 0:
                self._found.append((float(share[index]), batch.frame.iloc[index : index + 1]))

    def rows(self, like: pd.DataFrame) -> pd.DataFrame:
        """Return the costliest of them, at most half of the falsifier's climbers; `like` shows their columns."""
        self._found.sort(key=lambda pair: -pair[0])
        worst = [row for _, row in self._found[: CLIMBERS // 2]]
        return pd.concat(worst, ignore_index=True) if worst else like.iloc[:0]


def search(
    sides: BothSides,
    comparison: ParityComparison,
    costly: pd.DataFrame,
    enough: float,
    most_rows: int = falsifier.MOST_ROWS,
    progress: Callable[[int], None] = lambda rows: None,
) -> tuple[Search, RowKind]:
    """Return what the falsifier came to, and its rows for the certificate; `progress` hears how many were asked.

    It ends where a row takes more than `enough` of the tolerance.
    """
    counts = {"drawn": 0, "refused": 0, "tied": 0, "not_asked": 0}

    def ask(rows: pd.DataFrame) -> Asked:
        found = sides.answered(Batch(SEARCHED, _DRAWN, rows), _CALLS)
        counts["drawn"] += len(rows)
        counts["refused"] += found.refused
        counts["tied"] += found.tied
        counts["not_asked"] += found.not_asked
        progress(counts["drawn"])
        if not len(found.batch.frame):
            return Asked(found.mask, np.zeros(0), np.zeros((0, 1)))
        compared = comparison.compare(found.batch, sides.limits)
        last = list(compared.answers.values())[-1]
        return Asked(found.mask, compared.share, numbered(last))

    schema = sides.original.schema
    thresholds = sides.splits.thresholds() if sides.splits else {}
    thresholds = {name: own for name, (own, _) in sides.original.thresholds().items()} | thresholds
    own = moves.of(schema, sides.limits, sides.candidate.float_type, sides.specials, thresholds, sides.least)
    found = falsifier.search(ask, own, schema.frame, costly, most_rows, enough)
    off = comparison.kind(Batch(SEARCHED, _DRAWN, schema.frame.iloc[:0])).rows_off
    rows = counts["drawn"] - counts["not_asked"]
    kind = RowKind(SEARCHED, _DRAWN, rows, counts["refused"], off, counts["tied"], counts["not_asked"])
    return found, kind


def elsewhen(sides: BothSides, comparison: ParityComparison) -> list[RowKind]:
    """Ask the original some rows of the sample again at other times and with other random numbers, and compare.

    Only models that hold other people's code are asked: scikit-learn's and the boosters' answers depend on no clock.
    """
    original = sides.original
    if all(_is_known(step) for _, step in steps(original.model)):
        return []
    drawn = "rows of the sample, asked again at another time, in another time zone and with other random numbers"
    batch = Batch(ELSEWHEN, drawn, original.schema.frame.iloc[:_ROWS_ELSEWHEN].reset_index(drop=True))
    kinds = []
    for seed, (seconds, zone) in enumerate(rehearsal.WORLDS[: len(rehearsal.WORLDS) // 2]):
        with rehearsal.elsewhere(seed, seconds, zone):
            answers = original.answers_anew(batch.frame)
        comparison.compare(batch, sides.limits, answers)
        kinds.append(len(batch.frame))
    off = comparison.kind(batch).rows_off
    return [RowKind(ELSEWHEN, drawn, sum(kinds), 0, off)]


def _is_known(step: object) -> bool:
    """Return whether an estimator runs its own library's code alone."""
    known = type(step).__module__.startswith(("sklearn.", *BOOSTERS))
    function = getattr(step, "func", None)
    inverse = getattr(step, "inverse_func", None)
    return known and all(own is None or isinstance(own, np.ufunc) for own in (function, inverse))

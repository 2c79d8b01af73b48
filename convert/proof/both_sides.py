"""The original and its graph side by side: which rows a proof asks, and which of those both sides answer."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from appliance.bundle.manifest import Tolerance
from appliance.errors import InvalidInput
from convert.model.arrays import Mask
from convert.model.original import Original, taken
from convert.model.schema import Limits
from convert.proof import boundaries, float32_rows, specials, splits
from convert.proof.candidate import Candidate, RefusedTie
from convert.proof.rows import Batch, draw

_LEAST_STORED = 1e-150  # its square is still a float64


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """The rows of a batch that both sides answer, and how many others were left out.

    `refused` counts rows that the original refuses. `tied` counts rows that the graph refuses, because the original
    breaks a tie by chance. `not_asked` counts rows that were not tried, since the calls for a batch are limited.
    """

    batch: Batch
    refused: int
    tied: int
    not_asked: int


class BothSides:
    """The one object that a proof asks: it draws the rows, and finds those that both sides answer.

    Either side keeps its answers (AnswerCache): comparing the same rows later asks neither of them again.
    """

    def __init__(self, original: Original, candidate: Candidate, limits: Limits, tolerance: Tolerance) -> None:
        self.original = original
        self.candidate = candidate
        self.limits = limits
        self.tolerance = tolerance

    def batches(self) -> list[Batch]:
        """Return the rows of the proof, the sample first."""
        original, schema, limits = self.original, self.original.schema, self.limits
        # A scaler turns the tiniest numbers into 0, which a sparse matrix then stores. No reading is so near to 0.
        least = _LEAST_STORED if original.watch.parts_zeros else 0.0
        found = draw(schema, limits, original.thresholds(), specials.of(original), least)
        if self.candidate.float_type == "float32":
            found += float32_rows.search(original, self.candidate, limits, self.tolerance)
        found += splits.search(self.candidate, limits)
        found += boundaries.search(schema, limits, original.answers)
        if original.jumps:
            found += boundaries.jumps(schema, limits, original.last_answer)
        return found

    def answered(self, batch: Batch) -> AnsweredRows:
        """Return the rows of a batch that both sides answer; of the sample, those that the original answers."""
        mask, asked = self.original.taken(batch.frame)
        if batch.beside is not None:
            mask, asked = _both((mask, asked), self.original.taken(batch.beside))
        refused, not_asked = int((asked & ~mask).sum()), int((~asked).sum())
        rows, tied = batch.kept(mask), 0
        if batch.kind != "sample" and self.candidate.tie_checks:
            mask, asked = taken(self._is_untied, rows.frame)
            if rows.beside is not None:
                mask, asked = _both((mask, asked), taken(self._is_untied, rows.beside))
            rows, tied, not_asked = rows.kept(mask), int((asked & ~mask).sum()), not_asked + int((~asked).sum())
        return AnsweredRows(rows, refused, tied, not_asked)

    def _is_untied(self, rows: pd.DataFrame) -> bool:
        """Return whether the graph refuses none of these rows for a tie that the original breaks by chance."""
        try:
            self.candidate.answers(rows, self.limits)
        except RefusedTie:
            return False
        except InvalidInput:
            pass
        return True


def _both(one: tuple[Mask, Mask], other: tuple[Mask, Mask]) -> tuple[Mask, Mask]:
    """Return which rows are taken on both sides, and which were asked on both."""
    return np.logical_and(one[0], other[0]), np.logical_and(one[1], other[1])

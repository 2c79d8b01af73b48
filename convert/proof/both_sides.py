"""The original and its graph side by side: which rows a proof asks, and which of those both sides answer."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from appliance.bundle.manifest import Tolerance
from appliance.errors import InvalidInput
from convert.model.arrays import Mask
from convert.model.original import CALLS_PER_BATCH, Original, taken
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
    mask: Mask
    """Which rows of the batch as it was drawn are left."""


class BothSides:
    """The one object that a proof asks: it draws the rows, and finds those that both sides answer.

    Either side keeps its answers (AnswerCache): comparing the same rows later asks neither of them again.
    """

    def __init__(self, original: Original, candidate: Candidate, limits: Limits, tolerance: Tolerance) -> None:
        self.original = original
        self.candidate = candidate
        self.limits = limits
        self.tolerance = tolerance

    @cached_property
    def specials(self) -> dict[str, list[Any]]:
        """{column: values that a step may treat specially}."""
        return specials.of(self.original)

    @cached_property
    def splits(self) -> splits.Splits | None:
        """The splits of the graph's trees; None where there are none that rows can be put on."""
        return splits.of(self.candidate, self.limits)

    @property
    def least(self) -> float:
        """Numbers nearer to 0 than this are asked as 0.

        A scaler turns the tiniest numbers into 0, which a sparse matrix then stores. No reading is so near to 0.
        """
        return _LEAST_STORED if self.original.watch.parts_zeros else 0.0

    def batches(self) -> list[Batch]:
        """Return the rows of the proof, the sample first."""
        original, schema, limits = self.original, self.original.schema, self.limits
        found = draw(schema, limits, original.thresholds(), self.specials, self.least)
        if self.candidate.float_type == "float32":
            found += float32_rows.search(original, self.candidate, limits, self.tolerance)
        found += self.splits.batches() if self.splits else []
        found += boundaries.search(schema, limits, original.answers)
        if original.jumps:
            found += boundaries.jumps(schema, limits, original.last_answer)
        return found

    def answered(self, batch: Batch, calls: int = CALLS_PER_BATCH) -> AnsweredRows:
        """Return the rows of a batch that both sides answer; of the sample, those that the original answers.

        So many `calls` part those that it refuses from the others.
        """
        mask, asked = taken(self.original.takes, batch.frame, calls)
        if batch.beside is not None:
            mask, asked = _both((mask, asked), taken(self.original.takes, batch.beside, calls))
        refused, not_asked = int((asked & ~mask).sum()), int((~asked).sum())
        rows, tied = batch.kept(mask), 0
        if batch.kind != "sample" and self.candidate.tie_checks and len(rows.frame):
            untied, asked = taken(self._is_untied, rows.frame, calls)
            if rows.beside is not None:
                untied, asked = _both((untied, asked), taken(self._is_untied, rows.beside, calls))
            rows, tied, not_asked = rows.kept(untied), int((asked & ~untied).sum()), not_asked + int((~asked).sum())
            mask = mask.copy()
            mask[mask] = untied
        return AnsweredRows(rows, refused, tied, not_asked, mask)

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

"""baseline.json: what training looked like, input by input and output by output, so that drift can be seen later.

No row can be read out of it: LEAST_COUNT values lie at each quantile or beyond, values that fewer rows hold are counted
together, and every count is rounded to a multiple of it, so that none below it can be had by subtraction from the rows.

Format 2 adds what format 1 lacks: counted bins in the tensor's own type, design effects, whether the sample is unseen,
and where it is and its answers are known, the calibration of the probabilities and the errors for conformal intervals.
"""

import math
from itertools import pairwise
from typing import Annotated, Literal

import msgspec

from appliance.bundle import strict_json
from appliance.errors import BundleRefused

FORMAT = 2
"""The one format number that is written."""
READABLE_FORMATS = (1, 2)
PROBABILITIES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Of the quantiles: the deciles for a population stability index, and the tails."""
LEAST_COUNT = 5
"""A category that fewer rows hold is counted among the others; fewer numbers than twice this give no quantiles."""
MOST_CATEGORIES = 100
"""The most frequent ones; the rest is counted among the others."""

Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Effect = Annotated[float, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of the baseline: immutable, and unknown keys are an error."""


class Numbers(_Record, frozen=True, tag="numbers"):
    """A column of numbers: `quantiles` are at PROBABILITIES of the finite values; empty where there were too few.

    In a small sample the outermost are drawn in, to where LEAST_COUNT values lie at them or beyond.
    """

    missing: Rate
    quantiles: list[float]
    mean: float | None
    deviation: float | None
    edges: list[float] = []
    """Ascending, in the tensor's type: near the quantiles, and a fence on either side of them. Empty in format 1."""
    counts: list[Count] = []
    """Rows in (edge before, edge], one more than edges; each rounded to a multiple of LEAST_COUNT. The first and the
    last lie beyond the fences.
    """
    design: Effect = 1.0
    """How many rows in the sample's order tell as much as one independent row (Rao and Scott 1981)."""


class Categories(_Record, frozen=True, tag="categories"):
    """A column of texts, labels or booleans: rows that hold each value, and rows that hold one of the `others`.

    Each is rounded to the nearest multiple of LEAST_COUNT, as is the number of rows of which `missing` is the share.
    """

    missing: Rate
    counts: dict[str, Count]
    others: Count
    design: Effect = 1.0


Column = Numbers | Categories


class CalibrationBin(_Record, frozen=True):
    """Unseen rows whose top probability is at most `upto`: how often the top label was right among them."""

    upto: Rate
    mean: Rate
    """Of the top probabilities."""
    right: Rate
    rows: Count


class Conformal(_Record, frozen=True):
    """Quantiles of how wrong the model was on unseen rows (split conformal prediction).

    Sources: Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World; Angelopoulos and Bates (2021), A
    Gentle Introduction to Conformal Prediction, sections 1 and 2; for label sets Sadinle, Lei and Wasserman (2019).
    """

    score: Literal["absolute", "label"]
    """`absolute`: |truth - prediction|. `label`: 1 - the probability of the true label."""
    level: Rate
    """Share of new rows of the same kind that the intervals or label sets cover."""
    rows: Count
    quantiles: list[NotNegative]
    """One for each column of the prediction, or one for the labels."""


class Baseline(_Record, frozen=True):
    """The whole of baseline.json: `rows` of the sample, by column name and by output name.

    An output of several columns has one entry for each: `probability[setosa]`, `score[0]`.
    """

    format: int
    rows: Count
    probabilities: tuple[float, ...]
    inputs: dict[str, Column]
    outputs: dict[str, Column]
    unseen: bool = False
    """Whether the model was not trained on the sample, so that its outputs look as new rows' do."""
    calibration: list[CalibrationBin] = []
    conformal: Conformal | None = None


def write(baseline: Baseline) -> bytes:
    """Return baseline.json."""
    return msgspec.json.format(msgspec.json.encode(baseline), indent=1)


def read(content: bytes) -> Baseline:
    """Return the baseline of a bundle. Raises BundleRefused when it is damaged or of another format."""
    try:
        found = strict_json.decode(content, Baseline)
        if found.format in READABLE_FORMATS:
            _check(found)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleRefused("baseline.json", str(error), "build the bundle again") from error
    if found.format not in READABLE_FORMATS:
        readable = f"this appliance reads {READABLE_FORMATS[0]} to {READABLE_FORMATS[-1]}"
        raise BundleRefused("baseline.json", f"format {found.format} is unknown", readable)
    return found


def column_names(output: str, shape: list[int], labels: list[str]) -> list[str]:
    """Return the names of an output's columns in the baseline; `shape` has the rows first, `labels` are the classes."""
    if len(shape) < 2:
        return [output]
    width = math.prod(shape[1:])
    names = labels if width == len(labels) else [str(index) for index in range(width)]
    return [f"{output}[{name}]" for name in names]


def _check(baseline: Baseline) -> None:
    """Raise ValueError for rules that types cannot express."""
    for name, column in [*baseline.inputs.items(), *baseline.outputs.items()]:
        if isinstance(column, Numbers):
            if any(below >= above for below, above in pairwise(column.edges)):
                raise ValueError(f"the edges of {name[:80]!r} do not ascend")
            if column.edges and len(column.counts) != len(column.edges) + 1:
                raise ValueError(f"{name[:80]!r} has {len(column.edges)} edges and {len(column.counts)} counts")
            if any(below > above for below, above in pairwise(column.quantiles)):
                raise ValueError(f"the quantiles of {name[:80]!r} do not ascend")
            if column.quantiles and len(column.quantiles) != len(baseline.probabilities):
                raise ValueError(f"{name[:80]!r} has {len(column.quantiles)} quantiles")
    if any(below.upto >= above.upto for below, above in pairwise(baseline.calibration)):
        raise ValueError("the bins of the calibration do not ascend")

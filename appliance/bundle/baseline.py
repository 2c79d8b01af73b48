"""baseline.json: what training looked like, input by input and output by output, so that drift can be seen later.

No row can be read out of it: LEAST_COUNT values lie at each quantile or beyond, values that fewer rows hold are counted
together, and every count is rounded to a multiple of it, so that none below it can be had by subtraction from the rows.
"""

from typing import Annotated

import msgspec

from appliance.bundle import strict_json
from appliance.errors import BundleRefused

FORMAT = 1
PROBABILITIES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Of the quantiles: the deciles for a population stability index, and the tails."""
LEAST_COUNT = 5
"""A category that fewer rows hold is counted among the others; fewer numbers than twice this give no quantiles."""
MOST_CATEGORIES = 100
"""The most frequent ones; the rest is counted among the others."""

Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Numbers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="numbers"):
    """A column of numbers: `quantiles` are at PROBABILITIES of the finite values; empty where there were too few.

    In a small sample the outermost are drawn in, to where LEAST_COUNT values lie at them or beyond.
    """

    missing: Rate
    quantiles: list[float]
    mean: float | None
    deviation: float | None


class Categories(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="categories"):
    """A column of texts, labels or booleans: rows that hold each value, and rows that hold one of the `others`.

    Each is rounded to the nearest multiple of LEAST_COUNT, as is the number of rows of which `missing` is the share.
    """

    missing: Rate
    counts: dict[str, Count]
    others: Count


Column = Numbers | Categories


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of baseline.json: `rows` of the training sample, by column name and by output name.

    An output of several columns has one entry for each: `probability[setosa]`, `score[0]`.
    """

    format: int
    rows: Count
    probabilities: tuple[float, ...]
    inputs: dict[str, Column]
    outputs: dict[str, Column]


def write(baseline: Baseline) -> bytes:
    """Return baseline.json."""
    return msgspec.json.format(msgspec.json.encode(baseline), indent=1)


def read(content: bytes) -> Baseline:
    """Return the baseline of a bundle. Raises BundleRefused when it is damaged or of another format."""
    try:
        found = strict_json.decode(content, Baseline)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleRefused("baseline.json", str(error), "build the bundle again") from error
    if found.format != FORMAT:
        raise BundleRefused("baseline.json", f"format {found.format} is unknown", f"this appliance reads {FORMAT}")
    return found

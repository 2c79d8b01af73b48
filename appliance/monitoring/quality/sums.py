"""The sums of which all figures are made: they add up over days and arms, and a label can be taken out. Pure.

A Sums is {cell: number}; of classes the table has a cell for each (true, predicted) pair.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from appliance.labels import Truth, as_number

MOST_CLASSES, MOST_AUC_CLASSES, AUC_BINS, CALIBRATION_BINS = 50, 10, 100, 10
GROWTH = 1.1
"""Of the bounds of the histograms of |error| and delay: a quantile is within 5 %."""
SMALLEST = 1e-9
LEAST_PROBABILITY = 1e-15
"""As scikit-learn's log_loss: a zero would make it infinite."""

Sums = dict[str, float]
Change = tuple[str, float]


def predicted(answer: Any, classes: Sequence[Any]) -> Iterator[Change]:
    """Yield what one answered row adds: "rows", and of a class "rows:CLASS"."""
    yield "rows", 1.0
    if classes:
        yield f"rows:{answer!r}", 1.0


def labelled_class(
    answer: Any, probabilities: Sequence[float] | None, truth: Truth, classes: Sequence[Any], delay: float
) -> Iterator[Change]:
    """Yield what the label of a classified row adds; a label that is no class counts as an error, and as unseen."""
    yield "labelled", 1.0
    yield f"delay:{_bin(delay)}", 1.0
    yield f"labelled:{answer!r}", 1.0
    yield "right", float(answer == truth)
    if len(classes) > MOST_CLASSES:
        return
    if truth not in classes or answer not in classes:
        yield "unseen", 1.0
        if answer in classes:
            yield f"unseen:{classes.index(answer)}", 1.0
        return
    true, place = classes.index(truth), classes.index(answer)
    yield f"table:{true}:{place}", 1.0
    if probabilities is None or len(probabilities) != len(classes) or not all(map(math.isfinite, probabilities)):
        return
    yield "probable", 1.0
    yield "log_loss", -math.log(max(probabilities[true], LEAST_PROBABILITY))
    yield "brier", sum((p - (index == true)) ** 2 for index, p in enumerate(probabilities))
    top = max(probabilities)
    bin_ = min(int(top * CALIBRATION_BINS), CALIBRATION_BINS - 1)
    for cell, amount in (("rows", 1.0), ("top", top), ("right", float(answer == truth))):
        yield f"calibration:{bin_}:{cell}", amount
    if len(classes) <= MOST_AUC_CLASSES:
        for index in range(1 if len(classes) == 2 else 0, len(classes)):
            score = min(max(int(probabilities[index] * AUC_BINS), 0), AUC_BINS - 1)
            yield f"auc:{index}:{int(index == true)}:{score}", 1.0


def labelled_number(answer: Any, truth: Truth, tolerance: tuple[float, float] | None, delay: float) -> Iterator[Change]:
    """Yield what the label of a row with a number adds; `tolerance` is (absolute, relative), where there is one."""
    true = as_number(truth)
    value = as_number(answer) if isinstance(answer, (int, float, str)) else math.nan
    error = value - true
    if not math.isfinite(error):
        yield "unseen", 1.0
        return
    yield "labelled", 1.0
    yield f"delay:{_bin(delay)}", 1.0
    yield "error", error
    yield "absolute", abs(error)
    yield "squares", error * error
    yield "truth", true
    yield "truth_squares", true * true
    if tolerance:
        yield "within", float(abs(error) <= tolerance[0] + tolerance[1] * abs(true))
    yield f"size:{_bin(abs(error))}", 1.0


def add(sums: Sums, changes: Iterator[Change], sign: float = 1.0) -> None:
    """Add changes to sums, or with `sign` -1 take them out."""
    for cell, amount in changes:
        value = sums.get(cell, 0.0) + sign * amount
        if value or cell in ("error", "truth", "within"):
            sums[cell] = value
        else:
            sums.pop(cell, None)


def together(parts: Sequence[Sums]) -> Sums:
    """Return several sums as one."""
    made: Sums = {}
    for part in parts:
        for cell, amount in part.items():
            made[cell] = made.get(cell, 0.0) + amount
    return made


def bound(bin_: int) -> float:
    """Return the middle of a histogram's bin."""
    return 0.0 if bin_ < 0 else float(SMALLEST * GROWTH ** (bin_ + 0.5))


def _bin(value: float) -> int:
    """Return the place of a value in a histogram, -1 for one below all bounds."""
    return -1 if value < SMALLEST else int(math.log(value / SMALLEST) / math.log(GROWTH))

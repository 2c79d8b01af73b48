"""How far to trust each row's prediction: the quality flag, and an interval or label set that holds in 90 %. Pure.

The flag: `outside` for a value beyond the fences around training or a category that training did not have, `imputed`
for a row with gaps, `drifted` for a column in drift, else `good`; the first that applies, with its column.

Intervals and label sets by split conformal prediction (see appliance.bundle.baseline.Conformal): an interval is the
prediction +- the quantile of unseen errors; a label set has the labels whose probability is at least 1 - the quantile
(Sadinle, Lei and Wasserman 2019), and the likeliest one where there is none.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import compress
from operator import le, lt
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from appliance.arrays import Array
from appliance.bundle.baseline import Baseline, Categories, Numbers
from appliance.bundle.manifest import Input, Label, Manifest

Flag = Literal["good", "outside", "imputed", "drifted"]
_FEW = 32  # values up to which Python compares in less time than NumPy


class RowQuality(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far to trust the prediction of one row."""

    flag: Flag
    column: str = ""
    """The one that the flag is of; "" for `good`."""
    interval: list[float | list[float]] | UnsetType = UNSET
    """Of numbers: [low, high], or one of those for each column of the prediction."""
    labels: list[Label] | UnsetType = UNSET
    """Of classes: those of which one is right."""
    fallback: bool = False
    """Whether the configured value stands in for the model's prediction."""


GOOD = RowQuality("good")


class QualityJudge:
    """Judges the rows of one version. Safe in any thread."""

    def __init__(self, manifest: Manifest, baseline: Baseline | None) -> None:
        """Without a baseline only gaps and drift are seen."""
        inputs = baseline.inputs if baseline else {}
        self._tensors = [_Tensor(tensor, inputs) for tensor in manifest.inputs]
        self._conformal = baseline.conformal if baseline else None
        self._reach = self._conformal.quantiles if self._conformal else []
        self._labels = manifest.class_labels
        outputs = {output.role: output for output in reversed(manifest.outputs)}
        prediction, probability = outputs.get("prediction"), outputs.get("probability")
        self.prediction = (prediction or manifest.outputs[0]).name
        self._probability = probability.name if probability else ""
        if self._conformal is not None and not self._fits(prediction is not None):
            self._conformal = None

    def needed(self, names: Sequence[str]) -> list[str]:
        """Return the outputs that must be asked of the graph when `names` are wanted."""
        conformal = self._conformal
        more = [self.prediction] if conformal else []
        more += [self._probability] if conformal and conformal.score == "label" else []
        return [*names, *(name for name in more if name not in names)]

    def judged(
        self, feeds: Mapping[str, Array], outputs: Mapping[str, Array], rows: int, drifted: str = ""
    ) -> list[RowQuality]:
        """Return the quality of each row of checked feeds and the graph's outputs; `drifted` is a column in drift."""
        plain = RowQuality("drifted", drifted) if drifted else GOOD
        if rows == 1:
            return [self._of_one(feeds, outputs, plain)]
        flags = self._flags(feeds, rows, plain)
        if self._conformal is None:
            return flags
        if self._conformal.score == "label":
            sets = self._label_sets(outputs[self._probability])
            return [RowQuality(one.flag, one.column, labels=own) for one, own in zip(flags, sets, strict=True)]
        intervals = self._intervals(outputs[self.prediction])
        return [RowQuality(one.flag, one.column, interval=own) for one, own in zip(flags, intervals, strict=True)]

    def _of_one(self, feeds: Mapping[str, Array], outputs: Mapping[str, Array], plain: RowQuality) -> RowQuality:
        """Return the quality of the only row: as of many, but without NumPy, which takes longer to call for one."""
        flag = plain
        for tensor in self._tensors:
            if not tensor.is_good(feeds[tensor.name]):
                flag = self._flags(feeds, 1, plain)[0]
                break
        if self._conformal is None:
            return flag
        if self._conformal.score == "label":
            return RowQuality(flag.flag, flag.column, UNSET, self._label_sets(outputs[self._probability])[0])
        prediction = outputs[self.prediction]
        if len(self._reach) == 1 and prediction.size == 1:
            value, reach = prediction.item(), self._reach[0]
            return RowQuality(flag.flag, flag.column, [value - reach, value + reach])
        return RowQuality(flag.flag, flag.column, self._intervals(prediction)[0])

    def _flags(self, feeds: Mapping[str, Array], rows: int, plain: RowQuality) -> list[RowQuality]:
        """Return each row's flag."""
        flags = [plain] * rows
        for tensor in self._tensors:
            tensor.look(feeds[tensor.name], flags)
        return flags

    def _fits(self, has_prediction: bool) -> bool:
        """Return whether the conformal quantiles are of these outputs."""
        assert self._conformal is not None  # noqa: S101 - asked where there are some
        if self._conformal.score == "label":
            return bool(self._probability and self._labels and self._conformal.quantiles)
        return has_prediction and not self._labels and bool(self._conformal.quantiles)

    def _intervals(self, prediction: Array) -> list[Any]:
        """Return [low, high] of each row, or a list of them where there are several columns."""
        if len(self._reach) == 1 and prediction.size == len(prediction):
            reach = self._reach[0]
            values: list[float] = prediction.reshape(-1).tolist()
            return [[value - reach, value + reach] for value in values]
        wide: NDArray[Any] = prediction.reshape(len(prediction), -1).astype(np.float64)
        if wide.shape[1] != len(self._reach):
            return [UNSET] * len(wide)
        found: list[Any] = np.stack([wide - self._reach, wide + self._reach], axis=-1).tolist()
        return found

    def _label_sets(self, probability: Array) -> list[list[Label]]:
        """Return the label set of each row."""
        assert self._conformal is not None  # noqa: S101 - as above
        enough = (1 - self._conformal.quantiles[0]).__le__
        labels = self._labels
        sets = []
        for row in probability.tolist():
            own = list(compress(labels, map(enough, row)))
            sets.append(own or [labels[max(range(len(row)), key=row.__getitem__)]])
        return sets


class _Tensor:
    """What is asked of the rows of one tensor."""

    def __init__(self, tensor: Input, inputs: Mapping[str, Any]) -> None:
        self.name = tensor.name
        self._columns = tensor.columns
        summaries = [inputs.get(column) for column in tensor.columns]
        self._floats = tensor.type.startswith("float")
        fenced = [one if isinstance(one, Numbers) and len(one.edges) > 1 else None for one in summaries]
        self._lows = [one.edges[0] if one else -math.inf for one in fenced]
        self._highs = [one.edges[-1] if one else math.inf for one in fenced]
        self._numbers = tensor.type not in ("string", "bool")
        dtype: Any = tensor.type if self._numbers and self._floats else "float64"
        self._low, self._high = np.array(self._lows, dtype), np.array(self._highs, dtype)
        self._looks = self._numbers and (any(fenced) or tensor.missing)
        self._known = {
            place: _held(one, tensor.type)
            for place, one in enumerate(summaries)
            if isinstance(one, Categories) and one.counts and not one.others
        }
        self._gap = tensor.missing_text if tensor.missing and tensor.type == "string" else None

    def is_good(self, array: Array) -> bool:
        """Return whether look() would find nothing in the only row."""
        row = array.tolist()[0]
        if self._looks and not (all(map(lt, self._lows, row)) and all(map(le, row, self._highs))):
            return False
        if self._gap is not None and self._gap in row:
            return False
        return all(row[place] in known for place, known in self._known.items()) if self._known else True

    def look(self, array: Array, flags: list[RowQuality]) -> None:
        """Put the flags of rows [rows, columns] in place, where they are worse."""
        if self._looks:
            self._look_at_numbers(array, flags)
        for place, known in self._known.items():
            for row, value in enumerate(array[:, place].tolist()):
                if value not in known and not self._is_gap(value) and flags[row].flag != "outside":
                    flags[row] = RowQuality("outside", self._columns[place])
        if self._gap is not None:
            for row, place in np.argwhere(array == self._gap).tolist():
                self._mark_gap(flags, row, place)

    def _look_at_numbers(self, array: Array, flags: list[RowQuality]) -> None:
        """Look for values beyond the fences, and for gaps."""
        if array.size <= _FEW:
            lows, highs = self._lows, self._highs
            for row, values in enumerate(array.tolist()):
                if not (all(map(lt, lows, values)) and all(map(le, values, highs))):
                    self._mark_numbers(array, flags, [row])
            return
        numbers: Any = array
        within = (numbers > self._low) & (numbers <= self._high)  # NaN is not within
        if not within.all():
            self._mark_numbers(array, flags, np.flatnonzero(~within.all(axis=1)).tolist())

    def _mark_numbers(self, array: Array, flags: list[RowQuality], rows: list[int]) -> None:
        """Mark rows of which some value is not within its fences."""
        for row in rows:
            for place, value in enumerate(array[row].tolist()):
                if value != value:
                    self._mark_gap(flags, row, place)
                elif not self._lows[place] < value <= self._highs[place] and math.isfinite(
                    self._highs[place]
                ):  # without fences nothing is outside
                    if flags[row].flag != "outside":
                        flags[row] = RowQuality("outside", self._columns[place])
                    break

    def _mark_gap(self, flags: list[RowQuality], row: int, place: int) -> None:
        """Mark a row that came with a gap."""
        if flags[row].flag in ("good", "drifted"):
            flags[row] = RowQuality("imputed", self._columns[place])

    def _is_gap(self, value: Any) -> bool:
        """Return whether a value stands for a missing one."""
        return value is None or value != value or (self._gap is not None and value == self._gap)


def _held(summary: Categories, kind: str) -> frozenset[Any]:
    """Return training's categories as a tensor of a type holds them."""
    if kind == "string":
        return frozenset(summary.counts)
    if kind == "bool":
        return frozenset(text == "true" for text in summary.counts)
    found = set()
    for text in summary.counts:
        try:
            found.add(float(np.dtype(kind).type(float({"true": "1", "false": "0"}.get(text, text)))))
        except (ValueError, OverflowError):
            continue
    return frozenset(found)

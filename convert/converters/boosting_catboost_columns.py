"""Writes the columns that a CatBoost model's trees compare: numbers, flags of one-hot values, and target statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import numpy_helper

from convert.converters.boosting_catboost_categories import (
    UNKNOWN,
    Ctr,
    Element,
    Known,
    ctrs,
    factors,
    is_whole,
    known,
    lacking,
    one_hot_values,
)
from convert.converters.expressions import ML_DOMAIN, Tensor, concat, row
from convert.converters.tree_nodes import rounded
from convert.converters.writers import InputTensors, refusal
from convert.model import training_values
from convert.model.arrays import Array
from convert.model.steps import hashed_columns

Place = tuple[float, float, float]
"""A split's column in the matrix, its border, above which rows go right, and 1 where missing values go left, else 0."""
Elements = tuple[Element, ...]
_KINDS = ("category", "float", "value")


@dataclass(frozen=True)
class Columns:
    """`matrix` [rows, columns] in float64, compared as float32, and the place of each split in it."""

    matrix: Tensor
    place: Callable[[dict[str, Any]], Place]


def written(rows: InputTensors, model: Any, export: Callable[[Any], dict[str, Any]]) -> tuple[Columns, dict[str, Any]]:
    """Return a model's columns for its trees, and its JSON, which `export` gives for a pool or None.

    Raises ConversionRefused when the sample lacks categories that the model knows.
    """
    indices = hashed_columns(model)
    if not indices:
        content = export(None)
        floats = {feature["feature_index"]: feature for feature in content["features_info"]["float_features"]}
        return Columns(rows.matrix, lambda split: _number_place(split, floats)), content
    values = training_values.values(model)
    if values is None:
        found = "it has categorical features inside another estimator, where their values are not known"
        raise refusal(model, found, "use it alone or as the last step of a Pipeline")
    categories, content = known(values, model, export)
    columns = list(ctrs(content))
    if not is_whole(content, columns):
        found = "its JSON, all that CatBoost shows, keeps one of several tables of target statistics"
        raise refusal(model, found, "train it on one target, and with one TargetBorderCount for each type of CTR")
    _check_sample(model, content, columns, categories)
    return _Writer(rows, model, content, columns, categories, indices).columns(), content


def _number_place(split: dict[str, Any], floats: dict[int, Any], position: int | None = None) -> Place:
    feature = floats[split["float_feature_index"]]
    place = feature["flat_feature_index"] if position is None else position
    return float(place), float(split["border"]), float(feature["nan_value_treatment"] != "AsTrue")


def _check_sample(model: Any, content: dict[str, Any], columns: Sequence[Ctr], categories: Known) -> None:
    """Raise ConversionRefused for categories that the model knows and the sample lacks; the graph would lack them."""
    features = content["features_info"]["categorical_features"]
    names = [repr(feature.get("feature_name") or feature["flat_feature_index"]) for feature in features]
    parts = []
    for indices, count in lacking(content, columns, categories):
        what = "1 category of column" if count == 1 else f"{count} categories of column"
        what = what if len(indices) == 1 else f"categories in {count} combinations of columns"
        parts.append(f"{what} {', '.join(names[index] for index in indices)}")
    if parts:
        shown = "; ".join(parts[:4]) + ("; ..." if len(parts) > 4 else "")
        found = f"the sample lacks {shown} that the model knows, and keeps as hashes only"
        raise refusal(model, found, "give a sample with every category of training, as the training rows have")


class _Writer:
    """Writes the columns of one model with categorical features."""

    def __init__(
        self,
        rows: InputTensors,
        model: Any,
        content: dict[str, Any],
        ctrs: Sequence[Ctr],
        categories: Known,
        indices: Sequence[int],
    ) -> None:
        self.rows, self.graph, self.model, self.ctrs = rows, rows.graph, model, ctrs
        self.info = content["features_info"]
        self.categories, self.indices = categories, indices
        self.floats = {feature["feature_index"]: feature for feature in self.info.get("float_features") or ()}
        self.used = [index for index, feature in self.floats.items() if feature["borders"]]
        self.one_hot = one_hot_values(content)
        self.combined: dict[Elements, list[Ctr]] = {}
        for ctr in ctrs:
            self.combined.setdefault(ctr.elements, []).append(ctr)
        self._hashes: dict[int, Tensor] = {}

    def columns(self) -> Columns:
        """Return the numbers, the flags of one-hot values and the target statistics, side by side."""
        numbers = self._numbers() if self.used else None
        flags = [self._is_one_of(index, values) for index, values in enumerate(self.one_hot) if values]
        statistics = self._statistics(numbers) if self.combined else []
        parts = [*([] if numbers is None else [numbers]), *(flag.cast("float64") for flag in flags), *statistics]
        if not parts:
            raise refusal(self.model, "it has no splits", "train it on columns that differ between rows")
        matrix = concat(parts)
        matrix.is_single = True
        return Columns(matrix, self._places())

    def _places(self) -> Callable[[dict[str, Any]], Place]:
        """Return where each split compares: CatBoost numbers borders and values, column by column of each kind."""
        pairs = [(index, value) for index, values in enumerate(self.one_hot) for value in values]
        flags = {pair: len(self.used) + place for place, pair in enumerate(pairs)}
        first = len(self.used) + len(pairs)
        ordered = [ctr for group in self.combined.values() for ctr in group]
        positions = {id(ctr): first + place for place, ctr in enumerate(ordered)}
        before = sum(len(feature["borders"] or ()) for feature in self.floats.values()) + len(pairs)
        borders = [(positions[id(ctr)], border) for ctr in self.ctrs for border in ctr.borders]

        def place(split: dict[str, Any]) -> Place:
            if split["split_type"] == "FloatFeature":
                return _number_place(split, self.floats, self.used.index(split["float_feature_index"]))
            if split["split_type"] == "OneHotFeature":
                return float(flags[split["cat_feature_index"], split["value"]]), 0.5, 1.0
            position, border = borders[split["split_index"] - before]
            if border != split["border"]:
                raise refusal(
                    self.model, "its splits are numbered in an unknown way", "save it with another CatBoost version"
                )
            return float(position), float(border), 1.0

        return place

    def _numbers(self) -> Tensor:
        """Return the float columns that have borders, rounded to float32, in float64 [rows, columns]."""
        wanted = [self.floats[index]["flat_feature_index"] for index in self.used]
        parts, start = [], 0
        for variable, tensor in zip(self.rows.variables, self.rows.tensors, strict=True):
            width = _width(variable)
            own = [index - start for index in wanted if start <= index < start + width]
            if own:
                parts.append((tensor if own == list(range(width)) else tensor.columns(*own)).cast("float64"))
            start += width
        return rounded(concat(parts))

    def _hash(self, index: int) -> Tensor:
        """Return a categorical column's hashes, int64 [rows, 1]; of unseen categories UNKNOWN."""
        if index not in self._hashes:
            column, dtype = self._column(self.indices[index])
            keys = self._keys(self.categories.values[index], dtype)
            self._hashes[index] = _looked_up(column, keys, self.categories.hashes[index], np.array([UNKNOWN]))
        return self._hashes[index]

    def _column(self, flat: int) -> tuple[Tensor, str]:
        """Return column `flat` [rows, 1], and its dtype: string, int64 or float64."""
        start = 0
        for variable, tensor in zip(self.rows.variables, self.rows.tensors, strict=True):
            width = _width(variable)
            if flat < start + width:
                tensor = tensor if width == 1 else tensor.columns(flat - start)
                dtype = InputTensors(self.graph, [variable]).dtype
                return (tensor.cast("int64"), "int64") if dtype == "bool" else (tensor, dtype)
            start += width
        raise refusal(self.model, f"its column {flat} does not reach it", "give it every column of training")

    def _keys(self, values: Array, dtype: str) -> Array:
        """Return the sample's values as they come in a column of this dtype."""
        texts = [isinstance(value, str) for value in values]
        if dtype == "string" and all(texts):
            return values
        if dtype != "string" and not any(texts):
            keys = np.array([int(value) for value in values], dtype=np.int64).astype(dtype)
            if len(np.unique(keys)) == len(keys):
                return keys
        found = f"its categories reach it as {dtype} and were {type(values[0]).__name__} in the sample"
        raise refusal(self.model, found, "leave columns of categories as they are on the way to it")

    def _is_one_of(self, index: int, values: Sequence[int]) -> Tensor:
        """Return which of `values` a column's hash is, bool [rows, values]."""
        return self._hash(index).equals(np.array([values], dtype=np.int64))

    def _statistics(self, numbers: Tensor | None) -> list[Tensor]:
        """Return the target statistics in float64, those of each combination side by side."""
        distinct = list(dict.fromkeys(element for elements in self.combined for element in elements))
        ordered = [[element for element in distinct if element.kind == kind] for kind in _KINDS]
        places = {element: place for place, element in enumerate(element for kind in ordered for element in kind)}
        weights = np.zeros((len(places), len(self.combined)), dtype=np.uint64)
        for column, elements in enumerate(self.combined):
            for element, factor in zip(elements, factors(len(elements)), strict=True):
                weights[places[element], column] = factor
        pairs = zip(_KINDS, ordered, strict=True)
        values = concat([self._block(kind, block, numbers) for kind, block in pairs if block])
        # Sums of unsigned integers wrap modulo 2^64 by C++'s own rules; LabelEncoder takes signed ones.
        summed = (values.cast("uint64") @ self.graph.constant(weights).cast("uint64")).cast("int64")
        count = len(self.combined)
        hashes = [summed] if count == 1 else self.graph.nodes("Split", summed, outputs=count, axis=1, num_outputs=count)
        return [_read(hashed, group) for hashed, group in zip(hashes, self.combined.values(), strict=True)]

    def _block(self, kind: str, elements: Sequence[Element], numbers: Tensor | None) -> Tensor:
        """Return the values of elements of one kind in a combination's hash, int64 [rows, elements]."""
        if kind == "float" and numbers is not None:
            above = numbers.columns(*(self.used.index(element.index) for element in elements))
            flags = above > row([np.float32(element.border) for element in elements])
            upward = [self.floats[element.index]["nan_value_treatment"] == "AsTrue" for element in elements]
            return (flags | (above.isnan() & np.array([upward])) if any(upward) else flags).cast("int64")
        hashes = concat([self._hash(element.index) for element in elements])
        if kind == "category":
            return hashes
        return hashes.equals(np.array([[element.value for element in elements]], dtype=np.int64)).cast("int64")


def _read(hashed: Tensor, ctrs: Sequence[Ctr]) -> Tensor:
    """Return the statistics of a combination's hashes [rows, 1], float64 [rows, ctrs]."""
    keys = np.unique(np.concatenate([ctr.table.keys for ctr in ctrs]))
    table = np.empty((len(keys) + 1, len(ctrs)))
    for place, ctr in enumerate(ctrs):
        values, unseen = ctr.values()
        table[:, place] = unseen
        table[np.searchsorted(keys, ctr.table.keys), place] = values
    if len(ctrs) == 1:
        return _looked_up(hashed, keys.view(np.int64), table[:-1, 0], table[-1:, 0])
    index = _looked_up(hashed, keys.view(np.int64), np.arange(len(keys)), np.array([len(keys)]))
    return hashed.graph.constant(table).take(index.reshape(-1), axis=0)


def _looked_up(column: Tensor, keys: Array, values: Array, otherwise: Array) -> Tensor:
    """Return the value of each key that `column` holds, `otherwise` [1] for what is no key."""
    tensors = {"keys_tensor": keys, "values_tensor": values, "default_tensor": otherwise}
    attributes = {name: numpy_helper.from_array(np.ascontiguousarray(array)) for name, array in tensors.items()}
    return column.graph.node("LabelEncoder", column, domain=ML_DOMAIN, **attributes)


def _width(variable: Any) -> int:
    shape = variable.type.shape
    return int(shape[1]) if shape and len(shape) > 1 and shape[1] else 1

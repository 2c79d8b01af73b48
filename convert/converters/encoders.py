"""Writes encoders of categories and bins (sklearn.preprocessing): all columns compared with all categories at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder

from convert.converters import tree_nodes
from convert.converters.estimator_tensors import InputTensors, OutputTensors, refuse_rows
from convert.converters.expressions import Tensor, concat, row, where
from convert.converters.writers import register as register_writer
from convert.model.arrays import Array
from convert.model.schema import text_of_null

try:  # scikit-learn 1.3 and newer
    from sklearn.preprocessing import TargetEncoder
except ImportError:
    TargetEncoder = None


ENCODERS = (OneHotEncoder, OrdinalEncoder, *([TargetEncoder] if TargetEncoder else []))
"""Encoders that compare whole numbers as such."""


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(OneHotEncoder, "transformer", _one_hot)
    register_writer(OrdinalEncoder, "transformer", _ordinal)
    register_writer(TargetEncoder, "transformer", _target)
    register_writer(KBinsDiscretizer, "transformer", _bins)


_EXACT = 2.0**53  # float64 holds every whole number below


@dataclass(frozen=True)
class _Matches:
    """Which category each value is: `found` [n, entries] has a 1 for it, or only zeros in an unknown value's column.

    Entry e stands for the category `places[e]` of the column `columns[e]`.
    """

    found: Tensor
    columns: Array
    places: Array

    def times(self, tables: list[Array]) -> Tensor:
        """Return the rows of `tables` (one [categories, outputs] for each column) for the values, side by side."""
        widths = [table.shape[1] for table in tables]
        starts = np.cumsum([0, *widths])
        weights = np.zeros((len(self.columns), starts[-1]))
        for entry, (column, place) in enumerate(zip(self.columns, self.places, strict=True)):
            weights[entry, starts[column] : starts[column] + widths[column]] = tables[column][place]
        if weights.shape[0] == weights.shape[1] and (weights == np.eye(len(weights))).all():
            return self.found
        return self.found @ weights

    def known(self) -> Tensor:
        """Return which values are known categories, float64 [n, columns]."""
        membership: Array = np.eye(int(self.columns.max()) + 1)[self.columns]
        return self.found @ membership


def _matches(rows: InputTensors, categories: list[Any]) -> _Matches:
    """Compare every column with its categories; columns of one dtype in one go."""
    found, columns, places = [], [], []
    for dtype, tensor, positions in _by_dtype(rows, categories):
        entries = [
            (i, column, place, value)
            for i, column in enumerate(positions)
            for place, value in _entries(categories[column], dtype)
        ]
        spread = tensor.columns(*(entry[0] for entry in entries))
        found.append(_equal(spread, dtype, [entry[3] for entry in entries]))
        columns += [entry[1] for entry in entries]
        places += [entry[2] for entry in entries]
    return _Matches(concat(found), np.array(columns), np.array(places))


def _by_dtype(rows: InputTensors, categories: list[Any]) -> list[tuple[str, Tensor, list[int]]]:
    """Return (dtype, columns of it as one tensor, their positions): texts as they come, numbers as float64.

    Whole numbers stay int64 where float64 cannot tell the categories apart.
    """
    parts: dict[str, list[Tensor]] = {}
    positions: dict[str, list[int]] = {}
    position = 0
    for variable, tensor in zip(rows.variables, rows.tensors, strict=True):
        width = (variable.type.shape[1] if len(variable.type.shape or []) > 1 else 1) or 1
        given = InputTensors(rows.graph, [variable]).dtype
        whole = given == "int64" and any(map(_are_large, categories[position : position + width]))
        dtype = given if given == "string" or whole else "float64"
        parts.setdefault(dtype, []).append(tensor.cast("float64") if dtype == "float64" else tensor)
        positions.setdefault(dtype, []).extend(range(position, position + width))
        position += width
    return [(dtype, concat(parts[dtype]), positions[dtype]) for dtype in parts]


def _are_large(categories: Any) -> bool:
    """Return whether categories are whole numbers of which float64 does not hold each: beyond 2**53."""
    values = np.asarray(categories)
    return values.dtype.kind in "iu" and bool((np.abs(values.astype("float64")) >= _EXACT).any())


def _entries(categories: Any, dtype: str) -> list[tuple[int, Any]]:
    """Return (place, value) of each category, of a missing text the one that stands for it."""
    if dtype == "int64":
        return list(enumerate(np.asarray(categories).tolist()))
    if dtype != "string":
        return [(i, np.nan if _is_missing(value) else float(value)) for i, value in enumerate(categories)]
    return [(i, text_of_null(value) if _is_missing(value) else _text(value)) for i, value in enumerate(categories)]


def _text(value: Any) -> str:
    """Return the text of a category that an imputer put among texts: ONNX writes booleans as numbers."""
    return str(int(value)) if isinstance(value, bool | np.bool_) else str(value)


def _equal(spread: Tensor, dtype: str, values: list[Any]) -> Tensor:
    if dtype == "string":
        return spread.equals(np.array([values], dtype=object)).cast("float64")
    if dtype == "int64":
        return spread.equals(np.array([values], dtype=np.int64)).cast("float64")
    gaps = np.isnan(np.array(values, dtype=np.float64))
    found = spread.equals(row(values)).cast("float64")
    return found + spread.isnan().cast("float64") * row(gaps) if gaps.any() else found


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def _one_hot(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.preprocessing.OneHotEncoder.transform: drop, infrequent categories and unknown ones included."""
    matches = _matches(rows, model.categories_)
    tables = [_one_hot_table(model, i) for i in range(len(model.categories_))]
    encoded = matches.times([table for table, _ in tables])
    if model.handle_unknown == "error":
        encoded = refuse_rows(encoded, matches.known().equals(0.0))
    elif model.handle_unknown != "ignore" and any(infrequent.any() for _, infrequent in tables):
        encoded = encoded + (1.0 - matches.known()) @ _block_diagonal([infrequent for _, infrequent in tables])
    return OutputTensors(transform=encoded)


def _one_hot_table(model: Any, i: int) -> tuple[Array, Array]:
    """Return each category's output column as 0 and 1 [categories, outputs] for column `i`, and the infrequent's."""
    mapping = _infrequent_mapping(model, i)
    codes = np.arange(len(model.categories_[i])) if mapping is None else np.asarray(mapping)
    table: Array = np.eye(int(codes.max()) + 1)[codes]
    infrequent: Array = np.zeros((1, table.shape[1]))
    if mapping is not None:
        infrequent[0, -1] = 1.0
    dropped = None if model._drop_idx_after_grouping is None else model._drop_idx_after_grouping[i]
    if dropped is not None:
        table, infrequent = (np.delete(part, int(dropped), axis=1) for part in (table, infrequent))
    return table, infrequent


def _block_diagonal(blocks: list[Array]) -> Array:
    result = np.zeros((len(blocks), sum(block.shape[1] for block in blocks)))
    start = 0
    for i, block in enumerate(blocks):
        result[i, start : start + block.shape[1]] = block[0]
        start += block.shape[1]
    return result


def _infrequent_mapping(model: Any, i: int) -> Any:
    """Return each category's code after infrequent ones are put together at the end; None where none are."""
    if not getattr(model, "_infrequent_enabled", False):
        return None
    return model._default_to_infrequent_mappings[i]


def _ordinal(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.preprocessing.OrdinalEncoder.transform: each column looks its codes up by itself."""
    refuses = model.handle_unknown == "error"
    codes = [_ordinal_codes(model, i) for i in range(len(model.categories_))]
    unknown = _no_code(codes) if refuses else float(model.unknown_value)
    columns = []
    for i, categories in enumerate(model.categories_):
        if _are_large(categories) and rows.dtype == "int64":
            values = rows.joined().columns(i)
            found = _equal(values, "int64", np.asarray(categories).tolist())
            codes_found = found @ codes[i][: len(categories), None]
            columns.append(where(found.sum(axis=1) > 0.0, codes_found, unknown))
            continue
        values, dtype = tree_nodes.column(rows.graph, rows.variables, i)
        entries = _entries(categories, dtype)
        keys = np.array([value for _, value in entries], dtype=object if dtype == "string" else np.float64)
        columns.append(tree_nodes.encoded(values, keys, codes[i][[place for place, _ in entries]], unknown))
    result = concat(columns)
    return OutputTensors(transform=refuse_rows(result, result.equals(unknown)) if refuses else result)


def _ordinal_codes(model: Any, i: int) -> Array:
    """Return the code of each category of column `i`, float64 [categories]."""
    codes = np.arange(len(model.categories_[i]), dtype=np.float64)
    mapping, missing = _infrequent_mapping(model, i), model._missing_indices.get(i)
    if mapping is not None:
        codes[: len(mapping)] = np.asarray(mapping)
    if missing is not None:
        codes[missing] = model.encoded_missing_value
    return codes


def _no_code(codes: list[Array]) -> float:
    """Return a whole number below every code."""
    return float(np.floor(np.nanmin([0.0, *(np.nanmin([0.0, *column]) for column in codes)])) - 1.0)


def _target(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.preprocessing.TargetEncoder.transform; unknown categories get the target's mean."""
    matches = _matches(rows, model.categories_)
    means = np.atleast_1d(np.asarray(model.target_mean_, dtype=np.float64))
    columns, classes = len(model.categories_), len(means)
    tables = [np.stack(model.encodings_[i * classes : (i + 1) * classes], axis=1) for i in range(columns)]
    unknown = (1.0 - matches.known()) @ _block_diagonal([row(means)] * columns)
    return OutputTensors(transform=matches.times(tables) + unknown)


def _bins(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.preprocessing.KBinsDiscretizer.transform: the number of inner edges that are at most the value."""
    inner = [np.asarray(edges, dtype=np.float64)[1:-1] for edges in model.bin_edges_]
    most = max(1, *(len(edges) for edges in inner))
    padded = np.stack([np.concatenate([edges, np.full(most - len(edges), np.inf)]) for edges in inner])
    codes = (rows.matrix.expand(2) >= padded[None]).cast("float64").sum(axis=2, keepdims=False)
    if model.encode == "ordinal":
        return OutputTensors(transform=codes)
    bins = [int(count) for count in model.n_bins_]
    spread = codes.columns(*np.repeat(np.arange(len(bins)), bins))
    wanted = np.concatenate([np.arange(count) for count in bins])
    return OutputTensors(transform=spread.equals(row(wanted)).cast("float64"))

"""Writes imputation and its indicators (sklearn.impute), of numbers in float64 and of texts."""

from typing import Any

import numpy as np
from skl2onnx.common.data_types import Int64TensorType, StringTensorType
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer

from convert.converters.distances import nan_euclidean
from convert.converters.estimator_tensors import REFUSED_TIE
from convert.converters.expressions import Tensor, concat, row, where
from convert.converters.writers import InputTensors, OutputTensors, refusal, refuse_rows, register_type
from convert.converters.writers import register as register_writer
from convert.model.schema import NONE_TEXT, text_of_null

_NOISE = 64 * float(np.finfo(np.float64).eps)  # of a squared distance, for a column and a square of it


def register() -> None:
    """Register every estimator of this family with skl2onnx."""
    register_writer(SimpleImputer, "transformer", _simple)
    register_type(SimpleImputer, _simple_type)
    register_writer(MissingIndicator, "transformer", _indicator)
    register_writer(KNNImputer, "transformer", _neighbours)


def is_missing(tensor: Tensor, missing_values: Any, dtype: str) -> Tensor:
    """Return where a tensor has the value that stands for missing, bool, as sklearn.utils._mask._get_mask."""
    is_na = str(missing_values) == "<NA>"
    gap = missing_values is None or is_na or missing_values != missing_values
    if dtype == "string":
        text = text_of_null(missing_values) if gap else str(missing_values)
        found = tensor.equals(np.array([[text]], dtype=object))
        # every form of NA is a gap, as in pandas.isna
        return found | tensor.equals(np.array([[NONE_TEXT]], dtype=object)) if is_na else found
    if not gap:
        return tensor.equals(int(missing_values) if dtype == "int64" else float(missing_values))
    return tensor.cast("float64").isnan()


def _missing(rows: InputTensors, model: Any) -> Tensor:
    """Return where an imputer or indicator finds its missing value, bool [n, features], of texts and numbers."""
    columns = rows.typed if rows.dtype == "string" else [(rows.matrix, "float64")]
    return concat([is_missing(tensor, model.missing_values, dtype) for tensor, dtype in columns])


def _simple(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.impute.SimpleImputer.transform: a column's statistic in every gap, empty columns left out."""
    dtype = "string" if rows.dtype == "string" else "float64"
    statistics = np.asarray(model.statistics_, dtype=object)
    if dtype == "string" and any(isinstance(value, float) and value == value for value in statistics):
        next_step = "let an encoder follow it in the same Pipeline, or impute them separately in a ColumnTransformer"
        raise refusal(model, "it makes one table of texts and decimals", next_step)
    x = rows.joined() if dtype == "string" else rows.matrix
    missing = _missing(rows, model)
    kept = [i for i, value in enumerate(statistics) if model.keep_empty_features or value == value]
    if dtype == "string":
        texts = np.array([[NONE_TEXT if value is None else str(value) for value in statistics]], dtype=object)
        filled = where(missing, texts, x)
    else:
        filled = where(missing, np.array([[float(value) for value in statistics]]), x)
    filled = filled if len(kept) == len(statistics) else filled.columns(*kept)
    if not model.add_indicator:
        return OutputTensors(transform=filled, dtype=dtype)
    if dtype == "string":
        raise refusal(model, "it joins texts and indicators", "put a MissingIndicator beside it in a FeatureUnion")
    return OutputTensors(transform=_with_indicator(filled, missing, model))


def _simple_type(model: Any, inputs: Any, number: Any) -> Any:
    if any(isinstance(variable.type, StringTensorType) for variable in inputs):
        return StringTensorType
    whole = all(isinstance(variable.type, Int64TensorType) for variable in inputs)
    return Int64TensorType if whole and not model.add_indicator else number


def _with_indicator(filled: Tensor, missing: Tensor, model: Any) -> Tensor:
    chosen = model.indicator_.features_
    return concat([filled, missing.cast("float64").columns(*chosen)]) if len(chosen) else filled


def _indicator(rows: InputTensors, model: Any) -> OutputTensors:
    missing = _missing(rows, model).cast("float64")
    result = missing.columns(*model.features_)
    fresh = np.setdiff1d(np.arange(model._n_features), model.features_)
    if model.features == "missing-only" and model.error_on_new and len(fresh):
        result = refuse_rows(result, missing.columns(*fresh) > 0.0)
    return OutputTensors(transform=result)


def _neighbours(rows: InputTensors, model: Any) -> OutputTensors:
    """As sklearn.impute.KNNImputer.transform: the (weighed) mean of the nearest rows that have the column.

    numpy.argpartition decides which of equally near rows count, and has no rule for it. So the graph refuses a row
    whose value depends on that.
    """
    if model.metric != "nan_euclidean":
        raise refusal(model, "its metric is a function", "use metric='nan_euclidean'")
    missing = is_missing(rows.matrix, model.missing_values, "float64")
    x = where(missing, np.nan, rows.matrix)
    known = np.where(model._mask_fit_X, np.nan, np.asarray(model._fit_X, dtype=np.float64))
    # Only rows with a gap are compared with the training rows, for each column those that lack it.
    with_gaps = _true(missing.cast("int64").max(keepdims=False).cast("bool"))
    gaps, lacking_rows = missing.take(with_gaps, axis=0), x.take(with_gaps, axis=0)
    apart = nan_euclidean(lacking_rows, known)
    size = where(gaps, 0.0, lacking_rows).squares()
    columns = []
    for i, valid in enumerate(model._valid_mask):
        if valid:
            lacking = _true(gaps.take([i]).reshape(-1))
            imputed = _imputed(apart.take(lacking, axis=0), size.take(lacking, axis=0), known[:, i], model)
            columns.append(x.columns(i).op("ScatterND", with_gaps.take(lacking, axis=0).expand(1), imputed))
        elif model.keep_empty_features:
            columns.append(rows.matrix.columns(i) * 0.0)
    filled = concat(columns)
    return OutputTensors(transform=_with_indicator(filled, missing, model) if model.add_indicator else filled)


def _true(flags: Tensor) -> Tensor:
    """Return where bool [n] is true, int64 [places]."""
    return flags.op("NonZero").reshape(-1)


def _imputed(apart: Tensor, size: Tensor, known: Any, model: Any) -> Tensor:
    """Return a column's imputed values [n, 1] for rows so far `apart` from the training rows [n, m], infinitely where
    they share no column; the column's mean where that is so of all. `size` [n, 1] is the sum of a row's squares.
    """
    donors = np.flatnonzero(~np.isnan(known))
    apart = apart.columns(*donors) if len(donors) < len(known) else apart
    count = min(model.n_neighbors, len(donors))
    more = min(count + 1, len(donors))
    nearest, index = apart.graph.nodes("TopK", apart, [more], outputs=2, axis=1, largest=0)
    noise = (size + where(nearest < np.inf, nearest, 0.0).max() ** 2.0) * (_NOISE * model.n_features_in_)
    doubtful = _hang_on_ties(apart, nearest, known[donors], noise) if more > count else None
    nearest, index = (part.columns(*range(count)) if more > count else part for part in (nearest, index))
    comparable = (nearest < np.inf).cast("float64")
    values = apart.graph.constant(known[donors]).take(index, axis=0)
    weights = comparable
    if model.weights == "distance":
        here = nearest.equals(0.0).cast("float64")
        weights = where(here.max() > 0.0, here, comparable / where(nearest.equals(0.0), 1.0, nearest))
        same = _differ(nearest * nearest <= noise, values)  # for scikit-learn some of them may be a little apart
        doubtful = same if doubtful is None else doubtful.op("Concat", same, axis=0)
    elif model.weights != "uniform":
        raise refusal(model, "its weights are a function", "use weights='uniform' or 'distance'")
    total = weights.sum()
    mean = (values * weights).sum() / where(total.equals(0.0), 1.0, total)
    imputed = where(total.equals(0.0), float(np.mean(known[donors])), mean)
    if doubtful is None:
        return imputed
    some = doubtful.op("Concat", np.array([[False]]), axis=0)  # ReduceMax of no flags has no value
    return refuse_rows(imputed, some, REFUSED_TIE)


def _hang_on_ties(apart: Tensor, nearest: Tensor, values: Any, noise: Tensor) -> Tensor:
    """Return whether values depend on which of equally near rows count, [rows with such a tie, 1].

    That is where the last neighbour and the next row are equally near, and the rows that are so near differ in value.
    Squares of distances that only `noise` parts [n, 1] are equal: scikit-learn takes them as x.x - 2 x.y + y.y.
    """
    last, following = (nearest.take([place]) for place in (-2, -1))
    tied = (following * following - last * last <= noise) & (last < np.inf)
    rows = _true(tied.reshape(-1))  # usually none, and then the rest costs nothing
    last, beside = last.take(rows, axis=0), apart.take(rows, axis=0)
    as_near = (beside * beside - last * last).abs() <= noise.take(rows, axis=0)
    return _differ(as_near, row(values))


def _differ(chosen: Tensor, values: Tensor | Any) -> Tensor:
    """Return whether the chosen of each row's values [n, m] differ, bool [n, 1]."""
    return where(chosen, values, np.inf).min() < where(chosen, values, -np.inf).max()

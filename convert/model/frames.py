"""The form of the table that a model was trained on (pandas, polars), and how rows are given to it in that form."""

import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse


@dataclass(frozen=True, slots=True)
class Form:
    """The dtypes of a sample's columns, {column: dtype}, before they became plain; polars' where `polars` is set.

    `nulls` are {column: what stands for a missing value} of columns of dtype object. `matrix` is the type of a sample
    that was a sparse matrix, whose absent entries are zeros here.
    """

    dtypes: Mapping[str, Any] = field(default_factory=dict)
    nulls: Mapping[str, Any] = field(default_factory=dict)
    polars: bool = False
    matrix: Any = None

    def restore(self, frame: pd.DataFrame) -> Any:
        """Return a plain table [rows, columns] in the sample's own dtypes, where that changes no value.

        A number that a column's dtype cannot hold (2.5 in one of integers) leaves that column as it is.
        """
        if self.polars:
            library = importlib.import_module("polars")
            return library.DataFrame([_of_polars(library, frame[name], self.dtypes.get(name)) for name in frame])
        if all(self.dtypes.get(name, dtype) == dtype for name, dtype in frame.dtypes.items()):
            return frame
        return pd.DataFrame({name: self._of_pandas(frame[name]) for name in frame}, index=frame.index)

    def without(self, names: Collection[str]) -> "Form":
        """Return the form without these columns."""
        return replace(self, dtypes={name: dtype for name, dtype in self.dtypes.items() if name not in names})

    def is_categorical(self, name: str) -> bool:
        """Return whether a column is of pandas' category dtype, whose missing values are NaN alone."""
        return isinstance(self.dtypes.get(name), pd.CategoricalDtype)

    def of_objects(self, names: Sequence[str], null: Any) -> "Form":
        """Return the form with texts of dtype object, which may be missing as `null`; polars has None alone."""
        if self.polars:
            return self if null is None else Form()
        return replace(self, dtypes={**self.dtypes, **dict.fromkeys(names, np.dtype(object))})

    def _of_pandas(self, values: "pd.Series[Any]") -> "pd.Series[Any]":
        dtype = self.dtypes.get(str(values.name), values.dtype)
        if dtype == values.dtype:
            return values
        if isinstance(dtype, pd.CategoricalDtype):
            return _categorical(values, dtype)
        if pd.api.types.is_object_dtype(dtype):
            return _flags(values, self.nulls.get(str(values.name), np.nan))
        return _cast(values, dtype)


def plain(sample: Any) -> tuple[pd.DataFrame, Form]:
    """Return a sample as pandas' table, and its form: a table of pandas or polars, an array, a sparse matrix, or texts.

    Arrays and matrices are [rows, columns].
    """
    if isinstance(sample, pd.Series):
        sample = sample.to_frame("x0" if sample.name is None else sample.name)
    if type(sample).__module__.partition(".")[0] == "polars":
        table = sample.collect() if hasattr(sample, "collect") else sample
        return _objects(table), Form(dict(table.schema), polars=True)
    if isinstance(sample, pd.DataFrame):
        frame = sample.set_axis([str(name) for name in sample.columns], axis=1).reset_index(drop=True)
        objects = [(name, values) for name, values in frame.items() if pd.api.types.is_object_dtype(values.dtype)]
        nulls = {str(name): null_of(values) for name, values in objects}
        return frame, Form(dict(frame.dtypes), nulls)
    if isinstance(sample, (list, tuple)) and sample and all(isinstance(text, str) for text in sample):
        sample = np.array(sample, dtype=object)[:, None]
    if sparse.issparse(sample):
        frame, form = pd.DataFrame(sample.toarray()), Form(matrix=type(sample))
    else:
        frame, form = pd.DataFrame(np.atleast_2d(sample)), Form()
    return frame.set_axis([f"x{index}" for index in range(frame.shape[1])], axis=1), form


def _objects(table: Any) -> pd.DataFrame:
    """Return polars' table as pandas', a missing text as None, as scikit-learn sees it: pandas 3 would write NaN."""
    frame: pd.DataFrame = table.to_pandas()
    for name, values in frame.items():
        if isinstance(values.dtype, (pd.StringDtype, pd.CategoricalDtype)) and values.hasnans:
            frame[name] = pd.Series(table[name].to_list(), dtype=object)
    return frame


def null_of(values: "pd.Series[Any]") -> Any:
    """Return how a column of objects writes a missing value: None where any is, else NaN or pandas' NA."""
    gaps = values[values.isna()].tolist()
    if any(value is None for value in gaps):
        return None
    return pd.NA if any(value is pd.NA for value in gaps) else np.nan


def _categorical(values: "pd.Series[Any]", dtype: pd.CategoricalDtype) -> "pd.Series[Any]":
    """Return values as categories; those that the sample lacks follow the sample's own."""
    known = dtype.categories.tolist()
    fresh = [value for value in pd.unique(values.dropna()).tolist() if value not in known]
    categories = dtype.categories if not fresh else pd.Index([*known, *fresh])
    own = pd.Categorical(values, categories=categories, ordered=dtype.ordered)
    return pd.Series(own, name=values.name, index=values.index)


def _flags(values: "pd.Series[Any]", null: Any) -> "pd.Series[Any]":
    """Return numbers that stand for booleans with gaps as objects; whatever else is an object stays as it is."""
    if values.dtype.kind != "f" or not values.dropna().isin([0.0, 1.0]).all():
        return values
    flags = np.empty(len(values), dtype=object)
    flags[:] = [null if pd.isna(value) else bool(value) for value in values]
    return pd.Series(flags, name=values.name, index=values.index)


def _cast(values: "pd.Series[Any]", dtype: Any) -> "pd.Series[Any]":
    try:
        with np.errstate(all="ignore"):
            cast = values.astype(dtype)
            gaps = values.isna().to_numpy()
            same = np.asarray((cast == values).fillna(False), dtype=bool)
    except (TypeError, ValueError, OverflowError):
        return values
    return cast if (same | (gaps & cast.isna().to_numpy())).all() else values


def _of_polars(library: Any, values: "pd.Series[Any]", dtype: Any) -> Any:
    array = values.to_numpy()
    if array.dtype.kind == "O":
        natural = library.Series(values.name, [None if pd.isna(v) else v for v in array], dtype=library.String)
    else:
        natural = library.Series(values.name, array, nan_to_null=True)
    if dtype is None or natural.dtype == dtype:
        return natural
    cast = natural.cast(dtype, strict=False)
    same = cast.cast(natural.dtype, strict=False).eq_missing(natural).all()
    return cast if same else natural

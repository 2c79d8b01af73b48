"""What a model takes, read from the model and a sample table: columns, their types, and the tensors made of them."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from appliance.bundle.manifest import Category, Input, TensorType
from appliance.errors import InvalidInput
from convert.model import frames
from convert.model.steps import dropped_columns, first_step, hashed_columns

ColumnKind = Literal["float", "int64", "bool", "string"]
Style = Literal["array", "table", "text"]
Columns: TypeAlias = "dict[str, tuple[Column, pd.Series[Any]]]"
CategoriesOf = Callable[[Any], dict[int, Any]]
"""What a booster was trained on: {column: its categories}."""
FEATURES = "features"
"""The one tensor of a model that was fitted on a plain array."""
NONE_TEXT, NAN_TEXT = "\ufdd0", "\ufdd1"
"""The texts that stand for null in a column of texts, where the original writes it None, and where NaN or NA.

They are noncharacters (Unicode 16, 23.7), which never stand in exchanged text. An ordinary text ("", "nan") would be
taken for a gap, while the original may know it as a category. There are two, since to scikit-learn None is not NaN.
"""
_DATES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64, pd.Period)
_LOOKED_AT = 100  # how many values of a column are looked at to find its type


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the sample; `null` is how its missing values are written (None, NaN or NA)."""

    name: str
    kind: ColumnKind
    has_missing: bool
    null: Any = np.nan
    levels: tuple[Category, ...] = ()
    """The only values that the column can hold, where its kind does not say so: booleans with gaps are floats."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the model takes beyond ordinary values, each by column name."""

    missing: frozenset[str] = frozenset()
    infinite: frozenset[str] = frozenset()
    categories: dict[str, list[Category]] = field(default_factory=dict)
    """{column: its allowed values}, of columns where the model refuses all others."""
    missing_text: dict[str, str] = field(default_factory=dict)
    """The text that stands for null in a string column."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns a model takes, in its order, and the sample's rows of them.

    `style` says how the model was fitted: on a plain array, on a table with column names, or on a list of texts.
    `frame` holds float64 or float32, int64, bool and object columns only; `form` what they were before. The original
    gets the columns that are `wide` as float64.
    """

    style: Style
    columns: tuple[Column, ...]
    frame: pd.DataFrame
    form: frames.Form = field(default_factory=frames.Form)
    wide: tuple[str, ...] = ()

    def for_original(self, frame: pd.DataFrame) -> Any:
        """Return rows in the form in which the model was fitted: array or matrix [rows, n], table, or list of texts."""
        frame = frame.astype(dict.fromkeys(self.wide, "float64")) if self.wide else frame
        if self.style == "table":
            return self.form.restore(frame)
        if self.style == "text":
            return frame.iloc[:, 0].tolist()
        if self.is_mixed:
            return np.array(frame.astype(object))
        if self.form.matrix is not None:
            return self.form.matrix(np.array(frame))
        return np.array(frame, order="C")  # a copy: pandas' array is read-only, which some kernels do not take

    def widened(self) -> "Schema":
        """Return the schema that gives the original float32 columns as float64."""
        names = tuple(str(name) for name, dtype in self.frame.dtypes.items() if dtype == np.float32)
        return replace(self, form=self.form.without(names), wide=names)

    def with_nulls(self, known: Mapping[int, Sequence[Any]], anywhere: Sequence[Any]) -> "Schema":
        """Return the schema whose missing texts are written as the model knows them: None, or NaN.

        `known` are the missing values that the model knows of {column's position: ...}, `anywhere` those of all its
        parts. Which of the two a table holds depends on how it was read (CSV gives NaN, polars None). The model knows
        only the one of its training; the other is an unknown text to it.
        """
        changed: dict[str, Any] = {}
        for position, column in enumerate(self.columns):
            own = {text_of_null(value) for value in known.get(position, anywhere)}
            text = column.kind == "string" and not self.form.is_categorical(column.name)
            if text and len(own) == 1 and text_of_null(column.null) not in own:
                changed[column.name] = None if NONE_TEXT in own else np.nan
        if not changed:
            return self
        columns = tuple(replace(c, null=changed[c.name]) if c.name in changed else c for c in self.columns)
        texts = {name: _texts_with(self.frame[name], null) for name, null in changed.items()}
        form = self.form
        for name, null in changed.items():
            form = form.of_objects([name], null)
        return replace(self, columns=columns, frame=self.frame.assign(**texts), form=form)

    def for_device(self, frame: pd.DataFrame) -> dict[str, Any]:
        """Return rows by column, as a device gets them: numbers as arrays [rows], texts as lists with None for null."""
        columns: dict[str, Any] = {}
        for column in self.columns:
            values = frame[column.name]
            text = column.kind == "string"
            columns[column.name] = [None if pd.isna(v) else v for v in values] if text else values.to_numpy()
        return columns

    def inputs(self, float_type: TensorType, limits: Limits) -> list[Input]:
        """Return the manifest's inputs, floats as `float_type`, under `limits`; float32 of the sample stays so.

        An array is one tensor, unless its columns do not all take the same: then each is one of its own.
        """
        types: dict[str, TensorType] = {
            name: "float32" if dtype == np.float32 else float_type for name, dtype in self.frame.dtypes.items()
        }
        if self.style == "array" and self.takes_alike(limits):
            names = [column.name for column in self.columns]
            return [_input(FEATURES, self.columns[0], names, types[names[0]], limits)]
        return [_input(column.name, column, [column.name], types[column.name], limits) for column in self.columns]

    @property
    def is_mixed(self) -> bool:
        """Whether the columns are of several kinds; an array then holds objects."""
        return len({column.kind for column in self.columns}) > 1

    def takes_alike(self, limits: Limits) -> bool:
        """Return whether one entry of the manifest can say what every column takes."""
        if self.is_mixed:
            return False
        gaps = {column.name for column in self.columns if column.has_missing}
        return not limits.categories and (not gaps or limits.missing.issuperset(c.name for c in self.columns))


def text_of_null(null: Any) -> str:
    """Return the text that stands for a missing value which the original writes as `null`."""
    return NONE_TEXT if null is None else NAN_TEXT


def infer(model: Any, sample: Any, categories_of: CategoriesOf = lambda model: {}) -> Schema:
    """Return what `model` takes, with types from `sample`: a table of pandas or polars, or an array [rows, columns].

    The model decides which columns and in what order (`feature_names_in_`), or how many (`n_features_in_`); the
    sample decides their types. `categories_of` reads the categories that a booster was trained on. Raises InvalidInput
    when the sample does not fit the model.
    """
    frame, form = frames.plain(sample)
    _check_table(frame)
    names = names_of(model)
    if names is not None:
        columns = _typed(_select(frame, names), dropped_columns(model))
        return _schema("table", columns, _with_categories(model, columns, form, categories_of))
    count = getattr(model, "n_features_in_", None)
    hashes = bool(hashed_columns(first_step(model)))
    columns = _typed(frame.infer_objects() if hashes else frame, frozenset())
    if count is None and len(columns) == 1:
        return _schema("text", columns, form)
    if count is not None and count != len(columns):
        raise _wrong_count(count, list(frame.columns))
    return _schema("array", columns if hashes else _one_type(columns), form)


def names_of(model: Any) -> list[str] | None:
    """Return the names of the columns that the model was fitted on, or None when they had none."""
    names = getattr(model, "feature_names_in_", None)
    if names is None and type(first_step(model)).__module__.startswith("catboost."):  # numbers columns without names
        names = getattr(first_step(model), "feature_names_", None) or None
        names = None if names == [str(index) for index in range(len(names or ()))] else names
    return None if names is None else [str(name) for name in names]


def _typed(frame: pd.DataFrame, dropped: frozenset[str]) -> Columns:
    """Return every column with its kind; a column of no known kind is left out where the model drops it anyway."""
    columns = {}
    for name in frame.columns:
        try:
            columns[name] = _column(frame[name])
        except InvalidInput:
            if name not in dropped:
                raise
    return columns


def _with_categories(model: Any, columns: Columns, form: frames.Form, categories_of: CategoriesOf) -> frames.Form:
    """Return the form with categories, for a booster whose categories came as plain values, as from CSV.

    The booster knows the categories of its training, and takes texts in no other dtype.
    """
    if form.polars or type(model).__module__.partition(".")[0] not in ("lightgbm", "xgboost"):
        return form
    known = categories_of(model)
    dtypes = {}
    for position, (name, (column, values)) in enumerate(columns.items()):
        if isinstance(form.dtypes.get(name), pd.CategoricalDtype):
            continue
        if position in known:
            dtypes[name] = pd.CategoricalDtype(known[position])
        elif column.kind == "string":
            dtypes[name] = pd.CategoricalDtype(sorted(values.dropna().unique()))
    return replace(form, dtypes={**form.dtypes, **dtypes})


def _schema(style: Style, columns: Columns, form: frames.Form) -> Schema:
    frame = pd.DataFrame({name: values for name, (_, values) in columns.items()})
    return Schema(style, tuple(column for column, _ in columns.values()), frame, form)


def _check_table(frame: pd.DataFrame) -> None:
    """Raise InvalidInput for a table without rows, or with two columns of one name."""
    if frame.shape[0] == 0 or frame.shape[1] == 0:
        raise InvalidInput("read the sample", "it has no rows", "give rows like those the model was trained on")
    if twice := sorted({str(name) for name in frame.columns[frame.columns.duplicated()]}):
        raise InvalidInput("read the sample", f"columns appear twice: {', '.join(twice)}", "name each column once")


def _select(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return the model's columns of the sample, in the model's order."""
    underscored = {name.replace(" ", "_"): name for name in frame.columns}  # LightGBM's spelling
    own = [name if name in frame.columns else underscored.get(name, name) for name in names]
    if lacking := [name for name in own if name not in frame.columns]:
        found = f"it lacks {', '.join(map(repr, lacking))}; it has {', '.join(map(repr, frame.columns))}"
        raise InvalidInput("find the model's columns in the sample", found, "give the table the model was trained on")
    return frame[own]


def _wrong_count(count: int, names: list[str]) -> InvalidInput:
    found = f"the model takes {count} and the sample has {len(names)}: {', '.join(names)}"
    next_step = "name the column that is the answer with --target" if len(names) == count + 1 else "give its columns"
    return InvalidInput("match the sample's columns with the model's", found, next_step)


def _column(values: "pd.Series[Any]") -> "tuple[Column, pd.Series[Any]]":
    """Return a column's kind, and its values in the one pandas dtype we use for that kind."""
    name, missing = str(values.name), values.isna()
    _check_no_dates(name, values[~missing])
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype if not missing.any() else object)
    if _is_bool(values, missing):
        return _flags(name, values, missing)
    if pd.api.types.is_integer_dtype(values.dtype) and not missing.any():
        return Column(name, "int64", False), _integers(name, values)
    if pd.api.types.is_numeric_dtype(values.dtype):
        dtype = "float32" if values.dtype == np.float32 else "float64"
        array = values.to_numpy(dtype=dtype, na_value=np.nan)
        return Column(name, "float", bool(missing.any())), pd.Series(array, name=name)
    return _texts(name, values, missing)


def _check_no_dates(name: str, present: "pd.Series[Any]") -> None:
    """Raise InvalidInput for dates, times and spans of time, with the way to give them."""
    kinds = {type(value) for value in present.head(_LOOKED_AT)}
    if dates := sorted(kind.__name__ for kind in kinds if issubclass(kind, _DATES)):
        next_step = (
            "make numbers of the parts that matter (month, weekday, hour, seconds since 1970) in columns of their own, "
            "and train the model on those"
        )
        raise InvalidInput(
            f"read the column {name!r}", f"it holds dates ({', '.join(dates)}), which ONNX has not", next_step
        )


def _is_bool(values: "pd.Series[Any]", missing: "pd.Series[Any]") -> bool:
    if pd.api.types.is_bool_dtype(values.dtype):
        return True
    present = values[~missing]
    return values.dtype == object and len(present) > 0 and bool(present.map(type).isin([bool, np.bool_]).all())


def _flags(name: str, values: "pd.Series[Any]", missing: "pd.Series[Any]") -> "tuple[Column, pd.Series[Any]]":
    """Return booleans; with gaps as the numbers 0 and 1, which scikit-learn too makes of them."""
    if not missing.any():
        return Column(name, "bool", False), values.astype(bool)
    numbers = np.array([np.nan if gap else float(value) for value, gap in zip(values, missing, strict=True)])
    return Column(name, "float", True, levels=(0.0, 1.0)), pd.Series(numbers, name=name)


def _integers(name: str, values: "pd.Series[Any]") -> "pd.Series[Any]":
    if values.max() > np.iinfo(np.int64).max:
        raise InvalidInput(
            f"read the column {name!r}", "its integers do not fit int64", "store them as floats or texts"
        )
    return values.astype("int64")


def _texts(name: str, values: "pd.Series[Any]", missing: "pd.Series[Any]") -> tuple[Column, "pd.Series[Any]"]:
    """Return a column of texts as dtype object; raise InvalidInput where it holds something else."""
    present = values[~missing]
    if present.map(type).isin([int, float]).all() and len(present):
        return _column(values.astype("float64"))
    if others := sorted({type(value).__name__ for value in present if not isinstance(value, str)}):
        found = f"it holds {', '.join(others)}" + (" and missing values" if missing.any() else "")
        next_step = "give numbers, texts or booleans alone, and train the model on the same"
        raise InvalidInput(f"read the column {name!r}", found, next_step)
    null = frames.null_of(values) if values.dtype == object else np.nan
    return Column(name, "string", bool(missing.any()), null), _texts_with(values, null)


def _texts_with(values: "pd.Series[Any]", null: Any) -> "pd.Series[Any]":
    """Return texts as dtype object, a missing one as `null`."""
    array = np.empty(len(values), dtype=object)
    array[:] = [null if gap else str(value) for value, gap in zip(values, values.isna(), strict=True)]
    return pd.Series(array, name=values.name, dtype=object)


def _one_type(columns: Columns) -> Columns:
    """Return columns that fit one tensor: all texts, or all numbers (integers and booleans become floats)."""
    texts = [name for name, (column, _) in columns.items() if column.kind == "string"]
    if len(texts) == len(columns):
        return columns
    if texts:
        found = f"columns {', '.join(map(repr, texts))} are texts and others numbers; the model was fitted on an array"
        next_step = "fit the model on a DataFrame, or name the column that is the answer with --target"
        raise InvalidInput("put the sample's columns into one tensor", found, next_step)
    narrow = all(values.dtype == np.float32 for _, values in columns.values())
    dtype = "float32" if narrow else "float64"
    return {
        name: (Column(name, "float", column.has_missing), values.astype(dtype))
        for name, (column, values) in columns.items()
    }


def _input(name: str, column: Column, columns: Sequence[str], float_type: TensorType, limits: Limits) -> Input:
    """Return one tensor's entry; a tensor of many columns takes only what every one of them takes."""
    return Input(
        name=name,
        type=float_type if column.kind == "float" else column.kind,
        shape=[-1, len(columns)],
        columns=list(columns),
        missing=limits.missing.issuperset(columns),
        finite=not limits.infinite.issuperset(columns),
        categories=_categories(limits.categories.get(name), column.kind, float_type),
        missing_text=limits.missing_text.get(columns[0], ""),
    )


def _categories(values: list[Category] | None, kind: ColumnKind, float_type: TensorType) -> list[Category] | None:
    """Return categories as the device sees them: a float after its cast to the tensor's type."""
    if values is None or kind != "float":
        return values
    return list(np.array(values, dtype=float_type).astype("float64").tolist())

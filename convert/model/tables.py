"""Reads a sample from its file: CSV or Parquet, columns of texts as the model was trained on them."""

import csv
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from appliance.errors import InvalidInput, NotFound

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_LOOKED_AT = 100  # how many values of a column are looked at for decimal commas


def read(path: Path) -> pd.DataFrame:
    """Return the table in a CSV or Parquet file; CSV cells that pandas reads as missing are missing.

    Raises NotFound, or InvalidInput for a table that is ragged, empty, unreadable, of another ending, or written with
    other separators than commas.
    """
    if not path.is_file():
        raise NotFound(f"read the sample {path}", "there is no such file", "check the path")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        if path.suffix.lower() != ".csv":
            raise InvalidInput(
                f"read the sample {path.name}", "it is neither .csv nor .parquet", "save it as one of them"
            )
        _check_separators(path)
        frame = pd.read_csv(path)
    except (ValueError, OSError, csv.Error) as error:  # the parsers' errors derive from these
        first = str(error).splitlines()[0]
        raise InvalidInput(f"read the sample {path.name}", first, "check that the table is whole") from error
    _check_decimals(path, frame)
    return frame


def with_texts(path: Path, frame: pd.DataFrame, columns: Collection[str]) -> pd.DataFrame:
    """Return a table that was read from `path` with these columns as texts, as the file has them.

    Codes as 007 lose their zeros where the reader makes numbers of them. Only CSV has no types of its own.
    """
    numbers = [name for name in columns if name in frame.columns and not _is_text(frame[name])]
    if not numbers or path.suffix.lower() != ".csv":
        return frame
    texts = pd.read_csv(path, usecols=numbers, dtype=str)
    return frame.assign(**{name: texts[name].to_numpy() for name in numbers})


def _is_text(values: "pd.Series[Any]") -> bool:
    return not (pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype))


def _check_separators(path: Path) -> None:
    """Raise InvalidInput for other separators than commas, and for a row that has another number of fields.

    pandas would fill such a row up.
    """
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.reader(lines)
        header = next(reader, [])
        if len(header) == 1 and (sign := next((sign for sign in _SEPARATORS if sign in header[0]), "")):
            raise InvalidInput(
                f"read the sample {path.name}",
                f"its columns are separated by {_SEPARATORS[sign]}: {header[0][:80]!r}",
                _rewritten(path, sep=sign),
            )
        for row in reader:
            if row and len(row) != len(header):
                found = f"line {reader.line_num} has {len(row)} fields and the header {len(header)}"
                raise InvalidInput(f"read the sample {path.name}", found, "repair the table")


def _check_decimals(path: Path, frame: pd.DataFrame) -> None:
    """Raise InvalidInput for a column of numbers with decimal commas, which would be taken for texts."""
    for name, values in frame.items():
        texts = [value for value in values.dropna().head(_LOOKED_AT) if isinstance(value, str)]
        if texts and all(_DECIMAL_COMMA.fullmatch(text.strip()) for text in texts):
            found = f"the column {str(name)!r} has decimal commas, as in {texts[0]!r}"
            raise InvalidInput(f"read the sample {path.name}", found, _rewritten(path, decimal=","))


def _rewritten(path: Path, **given: str) -> str:
    """Return the line of Python that writes the table as we read it."""
    options = {"sep": ";", "decimal": ","} if given.get("sep") == ";" else given
    arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
    line = f"pandas.read_csv({path.name!r}, {arguments}).to_csv('sample.csv', index=False)"
    return f"write it with commas and decimal points: {line}"

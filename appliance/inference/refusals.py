"""The errors that name the column of a row that is at fault, and what is wrong with it. Pure."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.manifest import Input
from appliance.errors import InvalidInput
from appliance.inference.values import quoted, too_large

_SHOWN = 5  # offending values that a message quotes


def first_column(tensor: Input, bad: NDArray[np.bool_]) -> str:
    """Return the name of the first column that holds a bad value; of a tensor without columns, its own."""
    if bad.ndim != 2 or bad.shape[1] != len(tensor.columns):
        return tensor.name
    return tensor.columns[int(np.argmax(bad.any(axis=0)))]


def no_missing(tensor: Input, name: str) -> InvalidInput:
    """Return the error for a missing value where the model takes none."""
    tried, found = f"read the column {name!r}", "a value is missing (null or NaN)"
    return InvalidInput(tried, found, f"send a {tensor.type}", column=name, reason="missing")


def infinite(tensor: Input, name: str) -> InvalidInput:
    """Return the error for a number that is infinite, or would become so in the tensor's type."""
    return too_large(f"read the column {name!r}", tensor.type, name)


def absent(tried: str, found: str, lacking: list[str], next_step: str) -> InvalidInput:
    """Return the error for columns that are not sent."""
    column, reason = (lacking[0], "absent") if lacking else ("", "")
    return InvalidInput(tried, found, next_step, column=column, reason=reason)


def wrong_type(tensor: Input, name: str, found: str, reason: str = "type") -> InvalidInput:
    """Return the error for a value of another type than the tensor's."""
    tried, next_step = f"read the column {name!r}", f"send values of type {tensor.type}"
    return InvalidInput(tried, f"it holds {found}", next_step, column=name, reason=reason)


def some(values: Iterable[Any]) -> str:
    """Return a few of `values` for a message."""
    shown = [value[:40] if isinstance(value, str) else value for value in islice(values, _SHOWN)]
    return ", ".join(repr(value)[:42] for value in shown)


def listed(names: Sequence[str]) -> str:
    """Return a few names for a message, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(quoted(name) for name in names[:_SHOWN]) + more

"""Plain JSON values and arrays of one dtype: each way without losing a value's meaning. Pure."""

import math
import struct
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.arrays import Array
from appliance.errors import InvalidInput

Scalar = bool | int | float | str | None
"""One value of a row as JSON has it."""

Answer = Scalar | list[Scalar | list[Scalar]]
"""What a model says of one row: a value, or those of an output of several columns."""

SHOWN = 200
"""Characters of a value that a message quotes."""

_NUMBERS = {int, float}
_FEW = 32  # values up to which Python adds them in half of numpy's time
_CODES = {"float16": "e", "float32": "f", "float64": "d"}  # of the struct module
_LARGEST = {name: float(np.finfo(name).max) for name in _CODES}


def from_values(name: str, dtype: str, values: list[Any], *, typed: bool = False) -> Array:
    """Return the tensor `name` of JSON values: a [values] array of a manifest's type; null is NaN, or None as a string.

    `typed` says that all are float or None; for whole-number types the result is then float64, of the same values.
    Raises InvalidInput for a value of another type or out of range.
    """
    if typed and dtype in _CODES and (array := packed(dtype, values, len(values))) is not None and all_finite(array):
        return array
    tried = f"read the tensor {quoted(name)}"
    _check_kinds(tried, dtype, values, _NUMBERS if typed else {int})
    if dtype == "string":
        return np.array(values, dtype=object)
    if dtype in _CODES:
        wide = wide_numbers(tried, values, whole=False, column=name)
        return narrowed(lambda _: too_large(tried, dtype, name), dtype, wide)
    try:
        numbers = np.array(values, dtype=np.float64 if typed else dtype)
    except OverflowError as error:
        raise InvalidInput(tried, f"a value does not fit {dtype}", "send smaller numbers") from error
    if typed and (np.floor(numbers) != numbers).any():
        raise InvalidInput(tried, "it holds fractions", f"send values of type {dtype}")
    return numbers


def to_values(array: Array) -> list[Any]:
    """Return an output as plain values, one for each row; [rows, 1] counts as [rows].

    A float32 becomes the float64 of the same value, so that its decimal digits carry the exact bits.
    """
    values: list[Any] = array.reshape(-1).tolist() if array.ndim == 2 and array.shape[1] == 1 else array.tolist()
    return values


def packed(dtype: str, values: Iterable[float | None], count: int) -> Array | None:
    """Return `count` floats as a [count] array of a float dtype, or None when some are no floats.

    What does not fit float32 becomes infinite, see all_finite(). Packing takes two thirds of numpy's own time.
    """
    try:
        return np.frombuffer(struct.pack(f"{count}{_CODES[dtype]}", *values), dtype=dtype)
    except (struct.error, OverflowError, TypeError):
        return None


def all_finite(array: Array) -> bool:
    """Return whether the sum of an array's numbers, or of their squares, is finite: then all are.

    Large numbers alone make it infinite too. It takes half the time of asking each; vdot, as it warns of no overflow.
    """
    values: Any = array
    return math.isfinite(sum(values.ravel().tolist()) if values.size <= _FEW else np.vdot(values, values))


def plain_floats(values: Any) -> NDArray[Any]:
    """Return (nested) floats and None as a float64 array, NaN for None.

    Raises TypeError or ValueError for values of another type or of uneven nesting.
    """
    return np.array(values, dtype=np.float64)


def wide_numbers(tried: str, values: list[Any], *, whole: bool, column: str = "") -> NDArray[Any]:
    """Return numbers in the widest dtype of their kind, so that nothing is lost before the tensor's own is known.

    Raises InvalidInput, of `column`, for a whole number that float64 does not hold.
    """
    for dtype in (np.int64, np.uint64) if whole else ():
        try:
            return np.array(values, dtype=dtype)
        except OverflowError:
            continue
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError as error:
        raise too_large(tried, "float64", column) from error


def fits(dtype: str, wide: NDArray[Any]) -> bool:
    """Return whether a glance shows that no number becomes infinite in a float dtype; False says nothing.

    A request of one row has a few numbers in each column, which NumPy's own look would cost more than the rest.
    """
    if wide.size > _FEW:
        return False
    largest = _LARGEST[dtype]
    if wide.size == 1:
        return not abs(wide.item()) > largest  # NaN is never larger
    return not any(abs(value) > largest for value in wide.ravel().tolist())


def narrowed(refusal: Callable[[NDArray[np.bool_]], InvalidInput], dtype: str, wide: NDArray[Any]) -> Array:
    """Return numbers in a float dtype. Raises InvalidInput for a finite one that would become infinite.

    `refusal` is given which numbers those are, and returns what is raised.
    Infinity itself stays: whether the model takes it is the schema's to say.
    """
    if fits(dtype, wide):
        return wide.astype(dtype)
    with np.errstate(over="ignore"):
        array = wide.astype(dtype)
    if array.itemsize < wide.itemsize and (bad := np.isinf(array) & np.isfinite(wide)).any():
        raise refusal(bad)
    return array


def kind_of(value: object) -> str:
    """Return what JSON calls the type of `value`."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}")


def quoted(value: object) -> str:
    """Return a value for a message, cut where it is long: what was sent may be megabytes of one name."""
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN else f"{value[:SHOWN]!r}... ({len(value)} characters)"
    if isinstance(value, (list, dict)):
        return kind_of(value)
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a whole number of {value.bit_length()} bits"
    return repr(value)[:SHOWN]


def too_large(tried: str, dtype: str, column: str = "") -> InvalidInput:
    """Return the error for a number of `column` that is infinite, or would become so in `dtype`."""
    found = f"a value is infinite or too large for {dtype}"
    return InvalidInput(tried, found, "send finite numbers", column=column, reason="infinite")


def _check_kinds(tried: str, dtype: str, values: list[Any], whole: set[type]) -> None:
    """Raise InvalidInput for values that `dtype` cannot mean; `whole` are the kinds that stand for whole numbers."""
    allowed: set[type] = {int, float, type(None)} if dtype in _CODES else whole
    if dtype in ("bool", "string"):
        allowed = {bool} if dtype == "bool" else {str, type(None)}
    wrong = set(map(type, values)) - allowed
    if wrong:
        found = next(value for value in values if type(value) in wrong)
        raise InvalidInput(tried, f"it holds {kind_of(found)}", f"send values of type {dtype}")

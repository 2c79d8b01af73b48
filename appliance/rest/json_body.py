"""How a JSON body becomes typed values: compiled decoders, limits, and errors that say where the body is wrong.

Every type used here is bounded in depth, so that no body can make the decoder recurse: deeper nesting is refused. Every
body is read as JSON, whatever its Content-Type: Triton's client sends none, curl -d a wrong one.
"""

import functools
import re
from typing import Any, TypeVar

import msgspec

from appliance.budget import SMALL
from appliance.errors import ApplianceError, InvalidInput, TooLarge
from appliance.inference import lenient_json
from appliance.inference.values import Scalar
from appliance.limits import Limits
from appliance.memory import collector_paused

T = TypeVar("T")

_FAILURES = (msgspec.MsgspecError, ValueError, RecursionError)

_SCANNED = 65536  # bytes of a refused body in which its nesting is looked for
# A text cut off anywhere, even behind a backslash, is one match: else each of its characters would be a new beginning.
_FULL_LINE = re.compile(rb"[^\s][^\n]*")  # that holds more than blanks
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?|[\[{]|[\]}]', re.DOTALL)


@functools.cache
def decoder(kind: Any) -> Any:
    """Return the compiled msgspec decoder of a type, made once."""
    return msgspec.json.Decoder(kind)


def decode(body: bytes, kind: type[T], limits: Limits, form: str = "") -> T:
    """Return `body` as `kind`. Raises InvalidInput with the place that is wrong, TooLarge for too deep nesting."""
    key: Any = kind
    try:
        return _decoded(decoder(key), body)  # type: ignore[no-any-return]
    except _FAILURES as error:
        failure = error
    if lenient_json.beyond_json(body):  # json.dumps of a table with missing values writes NaN, MLflow's client too
        try:
            return _loaded(body, key)  # type: ignore[no-any-return]
        except _FAILURES as error:
            failure = error
    raise _refusal(body, failure, limits.nesting, form) from failure


def decode_values(body: bytes, kind: Any, value_type: Any, limits: Limits, form: str = "") -> tuple[Any, bool]:
    """Return `body` as the generic `kind[value_type]`, and whether that says that every value is a float or null.

    What is not of value_type is read as `kind[Scalar]`, for the error alone: the schema, which knows the columns, then
    says which of them is wrong. `form` says what to send instead of JSON of another form.
    """
    try:
        reader = _decoder_of(kind, value_type)
        return reader.decode(body) if len(body) <= SMALL else _decoded(reader, body), value_type is not Scalar
    except _FAILURES:  # slower, but it also reads the almost-JSON that clients write
        return decode(body, kind[Scalar], limits, form), False


def decode_lines(body: bytes, kind: Any, value_type: Any, limits: Limits) -> tuple[list[Any], bool]:
    """Return the values of JSON lines, each a `kind[value_type]`, else `kind[Scalar]`; and as decode_values().

    Raises InvalidInput, TooLarge. Empty lines are none.
    """
    body = body.removeprefix(lenient_json.BOM)
    try:
        with collector_paused():
            values, typed = _decoder_of(kind, value_type).decode_lines(body), value_type is not Scalar
    except _FAILURES:
        values, typed = _decoded_lines(body, kind[Scalar], limits), False
    if len(values) != body.count(b"\n") + (body[-1:] != b"\n"):
        lines = sum(1 for _ in _FULL_LINE.finditer(body))
        if lines != len(values):
            raise InvalidInput("read the body", f"{lines} lines hold {len(values)} values", "send one row a line")
    return values, typed


def _decoded_lines(body: bytes, kind: Any, limits: Limits) -> list[Any]:
    """Return the values of JSON lines, one line after the other, so that an error names its line."""
    values = []
    for line in _FULL_LINE.finditer(body):
        try:
            values.append(decode(line[0], kind, limits))
        except ApplianceError as error:
            error.found = f"line {len(values)}: {error.found}"
            raise
    return values


def _decoded(decoder: Any, body: bytes) -> Any:
    """Return a decoded body, which may be large."""
    with collector_paused():
        return decoder.decode(body)


def _loaded(body: bytes, kind: Any) -> Any:
    """Return a body of almost-JSON that clients write (NaN, Infinity)."""
    with collector_paused():
        return msgspec.convert(lenient_json.loads(body), kind)


@functools.cache
def _decoder_of(kind: Any, value_type: Any) -> Any:
    """Return the compiled decoder of `kind[value_type]`: to write that out takes longer than to decode a row."""
    return msgspec.json.Decoder(kind[value_type])


def _refusal(body: bytes, error: Exception, max_nesting: int, form: str) -> ApplianceError:
    """Return the error for a body that is no JSON or not of the right form."""
    if isinstance(error, RecursionError) or _nests_beyond(body[:_SCANNED], max_nesting):
        return TooLarge("read the body", f"it nests deeper than {max_nesting}", "send rows of plain values")
    if not body:
        next_step = f"send {form}" if form else "send JSON; /openapi.json says what"
        return InvalidInput("read the body", "it is empty", next_step)
    if form and isinstance(error, msgspec.ValidationError):
        return InvalidInput("read the body", str(error), f"send {form}")
    return InvalidInput("read the body", str(error), "send JSON as /openapi.json says")


def _nests_beyond(body: bytes, limit: int) -> bool:
    """Return whether brackets outside of texts nest deeper than `limit`."""
    depth = 0
    for match in _BRACKETS.finditer(body):
        mark = match[0]
        depth += 1 if mark in b"[{" else -1 if mark in b"]}" else 0
        if depth > limit:
            return True
    return False

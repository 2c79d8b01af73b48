"""JSON (RFC 8259) that every reader understands in the same way: no key twice, no NaN, a bounded number of arrays."""

import json
from typing import Any, TypeVar

import msgspec

MAX_ARRAYS = 500_000
"""An empty array takes 2 bytes of text and 64 of memory."""

T = TypeVar("T")


def decode(raw: bytes, kind: type[T]) -> T:
    """Return the JSON text `raw` as a `kind`. Raises ValueError, RecursionError or msgspec.MsgspecError.

    The type is checked first: anything that it does not have is refused before it is built.
    """
    found = msgspec.json.decode(raw, type=kind)
    check(raw)
    return found


def load(raw: bytes) -> Any:
    """Return what the JSON text `raw` says, for small texts. Raises ValueError or RecursionError."""
    return json.loads(raw.decode(), object_pairs_hook=_object, parse_constant=_constant)


def check(raw: bytes) -> None:
    """Raise ValueError or RecursionError unless `raw` is JSON in which no object, however deep, has a key twice."""
    if raw.count(b"[") > MAX_ARRAYS:
        raise ValueError(f"it has more than {MAX_ARRAYS} arrays")
    json.loads(
        raw.decode(), object_pairs_hook=_keys_alone, parse_int=_nothing, parse_float=_nothing, parse_constant=_constant
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; of a key that is there twice, two readers could believe different values."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a JSON object has a key twice")
    return found


def _keys_alone(pairs: list[tuple[str, Any]]) -> None:
    """Look at an object's keys and keep nothing of it."""
    _object(pairs)


def _nothing(text: str) -> None:
    """Keep nothing of a number."""


def _constant(name: str) -> Any:
    """Refuse NaN, Infinity and -Infinity: Python reads them, but they are not JSON."""
    raise ValueError(f"{name} is no JSON")

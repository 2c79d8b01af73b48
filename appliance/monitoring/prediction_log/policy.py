"""What is kept of each column: all, nothing, a keyed hash, or a rounded number. Pure."""

import hmac
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

import msgspec

from appliance.errors import ConfigError

HASH_DIGITS = 16

Change = Callable[[Any], Any]


def changes(policy: Mapping[str, str], columns: Sequence[str], key: bytes) -> list[tuple[int, Change]]:
    """Return (place, change) for each of `columns` that is not kept as it was sent. Raises ConfigError."""
    found = []
    for place, column in enumerate(columns):
        change = _change(column, policy.get(column, "keep"), key)
        if change:
            found.append((place, change))
    return found


def check(policy: Mapping[str, str]) -> None:
    """Raise ConfigError for an unknown word."""
    for column, word in policy.items():
        _change(column, word, b"")


def hashes(policy: Mapping[str, str]) -> bool:
    """Return whether a key is needed."""
    return "hash" in policy.values()


def _change(column: str, word: str, key: bytes) -> Change | None:
    if word == "keep":
        return None
    if word == "drop":
        return _nothing
    if word == "hash":
        return partial(hashed, key)
    name, _, step = word.partition(":")
    try:
        if name == "round" and float(step) > 0:
            decimals = max(0, -int(Decimal(step).as_tuple().exponent))
            return partial(_rounded, float(step), decimals)
    except (ValueError, InvalidOperation):
        pass
    raise ConfigError(
        f"configuration [log.predictions] columns {column!r}",
        f"{word!r} is unknown",
        "say keep, drop, hash or round:STEP",
    )


def hashed(key: bytes, value: Any) -> Any:
    """Return a value's HMAC-SHA-256 as 16 hex digits; a missing one stays missing.

    Keyed, since a plain digest of a postcode is found by trying all postcodes.
    """
    if value is None or value != value:
        return None
    return hmac.digest(key, msgspec.json.encode(value), "sha256").hex()[:HASH_DIGITS]


def _nothing(value: Any) -> None:
    return None


def _rounded(step: float, decimals: int, value: Any) -> Any:
    """Return a number rounded to a multiple of `step`; what is no number is not kept."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return round(round(value / step) * step, decimals)
    except (OverflowError, ValueError):  # infinite or NaN
        return value

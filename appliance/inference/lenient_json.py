"""JSON as clients write it: behind a byte order mark, with Python's NaN, Infinity and -Infinity. Pure.

The same rules for every listener: what is JSON is left to the quick decoder, and only what that refuses comes here.
"""

import json
import math
from typing import Any

from appliance.errors import InvalidInput

BOM = b"\xef\xbb\xbf"


def beyond_json(body: bytes) -> bool:
    """Return whether a body that no JSON reader takes may be one that loads() does."""
    return body.startswith(BOM) or b"NaN" in body or b"Infinity" in body


def loads(body: bytes) -> Any:
    """Return the value of a JSON body that may begin with a byte order mark and hold NaN, Infinity and -Infinity.

    Raises ValueError for what is not even that, RecursionError for deep nesting, InvalidInput for a number beyond
    float64: it would become infinite.
    """
    return json.loads(body.removeprefix(BOM).decode(), parse_float=_finite, parse_int=_whole)


def _finite(text: str) -> float:
    """Return a number with a fraction or an exponent."""
    number = float(text)
    if math.isinf(number):
        raise _too_large()
    return number


def _whole(text: str) -> int:
    """Return a whole number that float64 can hold; Python itself refuses thousands of digits."""
    number = int(text) if len(text) < 400 else 10**400
    if number.bit_length() > 1024:
        raise _too_large()
    return number


def _too_large() -> InvalidInput:
    """Return the error for a number that no float64 holds."""
    return InvalidInput("read the body", "a number is out of range: no float64 holds it", "send smaller numbers")

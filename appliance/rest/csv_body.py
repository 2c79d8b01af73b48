"""A CSV body, in the charset and with the header that its Content-Type says (RFC 4180, 3), as columns of values."""

from collections.abc import Sequence
from typing import Any

from appliance.errors import InvalidInput
from appliance.inference.csv_rows import read_columns
from appliance.inference.tensors import InputSchema
from appliance.limits import Limits
from appliance.memory import collector_paused

# Not every codec of Python: some take time quadratic in the length.
_CHARSETS = ("utf-8", "us-ascii", "iso-8859-1", "latin-1", "windows-1252", "utf-16")


def read_csv(body: bytes, schema: InputSchema, parameters: dict[str, str], limits: Limits) -> dict[str, Sequence[Any]]:
    """Return {column name: values} of a CSV body, each value read as its column's type if it can be.

    `parameters` are the Content-Type's, in lower case: charset and header. Raises InvalidInput, TooLarge.
    """
    text = text_of(body, parameters.get("charset", "utf-8"))
    with collector_paused():
        return {**read_columns(text, schema, parameters.get("header", ""), limits.check_rows)}


def text_of(body: bytes, charset: str) -> str:
    """Return a body as text, without a byte order mark. Raises InvalidInput for another charset or what is none."""
    if charset not in _CHARSETS:
        raise InvalidInput(
            "read the body", f"charset {charset[:40]!r} is unknown", f"send one of {', '.join(_CHARSETS)}"
        )
    try:
        return body.decode(charset).removeprefix("\ufeff")
    except UnicodeError as error:
        raise InvalidInput(
            "read the body", f"it is no {charset} ({error})", "send UTF-8, or say its charset"
        ) from error

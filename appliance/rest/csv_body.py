"""A CSV body (RFC 4180) as columns of values: with a header as MLflow sends it, without one as SageMaker does."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from appliance.bundle.manifest import Input
from appliance.config import HttpConfig
from appliance.errors import InvalidInput
from appliance.inference.tensors import InputSchema
from appliance.rest.json_body import check_rows

# Not all that Python knows: some of its codecs take time in the square of the length.
_CHARSETS = ("utf-8", "us-ascii", "iso-8859-1", "latin-1", "windows-1252", "utf-16")
_MISSING = {"", "na", "nan", "null"}
_TRUTH = {"true": True, "false": False}


def read_csv(
    body: bytes, schema: InputSchema, parameters: dict[str, str], config: HttpConfig
) -> dict[str, Sequence[Any]]:
    """Return {column name: values} of a CSV body, each value read as its column's type if it can be.

    `parameters` are the Content-Type's, in lower case: charset and header (present or absent, RFC 4180). Without the
    latter, a first row of numbers is a row. Raises InvalidInput, TooLarge.
    """
    rows = _rows(text_of(body, parameters.get("charset", "utf-8")), config)
    if not rows:
        raise InvalidInput("read the CSV", "it is empty", "send at least one row")
    names = schema.columns
    if _has_header(rows[0], schema, parameters.get("header", "")):
        names = rows.pop(0)
        if len(set(names)) != len(names):
            raise InvalidInput("read the CSV", "a column's name stands twice in the header", "name each column once")
    check_rows(len(rows), config)
    for index, row in enumerate(rows):
        if len(row) != len(names):
            found = f"row {index} has {len(row)} values for {len(names)} columns"
            raise InvalidInput("read the CSV", found, f"send {', '.join(names)}")
    tensors = {column: tensor for tensor in schema.inputs for column in tensor.columns}
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return {
        name: [_value(cell, tensors.get(name)) for cell in cells] for name, cells in zip(names, columns, strict=True)
    }


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


def _rows(text: str, config: HttpConfig) -> list[list[str]]:
    """Return the rows, empty lines left out."""
    rows = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True):
            if row:
                rows.append(row)
                check_rows(len(rows) - 1, config)  # one may be the header
    except csv.Error as error:
        raise InvalidInput("read the CSV", f"after row {len(rows)}: {error}", "quote texts as RFC 4180 says") from error
    return rows


def _has_header(first: list[str], schema: InputSchema, said: str) -> bool:
    """Return whether the first row names the columns: as the caller said, else as it looks."""
    if said in ("present", "absent"):
        return said == "present"
    if any(cell in schema.columns for cell in first):
        return True
    if all(_is_number(cell) for cell in first):
        return False
    # A row of texts that name no column is data where the model takes texts, else a header that will be refused.
    takes_texts = any(tensor.type in ("string", "bool") for tensor in schema.inputs)
    return not (takes_texts and len(first) == len(schema.columns))


def _is_number(cell: str) -> bool:
    """Return whether a cell is a number or a missing one."""
    return not isinstance(_number(cell), str)


def _value(cell: str, tensor: Input | None) -> Any:
    """Return a cell as a value of the tensor's type, or unchanged when it is none: the schema then says so."""
    if tensor is None:
        return cell
    if tensor.type == "string":
        return None if not cell and tensor.missing else cell
    return _TRUTH.get(cell.strip().lower(), cell) if tensor.type == "bool" else _number(cell)


def _number(cell: str) -> int | float | str | None:
    """Return a cell as a number, None for a missing one, unchanged when it is neither."""
    text = cell.strip()
    if text.lower() in _MISSING:
        return None
    if "_" in text:  # Python's own spelling, nobody else's
        return cell
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:  # also a whole number of thousands of digits
            continue
    return cell

"""The rows of `appliance predict`: JSON on the command line, in a file, or on standard input."""

import sys
from pathlib import Path
from typing import Any

import msgspec

from appliance import ahead
from appliance.errors import InvalidInput, NotFound
from appliance.inference import lenient_json

_TRIED = "read the rows"


def features_of(argument: str) -> Any:
    """Return the rows that an argument stands for; of `{"features": ...}`, as /predict takes it, what is in it."""
    body = _body(argument)
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        value = _lenient(body, error)
    if isinstance(value, dict) and value.keys() == {"features"} and isinstance(value["features"], (list, dict)):
        return value["features"]
    return value


def _body(argument: str) -> bytes:
    """Return the JSON."""
    if argument == "-":
        return sys.stdin.buffer.read()
    if argument.lstrip().startswith(("[", "{")):
        return argument.encode("utf-8", "surrogateescape")
    try:
        return ahead.read(Path(argument))
    except FileNotFoundError as error:
        found = "it is neither JSON nor a file"
        raise NotFound(f"{_TRIED} {argument}", found, "write rows as JSON: '[[5.1, 3.5, 1.4, 0.2]]'") from error
    except OSError as error:
        raise InvalidInput(f"{_TRIED} {argument}", error.strerror or str(error), "check the file") from error


def _lenient(body: bytes, error: Exception) -> Any:
    """Return rows of almost-JSON that programs write, with NaN and Infinity."""
    step = "write a row or a list of rows, each a list or an object by column name"
    if not lenient_json.beyond_json(body):
        raise InvalidInput(_TRIED, str(error), step) from error
    try:
        return lenient_json.loads(body)
    except (ValueError, RecursionError) as failure:
        raise InvalidInput(_TRIED, str(failure), step) from failure

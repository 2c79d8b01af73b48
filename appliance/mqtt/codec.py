"""What a payload means and how an answer is written: JSON, CBOR and plain values, fields by path, message ids. Pure."""

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec

from appliance import budget, extras
from appliance.arrays import Array
from appliance.config import SubscriptionConfig
from appliance.errors import ConfigError, InvalidInput
from appliance.inference import lenient_json
from appliance.inference.tensors import Feeds, InputSchema
from appliance.inference.values import Scalar
from appliance.mqtt import cbor_scan
from appliance.mqtt.bad_message import BadMessage, too_large, too_much
from appliance.openinference.tensors import InferInputOf, checked, from_json
from appliance.response import PredictAnswer, as_rows

RESERVED = frozenset({*PredictAnswer.__struct_fields__, "replayed", "predicted_at"})
"""Fields of an answer that no echoed field may hide."""

_LONGEST_ID = 256  # characters of an id that a payload bears
_LARGEST_ECHO = 16_384  # bytes of all fields that one answer repeats
_BOUND = 2**53  # whole numbers beyond are left to the slower way, which says what is wrong with them
_FAILURES = (msgspec.MsgspecError, ValueError, RecursionError, InvalidInput)
_PLAIN_NUMBER = "read the payload as a number"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class PlainText(str):
    """A payload that is one value as text; the column's type says what it means."""


@dataclass(frozen=True, slots=True)
class Call:
    """What one message asks: rows (lists, objects, or one PlainText), or tensors by name."""

    id: str
    rows: list[Any] = field(default_factory=list)
    tensors: dict[str, Array] | None = None
    echo: dict[str, Any] = field(default_factory=dict)
    quality: bool = False
    """Whether the payload has `"quality": true`, which may also be a column of that name."""


class Codec:
    """Reads the payloads of one subscription and writes their answers."""

    def __init__(
        self, config: SubscriptionConfig, *, max_bytes: int, max_rows: int, max_decoded: int = budget.MOST
    ) -> None:
        """`max_decoded` in bytes is what a payload may take in memory.

        Raises ConfigError for fields that cannot be echoed, and for CBOR where its library is absent."""
        hidden = RESERVED.intersection(config.echo)
        if hidden:
            raise ConfigError(
                f"[[mqtt.subscriptions]] {config.topic!r} echo",
                f"{sorted(hidden)[0]!r} is the answer's",
                "echo another field",
            )
        self._config = config
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        self._max_decoded = max_decoded
        self._cbor = _cbor() if config.payload == "cbor" else None
        self.content_type = "application/cbor" if self._cbor else "application/json"

    def read(self, topic: str, payload: bytes, correlation: bytes = b"") -> Call:
        """Return what a message asks. Raises BadMessage."""
        if len(payload) > self._max_bytes:
            raise too_large(len(payload), self._max_bytes)
        if self._config.payload == "value":
            return Call(message_id(topic, payload, correlation), [PlainText(text_of(payload))])
        document = self.document(payload)
        identifier = self._id(document) or message_id(topic, payload, correlation)
        echo = self._echo(document, len(payload)) if self._config.echo else {}
        body = document
        if self._config.at and (body := at_path(document, self._config.at)) is _ABSENT:
            raise BadMessage("field", "read the payload", f"there is no {self._config.at!r}", "send the row there")
        tensors = _tensors(body)
        rows = [] if tensors is not None else self._rows(body)
        return Call(identifier, rows, tensors, echo, _asks_quality(document) or _asks_quality(body))

    def write(self, answer: PredictAnswer, call: Call) -> bytes:
        """Return an answer with the message's id and echoed fields, in the form of its request."""
        if self._cbor:
            encoded: bytes = self._cbor.dumps(msgspec.to_builtins(answer) | {"id": call.id} | call.echo)
            return encoded
        plain = _encode(answer)
        return plain[:-1] + b"," + _encode({"id": call.id, **call.echo})[1:]

    def document(self, payload: bytes) -> Any:
        """Return the decoded payload. Raises BadMessage."""
        if self._cbor:
            return _plain_cbor(self._cbor, payload, self._max_decoded)
        if len(payload) > budget.SMALL and (cost := budget.json_cost(payload)) > self._max_decoded:
            raise too_much(cost, self._max_decoded)
        return json_document(payload)

    def _rows(self, body: Any) -> list[Any]:
        """Return the rows of a body that is an object, a list, a list of rows or one value."""
        if isinstance(body, dict):
            features = body.get("features")
            rows = as_rows(features) if isinstance(features, (list, dict)) else [body]
        else:
            rows = as_rows(body) if isinstance(body, list) else [[body]]
        if not rows or len(rows) > self._max_rows:
            found, reason = f"it has {len(rows)} rows", "too_large" if rows else "form"
            raise BadMessage(reason, "read the payload", found, f"send 1 to {self._max_rows} rows ([mqtt] max_rows)")
        return rows

    def _id(self, document: Any) -> str:
        """Return the id that the payload bears; "" when it bears none. Raises BadMessage for a long one."""
        value = at_path(document, self._config.id) if self._config.id else ""
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            return ""
        if (isinstance(value, int) and abs(value) > 2**64) or len(text := str(value)) > _LONGEST_ID:
            found = f"{self._config.id!r} is longer than {_LONGEST_ID} characters"
            raise BadMessage("too_large", "read the message's id", found, "send a short id")
        return text

    def _echo(self, document: Any, size: int) -> dict[str, Any]:
        """Return the fields that the answer repeats, of a payload of `size` bytes. Raises BadMessage for large ones."""
        echo = {path: value for path in self._config.echo if (value := at_path(document, path)) is not _ABSENT}
        # A field is written at most eight times as long as it was sent: 1e15 has four bytes and becomes eighteen.
        if size * len(echo) > _LARGEST_ECHO // 8:
            written = len(self._cbor.dumps(echo) if self._cbor else _encode(echo))
            if written > _LARGEST_ECHO:
                found = f"the fields to echo have {written} bytes, {_LARGEST_ECHO} may be"
                raise BadMessage("too_large", "read the payload", found, "send less in them")
        return echo


def _asks_quality(body: Any) -> bool:
    """Return whether an object asks for the quality of each row, itself or, of Open Inference, by a parameter."""
    if not isinstance(body, dict):
        return False
    parameters = body.get("parameters")
    return body.get("quality") is True or (isinstance(parameters, dict) and parameters.get("quality") is True)


def json_document(payload: bytes) -> Any:
    """Return a JSON payload's value, which may be written as other clients than JSON's own write it: lenient_json.

    Raises BadMessage.
    """
    try:
        return _decode(payload)
    except _FAILURES as error:
        failure: Exception = error
    if lenient_json.beyond_json(payload):
        try:
            document = lenient_json.loads(payload)
            if b"\\u" in payload:
                _encode(document)  # half of a pair of surrogates is no text: JSON's quick reader refuses it too
            return document
        except _FAILURES as error:
            failure = error
    found = failure.found if isinstance(failure, InvalidInput) else str(failure)
    raise BadMessage("payload", "read the payload as JSON", found, "send JSON; a missing value is null") from failure


def message_id(topic: str, payload: bytes, correlation: bytes = b"") -> str:
    """Return an id that the same message bears whenever it comes: 32 hex digits of BLAKE2b."""
    digest = hashlib.blake2b(topic.encode("utf-8", "surrogateescape"), digest_size=16)
    for part in (payload, correlation):
        digest.update(len(part).to_bytes(4, "little"))
        digest.update(part)
    return digest.hexdigest()


def feeds_of(schema: InputSchema, rows: list[Any], fields: Mapping[str, str]) -> Feeds:
    """Return the feeds of rows as messages have them: columns by name or path, everything else ignored.

    Raises InvalidInput.
    """
    if any(isinstance(row, PlainText) for row in rows):
        rows = [[_typed(schema, row)] if isinstance(row, PlainText) else row for row in rows]
    quick = _lists_of_numbers(schema, rows, fields)
    if quick is not None:
        return schema.from_rows(quick, typed=True)
    picked = [_picked(schema, row, fields) if isinstance(row, dict) else row for row in rows]
    return schema.from_rows(picked)


def at_path(document: Any, path: str) -> Any:
    """Return what stands at a path of keys and list indices between dots, _ABSENT where nothing does.

    A key that has dots itself is found too.
    """
    if isinstance(document, dict) and path in document:
        return document[path]
    value = document
    for step in path.split("."):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(value):
            value = value[int(step[:9])]
        else:
            return _ABSENT
    return value


def is_absent(value: Any) -> bool:
    """Return whether at_path() found nothing."""
    return value is _ABSENT


def flagged(payload: bytes, content_type: str, created: float) -> bytes:
    """Return an answer with the two fields of one that comes late: `replayed` and the time it was first given."""
    fields = {"replayed": True, "predicted_at": iso_time(created)}
    if content_type == "application/cbor":
        library = _cbor()
        encoded: bytes = library.dumps(library.loads(payload) | fields)
        return encoded
    return payload[:-1] + b"," + _encode(fields)[1:] if payload.endswith(b"}") else payload


def iso_time(seconds: float) -> str:
    """Return a Unix time as ISO 8601 in UTC with milliseconds."""
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1000):03d}Z"


class _Absent:
    """Stands for a field that is not there, which null is not."""


_ABSENT = _Absent()


def text_of(payload: bytes) -> str:
    """Return a payload that is text. Raises BadMessage."""
    try:
        return payload.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise BadMessage("payload", "read the payload as text", str(error), "send UTF-8") from error


def _typed(schema: InputSchema, text: str) -> Any:
    """Return a plain value as the only column's type has it."""
    kind = schema.inputs[0].type
    if kind == "string":
        return str(text)
    if kind == "bool" and text.lower() in ("true", "false", "1", "0", "on", "off"):
        return text.lower() in ("true", "1", "on")
    value = number_of(text)
    if value is None:
        raise BadMessage("payload", _PLAIN_NUMBER, f"it is {text[:40]!r}", "send a number alone")
    return value


def number_of(text: str) -> float | None:
    """Return the number that a payload is as a text, None where it is none. Raises BadMessage beyond float64."""
    if not text.isascii() or "_" in text:  # Python takes 1_000 and the digits of every script
        return None
    for number in (int, float):
        try:
            value = number(text)
            beyond = math.isinf(value) and any(map(str.isdigit, text))
        except ValueError:
            continue
        except OverflowError:
            beyond = True
        if beyond:
            found = "the number is out of range: no float64 holds it"
            raise BadMessage("payload", _PLAIN_NUMBER, found, "send a smaller number")
        return value
    return None


def _tensors(body: Any) -> dict[str, Array] | None:
    """Return the tensors of a body that is an Open Inference request, None for another one. Raises InvalidInput."""
    sent = body.get("inputs") if isinstance(body, dict) else None
    if not isinstance(sent, list) or not sent or not all(isinstance(one, dict) and "datatype" in one for one in sent):
        return None
    try:
        inputs = msgspec.convert(sent, list[InferInputOf[Scalar]])
    except msgspec.ValidationError as error:
        raise BadMessage("form", "read the input tensors", str(error), "send Open Inference's form") from error
    return {tensor.name: from_json(tensor, typed=False) for tensor in checked(inputs)}


def _lists_of_numbers(schema: InputSchema, rows: list[Any], fields: Mapping[str, str]) -> list[Any] | None:
    """Return rows as lists of numbers where nothing but numbers is meant; None where the slower way must judge."""
    if schema.value_type is Scalar or fields:
        return None
    pick = _picker(tuple(schema.columns))
    try:
        lists = [row if isinstance(row, list) else pick(row) for row in rows]
        plain = all(set(map(type, row)) <= {float, int, type(None)} for row in lists)
        plain = plain and not any(type(value) is int and abs(value) > _BOUND for row in lists for value in row)
    except (KeyError, TypeError, IndexError):
        return None
    width = len(schema.columns)
    return lists if plain and all(len(row) == width for row in lists) else None


@lru_cache(maxsize=64)
def _picker(columns: tuple[str, ...]) -> Callable[[Any], Any]:
    """Return the quickest way to a row's values in the order of the columns."""
    if len(columns) == 1:
        return lambda row: (row[columns[0]],)
    return itemgetter(*columns)


def _picked(schema: InputSchema, row: dict[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the columns that a row has, by name or by path, and None for those that it may lack.

    A row without any of them is left empty, since it is no row with all of it missing: it is refused.
    """
    found = {column: at_path(row, fields.get(column, column)) for column in schema.columns}
    there = {column: value for column, value in found.items() if value is not _ABSENT}
    return dict.fromkeys(schema.may_lack) | there if there else there


def _cbor() -> Any:
    """Return the CBOR library, which an extra brings."""
    try:
        import cbor2
    except ImportError as error:
        tried, found = '[[mqtt.subscriptions]] payload = "cbor"', "cbor2 is not installed"
        raise ConfigError(tried, found, extras.how_to_get("cbor")) from error
    return cbor2


def _plain_cbor(library: Any, payload: bytes, max_decoded: int) -> Any:
    """Return a CBOR payload that holds what JSON could, times and bytes (which are no values, but may be echoed)."""
    try:
        cost = cbor_scan.cost(payload)
        if cost > max_decoded:
            raise too_much(cost, max_decoded)
        document = library.loads(payload)
        _check_plain(document)
    except (library.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise BadMessage("payload", "read the payload as CBOR", str(error)[:200], "send plain CBOR") from error
    return document


def _check_plain(value: Any) -> None:
    """Raise ValueError for what JSON has no like of, in a document that is known not to nest deep."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a key is no text")
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            _check_plain(one)
    elif value is not None and type(value) not in (bool, int, float, str, bytes, datetime):
        raise ValueError(f"it holds a {type(value).__name__}")

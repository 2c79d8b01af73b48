"""Whether bytes are an ONNX model and nothing else, by protobuf's wire format alone.

onnxruntime also loads its own flatbuffer format, and tensors whose data is in another file, or at an address, which
the model names. Neither belongs in a bundle. Sources: onnx.proto (the field numbers below), protobuf's encoding guide.
"""

import re
from collections.abc import Iterator
from typing import NoReturn

from appliance.bundle.zipped import AGAIN
from appliance.errors import BundleRefused

_MODEL_NAME = "model.onnx"
_ORT_IDENTIFIER = b"ORTM"  # at offset 4: onnxruntime/core/flatbuffers/schema/ort.fbs
# ModelProto: field number -> wire type (0 is a varint, 2 has a length).
_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_IR_VERSION, _GRAPH = 1, 7
# Without this key of `external_data` no tensor has a place elsewhere; nearly no model holds the word.
_PLACE = b"location"
_DEEPEST = 100  # as protobuf itself
_LONGEST_HEAD = 20  # two varints

# Where a message holds messages that hold tensors: {message: {field number: message}}.
_PARTS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
# A forest's numbers, one field each: passed over in one step instead of millions.
_NUMBERS = re.compile(rb"(?:\x3d.{4})+|(?:\x40[\x80-\xff]{0,9}[\x00-\x7f])+", re.DOTALL)


class Scan:
    """The fields of a ModelProto, from its bytes as they come; holds none of them."""

    def __init__(self) -> None:
        self._begun = b""
        self._waiting = b""
        self._skip = 0
        self._seen: dict[int, int] = {}
        self._tail = b""
        self._places = False

    def feed(self, piece: bytes) -> None:
        """Look at the next bytes. Raises BundleRefused."""
        if len(self._begun) < 8:
            self._begun += piece[: 8 - len(self._begun)]
            if self._begun[4:8] == _ORT_IDENTIFIER:
                _refuse("it is in onnxruntime's own format, not ONNX")
        self._places = self._places or _PLACE in piece or _PLACE in self._tail + piece[: len(_PLACE)]
        self._tail = (piece if len(piece) >= len(_PLACE) else self._tail + piece)[-len(_PLACE) + 1 :]
        data = self._waiting + piece
        position = 0
        while True:
            step = min(self._skip, len(data) - position)
            position, self._skip = position + step, self._skip - step
            rest = len(data) - position
            if self._skip or not rest:
                break
            head = _head(data, position, len(data))
            if head is None:
                if rest > _LONGEST_HEAD:
                    _refuse("it is no ONNX model: a field has no end")
                break
            number, kind, value, position = head
            if _FIELDS.get(number) != kind:
                _refuse(f"it is no ONNX model: it has a field {number} of type {kind}")
            self._seen[number] = self._seen.get(number, 0) + 1
            self._skip = value if kind else 0
        self._waiting = data[position:]

    def end(self) -> bool:
        """Return whether the model must be looked at closely, see check(). Raises BundleRefused when it is no model."""
        if self._waiting or self._skip:
            _refuse("it is no ONNX model: it is cut off")
        if self._seen.get(_IR_VERSION) != 1 or self._seen.get(_GRAPH) != 1:
            _refuse("it is no ONNX model: it needs one IR version and one graph")
        return self._places


def check(model: bytes) -> None:
    """Raise BundleRefused unless `model` is one ONNX model that keeps all its tensors in itself."""
    scan = Scan()
    scan.feed(model)
    if scan.end():
        _refuse_external(model, 0, len(model), "model", 0)


def _refuse_external(model: bytes, start: int, end: int, message: str, depth: int) -> None:
    """Refuse a tensor with data elsewhere in the message model[start:end], however deep."""
    if depth > _DEEPEST:
        _refuse(f"it is nested deeper than {_DEEPEST}")
    parts = _PARTS[message]
    for number, kind, first, last in _fields(model, start, end, numbers=message == "attribute"):
        if message == "tensor" and number in (_EXTERNAL_DATA, _DATA_LOCATION) and (kind == 2 or last):
            _refuse("it has a tensor whose data is elsewhere")
        if kind == 2 and (part := parts.get(number)):
            _refuse_external(model, first, last, part, depth + 1)


def _fields(model: bytes, start: int, end: int, *, numbers: bool) -> Iterator[tuple[int, int, int, int]]:
    """Yield (number, wire type, start, end) of a message's fields; of a varint (number, 0, start, value)."""
    position = start
    while position < end:
        if numbers and (many := _NUMBERS.match(model, position, end)):
            position = many.end()
            continue
        head = _head(model, position, end)
        if head is None:
            _refuse("it is no ONNX model: a field has no end")
        number, kind, value, position = head
        if kind == 0:
            yield number, 0, position, value
            continue
        if value > end - position:
            _refuse("it is no ONNX model: a field is longer than what holds it")
        yield number, kind, position, position + value
        position += value


def _head(data: bytes, position: int, end: int) -> tuple[int, int, int, int] | None:
    """Return (field number, wire type, value, position), None where the bytes end before it does.

    `value` is a varint's value, and of other types the number of bytes that follow at `position`.
    """
    tag = _varint(data, position, end)
    if tag is None:
        return None
    value, position = tag
    number, kind = value >> 3, value & 7
    if kind == 1:
        return number, kind, 8, position
    if kind == 5:
        return number, kind, 4, position
    if kind not in (0, 2) or not number:
        _refuse(f"it is no ONNX model: it has a field {number} of type {kind}")
    size = _varint(data, position, end)
    return None if size is None else (number, kind, *size)


def _varint(data: bytes, position: int, end: int) -> tuple[int, int] | None:
    """Return (value, position after it), None where the bytes end before it does."""
    value = shift = 0
    for index in range(position, min(end, position + 10)):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, index + 1
        shift += 7
    if end - position >= 10:
        _refuse("it is no ONNX model: a number has no end")
    return None


def _refuse(found: str) -> NoReturn:
    raise BundleRefused(_MODEL_NAME, found, AGAIN)

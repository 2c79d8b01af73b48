"""Tensors as Open Inference writes them: its datatype names, shapes, and the bytes of the binary tensor extension.

Source: Triton's protocol/extension_binary_data.md. Little-endian, row-major, BOOL one byte an element, BYTES a 4-byte
length and the bytes of each element.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from appliance.arrays import Array
from appliance.budget import json_cost
from appliance.errors import InvalidInput
from appliance.inference.values import quoted
from appliance.openinference.tensors import DATATYPES, NAMES, elements

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The extension's name for the length of the JSON part, in bytes; beside it, the body holds nothing but tensors."""

_LENGTH = struct.Struct("<I")
_NAMES = {np.dtype(kind): name for kind, name in NAMES.items() if kind != "string"}


def cost(body: bytes, header_length: str) -> int:
    """Return the bytes that a body takes at most before its tensors are read: itself, and its JSON part decoded."""
    return 2 * len(body) + json_cost(body[: max(0, _length(header_length))])


def split(body: bytes, header_length: str) -> tuple[bytes, memoryview]:
    """Return the JSON part of a body and its tensors. Raises InvalidInput when the header's length cannot be."""
    length = _length(header_length)
    if not 0 <= length <= len(body):
        found = f"it is {header_length[:40]!r}, and the body has {len(body)} bytes"
        raise InvalidInput(f"read {HEADER_LENGTH}", found, "send the length of the JSON part in bytes")
    return body[:length], memoryview(body)[length:]


def read(name: str, datatype: str, shape: Sequence[int], content: memoryview) -> Array:
    """Return the tensor that `content` holds, numbers without a copy, texts (UTF-8) as dtype object.

    Raises InvalidInput when the bytes do not fill the shape exactly, or hold what is no text.
    """
    count = elements(name, shape)
    if datatype == "BYTES":
        return _read_texts(name, content, count).reshape(shape)
    dtype = np.dtype(DATATYPES[datatype]).newbyteorder("<")
    if count * dtype.itemsize != len(content):
        found = f"{datatype} of shape {list(shape)} has {count * dtype.itemsize} bytes, {len(content)} were sent"
        raise InvalidInput(f"read the tensor {quoted(name)}", found, "send row-major bytes without padding")
    if datatype == "BOOL":
        return np.frombuffer(content, dtype=np.uint8).reshape(shape).astype(bool)
    array = np.frombuffer(content, dtype=dtype).reshape(shape)
    # A tensor may begin anywhere in the body; what computes on it may need its numbers aligned.
    return array.astype(dtype.newbyteorder("="), copy=not array.flags.aligned)


def write(array: Array) -> bytes:
    """Return a tensor's bytes."""
    if array.dtype.kind == "O":
        texts = [as_text(value).encode() for value in array.reshape(-1).tolist()]
        return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def as_text(value: Any) -> str:
    """Return an element of a string tensor as text."""
    return value if isinstance(value, str) else str(value)


def datatype_of(array: Array) -> str:
    """Return Open Inference's name of an array's dtype."""
    return "BYTES" if array.dtype.kind in "OU" else _NAMES[array.dtype]


def _length(text: str) -> int:
    """Return a length in digits, -1 for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1


def _read_texts(name: str, content: memoryview, count: int) -> Array:
    """Return `count` texts, each a 4-byte length and UTF-8, as a [count] array of dtype object."""
    tried = f"read the tensor {quoted(name)}"
    if count * _LENGTH.size > len(content):
        raise InvalidInput(tried, f"{len(content)} bytes hold no {count} texts", "send a 4-byte length before each")
    texts = np.empty(count, dtype=object)
    place, end = 0, len(content)
    try:
        for index in range(count):
            (length,) = _LENGTH.unpack_from(content, place)
            place += _LENGTH.size + length
            if place > end:
                raise InvalidInput(tried, f"text {index} goes beyond the tensor's bytes", "check its 4-byte length")
            texts[index] = str(content[place - length : place], "utf-8")
    except struct.error as error:
        raise InvalidInput(
            tried, f"its bytes end within text {index}", "send as many texts as the shape has"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(tried, f"text {index} is no UTF-8 ({error.reason})", "encode texts as UTF-8") from error
    if place != end:
        raise InvalidInput(tried, f"{end - place} bytes are left over", "send as many texts as the shape has")
    return texts

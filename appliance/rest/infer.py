"""Open Inference's infer call: tensors as JSON, as binary, or mixed, in and out.

Sources: the Open Inference Protocol (REST) and Triton's extensions for binary tensors and classification.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from appliance.budget import SMALL, numbers_cost, texts_cost
from appliance.bundle.manifest import Label
from appliance.errors import InvalidInput
from appliance.inference.session import Array
from appliance.inference.values import Scalar, quoted
from appliance.inference.version import LoadedVersion
from appliance.openinference import binary
from appliance.openinference.tensors import (
    DATATYPES,
    NAMES,
    InferInputOf,
    Parameters,
    check_tensor,
    elements,
    from_json,
)
from appliance.predictor import Prediction
from appliance.response import CLASSIFIED, LARGE, as_json, response_format
from appliance.rest.http_types import Context, Request, Response, compress, encode_json
from appliance.rest.json_body import check_rows, decode_values

V = TypeVar("V")

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"

COMPRESSED_FROM = 1024
"""Bytes from which an answer is compressed for who accepts it; below, it would grow or cost more than it saves."""

_RESERVED = {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers"}
_RESERVED_PREFIX = "triton_"
_CONTENT_TYPES = ("pd", "np", "str", None)


class InferOutput(msgspec.Struct, forbid_unknown_fields=True):
    """One output that is asked for: `binary_data` as bytes, `classification` as its n largest values."""

    name: str
    parameters: Parameters | None = None


class InferRequestOf(msgspec.Struct, Generic[V], forbid_unknown_fields=True):
    """The inputs by name, or a table with one input for each column; all outputs unless some are named."""

    inputs: list[InferInputOf[V]]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[InferOutput] | None = None
    model_name: str | None = None
    model_version: str | None = None


class InferRequest(InferRequestOf[Scalar]):
    """The inputs by name, or a table with one input for each column; all outputs unless some are named."""


class OutputTensor(msgspec.Struct):
    """One output, row-major; `data` flat, or absent when its bytes follow (`binary_data_size`). NaN is null."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, int] | UnsetType = UNSET
    data: list[Scalar] | UnsetType = UNSET


class InferAnswer(msgspec.Struct):
    """The outputs, and the version that gave them all."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | UnsetType = UNSET


class _Wanted(msgspec.Struct, frozen=True):  # a frozen dataclass takes ten times as long to make
    """One output of the answer, and in which form."""

    name: str
    binary: bool
    classes: int = 0


class _Call(msgspec.Struct, frozen=True):
    """A request, read: tensors by name, the outputs that are wanted, the id to echo."""

    tensors: dict[str, Array]
    wanted: list[_Wanted]
    id: str | UnsetType = UNSET


def infer(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer an infer request.

    Raises InvalidInput, TooLarge, NotFound for an unknown model or version, NotReady when none is active.
    """
    version = context.predictor.route(variables.get("name"), variables.get("version"))
    call = _read(context, request, version)
    feeds = version.schema.from_tensors(call.tensors)
    call.tensors.clear()
    rows = len(next(iter(feeds.values())))
    check_rows(rows, context.config)
    names = [wanted.name for wanted in call.wanted]
    if rows * response_format(version).most_bytes > SMALL:
        request.claim_answer(_answer_bytes(version, call.wanted, rows), rows)
    answer = _answer(call, context.predictor.run(version, feeds, names, started=request.started))
    accepted = request.header("Accept-Encoding")
    return compress(answer, accepted) if accepted and len(answer.body) >= COMPRESSED_FROM else answer


def _read(context: Context, request: Request, version: LoadedVersion) -> _Call:
    """Return what a request asks for, by the three forms that its header tells apart."""
    length = request.environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH")
    if length is None:
        return _parse(context, request, version, request.body(), memoryview(b""))
    body = request.body(partial(binary.cost, header_length=length), worst=0)
    header, tensors = binary.split(body, length)
    return _parse(context, request, version, header, tensors) if header else _raw(request, version, tensors)


def _raw(request: Request, version: LoadedVersion, content: memoryview) -> _Call:
    """Return the call that is nothing but the bytes of the one input; a text is the whole body, without its length."""
    if len(version.manifest.inputs) != 1:
        raise InvalidInput("read the raw tensor", "the model has more than one input", "describe the inputs in JSON")
    tensor = version.manifest.inputs[0]
    request.claim_more("read the raw tensor", 7 * len(content) if tensor.type == "string" else len(content), "it")
    if tensor.type == "string":
        texts = len(content).to_bytes(4, "little") + bytes(content)
        array = binary.read(tensor.name, "BYTES", [1, *tensor.shape[1:]], memoryview(texts))
    else:
        row = elements(tensor.name, tensor.shape[1:]) * np.dtype(tensor.type).itemsize
        shape = [len(content) // row if row else 0, *tensor.shape[1:]]
        array = binary.read(tensor.name, NAMES[tensor.type], shape, content)
    return _Call({tensor.name: array}, [_Wanted(name, binary=True) for name in version.output_names])


def _parse(context: Context, request: Request, version: LoadedVersion, header: bytes, content: memoryview) -> _Call:
    """Return the call that a JSON part and the bytes behind it make."""
    sent, typed = decode_values(header, InferRequestOf, version.schema.value_type, context.config)
    parameters: Parameters = sent.parameters or {}
    _check_parameters(parameters)
    tensors: dict[str, Array] = {}
    place = 0
    for tensor in sent.inputs:
        _check_input(context, tensor, tensors)
        size = _size(tensor, len(content) - place)
        if size is None:
            tensors[tensor.name] = from_json(tensor, typed)
        else:
            part = content[place : place + size]
            if size > SMALL:
                request.claim_more("read the tensors", _tensor_bytes(version, tensor, size), "they")
            tensors[tensor.name] = binary.read(tensor.name, tensor.datatype, tensor.shape, part)
            place += size
    if place != len(content):
        found = f"{len(content) - place} bytes follow the last tensor"
        raise InvalidInput("read the binary tensors", found, "say each one's binary_data_size")
    wanted = _wanted(version, sent.outputs, _flag(parameters, "binary_data_output"))
    return _Call(tensors, wanted, UNSET if sent.id is None else sent.id)


def _check_parameters(parameters: Parameters) -> None:
    """Raise InvalidInput for parameters that mean something to Triton which is not done here."""
    for name in parameters:
        if name in _RESERVED or name.startswith(_RESERVED_PREFIX):
            raise InvalidInput("read the parameters", f"{quoted(name)} is reserved and not served here", "leave it out")
    _check_content_type(parameters)


def _check_content_type(parameters: Parameters) -> None:
    """Raise InvalidInput for a codec that would mean other values than those that are read here."""
    codec = parameters.get("content_type")
    if codec not in _CONTENT_TYPES:
        found = f"content_type {quoted(codec)} is unknown"
        raise InvalidInput("read the parameters", found, "send pd, np or str, or none")


def _check_input(context: Context, tensor: InferInputOf[Any], before: dict[str, Array]) -> None:
    """Raise InvalidInput for a tensor that cannot be meant, TooLarge for one of too many rows."""
    check_tensor(tensor, before)
    if tensor.parameters:
        _check_content_type(tensor.parameters)
    check_rows(tensor.shape[0] if tensor.shape else 0, context.config)


def _size(tensor: InferInputOf[Any], left: int) -> int | None:
    """Return the number of bytes that a tensor has behind the JSON part, None for a tensor in JSON."""
    size = tensor.parameters.get("binary_data_size") if tensor.parameters else None
    if size is None:
        return None
    tried = f"read the tensor {quoted(tensor.name)}"
    if type(size) is not int or not 0 <= size <= left:
        found = f"binary_data_size is {str(size)[:40]}, {left} bytes are left"
        raise InvalidInput(
            tried, found, f"send the tensor's bytes behind the JSON part, whose length {HEADER_LENGTH} says"
        )
    if tensor.data is not None:
        raise InvalidInput(tried, "it has data and binary_data_size", "send one of them")
    return size


def _tensor_bytes(version: LoadedVersion, tensor: InferInputOf[Any], size: int) -> int:
    """Return the memory that a binary tensor takes at most beside its body."""
    if tensor.datatype == "BYTES":
        return texts_cost(size, min(size // 4, math.prod(tensor.shape)))  # each text begins with its length of 4 bytes
    known = (one.type for one in version.manifest.inputs if one.name == tensor.name and one.type != "string")
    kind = DATATYPES[tensor.datatype]
    return numbers_cost(size, np.dtype(kind).itemsize, np.dtype(next(known, "float64")).itemsize)


def _flag(parameters: Parameters, name: str, default: bool = False) -> bool:
    """Return a parameter that is true or false."""
    value = parameters.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidInput("read the parameters", f"{name} is {str(value)[:40]}", "send true or false")
    return value


def _wanted(version: LoadedVersion, outputs: list[InferOutput] | None, binary: bool) -> list[_Wanted]:
    """Return the outputs of the answer: those asked for, or all."""
    if not outputs:
        return [_Wanted(name, binary) for name in version.output_names]
    if len({output.name for output in outputs}) != len(outputs):
        raise InvalidInput("choose the outputs", "one is asked for twice", "name each output once")
    wanted = []
    for output in outputs:
        parameters = output.parameters or {}
        classes = parameters.get("classification") or 0
        if type(classes) is not int or classes < 0:
            raise InvalidInput("choose the outputs", f"classification is {str(classes)[:40]}", "send how many classes")
        wanted.append(_Wanted(output.name, _flag(parameters, "binary_data", binary), classes))
    return wanted


def _answer(call: _Call, prediction: Prediction) -> Response:
    """Return the outputs, first those in JSON and those described there, then the bytes."""
    tensors, parts = [], []
    version = prediction.version
    for wanted in call.wanted:
        array = prediction.outputs[wanted.name]
        if wanted.classes:
            array = _classified(wanted, array, version.manifest.class_labels)
        tensor = OutputTensor(wanted.name, list(array.shape), binary.datatype_of(array))
        if wanted.binary:
            parts.append(binary.write(array))
            tensor.parameters = {"binary_data_size": len(parts[-1])}
        else:
            flat = array.reshape(-1)
            tensor.data = as_json(flat) if flat.size > LARGE else flat.tolist()
        tensors.append(tensor)
    header = encode_json(InferAnswer(version.name, version.version, tensors, call.id))
    if not parts:
        return Response(header)
    return Response(b"".join((header, *parts)), 200, BINARY, ((HEADER_LENGTH, str(len(header))),))


def _answer_bytes(version: LoadedVersion, wanted: Sequence[_Wanted], rows: int) -> int:
    """Return the memory that the outputs of `rows` rows take at most, as the graph gives them and as they are sent."""
    each = response_format(version).output_bytes
    row = sum(each[one.name][one.binary] for one in wanted if one.name in each)
    if any(one.classes for one in wanted):
        widths = {output.name: math.prod(output.shape[1:]) for output in version.manifest.outputs}
        row += CLASSIFIED * sum(min(one.classes, widths.get(one.name, 0)) for one in wanted)
    return rows * row


def _classified(wanted: _Wanted, array: Array, labels: Sequence[Label]) -> Array:
    """Return each row's largest values as "value:index:label" (Triton's classification extension), largest first."""
    if array.dtype.kind not in "fiu":
        tried = f"classify the output {wanted.name!r}"
        raise InvalidInput(tried, f"it is {binary.datatype_of(array)}", "ask it of an output of numbers")
    rows = array.reshape(len(array), -1)
    # NaN sorts last either way, so it is put below every number; equal values keep their order.
    sortable = np.where(np.isnan(rows), -np.inf, rows) if array.dtype.kind == "f" else rows
    order = np.argsort(-sortable.astype(np.float64), axis=1, kind="stable")[:, : wanted.classes]
    named = labels if len(labels) == rows.shape[1] else []
    texts = [
        [f"{row[index]!r}:{index}" + (f":{named[index]}" if named else "") for index in indices]
        for row, indices in zip(rows.tolist(), order.tolist(), strict=True)
    ]
    return np.array(texts, dtype=object).reshape(order.shape)

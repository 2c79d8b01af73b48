"""An infer response: its types, how outputs become its JSON part and bytes, and the memory that they take at most.

Sources: the Open Inference Protocol (REST) and Triton's extensions for binary tensors and classification.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from appliance.arrays import Array
from appliance.bundle.manifest import Label
from appliance.errors import InvalidInput
from appliance.inference.json_output import LARGE, as_json, output_bytes
from appliance.inference.values import Scalar
from appliance.openinference import binary
from appliance.openinference.request import InferCall, WantedOutput

if TYPE_CHECKING:  # the probe reads and writes Open Inference without onnxruntime
    from appliance.inference.quality import RowQuality
    from appliance.inference.version import LoadedVersion

CLASSIFIED = 400
"""Bytes of memory of a text of the classification extension, with those it is made of."""

_encode_json = msgspec.json.Encoder().encode


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


class _ReadTensor(msgspec.Struct):
    """One output of a response that is read."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}


class _ReadAnswer(msgspec.Struct):
    """The JSON part of a response that is read."""

    model_version: str
    outputs: list[_ReadTensor]


class OutputCosts(NamedTuple):
    """The memory that one row of a version's outputs takes at most."""

    each: dict[str, tuple[int, int]]
    """By output, as JSON and as binary."""
    widths: dict[str, int]
    """Values of one row by output."""
    most: int
    """Of all outputs, whatever form is asked for."""


def write(
    call: InferCall,
    outputs: Mapping[str, Array],
    version: "LoadedVersion",
    quality: "Sequence[RowQuality] | None" = None,
) -> tuple[bytes, list[bytes]]:
    """Return the JSON part of the response to a call, and the bytes of each output that is wanted as binary.

    `outputs` is {output name: array of shape [rows, ...]}; the `quality` of the rows becomes a tensor of that name, of
    one JSON text for each row. Raises InvalidInput for classes of an output of texts.
    """
    tensors, parts = [], []
    for wanted in call.wanted:
        array = outputs[wanted.name]
        if wanted.classes:
            array = _classified(wanted, array, version.manifest.class_labels)
        tensor = OutputTensor(wanted.called or wanted.name, list(array.shape), binary.datatype_of(array))
        if wanted.binary:
            parts.append(binary.write(array))
            tensor.parameters = {"binary_data_size": len(parts[-1])}
        else:
            flat = array.reshape(-1)
            tensor.data = as_json(flat) if flat.size > LARGE else flat.tolist()
        tensors.append(tensor)
    if quality is not None:
        texts: list[Scalar] = [_encode_json(one).decode() for one in quality]
        tensors.append(OutputTensor(_quality_name(outputs), [len(texts)], "BYTES", data=texts))
    return _encode_json(InferAnswer(version.name, version.version, tensors, call.id)), parts


def _quality_name(outputs: Mapping[str, Array]) -> str:
    """Return the name of the tensor with the quality: one that no output has."""
    name = "quality"
    while name in outputs:
        name += "_"
    return name


def read(header: bytes, content: memoryview) -> tuple[str, dict[str, Array]]:
    """Return the version and the outputs by name of a response whose tensors are all binary.

    Raises msgspec.MsgspecError, KeyError, TypeError, ValueError or InvalidInput for what is no such response.
    """
    answer = msgspec.json.decode(header, type=_ReadAnswer)
    outputs, place = {}, 0
    for tensor in answer.outputs:
        if tensor.datatype == "BYTES" and not tensor.parameters:
            continue  # the rows' quality, where the service is configured so
        end = place + int(tensor.parameters["binary_data_size"])
        outputs[tensor.name] = binary.read(tensor.name, tensor.datatype, tensor.shape, content[place:end])
        place = end
    return answer.model_version, outputs


def costs_of(version: "LoadedVersion") -> OutputCosts:
    """Return what the outputs of a version cost, computed once for each loaded version."""
    costs: OutputCosts | None = version.derived.get(costs_of)
    if costs is None:
        described = version.manifest.outputs
        each = {one.name: (output_bytes(one), output_bytes(one, binary=True)) for one in described}
        widths = {one.name: math.prod(one.shape[1:]) for one in described}
        most = sum(max(each[name]) + CLASSIFIED * width for name, width in widths.items())
        costs = version.derived[costs_of] = OutputCosts(each, widths, most)
    return costs


def most_bytes(version: "LoadedVersion", wanted: Sequence[WantedOutput], rows: int) -> int:
    """Return the memory that the outputs of `rows` rows take at most, as the graph gives them and as they are sent."""
    costs = costs_of(version)
    row = sum(costs.each[one.name][one.binary] for one in wanted if one.name in costs.each)
    row += CLASSIFIED * sum(min(one.classes, costs.widths.get(one.name, 0)) for one in wanted)
    return rows * row


def _classified(wanted: WantedOutput, array: Array, labels: Sequence[Label]) -> Array:
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

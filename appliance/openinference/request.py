"""An infer request: its types, and how the tensors and outputs that it names become arrays and choices.

Sources: the Open Inference Protocol (REST) and Triton's extensions for binary tensors and classification.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from appliance.arrays import Array
from appliance.budget import SMALL, numbers_cost, texts_cost
from appliance.errors import InvalidInput
from appliance.inference.values import Scalar, quoted
from appliance.limits import Limits
from appliance.openinference import binary
from appliance.openinference.tensors import (
    DATATYPES,
    MAX_RANK,
    NAMES,
    InferInputOf,
    Parameters,
    checked,
    elements,
    from_json,
)

if TYPE_CHECKING:  # the probe reads and writes Open Inference without onnxruntime
    from appliance.inference.version import LoadedVersion

V = TypeVar("V")

Claim = Callable[[str, int, str], None]
"""(what is tried, bytes, what takes them): holds memory, or raises TooLarge or Overloaded."""

_RESERVED = {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers"}
_RESERVED_PREFIX = "triton_"
ROUTING_KEY = "routing_key"
"""The request parameter by which a request is routed while an experiment runs; without one it means nothing."""
_CONTENT_TYPES = ("pd", "np", "str", "dict", None)
_ROLES = dict.fromkeys(("output-0", "predict", "predictions"), "prediction") | {"predict_proba": "probability"}
"""What KServe's and MLServer's clients call an output, whatever its name -> its role in the manifest."""

_encode_json = msgspec.json.Encoder().encode


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


class InferInput(InferInputOf[Scalar]):
    """One tensor; `data` row-major, flat or as rows, absent when its bytes follow (`binary_data_size`)."""

    datatype: Literal[tuple(DATATYPES)]  # type: ignore[valid-type]
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=1)]], msgspec.Meta(max_length=MAX_RANK)]


class InferRequest(InferRequestOf[Scalar]):
    """The inputs by name, or a table with one input for each column; all outputs unless some are named.

    These two are for openapi.json alone: what their schemas say is refused in more words than a decoder has.
    """

    inputs: Annotated[list[InferInput], msgspec.Meta(min_length=1)]  # type: ignore[assignment]


class WantedOutput(msgspec.Struct, frozen=True):  # a frozen dataclass takes ten times as long to make
    """One output of the response, and in which form."""

    name: str
    binary: bool
    classes: int = 0
    """How many of its largest values (Triton's classification extension); 0: the tensor itself."""
    called: str = ""
    """The name that it was asked for by, where that is not its own."""


class InferCall(msgspec.Struct, frozen=True):
    """A request, read: tensors by name, the outputs that are wanted, the id to echo."""

    tensors: dict[str, Array]
    wanted: list[WantedOutput]
    id: str | UnsetType = UNSET
    quality: bool = False
    """Whether the quality of each row is asked for, by the request's parameter of that name."""


def read(
    sent: InferRequestOf[Any],
    content: memoryview,
    version: "LoadedVersion",
    limits: Limits,
    claim: Claim,
    *,
    typed: bool,
) -> InferCall:
    """Return the call that a decoded JSON part and the bytes of the tensors behind it make.

    `typed` says that every value in JSON is a float or null. Raises InvalidInput, TooLarge, Overloaded.
    """
    parameters: Parameters = sent.parameters or {}
    _check_parameters(parameters)
    tensors: dict[str, Array] = {}
    place = 0
    for tensor in checked(sent.inputs):
        if tensor.parameters:
            _check_content_type(tensor.parameters)
        limits.check_rows(tensor.shape[0] if tensor.shape else 0)
        size = _size(tensor, len(content) - place)
        if size is None:
            tensors[tensor.name] = from_json(tensor, typed)
            continue
        part = content[place : place + size]
        if size > SMALL:
            claim("read the tensors", _tensor_bytes(version, tensor, size), "they")
        tensors[tensor.name] = binary.read(tensor.name, tensor.datatype, tensor.shape, part)
        place += size
    if place != len(content):
        found = f"{len(content) - place} bytes follow the last tensor"
        raise InvalidInput("read the binary tensors", found, "say each one's binary_data_size")
    wanted = _wanted(version, sent.outputs, _flag(parameters, "binary_data_output"))
    quality = parameters.get("quality", False)
    if not isinstance(quality, bool):
        raise InvalidInput("read the parameters", f"quality is {str(quality)[:40]}", "send true or false")
    return InferCall(tensors, wanted, UNSET if sent.id is None else sent.id, quality)


class _Keyed(msgspec.Struct):
    """The part of a request by which it is routed; all else is passed over."""

    parameters: dict[str, Any] | None = None


_decode_keyed = msgspec.json.Decoder(_Keyed).decode


def routing_key(header: bytes) -> str:
    """Return `parameters.routing_key` of a request's JSON part as text, "" where it has none or cannot be read.

    Which version answers is known before a body is decoded, since that takes the version's types; what is wrong with
    the body is said then.
    """
    if b"routing_key" not in header:
        return ""
    try:
        value = (_decode_keyed(header).parameters or {}).get(ROUTING_KEY)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    return str(value) if isinstance(value, str | int | float) and value is not True and value is not False else ""


def read_raw(content: memoryview, version: "LoadedVersion", claim: Claim) -> InferCall:
    """Return the call that is nothing but the bytes of the one input; a text is the whole body, without its length.

    Raises InvalidInput, TooLarge, Overloaded.
    """
    if len(version.manifest.inputs) != 1:
        raise InvalidInput("read the raw tensor", "the model has more than one input", "describe the inputs in JSON")
    tensor = version.manifest.inputs[0]
    claim("read the raw tensor", 7 * len(content) if tensor.type == "string" else len(content), "it")
    if tensor.type == "string":
        texts = len(content).to_bytes(4, "little") + bytes(content)
        array = binary.read(tensor.name, "BYTES", [1, *tensor.shape[1:]], memoryview(texts))
    else:
        row = elements(tensor.name, tensor.shape[1:]) * np.dtype(tensor.type).itemsize
        shape = [len(content) // row if row else 0, *tensor.shape[1:]]
        array = binary.read(tensor.name, NAMES[tensor.type], shape, content)
    return InferCall({tensor.name: array}, [WantedOutput(name, binary=True) for name in version.output_names])


def write(inputs: Mapping[str, Array], outputs: Iterable[str]) -> tuple[bytes, list[bytes]]:
    """Return the JSON part of a request whose tensors, both ways, are binary, and the bytes of each input."""
    described, parts = [], []
    for name, array in inputs.items():
        parts.append(binary.write(array))
        size = {"binary_data_size": len(parts[-1])}
        described.append(
            {"name": name, "shape": list(array.shape), "datatype": binary.datatype_of(array), "parameters": size}
        )
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    return _encode_json({"inputs": described, "outputs": wanted}), parts


def _check_parameters(parameters: Parameters) -> None:
    """Raise InvalidInput for parameters that mean something to Triton which is not done here.

    A time limit of Triton's queue means nothing where nothing queues; 0 or false says what is so anyway.
    """
    for name, value in parameters.items():
        if (name not in _RESERVED and not name.startswith(_RESERVED_PREFIX)) or not value:
            continue
        if name != "timeout" or type(value) is not int or value < 0:
            raise InvalidInput("read the parameters", f"{quoted(name)} is reserved and not served here", "leave it out")
    _check_content_type(parameters)


def _check_content_type(parameters: Parameters) -> None:
    """Raise InvalidInput for a codec that would mean other values than those that are read here."""
    codec = parameters.get("content_type")
    if codec not in _CONTENT_TYPES:
        found = f"content_type {quoted(codec)} is unknown"
        raise InvalidInput("read the parameters", found, "send pd, np or str, or none")


def _size(tensor: InferInputOf[Any], left: int) -> int | None:
    """Return the number of bytes that a tensor has behind the JSON part, None for a tensor in JSON."""
    size = tensor.parameters.get("binary_data_size") if tensor.parameters else None
    if size is None:
        return None
    tried = f"read the tensor {quoted(tensor.name)}"
    if type(size) is not int or not 0 <= size <= left:
        found = f"binary_data_size is {str(size)[:40]}, {left} bytes are left"
        next_step = f"send the tensor's bytes behind the JSON part, whose length {binary.HEADER_LENGTH} says"
        raise InvalidInput(tried, found, next_step)
    if tensor.data is not None:
        raise InvalidInput(tried, "it has data and binary_data_size", "send one of them")
    return size


def _tensor_bytes(version: "LoadedVersion", tensor: InferInputOf[Any], size: int) -> int:
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


def _wanted(version: "LoadedVersion", outputs: list[InferOutput] | None, binary: bool) -> list[WantedOutput]:
    """Return the outputs of the response: those asked for, or all."""
    if not outputs:
        return [WantedOutput(name, binary) for name in version.output_names]
    names = [_output_name(version, output.name) for output in outputs]
    if len(set(names)) != len(names):
        raise InvalidInput("choose the outputs", "one is asked for twice", "name each output once")
    wanted = []
    for name, output in zip(names, outputs, strict=True):
        parameters = output.parameters or {}
        classes = parameters.get("classification") or 0
        if type(classes) is not int or classes < 0:
            raise InvalidInput("choose the outputs", f"classification is {str(classes)[:40]}", "send how many classes")
        called = "" if name == output.name else output.name
        wanted.append(WantedOutput(name, _flag(parameters, "binary_data", binary), classes, called))
    return wanted


def _output_name(version: "LoadedVersion", asked: str) -> str:
    """Return the output that a name means: its own, else the one of the role that other servers call so."""
    role = _ROLES.get(asked)
    if role is None or asked in version.output_names:
        return asked
    outputs = version.manifest.outputs
    first = outputs[0].name if role == "prediction" else asked
    return next((output.name for output in outputs if output.role == role), first)

"""Reads an ONNX graph made elsewhere, and gives it the inputs and outputs that a device serves."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from appliance.bundle.manifest import Label, TensorType
from appliance.errors import ConversionRefused
from convert.converters import graphs

_TYPES = {code: name for name, code in graphs.TENSOR_TYPES.items()} | {
    TensorProto.INT8: "int8", TensorProto.INT16: "int16", TensorProto.INT32: "int32", TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16", TensorProto.UINT32: "uint32", TensorProto.UINT64: "uint64",
    TensorProto.FLOAT16: "float16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GraphInput:
    """One tensor that a graph takes: its type, and how many columns fill a row of it (None: any number)."""

    name: str
    type: TensorType
    width: int | None


@dataclass(slots=True)
class PrebuiltGraph:
    """A graph that is being edited; `labels` are its classes, where it names them."""

    model: onnx.ModelProto
    sha256: str
    labels: list[Label]

    @property
    def outputs(self) -> list[str]:
        """The names of what the graph answers."""
        return [output.name for output in self.model.graph.output]

    def inputs(self) -> list[GraphInput]:
        """Return what the graph takes; raises ConversionRefused for what no table can fill."""
        constants = {entry.name for entry in self.model.graph.initializer}
        return [_input(entry) for entry in self.model.graph.input if entry.name not in constants]

    def take_tables(self, widths: dict[str, int]) -> None:
        """Make every input [rows, width]; where the graph needs another shape, a node is added."""
        graph, entries, nodes = self.model.graph, [], []
        for entry in graph.input:
            if entry.name not in widths:
                continue
            shape = _shape(entry)
            table = helper.make_tensor_value_info(
                entry.name, entry.type.tensor_type.elem_type, [None, widths[entry.name]]
            )
            entries.append(table)
            if len(shape) != 2:
                wanted, constant = f"{entry.name} as the graph has it", f"shape of {entry.name}"
                graphs.rename(graph, {entry.name: wanted})
                dims = [-1, *(size or 1 for size in shape[1:])]
                graph.initializer.append(helper.make_tensor(constant, TensorProto.INT64, [len(dims)], dims))
                nodes.append(helper.make_node("Reshape", [table.name, constant], [wanted], name=f"shape {table.name}"))
        graphs.put_before(graph, entries, nodes)

    def keep(self, outputs: dict[str, str], flat: Iterable[str]) -> None:
        """Keep `outputs` ({name: new name}) alone; those in `flat` become [rows] instead of [rows, 1]."""
        graph = self.model.graph
        graphs.prune(graph, outputs)
        for name, new in outputs.items():
            entry = next(output for output in graph.output if output.name == name)
            inner = f"{name} as the graph has it"
            graphs.rename(graph, {name: inner})
            if name in flat:
                constant = f"rows of {new}"
                graph.initializer.append(helper.make_tensor(constant, TensorProto.INT64, [1], [-1]))
                nodes = [helper.make_node("Reshape", [inner, constant], [new], name=f"flatten {new}")]
                shape: list[int | None] = [None]
            else:
                nodes = [helper.make_node("Identity", [inner], [new], name=f"name {new}")]
                shape = [None, *_shape(entry)[1:]]
            to = helper.make_tensor_value_info(new, entry.type.tensor_type.elem_type, shape)
            graphs.put_after(graph, inner, nodes, to)

    def serialized(self) -> bytes:
        """Return the graph's bytes; the same graph gives the same bytes."""
        graphs.tidy(self.model)
        return bytes(self.model.SerializeToString(deterministic=True))


def read(path: Path) -> PrebuiltGraph:
    """Return the graph in a file, with the weights that it keeps in files beside it.

    ZipMap nodes at the end are removed: a device answers tensors. The digest is over the file and those beside it.
    Raises ConversionRefused for a file that is not an ONNX graph, or that names files outside its folder.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        total = hashlib.sha256(path.read_bytes())
        for name in sorted(_files_beside(model)):
            _check_beside(path, name)
            total.update((path.parent / name).read_bytes())
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        found = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConversionRefused(f"read {path.name}", found, "export the model to ONNX again") from error
    return PrebuiltGraph(model, total.hexdigest(), _without_zip_maps(model.graph))


def _input(entry: onnx.ValueInfoProto) -> GraphInput:
    tensor = entry.type.tensor_type
    if not entry.type.HasField("tensor_type") or tensor.elem_type not in _TYPES:
        found = f"the input {entry.name!r} is not a tensor of numbers, texts or booleans"
        raise ConversionRefused("use the ONNX graph", found, "export it with plain tensors as inputs")
    shape = _shape(entry)
    if not shape or shape[0] is not None:
        found = f"the input {entry.name!r} takes {shape[0] if shape else 'no'} rows, not any number of them"
        next_step = "export it with a dynamic first axis (torch.onnx.export: dynamic_shapes or dynamic_axes)"
        raise ConversionRefused("use the ONNX graph", found, next_step)
    inner = [size for size in shape[1:] if size is not None]
    if len(inner) < len(shape) - 1 and len(shape) > 2:
        found = f"the input {entry.name!r} has several axes of any size"
        raise ConversionRefused("use the ONNX graph", found, "export it with only the first axis dynamic")
    width = None if len(inner) < len(shape) - 1 else math.prod(inner)
    return GraphInput(entry.name, cast(TensorType, _TYPES[tensor.elem_type]), width)


def _shape(entry: onnx.ValueInfoProto) -> list[int | None]:
    """Return a tensor's sizes, None where any size will do."""
    dims = entry.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]


def _without_zip_maps(graph: onnx.GraphProto) -> list[Label]:
    """Make ZipMap's input the output instead; return the labels that it gave to the columns."""
    labels: list[Label] = []
    for node in [node for node in graph.node if node.op_type == "ZipMap"]:
        for attribute in node.attribute:
            labels = [text.decode() for text in attribute.strings] or list(attribute.ints) or labels
        entry = next((output for output in graph.output if output.name == node.output[0]), None)
        graph.node.remove(node)
        if entry is not None:
            to = helper.make_tensor_value_info(entry.name, TensorProto.FLOAT, [None, len(labels)])
            take = helper.make_node("Identity", [node.input[0]], [entry.name], name=f"take {entry.name}")
            graphs.put_after(graph, entry.name, [take], to)
    return labels


def _files_beside(model: onnx.ModelProto) -> set[str]:
    """Return the names of the files in which the graph keeps its weights."""
    return {
        entry.value
        for tensor in onnx.external_data_helper._get_all_tensors(model)
        if onnx.external_data_helper.uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _check_beside(path: Path, name: str) -> None:
    beside = path.parent / name
    if beside.is_symlink() or not beside.resolve().is_relative_to(path.parent.resolve()):
        found = f"its weights are in {name!r}, outside its folder"
        raise ConversionRefused(f"read {path.name}", found, "export the model to ONNX again")

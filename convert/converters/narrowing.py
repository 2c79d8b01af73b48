"""Knows which float64 steps of a graph give the same numbers in float32, to the bit, and writes them so.

Rows that come in as float32 are widened for the steps that need it. In two cases the widening changes nothing but the
cost: where a step only picks, moves or compares numbers, and where the result of one operation is rounded to float32 at
once. For +, -, *, / and square root of float32 numbers, that rounded result equals the float32 operation's own (S. A.
Figueroa, "When is double rounding innocuous?", SIGNUM Newsletter 30(3), 1995); subnormal results below 1e-38 are an
exception.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from convert.converters import graphs

_PICKS = {  # which inputs of an operator are the numbers that it picks from or moves; None: all of them
    "ArrayFeatureExtractor": (0,), "Concat": None, "Expand": (0,), "Flatten": (0,), "Gather": (0,), "Identity": (0,),
    "Max": None, "Min": None, "ReduceMax": (0,), "ReduceMin": (0,), "Reshape": (0,), "Slice": (0,), "Squeeze": (0,),
    "Transpose": (0,), "Unsqueeze": (0,), "Where": (1, 2),
}  # fmt: skip
_EXACT = ("Abs", "Floor", "Neg", "Sign")
_ROUNDED_ONCE = ("Add", "Sub", "Mul", "Div", "Sqrt")
_TELLS = ("ArgMax", "ArgMin", "IsNaN")  # their result is not a float
_BELOW, _ABOVE = -np.inf, np.inf
# Where the limit goes that a float32 on the left (or, with the sides swapped, on the right) is compared with.
_COMPARISONS = {
    "Less": _ABOVE, "GreaterOrEqual": _ABOVE, "Greater": _BELOW, "LessOrEqual": _BELOW, "Equal": None,
}  # fmt: skip
_SWAPPED = {"Less": "Greater", "Greater": "Less", "LessOrEqual": "GreaterOrEqual", "GreaterOrEqual": "LessOrEqual"}


def narrow(model: onnx.ModelProto) -> None:
    """Let float64 steps of `model` be float32's where that changes no bit, and leave its float64 answers float64.

    Nodes that no output needs are gone afterwards. Subgraphs stay as they are.
    """
    work = _Narrowing(model.graph, _typed(model))
    work.run()
    graphs.drop_identities(model.graph)
    graphs.prune(model.graph, [output.name for output in model.graph.output])


def _typed(model: onnx.ModelProto) -> GraphProto:
    """Return the graph with the types of its tensors.

    Types of operators beyond ONNX must be given: for a text without a type, onnx 1.23's inference ends the process.
    """
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    _say_texts(typed.graph)
    return onnx.shape_inference.infer_shapes(typed).graph


def _say_texts(graph: GraphProto) -> None:
    """Give the type of every tokenizer's output, in subgraphs too."""
    for node in graph.node:
        if node.op_type == "Tokenizer":
            graph.value_info.append(helper.make_tensor_value_info(node.output[0], TensorProto.STRING, None))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _say_texts(attribute.g)


class _Narrowing:
    """The work on one graph; the name "" says that a tensor has no float32 form."""

    def __init__(self, graph: GraphProto, inferred: GraphProto) -> None:
        self.graph = graph
        self.types = {
            entry.name: entry.type.tensor_type.elem_type
            for entry in (*inferred.input, *inferred.value_info, *inferred.output)
        }
        self.constants = {entry.name: entry for entry in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.uses = Counter(name for node in graph.node for name in graphs.reads(node))
        self.uses.update(output.name for output in graph.output)
        self.written: list[NodeProto] = []
        self.count = 0

    def run(self) -> None:
        nodes: list[NodeProto] = []
        for node in list(self.graph.node):
            self.written = []
            changed = self._changed(node)
            nodes += [*self.written, changed] if changed is not None else [node]
        self._keep_answers(nodes)
        del self.graph.node[:]
        self.graph.node.extend(nodes)

    def _changed(self, node: NodeProto) -> NodeProto | None:
        """Return the float32 form of `node`, and write what it needs; None where the node stays."""
        if _casts_to(node, TensorProto.FLOAT) and self.types.get(node.input[0]) == TensorProto.DOUBLE:
            source = self._rounded(node.input[0])
            return helper.make_node("Identity", [source], node.output, name=node.name) if source else None
        if node.op_type == "Cast" and self.types.get(node.input[0]) == helper.get_node_attr_value(node, "to"):
            return helper.make_node("Identity", node.input, node.output, name=node.name)
        if node.op_type in _TELLS and not node.domain:
            return self._with_inputs(node, [self._exact(node.input[0]), *node.input[1:]])
        if node.op_type in _COMPARISONS and not node.domain:
            return self._compared(node)
        return None

    def _keep_answers(self, nodes: list[NodeProto]) -> None:
        """Let outputs that were computed in float64 and rounded at the very end be float64."""
        outputs = {output.name: output for output in self.graph.output}
        for place, node in enumerate(nodes):
            wide = _casts_to(node, TensorProto.FLOAT) and self.types.get(node.input[0]) == TensorProto.DOUBLE
            if wide and node.output[0] in outputs and self.uses[node.output[0]] == 1:
                nodes[place] = helper.make_node("Identity", node.input, node.output, name=node.name)
                outputs[node.output[0]].type.tensor_type.elem_type = TensorProto.DOUBLE

    def _rounded(self, name: str) -> str:
        """Return a float32 tensor that is `name` (float64) rounded to float32."""
        if exact := self._exact(name):
            return exact
        if name in self.constants:
            return self._constant(numpy_helper.to_array(self.constants[name]))
        node = self._own(name)
        if node is None:
            return ""
        if node.op_type in _PICKS:
            return self._picked(node, self._rounded)
        if node.op_type in _ROUNDED_ONCE:
            return self._again(node, [self._exact(operand) for operand in node.input])
        return ""

    def _exact(self, name: str) -> str:
        """Return a float32 tensor of just the numbers of `name`, which is float64."""
        if name in self.constants:
            values = numpy_helper.to_array(self.constants[name])
            return self._constant(values) if _is_single(values) else ""
        maker = self.makers.get(name)
        if maker is None:
            return ""
        source = maker.input[0] if maker.input else ""
        if _casts_to(maker, TensorProto.DOUBLE):
            known = self.types.get(source)
            return source if known == TensorProto.FLOAT else self._exact(source) if known == TensorProto.DOUBLE else ""
        if maker.op_type == "Identity":
            return self._exact(source)
        node = self._own(name)
        if node is None:
            return ""
        if node.op_type in _PICKS:
            return self._picked(node, self._exact)
        return self._again(node, [self._exact(node.input[0])]) if node.op_type in _EXACT else ""

    def _own(self, name: str) -> NodeProto | None:
        """Return the node that computes `name`, if it has one reader: with more, it would be computed twice."""
        node = self.makers.get(name)
        wide = node is not None and self.types.get(name) == TensorProto.DOUBLE and len(node.output) == 1
        return node if wide and self.uses[name] == 1 else None

    def _picked(self, node: NodeProto, narrowed: Callable[[str], str]) -> str:
        places = _PICKS[node.op_type]
        numbers = range(len(node.input)) if places is None else places
        inputs = [narrowed(one) if i in numbers else one for i, one in enumerate(node.input)]
        return self._imputed(node, inputs) or self._again(node, inputs)

    def _imputed(self, node: NodeProto, inputs: list[str]) -> str:
        """Write `where(isnan(x), constants, x)` as one node of ai.onnx.ml, which has no float64 form."""
        asked = self.makers.get(node.input[0]) if node.op_type == "Where" else None
        fills = next((one for one in self.graph.initializer if one.name == inputs[1]), None)
        if asked is None or fills is None or asked.op_type != "IsNaN":
            return ""
        if not inputs[2] or self._exact(asked.input[0]) != inputs[2]:  # "" means: no float32 form
            return ""
        values = numpy_helper.to_array(fills).reshape(-1)
        output = self._free(node.output[0])
        attributes: dict[str, Any] = {"imputed_value_floats": values.tolist(), "replaced_value_float": float("nan")}
        self.written.append(helper.make_node("Imputer", [inputs[2]], [output], domain="ai.onnx.ml", **attributes))
        return output

    def _again(self, node: NodeProto, inputs: list[str]) -> str:
        """Write `node` in float32 and return its output."""
        changed = self._with_inputs(node, inputs)
        if changed is None:
            return ""
        output = self._free(node.output[0])
        changed.output[0] = output
        self.written.append(changed)
        return output

    def _with_inputs(self, node: NodeProto, inputs: list[str]) -> NodeProto | None:
        """Return a copy of `node` with other inputs; None where one is lacking that it had."""
        if any(bool(before) and not now for before, now in zip(node.input, inputs, strict=True)):
            return None
        changed = NodeProto()
        changed.CopyFrom(node)
        changed.input[:] = inputs
        return changed

    def _compared(self, node: NodeProto) -> NodeProto | None:
        """Return a comparison of float32 numbers with each other, or with limits that split float32 the same way."""
        left, right = node.input
        if self.types.get(left, self._constant_type(left)) != TensorProto.DOUBLE:
            return None
        if right in self.constants:
            return self._with_inputs(node, [self._exact(left), self._limits(right, node.op_type)])
        if left in self.constants:
            swapped = _SWAPPED.get(node.op_type, node.op_type)
            return self._with_inputs(node, [self._limits(left, swapped), self._exact(right)])
        return self._with_inputs(node, [self._exact(left), self._exact(right)])

    def _constant_type(self, name: str) -> int:
        return self.constants[name].data_type if name in self.constants else 0

    def _limits(self, name: str, comparison: str) -> str:
        """Return `name` in float32 such that `x comparison name` is the same for every float32 x."""
        limits = numpy_helper.to_array(self.constants[name])
        towards = _COMPARISONS[comparison]
        with np.errstate(over="ignore"):
            single = limits.astype(np.float32)
            following = np.nextafter(single, np.float32(towards or 0.0))
        if towards is None:  # no float32 equals a number that is not a float32
            return self._constant(np.where(single == limits, single, np.float32(np.nan)))
        beyond = single < limits if towards == _ABOVE else single > limits
        return self._constant(np.where(beyond, following, single))

    def _constant(self, values: NDArray[np.generic]) -> str:
        name = self._free("single")
        with np.errstate(over="ignore"):
            self.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def _free(self, seed: str) -> str:
        self.count += 1
        return f"{seed} in float32, {self.count}"


def _casts_to(node: NodeProto, elem_type: int) -> bool:
    return node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == elem_type


def _is_single(values: NDArray[np.generic]) -> bool:
    """Return whether all numbers are float32's; NaN is one."""
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float32).astype(np.float64), values, equal_nan=True))

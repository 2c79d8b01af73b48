"""Reads the decision trees back out of an ONNX graph, and what the graph feeds to them for given rows.

The operator is ai.onnx.ml 5's TreeEnsemble (https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html), the one
that tree_nodes.py writes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.utils import Extractor

from appliance.inference.session import Session
from convert.model.arrays import Array, Mask

_OPERATOR = "TreeEnsemble"
_LEQ, _LT, _GTE, _GT, _EQ, _NEQ, _MEMBER = range(7)
_COMPARED = {
    _LEQ: np.less_equal, _LT: np.less, _GTE: np.greater_equal,
    _GT: np.greater, _EQ: np.equal, _NEQ: np.not_equal,
}  # fmt: skip


@dataclass(frozen=True)
class Ensemble:
    """The trees of one node of the graph, in flat arrays with an entry for each split.

    `tensor` is the name of the graph's value that the trees take. `feature`, `threshold` and `mode` say how a split
    compares; `yes` and `no` are the splits where a row goes on, -1 for a leaf; `missing` says where NaN goes. `roots`
    are the splits at which the trees begin. `members` are {split: the values that go to `yes`}.
    """

    tensor: str
    roots: Array
    feature: Array
    threshold: Array
    mode: Array
    yes: Array
    no: Array
    missing: Array
    members: Mapping[int, Array]

    def goes_yes(self, split: int, values: Array) -> Mask:
        """Return for each value of the split's feature whether a row goes on to `yes`."""
        if self.mode[split] == _MEMBER:
            goes = np.isin(values, self.members[split])
        else:
            goes = _COMPARED[int(self.mode[split])](values, self.threshold[split])
        return np.where(np.isnan(values), bool(self.missing[split]), goes)

    @cached_property
    def ordered(self) -> Mask:
        """Which splits part the values below their threshold from those above."""
        return np.asarray((self.mode <= _GT) & np.isfinite(self.threshold))

    def last_before(self, split: int) -> float:
        """Return the greatest value, of the threshold's type, on the lower side of an ordered split."""
        threshold = self.threshold[split]
        return float(threshold if self.mode[split] in (_LEQ, _GT) else np.nextafter(threshold, -np.inf))


def ensembles(model: onnx.ModelProto) -> list[Ensemble]:
    """Return the ensembles of a graph; those within loops and branches are left out."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return [_ensemble(node, constants) for node in model.graph.node if node.op_type == _OPERATOR]


class Inputs:
    """What a graph feeds to its trees."""

    def __init__(self, model: onnx.ModelProto, tensors: list[str]) -> None:
        """`tensors` are names of values of the graph."""
        given = {tensor.name for tensor in model.graph.input}
        self.tensors = tensors
        self._given = [name for name in tensors if name in given]
        self._made = [name for name in tensors if name not in given]
        if self._made:
            shaped = onnx.ModelProto()
            shaped.CopyFrom(model)
            shaped.graph.value_info.extend(onnx.ValueInfoProto(name=name) for name in self._missing(shaped))
            needed = [name for name in given if _reaches(model.graph, name, self._made)]
            part = Extractor(shaped).extract_model(needed, self._made)
            self._needed = needed
            self._session = Session(part.SerializeToString())

    def _missing(self, model: onnx.ModelProto) -> list[str]:
        known = {value.name for value in [*model.graph.value_info, *model.graph.output, *model.graph.input]}
        return [name for name in self._made if name not in known]

    def of(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return {tensor: array [rows, features]} for the graph's own inputs."""
        found = {name: feeds[name] for name in self._given}
        if self._made:
            answers = self._session.run({name: feeds[name] for name in self._needed}, self._made)
            found |= dict(zip(self._made, answers, strict=True))
        return {name: np.asarray(array).reshape(len(array), -1) for name, array in found.items()}


def _reaches(graph: onnx.GraphProto, start: str, ends: list[str]) -> bool:
    """Return whether a value of the graph is needed for some of others."""
    made_by = {name: node for node in graph.node for name in node.output}
    waiting, seen = list(ends), set()
    while waiting:
        name = waiting.pop()
        if name == start:
            return True
        if name not in seen and name in made_by:
            waiting += _read_by(made_by[name])
        seen.add(name)
    return False


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, within its loops and branches too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node if attribute.HasField("g") else ():
            yield from _read_by(inner)


def _ensemble(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Ensemble:
    own = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    feature = np.array(own["nodes_featureids"], dtype=int)
    mode = numpy_helper.to_array(own["nodes_modes"])
    yes, no = (
        np.where(np.array(own[f"nodes_{side}leafs"], dtype=bool), -1, np.array(own[f"nodes_{side}nodeids"], dtype=int))
        for side in ("true", "false")
    )
    missing = np.array(own.get("nodes_missing_value_tracks_true") or np.zeros(len(feature)), dtype=bool)
    members = _members(mode, own.get("membership_values"))
    roots = np.array(own["tree_roots"], dtype=int)
    return Ensemble(
        node.input[0], roots, feature, numpy_helper.to_array(own["nodes_splits"]), mode, yes, no, missing, members
    )


def _members(mode: Array, values: onnx.TensorProto | None) -> dict[int, Array]:
    """Return {split: its members}: they stand one set after the other, each ended by NaN."""
    if values is None:
        return {}
    array = numpy_helper.to_array(values)
    sets = np.split(array, np.flatnonzero(np.isnan(array)))
    return {int(split): own[~np.isnan(own)] for split, own in zip(np.flatnonzero(mode == _MEMBER), sets, strict=False)}

"""Edits to an ONNX graph: tensor names, dead nodes, and small nodes put before its inputs or after its outputs."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence

import onnx
from onnx import TensorProto, helper

TENSOR_TYPES: dict[str, int] = {
    "bool": TensorProto.BOOL,
    "int64": TensorProto.INT64,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "string": TensorProto.STRING,
}

# Release, ai.onnx opset, ai.onnx.ml opset and IR version that it knows: onnxruntime's own table
# (docs/reference/compatibility.md in its repository); ai.onnx.ml 5 is not in it: in our test, 1.20.2 has no kernel for
# its TreeEnsemble, and 1.21.1 answers as later releases do.
_RELEASES = (
    ("1.14.0", 18, 3, 8),
    ("1.16.0", 19, 3, 9),
    ("1.17.0", 20, 4, 9),
    ("1.18.0", 21, 4, 10),
    ("1.21.0", 21, 5, 10),
)


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors everywhere in `graph`, subgraphs included."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                rename(inner, names)
    for entry in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        entry.name = names.get(entry.name, entry.name)


def free_names(graph: onnx.GraphProto, wanted: Iterable[str]) -> None:
    """Rename tensors inside `graph` whose names are wanted for its inputs or outputs."""
    taken = _names(graph)
    new_names: dict[str, str] = {}
    for name in sorted(taken & set(wanted)):  # the order of a set differs from run to run
        inner = name
        while inner in taken or inner in new_names.values():
            inner += "_"
        new_names[name] = inner
    rename(graph, new_names)


def prune(graph: onnx.GraphProto, outputs: Iterable[str]) -> None:
    """Keep the graph's `outputs` alone, in that order, and only nodes and initializers that they need."""
    by_name = {output.name: output for output in graph.output}
    kept = [by_name[name] for name in outputs]
    needed = {output.name for output in kept}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(reads(node))
    _replace(graph.output, kept)
    _replace(graph.node, list(reversed(nodes)))
    _replace(graph.initializer, [entry for entry in graph.initializer if entry.name in needed])


def drop_identities(graph: onnx.GraphProto) -> None:
    """Let readers of an Identity read its input instead; onnxruntime keeps some Identity nodes and runs them.

    An Identity stays where an output is an input or a constant, or the same as another output.
    """
    outputs = {output.name for output in graph.output}
    made = {name for node in graph.node for name in node.output}
    kept, renamed = [], dict[str, str]()

    def now(name: str) -> str:
        while name in renamed:
            name = renamed[name]
        return name

    for node in graph.node:
        source, copied = (now(node.input[0]), node.output[0]) if node.op_type == "Identity" else ("", "")
        if not source or (copied in outputs and (source in outputs or source not in made)):
            kept.append(node)
        elif copied in outputs:
            renamed[source] = copied
        else:
            renamed[copied] = source
    _replace(graph.node, kept)
    rename(graph, {name: now(name) for name in renamed})


def reads(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that a node reads, its subgraphs' included."""
    return set(node.input).union(*(_names(inner) for a in node.attribute for inner in (a.g, *a.graphs)))


def put_before(graph: onnx.GraphProto, inputs: list[onnx.ValueInfoProto], nodes: list[onnx.NodeProto]) -> None:
    """Give `graph` new inputs, with `nodes` computing the old ones from them."""
    _replace(graph.input, inputs)
    _replace(graph.node, [*nodes, *graph.node])


def put_after(graph: onnx.GraphProto, output: str, nodes: list[onnx.NodeProto], to: onnx.ValueInfoProto) -> None:
    """Let `to`, which `nodes` compute from `output`, be the output instead."""
    _replace(graph.node, [*graph.node, *nodes])
    _replace(graph.output, [to if entry.name == output else entry for entry in graph.output])


def tidy(model: onnx.ModelProto) -> None:
    """Make the graph the same for all runs and devices: doc strings, double opset entries, the locale of texts."""
    model.doc_string = ""
    model.graph.doc_string = ""
    for node in model.graph.node:
        if node.op_type == "StringNormalizer" and not any(a.name == "locale" for a in node.attribute):
            # The default, en_US.UTF-8, is absent from slim images, and the graph would not load there.
            node.attribute.append(helper.make_attribute("locale", "C.UTF-8"))
    versions = opsets(model)
    _replace(model.opset_import, [helper.make_opsetid(domain, versions[domain]) for domain in sorted(versions)])


def nodes_named(graph: onnx.GraphProto, start: str) -> Iterator[str]:
    """Yield the names of the nodes that begin with `start`, subgraphs included."""
    for node in graph.node:
        if node.name.startswith(start):
            yield node.name
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes_named(inner, start)


def opsets(model: onnx.ModelProto) -> dict[str, int]:
    """Return {operator set domain: version}."""
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        versions[domain] = max(entry.version, versions.get(domain, 0))
    return versions


def least_onnxruntime(model: onnx.ModelProto, proved_with: str) -> str:
    """Return the least onnxruntime that knows the model's opsets and IR; for newer ones, the one of the proof."""
    versions = opsets(model)
    for release, opset, ml_opset, ir in _RELEASES:
        if versions.get("", 0) <= opset and versions.get("ai.onnx.ml", 0) <= ml_opset and model.ir_version <= ir:
            return release
    return proved_with


def _names(graph: onnx.GraphProto) -> set[str]:
    """Return every tensor name in `graph` and its subgraphs."""
    names = {entry.name for entry in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update(node.input, node.output)
        names.update(*(_names(inner) for a in node.attribute for inner in (a.g, *a.graphs)))
    return names


def _replace(field: object, entries: Sequence[object]) -> None:
    """Set a repeated protobuf field, which takes no assignment, to copies of `entries`."""
    copies = copy.deepcopy(list(entries))  # copies first: deleting the field would free the originals
    del field[:]  # type: ignore[attr-defined]
    field.extend(copies)  # type: ignore[attr-defined]

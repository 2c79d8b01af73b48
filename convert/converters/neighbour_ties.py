"""Knows which of equally near training points scikit-learn's trees count as neighbours: those that its heap keeps.

A tree of sklearn.neighbors visits the nearer child of each node first and pushes the points of a leaf into a heap of k
(sklearn/neighbors/_binary_tree.pxi.tp, _query_single_depthfirst; sklearn/utils/_heap.pyx, heap_push). Where the last
neighbour and the next point are equally far, the graph repeats both steps; for other rows it computes nothing. Without
a tree (algorithm='brute') the points come in their own order, as in scikit-learn with one thread or up to 256 points.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.converters.distances import Points, accumulated, distances
from convert.converters.expressions import Tensor, concat, maximum, row, where
from convert.model.arrays import Array


def settled(x: Tensor, reduced: Tensor, nearest: Tensor, index: Tensor, model: Any, k: int) -> Tensor:
    """Return the indices of the k nearest points, int64 [n, k], nearest first, tied ones chosen as by the model's tree.

    `reduced` are the distances of the rows x to all points [n, m]; `nearest` and `index` the k + 1 nearest ones, of
    which equally near ones are in any order.
    """
    graph, m = x.graph, model.n_samples_fit_
    first = index.columns(*range(k))
    tied = nearest.columns(k - 1).equals(nearest.columns(k)).reshape(-1)
    rows = tied.op("NonZero").reshape(-1)
    order = _visited(x.take(rows, axis=0), model, rows)
    away = reduced.take(rows, axis=0).op("GatherElements", order, axis=1)
    pushed = concat([away.expand(2), order.cast("float64").expand(2)], axis=2).transpose(1, 0, 2)
    count = rows.op("Shape")
    trips = (count.op("Min", [1]) * m).reshape()  # none where no row is tied

    def step(heap: Tensor, points: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        return heap.graph.constant(np.array(True)).op("Identity"), _pushed(heap, points.take(turn, axis=0), k)

    empty = graph.node("Expand", row([np.inf] * k + [0.0] * k), count.op("Concat", [2 * k], axis=0))
    heap = graph.loop(step, trips, empty, pushed)
    places = graph.nodes("TopK", heap.columns(*range(k)), [k], outputs=2, axis=1, largest=0, sorted=1)[1]
    kept = heap.columns(*range(k, 2 * k)).op("GatherElements", places, axis=1).cast("int64")
    return first.op("ScatterND", rows.expand(1), kept)


def _pushed(heap: Tensor, point: Tensor, k: int) -> Tensor:
    """Return the heap [rows, 2 k] (distances, then indices) after `heap_push` of a point [rows, 2] into it.

    A new distance sinks from the root along the larger child, as long as that one is larger. Each place of the heap can
    compute at once whether it is on this path.
    """
    places = np.arange(k)
    left, right = (np.where(child < k, child, k) for child in (2 * places + 1, 2 * places + 2))
    parent = np.maximum(places - 1, 0) // 2
    values, ids = heap.columns(*places), heap.columns(*(places + k))
    new, new_id = point.columns(0), point.columns(1)
    wide, wide_ids = _padded(values), _padded(ids)
    goes_left = wide.columns(*left) >= wide.columns(*right)
    larger = where(goes_left, wide.columns(*left), wide.columns(*right))
    larger_id = where(goes_left, wide_ids.columns(*left), wide_ids.columns(*right))
    side = row(np.where(places == 0, 2, places % 2))  # 1 for a left child; the root is not one
    sinks = goes_left.cast("float64").columns(*parent).equals(side) & (values > new)
    root = (new < values.columns(0)).cast("float64") * row(places == 0)
    on_way = root
    for _ in range(k.bit_length() - 1):
        on_way = maximum(root, on_way.columns(*parent) * sinks.cast("float64"))
    below = _padded(on_way)
    goes_on = maximum(below.columns(*left), below.columns(*right)) > 0.0
    here = on_way > 0.0
    values = where(here, where(goes_on, larger, new), values)
    return concat([values, where(here, where(goes_on, larger_id, new_id), ids)])


def _padded(values: Tensor) -> Tensor:
    """Return values with one more column, for children beyond the end of the heap."""
    return values.op("Pad", [0, 0, 0, 1], np.array(-np.inf))


@dataclass(frozen=True, slots=True)
class _Tree:
    """Where the points of a tree stand: `order` (int [m]) is their order, each position's leaf in `leaf_of` (int [m]).

    A leaf's turn is `later @ weights + starts`, where `later` [splits] says of each node in `splits` whether its second
    child is visited first (1.0) or not.
    """

    order: Array
    leaf_of: Array
    splits: Array
    weights: Array
    starts: Array


def _visited(x: Tensor, model: Any, rows: Tensor) -> Tensor:
    """Return the training points in the order in which the tree visits them for the rows x, int64 [rows, m]."""
    m = model.n_samples_fit_
    if model._tree is None:  # all of them in turn
        return x.graph.node("Expand", np.arange(m)[None, :], rows.op("Shape").op("Concat", [m], axis=0))
    tree = _read(model._tree)
    if len(tree.splits):
        bounds = _least_distances(x, model, 2 * tree.splits + 1), _least_distances(x, model, 2 * tree.splits + 2)
        turns = (bounds[0] > bounds[1]).cast("float64").affine(tree.weights, row(tree.starts))
        keys = turns.take(tree.leaf_of) * float(m) + row(np.arange(m))
        places = x.graph.nodes("TopK", keys, [m], outputs=2, axis=1, largest=0, sorted=1)[1]
        return x.graph.constant(tree.order).take(places, axis=0)
    return x.graph.node("Expand", tree.order[None, :], rows.op("Shape").op("Concat", [m], axis=0))


def _read(binary_tree: Any) -> _Tree:
    _, order, nodes, _ = (np.asarray(part) for part in binary_tree.get_arrays())
    leaf = nodes["is_leaf"].astype(bool)
    reached = [node for node in range(len(nodes)) if not any(leaf[_ancestors(node)])]
    leaves, splits = ([n for n in reached if leaf[n] == kind] for kind in (True, False))
    deepest = max(len(_ancestors(node)) for node in leaves)
    leaf_of, weights, starts = np.zeros(len(order), dtype=int), np.zeros((len(splits), len(leaves))), []
    for place, node in enumerate(leaves):
        leaf_of[nodes["idx_start"][node] : nodes["idx_end"][node]] = place
        start, way = 0.0, [node, *_ancestors(node)]
        for child, above in itertools.pairwise(way):
            weight = 2.0 ** (deepest - len(_ancestors(above)))
            is_second = child == 2 * above + 2
            start += weight * is_second
            weights[splits.index(above), place] = -weight if is_second else weight
        starts.append(start)
    return _Tree(order, leaf_of, np.array(splits, dtype=int), weights, np.array(starts))


def _ancestors(node: int) -> list[int]:
    """Return the nodes above one, the nearest first: the children of node i are 2 i + 1 and 2 i + 2."""
    found = []
    while node:
        node = (node - 1) // 2
        found.append(node)
    return found


def _least_distances(x: Tensor, model: Any, nodes: Array) -> Tensor:
    """Return the least distance, or one of the same order, of the rows x to any point in some nodes [rows, nodes].

    As min_rdist of sklearn/neighbors/_kd_tree.pyx.tp and _ball_tree.pyx.tp.
    """
    _, _, data, bounds = (np.asarray(part) for part in model._tree.get_arrays())
    metric, parameters = model.effective_metric_, model.effective_metric_params_ or {}
    if len(bounds) == 1:
        away = distances(x, bounds[0][nodes], metric, parameters) - row(data["radius"][nodes])
        return away.clip(0.0, None)
    power = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": np.inf}.get(metric, parameters.get("p", 2.0))
    return _to_boxes(x, bounds[0][nodes], bounds[1][nodes], float(power))


def _to_boxes(x: Tensor, low: Points, high: Points, power: float) -> Tensor:
    def term(value: Tensor, least: Tensor, most: Tensor) -> Tensor:
        gap = (least - value).clip(0.0, None) + (value - most).clip(0.0, None)
        return gap * gap if power == 2 else gap if power in (1, np.inf) else gap**power

    return accumulated(x, [low, high], term, largest=bool(np.isinf(power)))

"""Rows in bins: how many values lie between edges, and how much less they tell than independent ones. Pure."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
Table = NDArray[np.float64]

LEAST_IN_BLOCK = 10
"""Rows of a block below which its shares are too coarse for a design effect."""


def edges_between(values: Values, wanted: Values) -> list[float]:
    """Return distinct edges near the `wanted` ones, in the dtype of `values` (floats or whole numbers, finite, sorted).

    Each edge lies half way between the largest value at or below the wanted one and the smallest value above it, or on
    the former where there is nothing between. So a value's bin does not hang on its last digit: 20.1 as float32 is
    above 20.1 as float64. A wanted edge beyond all values is taken as it is; one on the largest is left out, since the
    next wanted one parts it from what is larger.
    """
    edges = set()
    kind = values.dtype.type if values.dtype.kind == "f" else np.float64
    for edge in wanted:
        above = int(np.searchsorted(values, edge, side="right"))
        if 0 < above < len(values):
            below, next_ = kind(values[above - 1]), kind(values[above])
            middle = kind(below + (next_ - below) / 2)
            edges.add(float(middle if below <= middle < next_ else below))
        elif above == 0 or edge > values[-1]:
            edges.add(float(kind(edge)))
    return sorted(edge for edge in edges if np.isfinite(edge))


def counts(values: Values, edges: Values) -> NDArray[np.int64]:
    """Return how many of `values` [rows] lie in each bin [edges + 1]: at or below the first edge, ..., above the last.

    Both must be of one dtype, or the edges of a wider one that holds the values exactly. No value may be NaN.
    """
    upto = np.sort(values).searchsorted(edges, side="right")
    return np.diff(upto, prepend=0, append=len(values))


def design_effect(blocks: Table) -> float:
    """Return the design effect of counts in blocks [blocks, bins] of consecutive rows; 1 for independent rows.

    It is the variance of a bin's share between blocks, divided by what independent rows would have, averaged over bins
    with weight 1 - share, and at least 1 (Rao and Scott, 1981, The analysis of categorical data from complex sample
    surveys, JASA 76). Blocks without rows count for nothing; with fewer than two others nothing can be said: 1.
    """
    sizes = blocks.sum(axis=1)
    blocks, sizes = blocks[sizes > 0], sizes[sizes > 0]
    if len(blocks) < 2:
        return 1.0
    share = blocks.sum(axis=0) / sizes.sum()
    kept = (share > 0) & (share < 1)
    if not kept.any():
        return 1.0
    share = share[kept]
    spread = (sizes[:, None] * (blocks[:, kept] / sizes[:, None] - share) ** 2).sum(axis=0) / (len(blocks) - 1)
    effect = (spread / share).sum() / (1 - share).sum()  # spread / (share (1 - share)), each with weight 1 - share
    return max(1.0, float(effect))


def consecutive(bins: NDArray[np.int64], width: int, blocks: int = 20) -> Table:
    """Return counts [blocks, width] of the bin numbers [rows] of consecutive rows, in blocks of one size.

    Rows that are left over by equal blocks are left out; too few rows for LEAST_IN_BLOCK in each give no block.
    """
    size = len(bins) // blocks
    if size < LEAST_IN_BLOCK:
        return np.zeros((0, width))
    number = np.repeat(np.arange(blocks), size) * width + bins[: blocks * size]
    return np.bincount(number, minlength=blocks * width).reshape(blocks, width).astype(float)

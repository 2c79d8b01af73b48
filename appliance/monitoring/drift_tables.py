"""Counts of a version's rows, column by column, in one row of cells that any process can add to. Pure.

Cells of a column: its bins, then MISSING, REPEATS, SUM and SQUARES; after all columns ROWS, EXPECTED and JUDGED. Counts
of processes, of blocks of a window and of windows add up.
"""

import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.bundle.baseline import Baseline, Categories, Numbers, column_names
from appliance.bundle.manifest import Input, Manifest, Output
from appliance.inference.binning import Table
from appliance.monitoring.drift import expected_accuracy
from appliance.monitoring.misra_gries import MisraGries

MISSING, REPEATS, SUM, SQUARES = range(4)
"""Cells of a column after its bins. The sums are of values less training's mean, in its deviations."""
OWN_CELLS = 4
ROWS, EXPECTED, JUDGED = range(3)
"""The last cells: rows, the sum of their calibrated top probabilities, and the rows of which that is."""
TAIL = 3
_FARTHEST = 1e100  # deviations from the mean, beyond which a value is left out of the sums
MOST_COLUMNS = 300
"""Columns of a version that are counted, its outputs first; the others are left out, and the report says so."""


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """How one column is counted, and what training looked like."""

    name: str
    is_output: bool
    tensor: str
    place: int
    """In the tensor [rows, columns]."""
    reference: Table
    """Training's counts [bins]; for categories the last bin holds all others."""
    missing: float
    """Training's share."""
    design: float = 1.0
    edges: NDArray[Any] | None = None
    """Of numbers, in the tensor's dtype."""
    bin_of: Mapping[Any, int] = field(default_factory=dict)
    """Of categories, as the tensor holds them."""
    missing_text: str | None = None
    mean: float = 0.0
    deviation: float = 0.0
    trusted: bool = True
    """Whether the counts of the reference were counted; format 1 has nominal ones, which ties make wrong."""
    fenced: bool = False
    """Whether the first and the last bin lie beyond the fences."""
    closed: bool = False
    """Whether training had no other category than those listed, so that every other one is unseen."""
    start: int = 0
    """The first of its cells."""

    @property
    def bins(self) -> int:
        """How many bins there are."""
        return len(self.reference)

    def sum_of_bins(self) -> int:
        """Return a number that differs where the bins do."""
        bins = repr(sorted(map(str, self.bin_of))) if self.edges is None else repr(self.edges.tolist())
        return zlib.crc32(bins.encode())

    @property
    def own(self) -> int:
        """The cell after the bins."""
        return self.start + self.bins


class Tables:
    """The columns of one version, and where their cells are."""

    def __init__(self, manifest: Manifest, baseline: Baseline) -> None:
        self.name, self.version = manifest.name, manifest.version
        self.manifest = manifest
        self.baseline = baseline
        found = [*_outputs(manifest, baseline), *_inputs(manifest, baseline)]
        self.left_out = max(0, len(found) - MOST_COLUMNS)
        self.columns: list[ColumnSpec] = []
        start = 0
        for column in found[:MOST_COLUMNS]:
            self.columns.append(replace(column, start=start))
            start += column.bins + OWN_CELLS
        self.size = start + TAIL
        self.tail = start
        probability = next((one for one in manifest.outputs if one.role == "probability"), None)
        judged = probability is not None and len(probability.shape) == 2 and baseline.calibration
        self.probability = probability.name if probability and judged else ""

    @cached_property
    def by_tensor(self) -> dict[tuple[bool, str], list[ColumnSpec]]:
        """{(is output, tensor): its columns}."""
        found: dict[tuple[bool, str], list[ColumnSpec]] = {}
        for column in self.columns:
            found.setdefault((column.is_output, column.tensor), []).append(column)
        return found

    @property
    def layout(self) -> list[str]:
        """What tells whether counts that were kept are of these bins: each column's name, and a sum over its bins."""
        return [f"{column.name}:{column.bins}:{column.sum_of_bins():08x}" for column in self.columns]

    def rows(self, cells: Table) -> Table:
        """Return the rows of cells [..., size]."""
        found: Table = cells[..., self.tail + ROWS]
        return found


class TableCounter:
    """Adds rows to cells; one for each process and version, for one thread."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._last: dict[str, NDArray[Any]] = {}  # the last row of each tensor, to see what repeats
        self.unseen: dict[str, MisraGries] = {}
        calibration = tables.baseline.calibration
        self._upto = np.array([one.upto for one in calibration])
        self._right = np.array([one.right for one in calibration])

    def add(self, cells: Table, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> None:
        """Add rows to `cells` [size]; the arrays are [rows, ...], as the graph took and gave them."""
        tables = self._tables
        rows = len(next(iter(inputs.values()))) if inputs else 0
        cells[tables.tail + ROWS] += rows
        for (is_output, tensor), columns in tables.by_tensor.items():
            array = (outputs if is_output else inputs).get(tensor)
            if array is not None:
                self._add_tensor(cells, array.reshape(len(array), -1), columns)
        if tables.probability and (probability := outputs.get(tables.probability)) is not None:
            cells[tables.tail + EXPECTED] += expected_accuracy(probability.max(axis=1), self._upto, self._right)
            cells[tables.tail + JUDGED] += len(probability)

    def _add_tensor(self, cells: Table, table: NDArray[Any], columns: Sequence[ColumnSpec]) -> None:
        """Add a tensor [rows, columns]."""
        if columns[0].place >= table.shape[1]:  # its shape is not the manifest's
            return
        numbers = [column for column in columns if column.edges is not None and table.dtype.kind in "iuf"]
        if numbers:
            self._add_numbers(cells, table, numbers)
        for column in columns:
            if column.edges is None:
                self._add_categories(cells, table[:, column.place], column)

    def _add_numbers(self, cells: Table, table: NDArray[Any], columns: Sequence[ColumnSpec]) -> None:
        """Add the columns of numbers of a tensor [rows, columns]."""
        if len(columns) < table.shape[1]:
            table = table[:, [column.place for column in columns]]
        table = np.ascontiguousarray(table.T if table.dtype.kind == "f" else table.T.astype(np.float64))
        ascending = np.sort(table, axis=1)  # NaN comes last
        missing = np.isnan(table).sum(axis=1) if math.isnan(float(ascending[:, -1].sum())) else np.zeros(len(columns))
        for values, column, gaps in zip(ascending, columns, missing, strict=True):
            if column.bins > 1:
                upto = values.searchsorted(column.edges, side="right")
                bins = cells[column.start : column.own]
                bins[0] += upto[0]
                bins[1:-1] += upto[1:] - upto[:-1]
                bins[-1] += len(values) - gaps - upto[-1]
            else:
                cells[column.start] += len(values) - gaps
        own = np.array([column.own for column in columns])
        cells[own + MISSING] += missing
        if not columns[0].is_output:
            cells[own + REPEATS] += self._repeats(columns[0].tensor, table)
        total, squares = _sums(table, columns)
        cells[own + SUM] += total
        cells[own + SQUARES] += squares

    def _repeats(self, tensor: str, table: NDArray[Any]) -> NDArray[np.int64]:
        """Return how many values [columns] of a table [columns, rows] are the same as in the row before."""
        again: NDArray[np.int64] = (table[:, 1:] == table[:, :-1]).sum(axis=1)
        last = self._last.get(tensor)
        if last is not None:
            again += table[:, 0] == last
        self._last[tensor] = table[:, -1].copy()
        return again

    def _add_categories(self, cells: Table, values: NDArray[Any], column: ColumnSpec) -> None:
        """Add a column of categories [rows]."""
        others, missing = column.bins - 1, 0
        for value, count in Counter(values.tolist()).items():
            if value is None or value != value or (column.missing_text is not None and value == column.missing_text):
                missing += count
                continue
            place = column.bin_of.get(value, others)
            cells[column.start + place] += count
            if place == others and column.closed:
                self.unseen.setdefault(column.name, MisraGries()).add(spelled(value), count)
        cells[column.own + MISSING] += missing


def spelled(value: object) -> str:
    """Return a category as JSON spells it: 2.0 as 2, true, a text as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)[:200]


def _sums(table: NDArray[Any], columns: Sequence[ColumnSpec]) -> tuple[Table, Table]:
    """Return sums and sums of squares [columns] of the finite values [columns, rows], scaled as SUM says."""
    mean = np.array([[column.mean] for column in columns])
    scale = np.array([[1 / column.deviation if column.deviation else 0.0] for column in columns])
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (table - mean) * scale
        squares = np.einsum("ij,ij->i", scaled, scaled)
        if not math.isfinite(float(squares.sum())):
            scaled[~(np.abs(scaled) < _FARTHEST)] = 0.0
            squares = np.einsum("ij,ij->i", scaled, scaled)
    return scaled.sum(axis=1), squares


def _inputs(manifest: Manifest, baseline: Baseline) -> list[ColumnSpec]:
    """Return how the columns of the inputs are counted, those that the baseline has."""
    return [
        _column(name, False, tensor, place, baseline)
        for tensor in manifest.inputs
        for place, name in enumerate(tensor.columns)
        if name in baseline.inputs
    ]


def _outputs(manifest: Manifest, baseline: Baseline) -> list[ColumnSpec]:
    """Return how the columns of the outputs are counted, those that the baseline has."""
    labels = [str(label) for label in manifest.class_labels]
    return [
        _column(name, True, output, place, baseline)
        for output in manifest.outputs
        for place, name in enumerate(column_names(output.name, output.shape, labels))
        if name in baseline.outputs
    ]


def _column(name: str, is_output: bool, tensor: Input | Output, place: int, baseline: Baseline) -> ColumnSpec:
    """Return how one column is counted."""
    summary = (baseline.outputs if is_output else baseline.inputs)[name]
    text = tensor.missing_text if isinstance(tensor, Input) and tensor.missing and tensor.type == "string" else None
    plain = ColumnSpec(name, is_output, tensor.name, place, np.zeros(1), summary.missing, missing_text=text)
    if isinstance(summary, Categories):
        return _of_categories(plain, summary, tensor.type)
    return _of_numbers(plain, summary, tensor.type, baseline)


def _of_categories(plain: ColumnSpec, summary: Categories, kind: str) -> ColumnSpec:
    """Return a column of categories, which a tensor of numbers holds as numbers."""
    values = [_as_held(text, kind) for text in summary.counts]
    reference = np.array([*summary.counts.values(), summary.others], float)
    bin_of = {value: place for place, value in enumerate(values) if value is not None}
    closed = summary.others == 0 and bool(summary.counts)
    return replace(plain, reference=reference, design=summary.design, bin_of=bin_of, closed=closed)


def _of_numbers(plain: ColumnSpec, summary: Numbers, kind: str, baseline: Baseline) -> ColumnSpec:
    """Return a column of numbers; one of which training had too few has no bins, and only what is missing counts."""
    dtype: Any = np.dtype(kind) if kind.startswith("float") else np.dtype(np.float64)
    edges = np.array(summary.edges, dtype)
    reference, trusted, fenced = np.array(summary.counts, float), True, True
    if not summary.edges and summary.quantiles:
        edges, reference, trusted = _nominal(np.array(summary.quantiles).astype(dtype), baseline)
        fenced = False
    if len(edges) != len(_distinct(edges)) or len(reference) != len(edges) + 1:
        edges, reference = np.empty(0, dtype), np.zeros(1)
    return replace(
        plain,
        reference=reference,
        design=summary.design,
        edges=edges,
        mean=summary.mean or 0.0,
        deviation=summary.deviation or 0.0,
        trusted=trusted,
        fenced=fenced and len(edges) > 1,
    )


def _nominal(quantiles: NDArray[Any], baseline: Baseline) -> tuple[NDArray[Any], Table, bool]:
    """Return edges and counts of format 1, which has only quantiles, and whether they are reliable.

    Where quantiles coincide, the share between two of them is not the nominal one.
    """
    rows = max(2, baseline.rows)
    least = min(0.5, 4 / (rows - 1))  # the outermost are drawn in, see Numbers
    upto = np.clip(baseline.probabilities, least, 1 - least)
    edges = _distinct(quantiles)
    last = np.searchsorted(quantiles, edges, side="right") - 1
    counts = np.diff(upto[last], prepend=0.0, append=1.0) * rows
    return edges, counts, len(edges) == len(quantiles)


def _distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values once each, ascending. numpy.unique would import numpy.ma: 1.1 MiB of each process for it."""
    return np.array(sorted(set(values.tolist())), values.dtype)


def _as_held(text: str, kind: str) -> Any:
    """Return a category of a baseline as a tensor of a type holds it; None for one that it cannot hold."""
    if kind == "string":
        return text
    if text in ("true", "false"):
        return (text == "true") if kind == "bool" else float(text == "true")
    try:
        return float(np.dtype(kind).type(float(text)))
    except (ValueError, TypeError, OverflowError):
        return None

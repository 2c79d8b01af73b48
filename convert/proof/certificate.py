"""parity.json, the certificate that a graph answers as the original did."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from appliance.bundle.manifest import TensorType, Tolerance


class RowKind(msgspec.Struct, frozen=True):
    """Rows of one kind: how they were drawn, how many were tried, refused by the original itself, and off.

    `not_asked` more were drawn among rows that the original refuses, and left out: to part them takes a call for each.
    """

    kind: str
    drawn: str
    rows: int
    refused_by_original: int
    rows_off: int = 0
    refused_by_graph: int = 0
    """Rows that the original answers as chance has it, and that the graph refuses with the reason."""
    not_asked: int = 0


class OutputParity(msgspec.Struct, frozen=True):
    """How far one output is from the original's; differences are over numbers, flips over labels.

    `largest_ulp` is in units in the last place of the type that the graph answers in.
    """

    output: str
    method: str
    largest_absolute: float
    largest_relative: float
    label_flips: int
    rows_off: int
    near_ties: int = 0
    """Rows where rounding decides what the original answers, of `ties` all, of other kinds those that needed it."""
    near_ties_turned: int = 0
    """Those of them where the graph gives what the original gives otherwise rounded; docs/proof.md says how far."""
    largest_ulp: float = 0.0
    largest_share: float | None = None
    """How much of the tolerance the farthest number takes; null where a label or an infinity differs."""


class WorstRow(msgspec.Struct, frozen=True):
    """One row on which an output is off, or where none is one that is farthest; null stands for a missing value."""

    output: str
    kind: str
    row: dict[str, Any]
    original: Any
    onnx: Any


class Diverged(msgspec.Struct, frozen=True):
    """The step of a pipeline from which the answers to the first worst row differ, by its path and class.

    `original` and `onnx` are what both sides have after it at the `places` where they differ, a few at most. They are
    empty for the last step: then the answers themselves show it.
    """

    step: str
    estimator: str
    original: list[Any]
    onnx: list[Any]
    places: list[int]


class Search(msgspec.Struct, frozen=True):
    """What the search for the worst row came to (convert/proof/falsifier.py).

    It ends after `most_rows` rows, at the first row that is off, or, on a machine too slow for the model, after so many
    processor seconds that `stopped` says "seconds".
    """

    rows: int
    """Rows that both sides answered."""
    most_rows: int
    rounds: int
    restarts: int
    jumps: int
    """How many jumps of the original's answer were narrowed down to less than a rounding of float32."""
    largest_share: float | None
    """How much of the tolerance the farthest number took; null where one was beyond it, or a label differed."""
    stopped: Literal["rows", "found", "seconds"]


class Attempt(msgspec.Struct, frozen=True):
    """One floating-point type that was tried, and what came of it."""

    float_type: TensorType
    outcome: str


class Parity(msgspec.Struct, frozen=True):
    """parity.json: the certificate that a graph answers as the original did, or the reason why not."""

    passed: bool
    float_type: TensorType
    why: str
    seed: int
    tolerance: Tolerance
    kinds: list[RowKind]
    outputs: list[OutputParity]
    worst: list[WorstRow]
    notes: list[str]
    attempts: list[Attempt]
    libraries: dict[str, str]
    search: Search | None = None
    """None where there was no original to ask, or other rows were off before."""
    diverged: Diverged | None = None
    """None where the proof passed, or the model is no pipeline."""
    of: dict[str, str] = {}
    """{what the certificate depends on: its SHA-256} for `appliance convert --reuse`; empty from Python."""

    @property
    def rows(self) -> int:
        """All rows that were compared."""
        return sum(kind.rows - kind.refused_by_original - kind.refused_by_graph for kind in self.kinds)


Reports = Callable[[Parity], None]
"""What hears of the report of every proof."""

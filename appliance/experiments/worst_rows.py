"""The rows on which two versions differ most: a small file per process, with the rows' values."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from appliance import nofollow
from appliance.arrays import Array
from appliance.bundle.manifest import Label, Manifest
from appliance.errors import StoreError
from appliance.experiments.comparison import Cells, Compared, WorstRow, worst_of
from appliance.inference.values import to_values
from appliance.monitoring.shared_cells import Key
from appliance.store import durable

log = logging.getLogger(__name__)

SUFFIX = ".worst"
_MOST_VALUES = 200  # of one row that are kept: a row may be an image


class Columns:
    """Names the values of a row."""

    def __init__(self, manifest: Manifest) -> None:
        self._columns = {tensor.name: list(tensor.columns) for tensor in manifest.inputs}

    def worst(
        self, compared: Compared, ids: Sequence[str], feeds: Mapping[str, Array], place: int, labels: Sequence[Label]
    ) -> WorstRow:
        """Return the row at `place` of what was compared, as it is kept."""
        return WorstRow(
            float(difference) if np.isfinite(difference := compared.difference[place]) else None,
            ids[place],
            self._row(feeds, place),
            _answer(compared.active, place, labels),
            _answer(compared.challenger, place, labels),
        )

    def _row(self, feeds: Mapping[str, Array], place: int) -> dict[str, Any]:
        """Return the first values of a row by column."""
        row: dict[str, Any] = {}
        for name, array in feeds.items():
            values = to_values(array[place : place + 1].reshape(-1)[:_MOST_VALUES])
            names = self._columns.get(name) or [name]
            row |= dict(zip(names, values, strict=False)) if len(names) >= len(values) else {name: values}
        return row


def write(folder: Path | None, slot: int, key: Key, rows: Sequence[WorstRow], within: Path | None) -> None:
    """Replace this process's file; a full disk must not stop the comparison."""
    if folder is None:
        return
    try:
        content = msgspec.json.encode(list(rows))
        durable.write_atomically(folder / f"{slot}{_end(key)}", content, within=within)
    except (OSError, StoreError) as error:
        log.warning("worst rows are not kept", extra={"model": key[0], "error": str(error)})


def read(folder: Path | None, key: Key, *, within: Path | None, slot: int | None = None) -> list[WorstRow]:
    """Return the worst rows of all processes, or of one `slot`; a file that cannot be read is passed over."""
    if folder is None:
        return []
    rows: list[WorstRow] = []
    within = within or folder
    try:
        names = [name for name in nofollow.entries(folder, within=within) if name.endswith(_end(key))]
        for name in names if slot is None else [name for name in names if name == f"{slot}{_end(key)}"]:
            rows += msgspec.json.decode(nofollow.read(folder / name, within=within), type=list[WorstRow])
    except (OSError, StoreError, msgspec.MsgspecError, ValueError):
        return worst_of(rows)
    return worst_of(rows)


def _answer(numbers: Cells, place: int, labels: Sequence[Label]) -> Any:
    """Return an answer as a person knows it: a class label by its name."""
    number = float(numbers[place])
    return labels[int(number)] if labels and 0 <= number < len(labels) else number


def _end(key: Key) -> str:
    return f"@{key[0]}@{key[1]}{SUFFIX}"

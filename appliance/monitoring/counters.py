"""What is counted of each version, in one small file per process and version, so that any process can add them up.

The file is an array of native float64 cells (whole numbers are exact to 2^53), mapped into its single writer. It
outlives its process: a restarted worker counts on, so a sum over all files never goes backwards while the service runs.
"""

import logging
import mmap
import os
from array import array
from pathlib import Path
from typing import TypeAlias

log = logging.getLogger(__name__)

SUCCESSES, CALLER_ERRORS, SERVICE_ERRORS, ROWS, REQUEST_SECONDS, PREPARE_SECONDS, RUN_SECONDS, LAST, RUNS = range(9)
FAILURE_SECONDS = 9
"""The first cells. LAST is the Unix time of the last prediction; of several processes the latest counts. RUNS of the
graph are fewer than SUCCESSES where several requests share one."""

BOUNDS = (
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of the histograms' buckets in seconds: a small graph runs in microseconds, a large one in seconds."""

REQUEST_BUCKETS = 10
"""Cell of the first bucket of the request times; one more bucket than bounds."""
RUN_BUCKETS = REQUEST_BUCKETS + len(BOUNDS) + 1
CELLS = RUN_BUCKETS + len(BOUNDS) + 1
SIZE = 8 * CELLS
"""Bytes of a file."""

Cells: TypeAlias = "array[float] | memoryview[float]"
Key = tuple[str, str]
"""(model, version); both empty for requests that reached no known model."""


def open_cells(folder: Path | None, slot: int, key: Key) -> Cells:
    """Return the cells of `key` that process `slot` writes, with what was counted before.

    Without a folder, or where the file cannot be made, they are plain memory: counting must not stop predictions.
    """
    if folder is None:
        return array("d", bytes(SIZE))
    try:
        return _mapped(folder / _file_name(slot, key))
    except OSError as error:
        log.error("counters are kept in memory only", extra={"folder": str(folder), "error": str(error)})
        return array("d", bytes(SIZE))


def sum_of_all(folder: Path) -> dict[Key, list[float]]:
    """Return {(model, version): cells} added up over the files of every process, living or dead."""
    sums: dict[Key, list[float]] = {}
    for file in sorted(folder.glob("*.counts")):
        content = file.read_bytes()
        if len(content) != SIZE:  # being made right now
            continue
        key = _key(file.name)
        sums[key] = _added(sums[key], memoryview(content).cast("d")) if key in sums else list(array("d", content))
    return sums


def _mapped(path: Path) -> Cells:
    """Return the cells of the file at `path`, made with zeros if absent."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Reserved now: a store into a hole of a full disk would kill the process with SIGBUS.
        os.posix_fallocate(descriptor, 0, SIZE)
        mapping = mmap.mmap(descriptor, SIZE)
    finally:
        os.close(descriptor)
    # A cell is aligned, so a reader in another process sees the old or the new number, never half of one.
    return memoryview(mapping).cast("d")


def _added(cells: list[float], more: Cells) -> list[float]:
    """Return the sum of two processes' cells."""
    added = [one + other for one, other in zip(cells, more, strict=True)]
    added[LAST] = max(cells[LAST], more[LAST])
    return added


def _file_name(slot: int, key: Key) -> str:
    """Return the file of a process and version: neither a model's name nor SemVer has an @."""
    model, version = key
    return f"{slot}@{model}@{version}.counts"


def _key(file_name: str) -> Key:
    """Return the (model, version) of a file."""
    _, model, version = file_name.removesuffix(".counts").split("@")
    return model, version

"""Numbers that processes add to, each in small files of its own, so that any process can sum them up.

A file is an array of native float64 cells (whole numbers are exact to 2^53), mapped into its single writer. It outlives
its process: a restarted worker goes on with it, so a sum over all files never goes backwards while the service runs.
"""

import logging
import mmap
import os
import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from appliance import nofollow
from appliance.errors import StoreError
from appliance.store import durable

log = logging.getLogger(__name__)

Cells: TypeAlias = "array[float] | memoryview[float]"
Key = tuple[str, str]
"""(model, version)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which cells a file has. Neither a model's name nor SemVer has an @, which parts a file's name."""

    suffix: str
    """Of the files' names, as `.counts`: one for each kind of numbers in a folder."""
    size_of: Callable[[Key], int]
    """Cells of a key's files; a file of another size is being made right now, and is passed over."""
    latest: frozenset[int] = frozenset()
    """Cells of which the largest of all processes counts, as a time does, and not the sum."""


class SharedCells:
    """The cells of one process, and the sums over all that share its folder. Safe in any thread.

    Two threads that add to the same cell need a lock of their own.
    """

    def __init__(self, folder: Path | None, slot: int, layout: Layout, *, within: Path | None = None) -> None:
        """`slot` numbers the process: no two living ones may have the same. Without a folder all is plain memory.

        A folder `within` the state folder, below which no link is followed, outlives the service.
        """
        self._folder = folder
        self._within = within
        self._slot = slot
        self._layout = layout
        self._opening = threading.Lock()
        self._cells: dict[Key, Cells] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._cells

    def of(self, key: Key) -> Cells:
        """Return the cells of `key`, opened when first needed, with what was counted before."""
        cells = self._cells.get(key)
        if cells is None:
            with self._opening:
                if key not in self._cells:
                    self._cells[key] = open_cells(self._folder, self._slot, key, self._layout, self._within)
                cells = self._cells[key]
        return cells

    def forget(self, key: Key) -> None:
        """Let go of the cells of `key`, which this process writes no more; what was counted stays in its file."""
        with self._opening:
            self._cells.pop(key, None)

    def sums(self) -> dict[Key, list[float]]:
        """Return {(model, version): cells} of all processes."""
        if self._folder is None:
            with self._opening:
                return {key: list(cells) for key, cells in sorted(self._cells.items())}
        return sum_of_all(self._folder, self._layout, within=self._within)


def open_cells(folder: Path | None, slot: int, key: Key, layout: Layout, within: Path | None = None) -> Cells:
    """Return the cells of `key` that process `slot` writes, with what was counted before.

    Without a folder, or if the file cannot be made, they are plain memory: counting must not stop predictions.
    """
    size = 8 * layout.size_of(key)
    if folder is None:
        return array("d", bytes(size))
    try:
        return _mapped(folder / _file_name(slot, key, layout), size, within)
    except (OSError, StoreError) as error:
        log.error("counters are kept in memory only", extra={"folder": str(folder), "error": str(error)})
        return array("d", bytes(size))


def sum_of_all(folder: Path, layout: Layout, *, within: Path | None = None) -> dict[Key, list[float]]:
    """Return {(model, version): cells} added up over the files of every process, living or dead."""
    sums: dict[Key, list[float]] = {}
    for key, cells in each(folder, layout, within=within):
        sums[key] = _added(sums[key], cells, layout) if key in sums else list(cells)
    return sums


def each(
    folder: Path, layout: Layout, *, within: Path | None = None, only: Key | None = None
) -> Iterator[tuple[Key, Cells]]:
    """Yield ((model, version), cells) of each process's file, of all keys or `only` one; ordered by file name."""
    end = _file_name("", only, layout) if only else layout.suffix
    contents: Iterator[tuple[str, bytes]]
    if within is None:
        contents = ((file.name, file.read_bytes()) for file in sorted(folder.glob(f"*{end}")))
    else:
        contents = _contents(folder, end, within)
    for name, content in contents:
        key = _key(name, layout)
        if len(content) == 8 * layout.size_of(key):  # else it is being made right now
            yield key, memoryview(content).cast("d")


def _contents(folder: Path, end: str, within: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files of a folder that may not be there; what is no plain file is passed over."""
    try:
        names = [name for name in nofollow.entries(folder, within=within) if name.endswith(end)]
    except (OSError, StoreError):
        return
    for name in names:
        try:
            yield name, nofollow.read(folder / name, within=within)
        except (OSError, StoreError) as error:
            log.warning("counters are passed over", extra={"file": str(folder / name), "error": str(error)})


def _mapped(path: Path, size: int, within: Path | None) -> Cells:
    """Return the cells of the file at `path`, made with zeros if absent."""
    if within is not None:
        durable.make_folder(path.parent, within=within)
    descriptor = durable.open_or_make(path, os.O_RDWR, 0o600, within=within)
    try:
        # Reserved now: a store into a hole of a full disk would kill the process with SIGBUS.
        os.posix_fallocate(descriptor, 0, size)
        mapping = mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
    # A cell is aligned, so a reader in another process sees the old or the new number, never half of one.
    return memoryview(mapping).cast("d")


def _added(cells: list[float], more: Cells, layout: Layout) -> list[float]:
    """Return two processes' cells together."""
    added = [one + other for one, other in zip(cells, more, strict=True)]
    for cell in layout.latest:
        added[cell] = max(cells[cell], more[cell])
    return added


def _file_name(slot: int | str, key: Key, layout: Layout) -> str:
    """Return the name of the file of a process and version."""
    model, version = key
    return f"{slot}@{model}@{version}{layout.suffix}"


def _key(file_name: str, layout: Layout) -> Key:
    """Return the (model, version) of a file."""
    _, model, version = file_name.removesuffix(layout.suffix).split("@")
    return model, version

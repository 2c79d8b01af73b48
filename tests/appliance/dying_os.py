"""A system whose power goes at a call that changes the disk; for tests of what such a cut leaves.

What was not fsynced by then is torn (file contents) and, with `lost`, undone (names made, renamed or removed in a
folder): what a disk may do that a mere kill -9 does not show.
"""

# The calls that durable.py makes are stood for one by one.
# ruff: noqa: PTH104, PTH115, PTH202

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DIED = 137


@dataclass
class Change:
    """A change of a folder's names that its fsync has not made last yet."""

    folder: str
    undo: Callable[..., None]
    paths: list[str]


class DyingOs:
    """Stands for `os` in durable.py: counts the calls that change the disk, and dies at one of them.

    fsync only notes what is safe from then on: that a disk does keep it cannot be tested here, and waiting is slow.
    """

    def __init__(self, die_at: int | None = None, *, after: bool = False, lost: bool = False) -> None:
        self.calls: list[str] = []
        self.die_at, self.after, self.lost = die_at, after, lost
        self.synced_size: dict[str, int] = {}
        self.changes: list[Change] = []

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def step(self, call: str, work: Callable[[], object]) -> object:
        self.calls.append(call)
        if len(self.calls) - 1 == self.die_at and not self.after:
            self.cut()
        here = len(self.calls) - 1
        try:
            return work()
        finally:
            if here == self.die_at:
                self.cut()

    def cut(self) -> None:
        for path, size in self.synced_size.items():
            os.truncate(path, size + (os.path.getsize(path) - size) // 2)
        for change in reversed(self.changes) if self.lost else ():
            change.undo(*change.paths)
        os._exit(DIED)

    def open(self, name, flags, mode=0o777, *, dir_fd):
        path = place(name, dir_fd)

        def work() -> int:
            fresh = not os.path.lexists(path)
            descriptor = os.open(name, flags, mode, dir_fd=dir_fd)
            if fresh:
                self.changed(path, os.unlink, path)
            return descriptor

        return self.step("open", work) if flags & os.O_CREAT else work()

    def write(self, descriptor, content):
        def work() -> int:
            path = place("", descriptor)
            self.synced_size.setdefault(path, os.path.getsize(path))
            return os.write(descriptor, content)

        return self.step("write", work)

    def fsync(self, descriptor):
        def work() -> None:
            path = place("", descriptor)
            self.synced_size.pop(path, None)
            for change in [change for change in self.changes if change.folder == path]:
                self.changes.remove(change)
                if change.undo is unrename:
                    self.moved(*change.paths)

        self.step("fsync", work)

    def mkdir(self, name, mode=0o777, *, dir_fd):
        path = place(name, dir_fd)

        def work() -> None:
            os.mkdir(name, mode, dir_fd=dir_fd)
            self.changed(path, shutil.rmtree, path)

        self.step("mkdir", work)

    def rename(self, old_name, new_name, *, src_dir_fd, dst_dir_fd):
        source, target = place(old_name, src_dir_fd), place(new_name, dst_dir_fd)

        def work() -> None:
            old = Path(target).read_bytes() if Path(target).is_file() else None
            os.rename(old_name, new_name, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            if old is not None:
                self.changed(target, lambda path: Path(path).write_bytes(old), target)
            self.changed(target, unrename, source, target)
            for path in [path for path in self.synced_size if inside(path, source)]:
                self.synced_size[str(target) + path[len(str(source)) :]] = self.synced_size.pop(path)

        self.step("rename", work)

    replace = rename

    def unlink(self, name, *, dir_fd):
        path = place(name, dir_fd)

        def work() -> None:
            old = Path(path).read_bytes()
            os.unlink(name, dir_fd=dir_fd)
            self.changed(path, lambda path: Path(path).write_bytes(old), path)

        self.step("unlink", work)

    def rmdir(self, name, *, dir_fd):
        path = place(name, dir_fd)

        def work() -> None:
            os.rmdir(name, dir_fd=dir_fd)
            self.changed(path, os.mkdir, path)

        self.step("rmdir", work)

    def changed(self, path, undo, *paths) -> None:
        self.changes.append(Change(str(Path(path).parent), undo, [str(path) for path in paths]))

    def moved(self, source: str, target: str) -> None:
        """Follow a rename that will not be undone any more."""
        for change in self.changes:
            change.folder, *change.paths = (
                target + path[len(source) :] if inside(path, source) else path
                for path in (change.folder, *change.paths)
            )


def place(name: str, descriptor: int) -> str:
    """Return the path of a name in an open folder; of the open file itself for ""."""
    return str(Path(os.readlink(f"/proc/self/fd/{descriptor}")) / name)


def unrename(source: str, target: str) -> None:
    os.rename(target, source)


def inside(path: object, folder: object) -> bool:
    return Path(path).is_relative_to(folder)

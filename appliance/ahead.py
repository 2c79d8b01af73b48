"""Files that were opened before this process gave up the right to open them.

Root's commands become the owner of the state folder before they touch it; the bundle, the keys and the tokens that they
were told to use may be root's alone.
"""

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from io import BufferedReader
from pathlib import Path

_kept: dict[Path, int] = {}


def keep(paths: Iterable[Path]) -> None:
    """Open the regular files among `paths`, for open_file() to give later, whoever this process is then."""
    for path in paths:
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                _kept[path] = descriptor
            else:
                os.close(descriptor)


def is_file(path: Path) -> bool:
    """Return whether a regular file is at `path`, be it one that was kept."""
    return path in _kept or os.path.isfile(path)  # noqa: PTH113 - pathlib raises where the way is closed


def open_file(path: Path) -> BufferedReader:
    """Return the file at `path` to read; the one that was kept where it may not be opened any more. Raises OSError.

    A FIFO or a device is refused: nobody may ever write to it, and a service would wait forever. What the caller's
    shell opened (`<(...)`, /dev/stdin) is taken.
    """
    if path == Path("/dev/stdin") or path.parent == Path("/dev/fd"):
        return path.open("rb")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except PermissionError:
        if path not in _kept:
            raise
        file = os.fdopen(os.dup(_kept[path]), "rb")
        file.seek(0)  # for one reader at a time
        return file
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read(path: Path) -> bytes:
    """Return what the file at `path` holds. Raises OSError."""
    with open_file(path) as file:
        return file.read()

"""Opens what lies in a folder that others may write to, following no link below it.

The folder itself may be reached through links: an operator chose its path. What lies below belongs to the service's
user, who may plant anything there while a more privileged program looks. So every level is opened by openat(2) with
O_NOFOLLOW, relative to the level above, and judged by its descriptor, not by its name: nothing can be swapped between
the look and the use. Refused with a StoreError are links, what is neither a file nor a folder (a FIFO would block), a
file with a second name that is another user's, and for root what a third user put there.
"""

# pathlib follows links and hides the system calls.
# ruff: noqa: PTH208

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.errors import StoreError

_HOW_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO, or a device, returns at once. It has no meaning for a file.
_HOW_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_held: dict[Path, int] = {}


def hold(base: Path) -> int:
    """Open a folder whose links are followed, and take this very one as `base` from now on; return its descriptor.

    For a process that gives up rights: what it looked at before stays what it uses, and it needs no way to it later.
    """
    if base not in _held:
        _held[base] = os.open(base, _HOW_FOLDER)
    return _held[base]


def is_folder(base: Path) -> bool:
    """Return whether there is a folder at `base`, be it behind a link or one that was held."""
    return base in _held or base.is_dir()


@contextmanager
def folder(path: Path, *, within: Path) -> Iterator[int]:
    """Give the descriptor of the folder `path`, which is `within` or lies below it. Raises OSError, StoreError."""
    descriptor = _open_folder(path, within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(path: Path, flags: int = os.O_RDONLY, *, within: Path) -> int:
    """Return a descriptor of the file `path` below `within`; it must exist. Raises OSError, StoreError."""
    with folder(path.parent, within=within) as above:
        return open_in(above, path, flags)


def open_in(above: int, path: Path, flags: int = os.O_RDONLY) -> int:
    """Return a descriptor of the file `path` in the folder `above`; it must exist. Raises OSError, StoreError."""
    owner = os.fstat(above).st_uid
    truncate = flags & os.O_TRUNC  # only what was judged
    _check(_status(above, path), owner, path)  # before a device is touched
    try:
        descriptor = os.open(path.name, flags & ~os.O_TRUNC | _HOW_FILE, dir_fd=above)
    except OSError as error:
        raise _explained(error, path) from error
    try:
        _check(os.fstat(descriptor), owner, path)
        if truncate:
            os.ftruncate(descriptor, 0)
    except (OSError, StoreError):
        os.close(descriptor)
        raise
    return descriptor


def open_folder_in(above: int, path: Path) -> int:
    """Return a descriptor of the folder `path` in the folder `above`; it must exist. Raises OSError, StoreError."""
    try:
        descriptor = os.open(path.name, _HOW_FOLDER | os.O_NOFOLLOW, dir_fd=above)
    except NotADirectoryError as error:
        if stat.S_ISLNK(_status(above, path).st_mode):
            raise _link(path) from error
        raise _explained(error, path) from error
    except OSError as error:
        raise _explained(error, path) from error
    try:
        _check_owner(os.fstat(descriptor), os.fstat(above).st_uid, path)
    except StoreError:
        os.close(descriptor)
        raise
    return descriptor


def read(path: Path, *, within: Path) -> bytes:
    """Return what the file `path` below `within` holds. Raises OSError, StoreError."""
    with os.fdopen(open_file(path, within=within), "rb") as file:
        return file.read()


def status(path: Path, *, within: Path) -> os.stat_result:
    """Return the status of the file or folder `path` below `within`, never of what a link leads to.

    Raises OSError, StoreError.
    """
    with folder(path.parent, within=within) as above:
        found = _status(above, path)
        _check(found, os.fstat(above).st_uid, path)
        return found


def entries(path: Path, *, within: Path) -> dict[str, os.stat_result]:
    """Return {name: its own status} of what lies in the folder `path`, links too. Raises OSError, StoreError."""
    with folder(path, within=within) as descriptor:
        return {
            name: os.stat(name, dir_fd=descriptor, follow_symlinks=False) for name in sorted(os.listdir(descriptor))
        }


def check(found: os.stat_result, path: Path) -> None:
    """Raise StoreError unless what was found at `path` is a file or a folder."""
    _check(found, found.st_uid, path)


def _open_folder(path: Path, within: Path) -> int:
    """Return a descriptor of the folder `path`, each level below `within` opened in the one above."""
    descriptor = os.dup(_held[within]) if within in _held else os.open(within, _HOW_FOLDER)
    place = within
    try:
        for part in path.relative_to(within).parts:
            place /= part
            above, descriptor = descriptor, open_folder_in(descriptor, place)
            os.close(above)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _status(above: int, path: Path) -> os.stat_result:
    """Return the own status of `path`, which is in the folder `above`."""
    try:
        return os.stat(path.name, dir_fd=above, follow_symlinks=False)
    except OSError as error:
        raise _explained(error, path) from error


def _check(found: os.stat_result, owner: int, path: Path) -> None:
    """Raise StoreError unless `found` is a plain file, or a folder, of the folder around it, whose owner is `owner`."""
    if stat.S_ISLNK(found.st_mode):
        raise _link(path)
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise _refused(path, "it is neither a file nor a folder", f"delete it: rm {path}")
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1 and found.st_uid != owner:
        raise _refused(path, f"it is a hard link to a file of user {found.st_uid}", f"delete it: rm {path}")
    _check_owner(found, owner, path)


def _check_owner(found: os.stat_result, owner: int, path: Path) -> None:
    """Raise StoreError when root meets what neither root nor the owner of the folder around it made."""
    if os.geteuid() == 0 and found.st_uid not in (0, owner):
        whose = f"it belongs to user {found.st_uid}, the folder that holds it to user {owner}"
        raise _refused(path, whose, f"chown it to {owner} if it is right, else delete it")


def _explained(error: OSError, path: Path) -> OSError | StoreError:
    """Return what to raise for an OSError of openat(2), with the whole path in it."""
    if error.errno == errno.ELOOP:  # O_NOFOLLOW met a link
        return _link(path)
    return type(error)(error.errno, error.strerror, str(path))


def _link(path: Path) -> StoreError:
    return _refused(path, "it is a link, and none is followed in the state folder", f"delete it: rm {path}")


def _refused(path: Path, found: str, next_step: str) -> StoreError:
    return StoreError(f"open {path}", found, next_step)

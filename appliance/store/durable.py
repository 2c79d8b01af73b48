"""Changes to files and folders that a power cut leaves either undone or done.

Every system call that changes the disk is made here and through `os`, so that a test can cut the power at each.
The order is SaveFile's of BorgBackup: write beside the target, fsync the file, rename, fsync the folder. Names that
begin with a dot are unfinished work: readers pass over them, and the store's sweep takes them away.

`within` is the folder below which no link is followed, the state folder; by default the one that holds the path. What
is made gets its mode whatever the umask is; nothing that was there before is given another owner or mode.
"""

# pathlib would hide the system calls, and with them the places where the power can go.
# ruff: noqa: PTH208

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from appliance import nofollow
from appliance.errors import ApplianceError, StoreError

FOLDER_MODE = 0o750
FILE_MODE = 0o640
Pieces = Iterable[bytes]
_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def reported(tried: str) -> Iterator[None]:
    """Turn an OSError within into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise StoreError(tried, f"{error.strerror or error}{place}", _advice(error)) from error


def write_atomically(path: Path, content: bytes, *, within: Path | None = None, mode: int = FILE_MODE) -> None:
    """Make `path` hold `content`; at any moment it holds either all of the old or all of the new."""
    write_pieces(path, (content,), within=within, mode=mode)


def write_pieces(path: Path, pieces: Pieces, *, within: Path | None = None, mode: int = FILE_MODE) -> None:
    """Make `path` hold `pieces` one behind the other, as write_atomically() does."""
    temporary = beside(path, "partial")
    with _around(path, within) as above:
        try:
            _write_new(above, temporary.name, pieces, mode)
            os.replace(temporary.name, path.name, src_dir_fd=above, dst_dir_fd=above)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary.name, dir_fd=above)
            raise
        os.fsync(above)


def make_folder(path: Path, *, within: Path | None = None) -> None:
    """Make `path` and the folders above it where absent, and make their names last.

    The folders below `within` are fsynced even where they are there: whoever made them may have been cut off before.
    """
    if path == within or (within is None and nofollow.is_folder(path)):
        return
    make_folder(path.parent, within=within)
    with _around(path, within) as above:
        _make_folder(above, path)
        os.fsync(above)


def publish_folder(path: Path, contents: Mapping[str, bytes | Pieces], *, within: Path | None = None) -> None:
    """Make the folder `path` with `contents` ({file name: bytes, or pieces of them}) appear whole; it must not exist.

    Pieces may raise at their end, as those of a bundle that changed meanwhile: then there is no folder.
    """
    partial = beside(path, "partial")
    with _around(path, within) as above:
        try:
            os.mkdir(partial.name, FOLDER_MODE, dir_fd=above)
            with _opened(above, partial) as folder:
                _adopt_folder(folder, above)
                for name, content in contents.items():
                    _write_new(folder, name, content)
                os.fsync(folder)
            os.rename(partial.name, path.name, src_dir_fd=above, dst_dir_fd=above)
        except (OSError, ApplianceError):
            with suppress(OSError):
                _delete(above, partial)
            raise
        os.fsync(above)


def move(source: Path, target: Path, *, within: Path) -> None:
    """Rename a file or folder; both are below `within`. At any moment it has one of the two names."""
    with _around(source, within) as old, _around(target, within) as new:
        os.rename(source.name, target.name, src_dir_fd=old, dst_dir_fd=new)
        os.fsync(new)
        os.fsync(old)


def sync_folder(path: Path) -> None:
    """Make the names in the folder `path` last."""
    with nofollow.folder(path, within=path) as descriptor:
        os.fsync(descriptor)


def remove_folder(path: Path, *, within: Path | None = None) -> None:
    """Remove the folder `path` in one step, then delete its content."""
    doomed = beside(path, "removed")
    with _around(path, within) as above:
        os.rename(path.name, doomed.name, src_dir_fd=above, dst_dir_fd=above)
        os.fsync(above)
        _delete(above, doomed)


def delete(path: Path, *, within: Path | None = None) -> None:
    """Delete a file or a folder with all it holds; following no link. Not atomic: for unfinished work alone."""
    with _around(path, within) as above:
        _delete(above, path)


def delete_file(path: Path, *, within: Path | None = None) -> None:
    """Delete a file durably: at any moment it is whole or absent. Raises OSError, StoreError."""
    with _around(path, within) as above:
        os.unlink(path.name, dir_fd=above)
        os.fsync(above)


def append_line(path: Path, line: bytes, *, within: Path | None = None) -> None:
    """Append `line` and its newline to `path`; a line that a power cut tore before stays a line of its own."""
    with _around(path, within) as above:
        descriptor = _open_or_make(above, path, os.O_RDWR | os.O_APPEND)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            _write_all(descriptor, (b"\n" if torn else b"") + line + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not size:
            os.fsync(above)


def overwrite(path: Path, parts: Mapping[int, bytes], *, within: Path | None = None) -> None:
    """Write `parts` ({place: bytes}) into the file `path`, which exists. Neither atomic nor synced: for statistics."""
    with _around(path, within) as above:
        descriptor = nofollow.open_in(above, path, os.O_WRONLY)
        try:
            for place, part in parts.items():
                os.pwrite(descriptor, part, place)
        finally:
            os.close(descriptor)


@contextmanager
def locked(path: Path, seconds: float, *, within: Path | None = None) -> Iterator[bool]:
    """Hold the lock of the file `path` within (flock(2)); gives False when another held it for `seconds` seconds.

    The system lets go of it when the process ends, however it ends.
    """
    descriptor = open_or_make(path, os.O_RDONLY, within=within)
    try:
        yield _lock(descriptor, seconds)
    finally:
        os.close(descriptor)


def try_lock(path: Path, *, within: Path | None = None) -> int | None:
    """Return the descriptor that holds the lock of the file `path` until it is closed, None where another has it."""
    descriptor = open_or_make(path, os.O_RDONLY, within=within)
    if _lock(descriptor, 0.0):
        return descriptor
    os.close(descriptor)
    return None


def open_or_make(path: Path, flags: int, mode: int = FILE_MODE, *, within: Path | None = None) -> int:
    """Return a descriptor of the file `path`, made with `mode` where it is absent; the name is not fsynced."""
    with _around(path, within) as above:
        return _open_or_make(above, path, flags, mode)


def beside(path: Path, kind: str) -> Path:
    """Return a fresh hidden name in the folder of `path`: on the same file system, so that renaming is atomic."""
    return path.parent / f".{path.name}.{kind}-{secrets.token_hex(4)}"


def _around(path: Path, within: Path | None) -> AbstractContextManager[int]:
    """Give the descriptor of the folder that holds `path`: no link is followed to it below `within`, nor in it."""
    return nofollow.folder(path.parent, within=within or path.parent)


@contextmanager
def _opened(above: int, path: Path) -> Iterator[int]:
    """Give the descriptor of the folder `path` in the folder `above`."""
    descriptor = nofollow.open_folder_in(above, path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_or_make(above: int, path: Path, flags: int, mode: int = FILE_MODE) -> int:
    """Return a descriptor of the file `path` in the folder `above`; it is made where absent."""
    try:
        descriptor = os.open(path.name, flags | _NEW_FILE, mode, dir_fd=above)
    except FileExistsError:
        return nofollow.open_in(above, path, flags)
    _adopt(descriptor, above, mode)
    return descriptor


def _write_new(above: int, name: str, content: bytes | Pieces, mode: int = FILE_MODE) -> None:
    """Write a file that must not exist yet, and fsync it; its name is not fsynced yet."""
    descriptor = os.open(name, os.O_WRONLY | _NEW_FILE, mode, dir_fd=above)
    try:
        for piece in (content,) if isinstance(content, bytes) else content:
            _write_all(descriptor, piece)
        _adopt(descriptor, above, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(above: int, path: Path) -> None:
    """Make the folder `path` in the folder `above` where it is absent, and fsync it."""
    try:
        os.mkdir(path.name, FOLDER_MODE, dir_fd=above)
        made = True
    except FileExistsError:
        made = False
    with _opened(above, path) as folder:
        if made:
            _adopt_folder(folder, above)
        os.fsync(folder)


def _delete(above: int, path: Path) -> None:
    """Delete what is at `path` in the folder `above`."""
    if not stat.S_ISDIR(os.stat(path.name, dir_fd=above, follow_symlinks=False).st_mode):
        os.unlink(path.name, dir_fd=above)
        return
    with _opened(above, path) as folder:
        for name in sorted(os.listdir(folder)):
            _delete(folder, path / name)
    os.rmdir(path.name, dir_fd=above)


def _write_all(descriptor: int, content: bytes) -> None:
    """Write all of `content`: one write call may take less."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _adopt_folder(descriptor: int, above: int) -> None:
    """Give a folder that was made just now to the owner of the folder around it.

    mkdir(2) returns no descriptor: another one may stand in its place by now. Nothing of anybody is given away with an
    empty folder of our own.
    """
    if os.fstat(descriptor).st_uid == os.geteuid() and not os.listdir(descriptor):
        _adopt(descriptor, above, FOLDER_MODE)


def _adopt(descriptor: int, above: int, mode: int) -> None:
    """Give what was made just now the rights that a umask took from its owner; and what root made, that owner."""
    if mode & 0o700 & ~os.fstat(descriptor).st_mode:
        os.fchmod(descriptor, mode)
    if os.geteuid() == 0:
        owner = os.fstat(above)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _lock(descriptor: int, seconds: float) -> bool:
    """Return whether the lock was had within `seconds` seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)
        else:
            return True


def _advice(error: OSError) -> str:
    """Return the next step after an OSError of the state folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some disk space and repeat the command"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "run the command as the owner of the state folder"
    if error.errno == errno.EROFS:
        return "mount the state folder writable, or name another by --state-dir"
    return "see: appliance doctor"

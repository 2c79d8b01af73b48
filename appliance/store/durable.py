"""Changes to files and folders that a power cut leaves either undone or done.

Every system call that changes the disk is made here and through `os`, so that a test can cut the power at each.
The order is SaveFile's of BorgBackup: write beside the target, fsync the file, rename, fsync the folder. Names that
begin with a dot are unfinished work: readers pass over them, and the store's sweep takes them away.
"""

# pathlib would hide the system calls, and with them the places where the power can go.
# ruff: noqa: PTH102, PTH104, PTH105, PTH106, PTH108, PTH116

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from appliance.errors import StoreError

FOLDER_MODE = 0o750
FILE_MODE = 0o640


@contextmanager
def reported(tried: str) -> Iterator[None]:
    """Turn an OSError within into a StoreError that says what to do about it."""
    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise StoreError(tried, f"{error.strerror or error}{place}", _advice(error)) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Make `path` hold `content`; at any moment it holds either all of the old or all of the new."""
    temporary = beside(path, "partial")
    try:
        _write_new(temporary, content)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _fsync_folder(path.parent)


def make_folder(path: Path, *, within: Path | None = None) -> None:
    """Make `path` and the folders above it where absent, and make their names last.

    The folders below `within` are fsynced even where they are there: whoever made them may have been cut off before.
    """
    if path == within or (within is None and path.is_dir()):
        return
    make_folder(path.parent, within=within)
    with suppress(FileExistsError):
        os.mkdir(path, FOLDER_MODE)
    _adopt(path)
    _fsync_folder(path)
    _fsync_folder(path.parent)


def publish_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Make the folder `path` with `contents` ({file name: bytes}) appear whole; it must not exist yet."""
    partial = beside(path, "partial")
    try:
        os.mkdir(partial, FOLDER_MODE)
        _adopt(partial)
        for name, content in contents.items():
            _write_new(partial / name, content)
        _fsync_folder(partial)
        os.rename(partial, path)
    except OSError:
        with suppress(OSError):
            delete(partial)
        raise
    _fsync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Make the folder `path` disappear whole, then delete what it held."""
    doomed = beside(path, "removed")
    os.rename(path, doomed)
    _fsync_folder(path.parent)
    delete(doomed)


def delete(path: Path) -> None:
    """Delete a file or a folder with all it holds; following no link. Not atomic: for unfinished work alone."""
    if not stat.S_ISDIR(path.lstat().st_mode):
        os.unlink(path)
        return
    for entry in sorted(path.iterdir()):
        delete(entry)
    os.rmdir(path)


def append_line(path: Path, line: bytes) -> None:
    """Append `line` and its newline to `path`; a line that a power cut tore before stays a line of its own."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        _write_all(descriptor, (b"\n" if torn else b"") + line + b"\n")
        _adopt(path, descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if not size:
        _fsync_folder(path.parent)


@contextmanager
def locked(path: Path, seconds: float) -> Iterator[bool]:
    """Hold the lock of the file `path` within (flock(2)); gives False when another held it for `seconds` seconds.

    The system lets go of it when the process ends, however it ends.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        _adopt(path, descriptor)
        yield _lock(descriptor, seconds)
    finally:
        os.close(descriptor)


def beside(path: Path, kind: str) -> Path:
    """Return a fresh hidden name in the folder of `path`: on the same file system, so that renaming is atomic."""
    return path.parent / f".{path.name}.{kind}-{secrets.token_hex(4)}"


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that must not exist yet, and fsync it; its name is not fsynced yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        _write_all(descriptor, content)
        _adopt(path, descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    """Write all of `content`: one write call may take less."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _fsync_folder(path: Path) -> None:
    """Make the names in a folder last (fsync(2): fsyncing a file does not do that)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _adopt(path: Path, descriptor: int | None = None) -> None:
    """Give what root made to the owner of the folder around it: the service that reads it is not root."""
    if os.geteuid() == 0:
        owner = os.stat(path.parent)
        os.chown(path if descriptor is None else descriptor, owner.st_uid, owner.st_gid)


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

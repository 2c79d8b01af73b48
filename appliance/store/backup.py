"""A backup: the state folder as one tar file, consistent while a service uses it.

    backup.json     format, program, when; the first member
    state/PATH      every file of the state folder
    digests.json    size and SHA-256 of every file; the last member, so that a file without it is not whole

Order: first what services write without the store's lock (drift, log, MQTT; what is appended to is cut at its size, as
a power cut might; an SQLite file is copied by SQLite's own backup, with what its WAL holds), then models, marks and
receipts under the lock. So the receipts tell of everything else, and no activation names a version that is missing.

Left out is what only the moment means: names that begin with a dot, locks, service.json.
"""

import contextlib
import hashlib
import io
import os
import sqlite3
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

import msgspec

from appliance import __version__, nofollow
from appliance.errors import StoreError
from appliance.store import durable, receipts
from appliance.store.versions import Store

FORMAT = 1
"""The format that is written, and the newest one that is read."""
HEAD, FOLDER, TAIL = "backup.json", "state", "digests.json"
LOCKED = ("models", "marks", "receipts")
"""What changes under the store's lock alone; receipts last."""
LEFT_OUT = ("service.json", "lost+found")
_LOCK_FILE = "lock"
_SQLITE = b"SQLite format 3\0"
_BESIDE_SQLITE = ("-wal", "-shm", "-journal")
_CHUNK = 1024 * 1024


class Head(msgspec.Struct):
    """What backup.json says."""

    format: int
    program: str
    """The version of the appliance that wrote it."""
    when: str


class Kept(msgspec.Struct):
    """One file in digests.json."""

    size: int
    sha256: str


class Made(msgspec.Struct, frozen=True):
    """What a backup holds: how many files, and their bytes."""

    files: int
    bytes: int


def write(store: Store, out: IO[bytes]) -> Made:
    """Write a backup of the state folder to `out`, which need not be seekable.

    Raises StoreError: there is no state folder, a link or a device is in it, the disk is full, a file was cut short
    while it was copied.
    """
    tried = f"back up {store.state_dir}"
    with durable.reported(tried):
        top = [name for name in nofollow.entries(store.state_dir, within=store.state_dir) if name not in LEFT_OUT]
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            writer = _Writer(tried, store.state_dir, archive)
            writer.document(HEAD, Head(FORMAT, __version__, receipts.now()))
            for name in sorted(set(top) - set(LOCKED)):
                writer.add(store.state_dir / name)
            with store.writing(tried):
                for name in LOCKED:
                    writer.add(store.state_dir / name)
            writer.document(TAIL, writer.kept)
        return Made(len(writer.kept), sum(one.size for one in writer.kept.values()))


class _Writer:
    """Adds files to the archive and notes their digests."""

    def __init__(self, tried: str, state_dir: Path, archive: tarfile.TarFile) -> None:
        self._tried, self._state_dir, self._archive = tried, state_dir, archive
        self.kept: dict[str, Kept] = {}

    def document(self, name: str, document: object) -> None:
        """Add a JSON document."""
        content = msgspec.json.encode(document)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), 0o600
        self._archive.addfile(entry, io.BytesIO(content))

    def add(self, path: Path) -> None:
        """Add a file, or all that a folder holds; what vanishes meanwhile is passed over."""
        with contextlib.suppress(FileNotFoundError):
            if _is_folder(path, self._state_dir):
                for one in self._inside(path):
                    self.add(one)
            elif path.name[0] != "." and path.name != _LOCK_FILE:
                self._add_file(path)

    def _inside(self, folder: Path) -> Iterator[Path]:
        """Yield what lies in a folder, but unfinished work and what belongs to an SQLite file there."""
        names = nofollow.entries(folder, within=self._state_dir)
        for name in names:
            beside = any(name.endswith(end) and name.removesuffix(end) in names for end in _BESIDE_SQLITE)
            if name[0] != "." and not beside:
                yield folder / name

    def _add_file(self, path: Path) -> None:
        with os.fdopen(nofollow.open_file(path, within=self._state_dir), "rb") as file:
            if os.pread(file.fileno(), len(_SQLITE), 0) != _SQLITE:
                self._copy(path, file)
                return
        with _snapshot(path, self._state_dir) as file:
            self._copy(path, file)

    def _copy(self, path: Path, file: IO[bytes]) -> None:
        """Add `file` as `path`, at the size that it has now: others may append to it."""
        found = os.fstat(file.fileno())
        name = path.relative_to(self._state_dir).as_posix()
        entry = tarfile.TarInfo(f"{FOLDER}/{name}")
        entry.size, entry.mode, entry.mtime = found.st_size, found.st_mode & 0o770, int(found.st_mtime)
        counted = _Digested(file)
        try:
            self._archive.addfile(entry, counted)
        except OSError as error:
            if counted.read_bytes < found.st_size and not error.errno:  # tarfile found an early end
                raise StoreError(self._tried, f"{path} was cut short while it was copied", "repeat it") from error
            raise
        self.kept[name] = Kept(found.st_size, counted.sha256.hexdigest())


class _Digested(io.RawIOBase):
    """A file whose bytes are digested as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes."""
        content = self._file.read(size)
        self.sha256.update(content)
        self.read_bytes += len(content)
        return content


def _is_folder(path: Path, state_dir: Path) -> bool:
    with nofollow.folder(path.parent, within=state_dir) as above:
        found = os.stat(path.name, dir_fd=above, follow_symlinks=False)
    nofollow.check(found, path)
    return stat.S_ISDIR(found.st_mode)


@contextlib.contextmanager
def _snapshot(path: Path, state_dir: Path) -> Iterator[IO[bytes]]:
    """Give a copy of an SQLite file as of one moment, made by SQLite while others may write. Raises StoreError."""
    for end in _BESIDE_SQLITE:  # SQLite opens them by name, and a link may stand there
        with contextlib.suppress(FileNotFoundError):
            os.close(nofollow.open_file(path.with_name(path.name + end), within=state_dir))
    with tempfile.TemporaryDirectory(prefix="appliance-backup-") as folder:
        copy = Path(folder) / path.name
        try:
            with (
                contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=30)) as source,
                contextlib.closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
                target.execute("pragma journal_mode = delete")
        except sqlite3.Error as error:
            raise StoreError(f"back up {path}", f"SQLite says: {error}", "see: appliance doctor") from error
        with copy.open("rb") as file:
            yield file

"""Where scored blocks go: a partial file beside the output, which becomes the output at the end and never before.

See checkpoint.py for what is on disk when. One run writes at a time: the partial is locked (flock(2)).
"""

import fcntl
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from appliance.batch.checkpoint import Written
from appliance.errors import StoreError
from appliance.store import durable

_READ = 1024 * 1024
_MODE = 0o644


class _Digested:
    """An open file whose bytes are counted, and their SHA-256 kept, as they are written."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._digest: Any = hashlib.sha256()
        self.size = 0

    def append(self, data: bytes | memoryview) -> None:
        """Write behind what is there. Raises OSError."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._digest.update(data)
        self.size += len(data)

    @property
    def written(self) -> Written:
        """What is written so far."""
        return Written(self.size, self._digest.hexdigest())


class FileSink(_Digested):
    """One file that is appended to."""

    def __init__(self, path: Path, written: Written | None = None) -> None:
        """Open an empty partial of `path`, or cut the existing one to what was `written` before.

        Raises StoreError, OSError.
        """
        self.path = path
        self.partial = path.with_name(f"{path.name}.partial")
        super().__init__(durable.open_or_make(self.partial, os.O_RDWR, _MODE))
        try:
            self._lock()
            self.size = written.bytes if written else 0
            self._verify(written or Written())
            os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
        except BaseException:
            os.close(self._descriptor)
            raise

    def sync(self) -> None:
        """Have what is written on disk. Raises OSError."""
        os.fdatasync(self._descriptor)

    def publish(self) -> Written:
        """Give the complete file its own name, on disk; return its size and digest. Raises OSError."""
        os.fsync(self._descriptor)
        self.partial.replace(self.path)
        durable.sync_folder(self.path.parent)
        return self.written

    def cut(self, size: int) -> None:
        """Leave out what is behind the first `size` bytes; nothing is appended after that. Raises OSError."""
        os.ftruncate(self._descriptor, size)

    def discard(self) -> None:
        """Delete the partial."""
        self.partial.unlink(missing_ok=True)

    def close(self) -> None:
        """Close it; the partial stays."""
        os.close(self._descriptor)

    def _lock(self) -> None:
        """Keep other runs away; the system lets go when the process ends."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            found = f"another run is writing {self.partial}"
            raise StoreError(f"write {self.path}", found, "let it end, or name another output") from error
        # A run that ended between our open and our lock has given the file its own name: this is no partial any more.
        try:
            same = os.path.samestat(os.fstat(self._descriptor), self.partial.stat())
        except FileNotFoundError:
            same = False
        if not same:
            raise StoreError(f"write {self.path}", "another run has just written it", "repeat the command")

    def _verify(self, written: Written) -> None:
        """Read what was written before. Raises StoreError where it is not what the checkpoint says."""
        left = written.bytes
        while left and (data := os.read(self._descriptor, min(_READ, left))):
            self._digest.update(data)
            left -= len(data)
        if left or (written.sha256 and self._digest.hexdigest() != written.sha256):
            found = f"{self.partial} is not what the checkpoint says"
            raise StoreError(f"go on with {self.path}", found, "start again with --no-resume")


class PipeSink(_Digested):
    """Standard output, or a FIFO: what is written is gone."""

    def __init__(self, path: Path | None = None) -> None:
        super().__init__(os.dup(sys.stdout.fileno()) if path is None else os.open(path, os.O_WRONLY))

    def sync(self) -> None:
        """Do nothing: a pipe is no disk."""

    def publish(self) -> Written:
        """Return what was written; a pipe needs no sync."""
        return self.written

    def discard(self) -> None:
        """Do nothing: written bytes cannot be taken back."""

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

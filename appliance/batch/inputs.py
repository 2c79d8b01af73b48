"""The files that are scored: found, opened, and checked for changes meanwhile.

A file is read as it was when the run began. A file that grows or is replaced meanwhile ends the run: nobody could tell
later to which rows the answers belong.
"""

import gzip
import hashlib
import os
import secrets
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from appliance import ahead
from appliance.batch.blocks import BOM, LONGEST_RECORD
from appliance.batch.formats import Format, format_of, needs_pyarrow, of_name
from appliance.errors import InvalidInput, Misuse, NotFound, Unfinished

STDIN = "-"
_FIRST = 65536  # bytes in which a header is looked for
_ENDS = 1024 * 1024  # bytes at the begin and at the end of a file that stand for it


class Source(msgspec.Struct, frozen=True):
    """One input file."""

    name: str
    """As it was said; `-` is standard input."""
    format: Format


class Mark(msgspec.Struct, frozen=True):
    """The identity of a file; `id` is the same for every copy of it."""

    size: int
    mtime_ns: int
    id: str
    """SHA-256 over the size and the first and last MiB."""


def sources(names: Sequence[str], said: str = "") -> list[Source]:
    """Return the input files; a folder stands for its files of known formats, by name.

    Raises NotFound for what is absent, Misuse for a folder without such files or a file of an unknown format.
    """
    if STDIN in names and len(names) > 1:
        raise Misuse("score -", "standard input stands beside other files", "score it alone")
    found: list[Source] = []
    for name in names:
        if is_remote(name):
            found += _remote_sources(name, said)
        elif name != STDIN and Path(name).is_dir():
            inside = sorted(path for path in Path(name).iterdir() if path.is_file() and _is_table(path))
            if not inside:
                raise Misuse(f"score {name}", "the folder holds no file of a known format", "name the files")
            found += [Source(str(path), format_of(path.name)) for path in inside]
        elif name != STDIN and not Path(name).exists() and not ahead.is_file(Path(name)):
            raise NotFound(f"score {name}", "there is no such file", "check the path")
        else:
            found.append(Source(name, format_of(name, said)))
    return found


class OpenSource:
    """A source that is open; its mark was taken when it was opened."""

    def __init__(self, source: Source) -> None:
        """Raises Misuse where it cannot be read."""
        self.source = source
        self.is_remote = is_remote(source.name)
        self.raw: Any = _opened(source.name)
        self.is_pipe = not self.is_remote and not stat.S_ISREG(os.fstat(self.raw.fileno()).st_mode)
        """Whether it can be read but once."""
        size, mtime_ns = self._status()
        self.mark = Mark(size, mtime_ns, secrets.token_hex(32) if self.is_pipe else _id_of(self.raw, size))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn what goes wrong in reading into InvalidInput or Unfinished."""
        tried = f"read {self.source.name}"
        try:
            yield
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InvalidInput(tried, f"it is no whole gzip file ({error})", "copy it again") from error
        except OSError as error:
            raise Unfinished(tried, error.strerror or str(error), "repeat the command: it goes on there") from error

    def check_unchanged(self) -> None:
        """Raise InvalidInput where the file is no longer what it was when it was opened."""
        if not self.is_pipe and self._status() != (self.mark.size, self.mark.mtime_ns):
            found = "it was written to while it was read"
            raise InvalidInput(f"score {self.source.name}", found, "score it once it is whole, or a copy of it")

    def sha256(self) -> str | None:
        """Return the digest of the whole file, None of a pipe, and of an object: that would be read once more."""
        if self.is_pipe or self.is_remote:
            return None
        self.raw.seek(0)
        return hashlib.file_digest(self.raw, "sha256").hexdigest()

    def close(self) -> None:
        """Close it."""
        self.raw.close()

    def _status(self) -> tuple[int, int]:
        """Return (size, mtime in ns) as they are now."""
        if self.is_remote:
            found: tuple[int, int] | None = self.raw.status()
            return found or (0, 0)
        status = os.fstat(self.raw.fileno())
        return status.st_size, status.st_mtime_ns


class Text:
    """The text of an open source from some offset on: decompressed, without a byte order mark."""

    def __init__(self, opened: OpenSource, offset: int = 0) -> None:
        """`offset` is in bytes of the decompressed text, its byte order mark counted. Raises InvalidInput."""
        self._opened = opened
        raw: Any = opened.raw
        if not opened.is_pipe:
            raw.seek(0)
            raw = _Limited(raw, opened.mark.size)
        self._file: Any = gzip.GzipFile(fileobj=raw) if opened.source.format.gzip else raw
        self._ahead = b""
        self.offset = offset
        """Where what read() gives next begins."""
        if offset:
            with opened.reading():
                self._file.seek(offset)
        else:
            begin = self.read(len(BOM))
            if begin != BOM:
                self._ahead, self.offset = begin, 0

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer only at the end."""
        parts = [self._ahead[:size]]
        self._ahead = self._ahead[size:]
        left = size - len(parts[0])
        with self._opened.reading():
            while left and (part := self._file.read(left)):
                parts.append(part)
                left -= len(part)
        data = b"".join(parts)
        self.offset += len(data)
        return data

    def first_record(self, split: Callable[[bytes, bool], Any]) -> bytes:
        """Return the first record that `split` finds, b"" of an empty text; read() goes on behind it."""
        data, ended = b"", False
        while not ended:
            more = self.read(_FIRST)
            ended = not more
            data += more
            ends = split(data, ended)
            if len(ends):
                end = int(ends[0])
                self._ahead = data[end:] + self._ahead
                self.offset -= len(data) - end
                return data[:end]
            if len(data) > LONGEST_RECORD:
                break
        return data

    def put_back(self, data: bytes) -> None:
        """Have read() give once more what it gave last."""
        self._ahead = data + self._ahead
        self.offset -= len(data)


class _Limited:
    """The first bytes of a file: what is written behind them later is not read."""

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self._size = size
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> Any:
        """Return at most `size` bytes."""
        left = max(0, self._size - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))


def is_remote(name: str) -> bool:
    """Return whether a name means an object in a storage."""
    return name.startswith("s3://")


def _remote_sources(name: str, said: str) -> list[Source]:
    """Return the objects that a URL stands for."""
    with needs_pyarrow():
        from appliance.batch import remote
    inside = [url for url in remote.inside(name) if _is_table(Path(url))]
    return [Source(url, format_of(url)) for url in inside] or [Source(name, format_of(name, said))]


def _opened(name: str) -> Any:
    """Return a file that is open for reading; a FIFO that was named is taken too."""
    if is_remote(name):
        from appliance.batch import remote

        return remote.RemoteFile(name)
    if name == STDIN:
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    try:
        if stat.S_ISFIFO(Path(name).stat().st_mode):
            return Path(name).open("rb")
        return ahead.open_file(Path(name))
    except OSError as error:
        raise Misuse(f"read {name}", error.strerror or str(error), "check the file and its rights") from error


def _is_table(path: Path) -> bool:
    """Return whether a file of a folder is one that is scored."""
    return not path.name.startswith((".", "_")) and of_name(path.name) is not None


def _id_of(file: Any, size: int) -> str:
    """Return a digest of a file's size and ends."""
    digest = hashlib.sha256(f"{size}\n".encode())
    for offset in (0, max(_ENDS, size - _ENDS)):
        if offset < size:
            file.seek(offset)
            digest.update(file.read(min(_ENDS, size - offset)))
    file.seek(0)
    return digest.hexdigest()

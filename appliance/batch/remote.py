"""Files in object storage, by pyarrow's file systems: read by range, written whole or not at all.

Credentials come from the environment alone (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL and what else the AWS SDK
reads). An upload has several parts, and the object appears only after the last one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyarrow import fs

from appliance.errors import NotFound, Unfinished

_PIECE = 8 * 1024 * 1024


class RemoteFile:
    """An object that is read as a file."""

    def __init__(self, url: str) -> None:
        """Raises NotFound, Unfinished where the storage does not answer."""
        self.url = url
        self._system, self._path = _system(url)
        if self.status() is None:
            raise NotFound(f"read {url}", "there is no such object", "check the bucket and the key")
        with _told(f"read {url}"):
            self._file = self._system.open_input_file(self._path)
        self.closed = False

    def status(self) -> tuple[int, int] | None:
        """Return (size, mtime in ns) of what is there now; None where nothing is."""
        with _told(f"read {self.url}"):
            found = self._system.get_file_info(self._path)
        return None if found.type != fs.FileType.File else (found.size, found.mtime_ns or 0)

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes. Raises Unfinished."""
        with _told(f"read {self.url}"):
            data: bytes = self._file.read(None if size < 0 else size)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to an offset."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Return the offset."""
        return int(self._file.tell())

    def seekable(self) -> bool:
        """Return that it can be read from anywhere."""
        return True

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def close(self) -> None:
        """Close it."""
        self.closed = True
        self._file.close()


def is_remote(name: str) -> bool:
    """Return whether a name means an object."""
    return name.startswith("s3://")


def inside(url: str) -> list[str]:
    """Return the URLs of the objects in what stands for a folder; [] where it is none."""
    system, path = _system(url)
    with _told(f"list {url}"):
        if system.get_file_info(path).type != fs.FileType.Directory:
            return []
        found = system.get_file_info(fs.FileSelector(path))
    return sorted(f"s3://{one.path}" for one in found if one.type == fs.FileType.File)


def upload(file: Path, url: str) -> None:
    """Write a file as an object, which appears when all of it is there. Raises Unfinished."""
    system, path = _system(url)
    with _told(f"write {url}"), file.open("rb") as source:
        target = system.open_output_stream(path)
        try:
            while data := source.read(_PIECE):
                target.write(data)
        except BaseException:
            # Closing is what makes the object appear; there is no other way to give the upload up.
            with suppress(OSError):
                target.close()
                system.delete_file(path)
            raise
        target.close()


def _system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    with _told(f"open {url}"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        scheme, _, host = endpoint.rpartition("://")
        options = {"endpoint_override": host, "scheme": scheme or "https"} if host else {}
        return fs.S3FileSystem(**options), url.removeprefix("s3://").rstrip("/")


@contextmanager
def _told(tried: str) -> Iterator[None]:
    """Turn what the storage answers into Unfinished."""
    try:
        yield
    except OSError as error:
        step = "check the network and the credentials (AWS_*), then repeat the command: it goes on there"
        raise Unfinished(tried, str(error)[:300], step) from error

"""Parsed heads of earlier requests, and encoded heads of earlier responses: a client sends the same few repeatedly.

Measured (see benchmarks/): waitress reads and writes heads in Python, which costs a small prediction more than the
model does. The same bytes have the same meaning, so each head is parsed once.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LONGEST = 4096
"""Bytes of the longest head that is cached."""
MOST = 256
"""Heads that are cached; beyond it the cache is emptied, so that no client can make it grow."""


@dataclass(slots=True)
class CachedHead:
    """What was read in one request's head."""

    fields: dict[str, Any]
    """The parser's attributes; shared by all requests with this head, so nobody may change what they hold."""
    length: int
    """Bytes of the body."""
    environ: dict[str, Any] | None = None
    """The WSGI environment without what differs between requests; None until it was first asked for."""
    direct: bool | None = None
    """Whether its requests are answered directly (direct.py); None until that was first asked."""


class HeaderCache:
    """The heads that one server has cached; safe on the loop's thread and on the tasks' threads."""

    def __init__(self) -> None:
        self._read: dict[bytes, CachedHead] = {}
        self._written: dict[tuple[Any, ...], bytes] = {}
        self._second = 0

    def known(self, head: bytes) -> CachedHead | None:
        """Return the cached reading of these bytes, None where there is none."""
        return self._read.get(head)

    def remember(self, head: bytes, found: CachedHead) -> None:
        """Cache what was read in a head."""
        if len(head) <= LONGEST:
            if len(self._read) >= MOST:
                self._read.clear()
            self._read[head] = found

    def written(self, key: tuple[Any, ...], second: int, write: Callable[..., bytes], *arguments: object) -> bytes:
        """Return a response's head, written by `write` of `arguments` once a second, because Date changes then."""
        if second != self._second or len(self._written) >= MOST:
            self._written, self._second = {}, second
        head = self._written.get(key)
        if head is None:
            head = self._written[key] = write(*arguments)
        return head


class WholeBody:
    """A request's body that came with its head; in waitress' shape of a receiver and of its buffer."""

    completed = True
    error = None

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __len__(self) -> int:
        return len(self._content)

    def getbuf(self) -> "WholeBody":
        """Return the buffer."""
        return self

    def getfile(self) -> io.BytesIO:
        """Return what the application reads from."""
        return io.BytesIO(self._content)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

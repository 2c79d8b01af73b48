"""A body in chunks (RFC 9112, section 7.1), in waitress' shape of a receiver and of its buffer."""

import io
import re
from typing import Any

from waitress.utilities import BadRequest, RequestEntityTooLarge

from appliance.rest.server.request_head import is_field

MAX_CHUNK_LINE = 1024
"""Bytes of a chunk's size and extensions."""
MAX_TRAILER = 8192
"""Bytes of the fields behind a chunked body."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_LINE = re.compile(rb"([0-9A-Fa-f]+)((?:[ \t]*;[ \t]*%s(?:[ \t]*=[ \t]*(?:%s|%s))?)*)" % (_TOKEN, _TOKEN, _QUOTED))
_MOST_DIGITS = 15
"""Of a chunk's size: more than any limit has."""


class ChunkedBody:
    """Reads the chunks as they come; their extensions and the trailer are checked, and discarded.

    A trailer's fields never become the request's: it was judged by what its head said (RFC 9110, section 6.5.1).
    """

    def __init__(self, limit: int) -> None:
        self.completed = False
        self.error: Any = None
        self._limit = limit
        """Bytes that the body must not reach."""
        self._content = io.BytesIO()
        self._length = 0
        self._missing = 0
        """Bytes of the current chunk, and of the line end behind it, that have not come yet."""
        self._line = bytearray()
        """A line that has not come whole."""
        self._trailer = -1
        """Bytes of the trailer so far; -1 before the last chunk."""

    def __len__(self) -> int:
        return self._length

    def received(self, data: bytes) -> int:
        """Take bytes; return how many belonged to the body. What is wrong becomes `error`."""
        place = 0
        try:
            while place < len(data) and not self.completed:
                place = self._take_chunk(data, place) if self._missing else self._take_line(data, place)
        except ValueError as error:
            self.error = BadRequest(str(error))
            self.completed = True
        return place

    def getbuf(self) -> "ChunkedBody":
        """Return the buffer."""
        return self

    def getfile(self) -> io.BytesIO:
        """Return what the application reads from."""
        self._content.seek(0)
        return self._content

    def close(self) -> None:
        """Let go of the content."""
        self._content.close()

    def _take_chunk(self, data: bytes, place: int) -> int:
        """Take bytes of a chunk and of its line end; return where they end."""
        if self._missing > 2:
            part = data[place : place + self._missing - 2]
            self._content.write(part)
            self._length += len(part)
            self._missing -= len(part)
            return place + len(part)
        if data[place] != b"\r\n"[2 - self._missing]:
            raise ValueError("A chunk does not end where its size says")
        self._missing -= 1
        return place + 1

    def _take_line(self, data: bytes, place: int) -> int:
        """Take a chunk's size, or a line of the trailer; return where it ends."""
        end = data.find(b"\n", place) + 1
        longest = MAX_CHUNK_LINE if self._trailer < 0 else MAX_TRAILER
        self._line += data[place : end or len(data)]
        if len(self._line) > longest:
            what = "A chunk's size" if self._trailer < 0 else "The trailer"
            raise ValueError(f"{what} has more than {longest} bytes")
        if not end:
            return len(data)
        if not self._line.endswith(b"\r\n"):
            raise ValueError("A line of a chunked body ends without CR")
        line = bytes(self._line[:-2])
        self._line.clear()
        if self._trailer < 0:
            self._begin_chunk(line)
        else:
            self._take_field(line)
        return end

    def _begin_chunk(self, line: bytes) -> None:
        """Read a chunk's size and check its extensions."""
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError("A chunk's size or extension is malformed")
        digits = found[1].lstrip(b"0")
        size = int(digits or b"0", 16) if len(digits) <= _MOST_DIGITS else self._limit
        if not size:
            self._trailer = 0
        elif self._length + size >= self._limit:
            self.error = RequestEntityTooLarge("a chunk goes beyond the limit")
            self.completed = True
        else:
            self._missing = size + 2

    def _take_field(self, line: bytes) -> None:
        """Check a line of the trailer; an empty one is its end."""
        if not line:
            self.completed = True
            return
        self._trailer += len(line) + 2
        if self._trailer > MAX_TRAILER:
            raise ValueError(f"The trailer has more than {MAX_TRAILER} bytes")
        if not is_field(line):
            raise ValueError("A line of the trailer is not NAME: VALUE")

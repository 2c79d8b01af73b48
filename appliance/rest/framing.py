"""Where a request begins and ends (RFC 9112), read more strictly than waitress does.

What two readers could take for different requests is refused, and no framing may cost much more time or memory than
the body that it carries.
"""

from typing import Any

from waitress.buffers import OverflowableBuffer
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import ChunkedReceiver, FixedStreamReceiver
from waitress.utilities import BadRequest, RequestEntityTooLarge

from appliance.rest.heads import Head, Heads, WholeBody

AT_ONCE = 8192
"""Bytes of a chunked body taken at once: waitress copies what is left of them at every chunk."""
MAX_CHUNK_LINE = 1024
"""Bytes of a chunk's size and extensions."""
MAX_TRAILER = 8192
"""Bytes of the fields behind a chunked body."""

_OWN = frozenset({"adj", "body_rcv", "completed", "head"})
"""The parser's attributes that belong to one request, whatever its head says."""


class Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """Reads one request; what is wrong with it becomes its `error`."""

    head: Head | None = None
    """What a head of these bytes said before, and says again."""

    def received(self, data: bytes) -> int:
        """Take bytes; return how many belonged to this request."""
        begins = self.body_rcv is None and not self.header_plus
        if begins and (consumed := self._recall(data)):
            return consumed
        consumed = int(super().received(data[:AT_ONCE] if self.chunked else data))
        if begins and self.headers_finished:
            self._remember(data[:consumed])
        if self.chunked and not self.completed:
            self._check_chunks(self.body_rcv)
        if self.error:
            self.expect_continue = False  # a body that will be refused must not be asked for
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Read the request line and the fields. Raises ParsingError."""
        try:
            super().parse_header(header_plus)
        except ValueError as error:  # a length of thousands of digits, brackets around what is no IPv6 address
            raise ParsingError(f"Malformed number or address ({str(error)[:60]})") from error
        lengths = {"CONTENT_LENGTH", "TRANSFER_ENCODING"} & self.headers.keys()
        # Section 6.1: with both, or in HTTP/1.0, somebody between the client and us may have read another request.
        if "TRANSFER_ENCODING" in lengths or (self.chunked and lengths):
            raise ParsingError("Transfer-Encoding with Content-Length, or in HTTP/1.0")

    def _recall(self, data: bytes) -> int:
        """Take a request whose head came before; return how many bytes belonged to it, 0 for a new head."""
        end = data.find(b"\r\n\r\n") + 4
        heads: Heads = self.adj.heads
        head = heads.known(data[:end])
        if head is None:
            return 0
        self.__dict__.update(head.fields)
        self.head = head
        length = head.length
        if len(data) - end >= length:
            self.body_rcv = WholeBody(data[end : end + length]) if length else None
            self.completed = True
            return end + length
        self.body_rcv = FixedStreamReceiver(length, OverflowableBuffer(self.adj.inbuf_overflow))
        return end

    def _remember(self, head: bytes) -> None:
        """Keep what was read, of a request that is right and has a body of known length."""
        if self.error or self.empty or self.chunked or self.expect_continue:
            return
        fields = {name: value for name, value in vars(self).items() if name not in _OWN}
        self.head = Head(fields, self.content_length)
        self.adj.heads.remember(head, self.head)

    def _check_chunks(self, body: ChunkedReceiver) -> None:
        """Refuse a chunked body as soon as it is clear that it will be too large, or is mostly framing."""
        problem: Any = None
        if len(body) + body.chunk_remainder >= self.adj.max_request_body_size:
            problem = RequestEntityTooLarge("a chunk goes beyond the limit")
        elif len(body.control_line) > MAX_CHUNK_LINE:
            problem = BadRequest(f"A chunk's size has more than {MAX_CHUNK_LINE} bytes")
        elif len(body.trailer) > MAX_TRAILER:
            problem = BadRequest(f"The trailer has more than {MAX_TRAILER} bytes")
        if problem:
            self.error = problem
            self.completed = True

"""Where a request begins and ends (RFC 9112), read more strictly than waitress does.

What two readers could take for different requests is refused, and no framing may cost much more time or memory than
the body that it carries.
"""

from typing import Any

from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import ChunkedReceiver
from waitress.utilities import BadRequest, RequestEntityTooLarge

AT_ONCE = 8192
"""Bytes of a chunked body taken at once: waitress copies what is left of them at every chunk."""
MAX_CHUNK_LINE = 1024
"""Bytes of a chunk's size and extensions."""
MAX_TRAILER = 8192
"""Bytes of the fields behind a chunked body."""


class Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """Reads one request; what is wrong with it becomes its `error`."""

    def received(self, data: bytes) -> int:
        """Take bytes; return how many belonged to this request."""
        consumed: int = super().received(data[:AT_ONCE] if self.chunked else data)
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

"""Where a request begins and ends (RFC 9112), read more strictly than waitress does.

What two readers could take for different requests is refused, and no framing may cost much more time or memory than
the body that it carries. request_head.py reads the head, chunked_body.py a body in chunks.
"""

from typing import Any

from waitress.buffers import OverflowableBuffer
from waitress.parser import HTTPRequestParser
from waitress.receiver import FixedStreamReceiver
from waitress.utilities import BadRequest, RequestEntityTooLarge, RequestHeaderFieldsTooLarge

from appliance.rest.http_types import Response
from appliance.rest.server import request_head
from appliance.rest.server.chunked_body import ChunkedBody
from appliance.rest.server.header_cache import CachedHead, HeaderCache, WholeBody
from appliance.rest.server.request_head import LONGEST_HEAD, BadHead

_OWN = frozenset({"adj", "admitted", "begun", "body_rcv", "completed", "head"})
"""The parser's attributes that belong to one request, whatever its head says."""


class Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """Reads one request; what is wrong with it becomes its `error`."""

    head: CachedHead | None = None
    """The meaning of a head with these bytes, from the cache."""
    command, path, query, request_uri, version = "", "", "", "", "1.1"
    url_scheme = "http"
    begun: bytearray | None = None
    """A head that has not arrived whole."""
    answered: Response | None = None
    """The answer, where one run of the model made it for several requests."""
    admitted = False
    """Whether it was judged by its head, before its body is waited for."""
    body_rcv: Any
    chunked: bool
    content_length: int
    error: Any

    def received(self, data: bytes) -> int:
        """Take bytes; return how many belonged to this request. A wrong one takes all: nothing behind it is read."""
        if self.completed:
            return 0
        if self.body_rcv is not None:
            consumed = int(super().received(data))
        elif self.begun:
            consumed = self._continue_head(self.begun, data)
        else:
            consumed = self._recall(data) or self._begin_head(data)
        if self.error:
            self.expect_continue = False  # a body that will be refused must not be asked for
            return len(data)
        return consumed

    def _begin_head(self, data: bytes) -> int:
        """Take the first bytes of a request; empty lines before it are passed over (RFC 9112, section 2.2)."""
        begins = 0
        while data.startswith(b"\r\n", begins):
            begins += 2
        if begins == len(data):
            self.empty = self.completed = True
            return begins
        end = data.find(b"\r\n\r\n", begins) + 4
        if end < 4:
            self.begun = bytearray(data[begins:])
            self._check_begun(self.begun, 0)
            return len(data)
        self._read_head(data[begins:end])
        if not begins and not self.error and not self.chunked and not self.expect_continue:
            fields = {name: value for name, value in vars(self).items() if name not in _OWN}
            self.head = CachedHead(fields, self.content_length)
            cache: HeaderCache = self.adj.header_cache
            cache.remember(data[:end], self.head)
        return end

    def _continue_head(self, begun: bytearray, data: bytes) -> int:
        """Take more bytes of a head."""
        before = len(begun)
        begun += data
        end = begun.find(b"\r\n\r\n", max(0, before - 3)) + 4
        if end < 4:
            self._check_begun(begun, before)
            return len(data)
        self._read_head(bytes(begun[:end]))
        return end - before

    def _check_begun(self, begun: bytearray, before: int) -> None:
        """Refuse a head that is invalid already, before its end has arrived."""
        if len(begun) > LONGEST_HEAD:
            self._refuse(BadHead(f"The head has more than {LONGEST_HEAD} bytes", 431))
        elif request_head.stray(begun, before):
            self._refuse(BadHead("Bare CR, LF or NUL in the head"))

    def _read_head(self, content: bytes) -> None:
        """Take what a whole head says."""
        self.headers_finished = True
        self.begun = None
        try:
            if len(content) > LONGEST_HEAD:
                raise BadHead(f"The head has more than {LONGEST_HEAD} bytes", 431)
            head = request_head.read(content)
        except BadHead as error:
            self._refuse(error)
            return
        self.command, self.path, self.query, self.version = head.method, head.path, head.query, head.version
        self.request_uri, self.headers = head.target, head.headers
        self.connection_close, self.expect_continue = head.closes, head.expects_continue
        self.content_length, self.chunked = head.length, head.chunked
        if head.chunked:
            self.body_rcv = ChunkedBody(self.adj.max_request_body_size)
        elif head.length >= self.adj.max_request_body_size:
            self.error = RequestEntityTooLarge("the body is longer than allowed")
            self.completed = True
        elif head.length:
            self.body_rcv = FixedStreamReceiver(head.length, OverflowableBuffer(self.adj.inbuf_overflow))
        else:
            self.completed = True

    def _refuse(self, error: BadHead) -> None:
        """Make an error of waitress' kind of `error`."""
        kind = RequestHeaderFieldsTooLarge if error.status == 431 else BadRequest
        self.error = kind(error.found)
        self.error.code = error.status
        self.completed = self.headers_finished = True

    def _recall(self, data: bytes) -> int:
        """Take a request whose head came before; return how many bytes belonged to it, 0 for a new head."""
        end = data.find(b"\r\n\r\n") + 4
        cache: HeaderCache = self.adj.header_cache
        head = cache.known(data[:end])
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

"""What answers one request: the application, or the error of a request that is wrong in itself."""

from collections.abc import Callable
from typing import Any

from waitress.task import ErrorTask, WSGITask

from appliance.errors import ApplianceError, InvalidInput, TooLarge
from appliance.rest.http_types import Response
from appliance.rest.problems import REASONS, form_for, start_of, status_of
from appliance.rest.server.framing import Parser
from appliance.rest.server.header_cache import CachedHead, HeaderCache

_OWN = frozenset({"REMOTE_ADDR", "REMOTE_HOST", "REMOTE_PORT", "wsgi.input", "waitress.client_disconnected"})
"""What differs between requests with the same head."""

ONE_PIECE = 64 * 1024
"""Bytes of a body up to which to copy it behind its head costs less than to send it apart."""


class Refusal:
    """An error in waitress' shape: what an ErrorTask asks of `request.error`."""

    def __init__(self, error: ApplianceError) -> None:
        self.error = error


class RefusalTask(ErrorTask):  # type: ignore[misc]
    """Answers an error of waitress or of ours in the form of the path's protocol."""

    def execute(self) -> None:
        """Write the answer and close the connection after it."""
        error = self.request.error
        if isinstance(error, Refusal):
            found, status = error.error, status_of(error.error)
        else:
            found, status = _translated(error, self.channel.adj.max_request_body_size - 1), error.code
        answer = form_for(getattr(self.request, "path", ""))(status, found)
        self.status = f"{status} {REASONS.get(status, 'Error')}"
        self.response_headers.append(("Content-Type", answer.content_type))
        self.response_headers.extend(answer.headers)
        self.set_close_on_finish()
        self.channel.lingers = True
        self.content_length = len(answer.body)
        self.write(answer.body)


class Task(WSGITask):  # type: ignore[misc]
    """A request to the application; the last one of its connection while the service stops."""

    environ: dict[str, Any] | None = None
    wrote_header: bool = False

    def execute(self) -> None:
        """Have the application answer (PEP 3333); it and Flask name well-formed headers, always with the length."""
        answer: Response | None = self.request.answered
        if answer is None:
            chunks = self.channel.server.application(self.get_environment(), self._begin)
        else:
            chunks = [answer.body]
            self._begin(*start_of(answer))
        try:
            for chunk in chunks:
                self.write(chunk)
        finally:
            if type(chunks) is not list and hasattr(chunks, "close"):
                chunks.close()
        if self.content_bytes_written != self.content_length and self.request.command != "HEAD":
            self.set_close_on_finish()  # else the client would wait for the rest

    def get_environment(self) -> dict[str, Any]:
        """Return the WSGI environment (PEP 3333); of a head that came before, what was made of it then."""
        head: CachedHead | None = self.request.head
        if head is None or self.environ is not None:
            environ: dict[str, Any] = super().get_environment()
            return environ
        if head.environ is None:
            made = super().get_environment()
            head.environ = {name: value for name, value in made.items() if name not in _OWN}
        channel = self.channel
        self.environ = environ = head.environ.copy()
        environ["REMOTE_ADDR"] = environ["REMOTE_HOST"] = channel.addr[0]
        environ["REMOTE_PORT"] = str(channel.addr[1])
        environ["wsgi.input"] = self.request.get_body_stream()
        environ["waitress.client_disconnected"] = channel.check_client_disconnected
        return environ

    def build_response_header(self) -> bytes:
        """Return the head of the answer."""
        if self.channel.server.stopping and self.channel.is_last():
            self.set_close_on_finish()
        head: bytes = super().build_response_header()
        return head

    def write(self, data: bytes) -> None:
        """Send a part of the answer's body; a small one that is whole goes in one piece with its head."""
        if self.wrote_header or len(data) != self.content_length or len(data) > ONE_PIECE or not self._is_plain():
            super().write(data)
            return
        cache: HeaderCache = self.channel.adj.header_cache
        key = (self.status, *self.response_headers)
        self.channel.write_soon(cache.written(key, int(self.start_time), self.build_response_header) + data)
        self.wrote_header = True
        self.content_bytes_written = len(data)

    def _begin(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """Take the answer's status and headers (start_response)."""
        if exc_info and self.wrote_header:
            raise exc_info[1]
        self.complete = True
        self.status = status
        self.response_headers = list(headers)
        for name, value in headers:
            if name.lower() == "content-length":
                self.content_length = int(value)
        return self.write

    def _is_plain(self) -> bool:
        """Return whether the answer's head follows from status and headers alone and ends nothing."""
        return (
            self.version == "1.1"
            and self.content_length is not None
            and self.has_body
            and not self.close_on_finish
            and not self.channel.server.stopping
            and "CONNECTION" not in self.request.headers
        )


def head_of(channel: Any, head: CachedHead, answer: Response, now: float) -> bytes:
    """Return the bytes of the head that a task writes for `answer`, to a request with `head`; `now` is Unix time."""
    request = Parser(channel.adj)
    request.__dict__.update(head.fields)
    task = Task(channel, request)
    task.start_time = now
    task._begin(*start_of(answer))
    return task.build_response_header()


def _translated(error: Any, limit: int) -> ApplianceError:
    """Return an error of waitress' parser as one of ours; `limit` is that of a body."""
    if error.code == 413:
        next_step = "send fewer rows, or raise [http] max_body_bytes and max_decoded_bytes"
        return TooLarge("read the body", f"it is larger than allowed: {limit} bytes may be", next_step)
    return InvalidInput("read the request", str(error.body), "send a well-formed HTTP/1.1 request")

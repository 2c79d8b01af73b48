"""What answers one request: the application, or the error of a request that is wrong in itself."""

from typing import Any

from waitress.task import ErrorTask, WSGITask

from appliance.errors import ApplianceError, InvalidInput, TooLarge
from appliance.rest.problems import REASONS, form_for, status_of


class Refusal:
    """An error in waitress' shape: what an ErrorTask asks of `request.error`."""

    def __init__(self, error: ApplianceError) -> None:
        self.error = error


class RefusalTask(ErrorTask):  # type: ignore[misc]
    """Answers an error of waitress or of ours in the words of the path's protocol."""

    def execute(self) -> None:
        """Write the answer and close the connection after it."""
        error = self.request.error
        if isinstance(error, Refusal):
            found, status = error.error, status_of(error.error)
        else:
            found, status = _translated(error), error.code
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

    def build_response_header(self) -> bytes:
        """Return the head of the answer."""
        if self.channel.server.stopping:
            self.set_close_on_finish()
        head: bytes = super().build_response_header()
        return head


def _translated(error: Any) -> ApplianceError:
    """Return an error of waitress' parser as one of ours."""
    if error.code == 413:
        return TooLarge("read the body", "it is larger than allowed", "send fewer rows, or raise [http] max_body_bytes")
    return InvalidInput("read the request", str(error.body), "send a well-formed HTTP/1.1 request")

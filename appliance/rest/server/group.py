"""Requests of several connections that are answered together, on the loop's thread or another.

Which may be is the application's to say, by their path; requests with different tokens never are.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from appliance.rest.http_types import Environ, Response

MOST = 64
"""Requests of a group."""
SMALL_BODY = 16 * 1024
"""Bytes; a larger body is in no group, and goes to the threads."""

Key = tuple[str, str | None]
"""(path, Authorization) of requests that may be answered together."""


class Together(NamedTuple):
    """What an application answers together."""

    shares_runs: Callable[[str], bool]
    """Whether POST requests to a path are answered together."""
    answer: Callable[[Sequence[tuple[Environ, bytes]]], list[Response]]
    """Answers requests to one path: (WSGI environment, body), as direct.Answer has them. Raises nothing."""


class Group:
    """Connections in the queue of the threads that one thread answers together; in waitress' shape of a task."""

    def __init__(self, together: Together, channels: Sequence[Any]) -> None:
        self._together = together
        self._channels = channels

    def service(self) -> None:
        """Answer the first request of each connection."""
        waiting = [(channel, channel.requests[0]) for channel in self._channels if channel.requests]  # else it is gone
        sent = [
            (channel.task_class(channel, request).get_environment(), request.get_body_stream().read())
            for channel, request in waiting
        ]
        for (channel, request), answer in zip(waiting, self._together.answer(sent), strict=True):
            request.answered = answer
            channel.service()

    def cancel(self) -> None:
        """End the connections without an answer."""
        for channel in self._channels:
            channel.cancel()


def key_of(together: Together, request: Any) -> Key | None:
    """Return by what a whole request is grouped, None for one that is answered alone."""
    if request.error or request.command != "POST" or request.chunked or request.content_length > SMALL_BODY:
        return None
    if "CONTENT_ENCODING" in request.headers or not together.shares_runs(request.path):
        return None
    return request.path, request.headers.get("AUTHORIZATION")

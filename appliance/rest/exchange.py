"""What a handler gets and gives: a request's method, path, headers and body; an answer's status, headers and body."""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from appliance.config import HttpConfig
from appliance.errors import InvalidInput, TooLarge
from appliance.mqtt_state import MqttState
from appliance.predictor import Counts, Predictor
from appliance.store.versions import Store

Environ = dict[str, Any]
JSON = "application/json"  # exactly so: some clients read an error only then (no charset)

encode_json = msgspec.json.Encoder().encode


class Request:
    """One HTTP request, read from the WSGI environment (PEP 3333) as it is needed."""

    __slots__ = ("environ", "limit", "method", "path", "started")

    def __init__(self, environ: Environ, limit: int) -> None:
        self.environ = environ
        self.limit = limit
        """The most bytes that the body may have, as sent and as decompressed."""
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ["PATH_INFO"]
        self.started = time.perf_counter()

    def header(self, name: str) -> str:
        """Return a header by its name as written in the RFCs, "" when absent."""
        key = name.upper().replace("-", "_")
        value = self.environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", "")
        return str(value)

    def seconds(self) -> float:
        """Return the seconds since the request was taken."""
        return time.perf_counter() - self.started

    @property
    def query(self) -> dict[str, str]:
        """The query string's fields."""
        return dict(parse_qsl(self.environ.get("QUERY_STRING", ""), keep_blank_values=True))

    def body(self) -> bytes:
        """Return the whole body, decompressed by its Content-Encoding (gzip, deflate).

        Raises TooLarge beyond the limit, InvalidInput for an unknown or broken encoding.
        """
        content: bytes = self.environ["wsgi.input"].read(self.limit + 1)
        if len(content) > self.limit:
            raise _too_large(self.limit)
        encoding = self.environ.get("HTTP_CONTENT_ENCODING")
        return decompress(content, encoding, self.limit) if encoding else content


class Answer(msgspec.Struct, frozen=True):  # a frozen dataclass takes ten times as long to make
    """What goes back: `headers` beside Content-Type and Content-Length."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()

    def with_headers(self, *headers: tuple[str, str]) -> "Answer":
        """Return the same answer with more headers."""
        return Answer(self.body, self.status, self.content_type, (*self.headers, *headers))


@dataclass(frozen=True, slots=True)
class Context:
    """What handlers work with; built once by the service."""

    predictor: Predictor
    store: Store
    config: HttpConfig
    metrics: Callable[[], bytes] = field(default=lambda: b"")
    """The Prometheus text exposition (format 0.0.4) of all processes."""
    counts: Callable[[], dict[tuple[str, str], Counts]] = field(default=dict)
    """What was asked of each (model, version) so far, over all processes."""
    mqtt: Callable[[], MqttState | None] = field(default=lambda: None)
    """What the MQTT door last told of itself; None when there is none."""
    stopping: Callable[[], bool] = field(default=lambda: False)
    """Whether the service is finishing and must no longer say that it is ready."""


Handler = Callable[[Context, Request, dict[str, str]], Answer]
"""(context, request, the path's variables) -> answer; raises ApplianceError."""


def json_answer(value: object, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Return `value` as JSON; NaN becomes null."""
    return Answer(encode_json(value), status, JSON, headers)


def decompress(content: bytes, encoding: str, limit: int) -> bytes:
    """Return `content` decoded by `encoding` (RFC 9110, 8.4.1; deflate is zlib's framing), at most `limit` bytes."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return content
    windows = {"gzip": 31, "x-gzip": 31, "deflate": 15}
    if name not in windows:
        raise InvalidInput("read the body", f"Content-Encoding {encoding!r} is unknown", "send gzip, deflate or none")
    decoder = zlib.decompressobj(windows[name])
    try:
        plain = decoder.decompress(content, limit + 1)
    except zlib.error as error:
        raise InvalidInput(
            "read the body", f"it is no {name} ({error})", "compress it again or send it plain"
        ) from error
    if len(plain) > limit:
        raise _too_large(limit)
    if not decoder.eof or decoder.unused_data:
        raise InvalidInput("read the body", f"its {name} stream is cut off or goes on", "compress it again")
    return plain


def compress(answer: Answer, accepted: str) -> Answer:
    """Return `answer` in the first encoding of Accept-Encoding that we write (gzip, deflate)."""
    for item in accepted.lower().split(","):
        name, _, quality = item.strip().partition(";")
        if name in ("gzip", "deflate") and quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            encoder = zlib.compressobj(1, wbits=31 if name == "gzip" else 15)
            body = encoder.compress(answer.body) + encoder.flush()
            headers = (*answer.headers, ("Content-Encoding", name), ("Vary", "Accept-Encoding"))
            return Answer(body, answer.status, answer.content_type, headers)
    return answer


def _too_large(limit: int) -> TooLarge:
    """Return the error for a body beyond the limit."""
    return TooLarge(
        "read the body", f"it has more than {limit} bytes", "send fewer rows, or raise [http] max_body_bytes"
    )

"""What a handler takes and returns: a request (method, path, headers, body), a response (status, headers, body)."""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from appliance.alarms import Alarm
from appliance.arms import Arms
from appliance.arrays import Array
from appliance.budget import MOST, SMALL, WAIT_SECONDS, WORST, Budget, json_cost
from appliance.config import ExperimentsConfig, HttpConfig
from appliance.drift_report import DriftReport
from appliance.errors import InvalidInput, TooLarge
from appliance.inference import selftest
from appliance.inference.version import LoadedVersion
from appliance.labels import TakeLabels
from appliance.limits import Limits
from appliance.monitoring import history_ring
from appliance.monitoring.distribution import Distribution
from appliance.monitoring.history_ring import Series
from appliance.monitoring.last_failures import LastFailure
from appliance.monitoring.prediction_log.recent import RecentAnswers
from appliance.monitoring.quality.standing import Standing
from appliance.predictor import Counts, Prediction, Predictor
from appliance.readiness import Readiness, Ready
from appliance.repository import ModelRepository
from appliance.rest.changes import Changes
from appliance.store.activation import SelfTest
from appliance.store.versions import Store

Environ = dict[str, Any]
JSON = "application/json"  # without a charset: some clients read an error only then

DEFLATE_FACTOR = 1032
"""The most bytes that one compressed byte can become (zlib's technical details)."""
MEMBERS = 1024
"""Of a gzip body (RFC 1952, 2.2), which are read one behind the other."""

encode_json = msgspec.json.Encoder().encode


class Routed:
    """How one request was routed; made only where an experiment runs."""

    __slots__ = ("arms", "body", "loaded")

    def __init__(self, arms: Arms) -> None:
        self.arms = arms
        self.loaded: LoadedVersion | None = None
        """The arm that answers; None until it is known, which takes the rows where a column is the key."""
        self.body = b""
        """What was read already, to find the key in it."""


class Request:
    """One HTTP request, read from the WSGI environment (PEP 3333) when needed.

    A large one claims memory from the budget and holds it until release().
    """

    __slots__ = ("budget", "content", "environ", "held", "keys", "limit", "method", "path", "routed", "started")

    def __init__(
        self, environ: Environ, limit: int, budget: Budget | None = None, content: bytes | None = None
    ) -> None:
        self.environ = environ
        self.content = content
        """The whole body where it has been read and is small and not compressed; None: it is read from `environ`."""
        self.limit = limit
        """The most bytes that the body may have, as sent and as decompressed."""
        self.budget = budget or Budget(MOST)
        self.held = 0
        """Bytes of the budget."""
        self.routed: Routed | None = None
        """How it was routed, where an experiment runs (routed.py)."""
        self.keys: tuple[str, ...] = ()
        """The key by which it was."""
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ["PATH_INFO"]
        self.started = time.perf_counter()

    def header(self, name: str) -> str:
        """Return a header by its name as written in the RFCs, "" when absent."""
        key = name.upper().replace("-", "_")
        value = self.environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", "")
        return str(value)

    @property
    def told_path(self) -> str:
        """The path for a message: WSGI's is latin-1 of the bytes that were sent, which are UTF-8 (PEP 3333)."""
        return self.path.encode("latin-1", "replace").decode("utf-8", "replace")

    def seconds(self) -> float:
        """Return the seconds since the request was taken."""
        return time.perf_counter() - self.started

    @property
    def query(self) -> dict[str, str]:
        """The query string's fields."""
        return dict(parse_qsl(self.environ.get("QUERY_STRING", ""), keep_blank_values=True))

    def body(self, cost: Callable[[bytes], int] = json_cost, worst: int = WORST) -> bytes:
        """Return the whole body, decompressed by its Content-Encoding (gzip, deflate); a large one is claimed first.

        `cost` says what it takes at most; it is not asked where `worst` for each byte is there at once. Raises
        TooLarge beyond the limit or the budget, Overloaded when others hold it, InvalidInput for an unknown or broken
        encoding.
        """
        if self.content is not None:
            return self.content
        content: bytes = self.environ["wsgi.input"].read(self.limit + 1)
        if len(content) > self.limit:
            raise _too_large(self.limit)
        encoding = self.environ.get("HTTP_CONTENT_ENCODING")
        if encoding:
            most = min(self.limit, DEFLATE_FACTOR * len(content))
            if most > SMALL:  # twice: the parts, and the whole made of them
                self.budget.claim("decompress the body", 2 * most, "it", wait=WAIT_SECONDS)
                self.held = 2 * most
            content = decompress(content, encoding, self.limit)
        if len(content) > SMALL:
            self._claim_body(content, cost, worst)
        return content

    def claim_answer(self, amount: int, rows: int) -> None:
        """Hold `amount` bytes for the answer to `rows` rows instead of the body, which nothing refers to any more.

        Raises TooLarge, Overloaded.
        """
        if amount <= SMALL:
            return
        held, self.held = self.held, 0
        # Only a request with a large body runs on a thread that may wait.
        wait = WAIT_SECONDS if held else 0.0
        self.budget.claim("answer the request", amount, f"the answer to {rows} rows", wait=wait, instead_of=held)
        self.held = amount

    def claim_more(self, tried: str, amount: int, found: str) -> None:
        """Hold `amount` bytes beside what is held. Raises TooLarge, and Overloaded without waiting."""
        if amount > SMALL:
            self.budget.refuse(tried, self.held + amount, found)
            self.budget.claim(tried, amount, found)
            self.held += amount

    def release(self) -> None:
        """Give back what was claimed."""
        held, self.held = self.held, 0
        self.budget.release(held)

    def _claim_body(self, content: bytes, cost: Callable[[bytes], int], worst: int) -> None:
        """Hold what a large body takes."""
        if self.held:
            self.release()
        amount = worst * len(content)
        if not worst or not self.budget.try_claim(amount):
            amount = cost(content)
            self.budget.claim("read the body", amount, f"its {len(content)} bytes", wait=WAIT_SECONDS)
        self.held = amount


class Response(msgspec.Struct, frozen=True):  # a frozen dataclass takes ten times as long to make
    """What goes back: `headers` beside Content-Type and Content-Length."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()

    def with_headers(self, *headers: tuple[str, str]) -> "Response":
        """Return the same response with more headers."""
        return Response(self.body, self.status, self.content_type, (*self.headers, *headers))


def _no_history(model: str, span: str) -> Series:
    """Return a history without requests."""
    return history_ring.series(history_ring.empty(), model, span, time.time())


@dataclass(frozen=True, slots=True)
class Context:
    """What handlers work with; built once by the service."""

    predictor: Predictor
    models: ModelRepository
    store: Store
    readiness: Readiness
    config: HttpConfig
    budget: Budget = field(default_factory=lambda: Budget(MOST))
    """The memory that all large requests share."""
    metrics: Callable[[], bytes] = field(default=lambda: b"")
    """The Prometheus text exposition (format 0.0.4) of all processes."""
    counts: Callable[[], dict[tuple[str, str], Counts]] = field(default=dict)
    """The counts of each (model, version) so far, over all processes."""
    log_heads: Callable[[], list[dict[str, Any]]] = field(default=list)
    """Where the chains of the prediction log end; see monitoring.prediction_log.segments.heads."""
    drift: Callable[[str, str], DriftReport | None] = field(default=lambda model, version: None)
    """A version's drift report; None if it is not watched."""
    distribution: Callable[[str, str], Distribution | None] = field(default=lambda model, version: None)
    """How a version's rows are spread beside training's; None if it is not watched."""
    alarms: Callable[[Ready], list[Alarm]] = field(default=lambda ready: [])
    """What somebody should look at, by what readiness says."""
    history: Callable[[str, str], Series] = field(default=_no_history)
    """A model's requests over a span (history_ring.SPANS)."""
    last_failures: Callable[[], list[LastFailure]] = field(default=list)
    """The last failure of each model."""
    recent: Callable[[str, int], RecentAnswers] = field(default=lambda name, count: RecentAnswers(name, {}, []))
    """So many of a model's last answers, as they are logged. Raises NotReady where nothing is."""
    take_labels: TakeLabels | None = None
    """Where labels go; None where predictions are not logged."""
    quality: Callable[[str], dict[str, Any]] = field(
        default=lambda name: {"model": name, "labels": {}, "standings": [], "windows": []}
    )
    """A model's quality by its labels."""
    standing: Callable[[str, str], Standing | None] = field(default=lambda model, version: None)
    """Whether a version's labels are worse than its past; None where nothing is known."""
    self_test: SelfTest = selftest.self_test
    """Self-tests a version before it goes live; the service's own function does so in another process."""
    experiment_bytes: int = 0
    """Memory that the versions of one model may take together in this process; 0: no limit."""
    experiments: ExperimentsConfig = field(default_factory=ExperimentsConfig)
    """The plan of experiments that begin here."""
    changes: Changes = field(default_factory=Changes)
    """What requests change in the store."""
    limits: Limits = field(init=False)
    """Of one request, from `config`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", Limits.of_http(self.config))


class Asked(msgspec.Struct, frozen=True):
    """A request that was read: what to run for it, and how its answer is made of the run."""

    version: LoadedVersion
    feeds: Mapping[str, Array]
    outputs: Sequence[str]
    respond: Callable[[Prediction], "Response"]
    """Makes the answer of a prediction of these rows and outputs alone. Raises ApplianceError."""
    request: str = ""
    """The id that the protocol gives the request; "" for none."""


Ask = Callable[[Context, Request, dict[str, str]], Asked | None]
"""(context, request, the path's variables) -> what may share a run, None for a request that must not."""
Handler = Callable[[Context, Request, dict[str, str]], Response]
"""(context, request, the path's variables) -> response; raises ApplianceError."""
Authorize = Callable[[Request, str], None]
"""(request, scope of its route) -> None, or raises NotAllowed (401) or Forbidden (403)."""


def body_limit(limits: Limits, budget: Budget) -> int:
    """Return the bytes that a body may have: it lies in memory as it came and as it is read, so half of the budget."""
    return min(limits.body_bytes, max(SMALL, budget.total // 2))


def json_response(value: object, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return `value` as JSON; NaN becomes null."""
    return Response(encode_json(value), status, JSON, headers)


def decompress(content: bytes, encoding: str, limit: int) -> bytes:
    """Return `content` decoded by `encoding` (RFC 9110, 8.4.1; deflate is zlib's framing), at most `limit` bytes."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return content
    windows = {"gzip": 31, "x-gzip": 31, "deflate": 15}
    if name not in windows:
        found = f"Content-Encoding {encoding[:40]!r} is unknown"
        raise InvalidInput("read the body", found, "send gzip, deflate or none")
    parts, size, rest = [], 0, content
    for _ in range(MEMBERS):
        decoder = zlib.decompressobj(windows[name])
        try:
            parts.append(decoder.decompress(rest, limit + 1 - size))
        except zlib.error as error:
            next_step = "compress it again or send it plain"
            raise InvalidInput("read the body", f"it is no {name} ({error})", next_step) from error
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        rest = decoder.unused_data
        if not rest or name == "deflate" or not decoder.eof:
            break
    if rest or not decoder.eof:
        raise InvalidInput("read the body", f"its {name} stream is cut off or goes on", "compress it again")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def compress(answer: Response, accepted: str) -> Response:
    """Return `answer` in the first encoding of Accept-Encoding that we write (gzip, deflate)."""
    for item in accepted.lower().split(","):
        name, _, quality = item.strip().partition(";")
        if name in ("gzip", "deflate") and quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            encoder = zlib.compressobj(1, wbits=31 if name == "gzip" else 15)
            body = encoder.compress(answer.body) + encoder.flush()
            headers = (*answer.headers, ("Content-Encoding", name), ("Vary", "Accept-Encoding"))
            return Response(body, answer.status, answer.content_type, headers)
    return answer


def _too_large(limit: int) -> TooLarge:
    """Return the error for a body beyond the limit."""
    next_step = "send fewer rows, or raise [http] max_body_bytes and max_decoded_bytes"
    return TooLarge("read the body", f"it has more than {limit} bytes", next_step)

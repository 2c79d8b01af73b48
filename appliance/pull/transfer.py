"""HTTP as a client: limits on all that arrives, redirects, who sees a password, downloads that go on where they ended.

Nothing is sent but GET. What is read of an answer is bounded in bytes here, and in time by its connection.
"""

import base64
import hashlib
import http.client
import os
import re
import ssl
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urljoin, urlsplit

from appliance import __version__, ahead, nofollow
from appliance.config import PullConfig
from appliance.errors import (
    ApplianceError,
    BundleRefused,
    ConfigError,
    NotAllowed,
    NotFound,
    NotReady,
    Refused,
    StoreError,
)
from appliance.pull.connection import Dialer, endpoint
from appliance.pull.deadline import Deadline
from appliance.pull.offers import Offer
from appliance.store import durable

MAX_REDIRECTS = 5
_CHUNK = 256 * 1024
_LATER = "check the network and the server; the next pull goes on from here"
_GET_AGAIN = "nothing was installed; if it happens again, the source does not hold what it states"


@dataclass(frozen=True, slots=True)
class ServerResponse:
    """What a server answered; `body` is empty where the status is not 200."""

    status: int
    headers: Message
    body: bytes


class Transfer:
    """Fetches from servers, as the section `[pull]` says."""

    def __init__(self, config: PullConfig) -> None:
        """Raises ConfigError when a file of certificates or the proxy's address cannot be used."""
        self._dialer = Dialer(config)

    def get(
        self, url: str, limit: int, headers: Mapping[str, str], deadline: Deadline, authorization: str = ""
    ) -> ServerResponse:
        """Return the answer to a GET, whatever its status. Raises NotReady, Refused (TLS, or above `limit` bytes)."""
        with self._open(url, headers, deadline, authorization) as response:
            body = _read(response, url, limit) if response.status == 200 else b""
            return ServerResponse(response.status, response.headers, body)

    def download(self, url: str, offer: Offer, path: Path, deadline: Deadline, authorization: str = "") -> None:
        """Make the file `path` hold what `offer` states, from what it holds already on.

        Raises NotReady when the connection ends before (what arrived stays), BundleRefused when something else arrives
        (nothing stays), NotFound, NotAllowed, StoreError.
        """
        have = _begun(path)
        if have > offer.size:
            _empty(path)
            have = 0
        if have < offer.size:
            ranges = {"Range": f"bytes={have}-"} if have else {}
            with self._open(url, ranges, deadline, authorization) as response:
                _check_status(response, url)
                self._store(response, url, offer, path, have)
        _check_digest(path, offer, url, begun=have > 0)

    def _store(self, response: Any, url: str, offer: Offer, path: Path, have: int) -> None:
        """Append what arrives to the `have` bytes that are there, or replace them if the server starts over."""
        if response.status == 206:
            place = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if not have or place is None or int(place[1]) != have:
                _empty(path)
                raise NotReady(f"fetch {url}", "the server sent another part than was asked for", _LATER)
        with durable.reported(f"write {path}"), _opened(path, response.status) as file:
            for chunk in _chunks(response, url):
                if file.tell() + len(chunk) > offer.size:
                    file.truncate(0)
                    raise BundleRefused(
                        f"fetch {url}", f"more than the {offer.size} bytes that were stated", _GET_AGAIN
                    )
                file.write(chunk)
            arrived = file.tell()
        if arrived < offer.size:
            raise NotReady(f"fetch {url}", f"the connection ended after {arrived} of {offer.size} bytes", _LATER)

    @contextmanager
    def _open(
        self, url: str, headers: Mapping[str, str], deadline: Deadline, authorization: str
    ) -> Iterator[http.client.HTTPResponse]:
        """Give the response to a GET; what goes wrong until its end becomes an error of ours."""
        try:
            with self._follow(url, headers, deadline, authorization) as response:
                yield response
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _unreachable(url, error) from error

    def _follow(
        self, url: str, headers: Mapping[str, str], deadline: Deadline, authorization: str
    ) -> http.client.HTTPResponse:
        """Return the first answer that is no redirect; the password is shown to the first server alone."""
        asked = {"User-Agent": f"inference-appliance/{__version__}", **headers}
        place = url
        for _ in range(MAX_REDIRECTS + 1):
            shown = {"Authorization": authorization} if authorization and _origin(place) == _origin(url) else {}
            response = self._dialer.request(place, {**asked, **shown}, deadline)
            location = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                return response
            response.close()  # without reading what came with it
            place = _next(place, location)
        raise NotReady(f"fetch {url}", f"more than {MAX_REDIRECTS} redirects", "correct the server's redirects")


def authorization(token_file: str) -> str:
    """Return the value of the Authorization header: Basic for `user:password`, Bearer for a token; "" for no file.

    Raises ConfigError when the file cannot be read or holds neither.
    """
    if not token_file:
        return ""
    try:
        secret = ahead.read(Path(token_file)).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"[pull] token_file {token_file}", "cannot be read", "check the path and its rights"
        ) from error
    if not re.fullmatch(r"[!-~]{1,16384}", secret):
        raise ConfigError(f"[pull] token_file {token_file}", "is no single line", "write a token, or user:password")
    return f"Basic {base64.b64encode(secret.encode()).decode()}" if ":" in secret else f"Bearer {secret}"


def _next(place: str, location: str) -> str:
    """Return the address that a server points to. Raises Refused where TLS would end, NotReady where it is none."""
    following = urljoin(place, quote(location, safe=string.punctuation, encoding="iso-8859-1", errors="replace"))
    scheme = urlsplit(following).scheme
    if place.startswith("https:") and scheme != "https":
        raise Refused(
            f"fetch {place}", f"the server points to {following[:200]}, without TLS", "correct the server's redirect"
        )
    if scheme not in ("http", "https"):
        raise NotReady(f"fetch {place}", f"the server points to {following[:200]}", "correct the server's redirect")
    return following


def _origin(url: str) -> tuple[str, str, int]:
    """Return what must be the same for two addresses to be one server (RFC 6454). Raises ValueError."""
    parts = urlsplit(url)
    return parts.scheme, *endpoint(parts)


def _read(response: Any, url: str, limit: int) -> bytes:
    """Return the whole body, which may have `limit` bytes."""
    body = bytearray()
    for chunk in _chunks(response, url):
        body += chunk
        if len(body) > limit:
            raise Refused(f"fetch {url}", f"more than {limit} bytes", "check the address; an index is small")
    return bytes(body)


def _chunks(response: Any, url: str) -> Iterator[bytes]:
    """Yield the body as it arrives. A break in it is an error of the network, not of the disk it is written to."""
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(url, error) from error
        if not chunk:
            return
        yield chunk


def _check_status(response: Any, url: str) -> None:
    """Raise the error that a status stands for, unless the body is what was asked for."""
    if response.status not in (200, 206):
        raise failure(url, response.status)


def failure(url: str, status: int) -> ApplianceError:
    """Return the error that an HTTP status stands for."""
    tried, found = f"fetch {url}", f"the server answered {status}"
    if status in (401, 403):
        return NotAllowed(tried, found, "check [pull] token_file and what it may read")
    if status in (404, 410):
        return NotFound(tried, found, "check [pull] source, and whether it was published there")
    return NotReady(tried, found, _LATER)


def _unreachable(url: str, error: Exception) -> ApplianceError:
    """Return the error for a connection that cannot be made, or broke."""
    if isinstance(error, ssl.SSLCertVerificationError):
        found = f"its certificate is not to be trusted: {error.verify_message}"
        return Refused(f"fetch {url}", found, "set [pull] ca_file to the authority that vouches for the server")
    return NotReady(f"fetch {url}", str(error) or type(error).__name__, _LATER)


def _begun(path: Path) -> int:
    """Return how many bytes of a download are there, making the file where it is absent."""
    with durable.reported(f"write {path}"):
        # With the store's rights and owner.
        descriptor = durable.open_or_make(path, os.O_RDONLY, within=path.parents[1])
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)


def _empty(path: Path) -> None:
    with durable.reported(f"write {path}"):
        os.close(nofollow.open_file(path, os.O_WRONLY | os.O_TRUNC, within=path.parents[1]))


def _opened(path: Path, status: int) -> IO[bytes]:
    """Return the begun download in `path`, to be continued (206, Partial Content) or written again."""
    how, mode = (os.O_APPEND, "ab") if status == 206 else (os.O_TRUNC, "wb")
    return os.fdopen(nofollow.open_file(path, os.O_WRONLY | how, within=path.parents[1]), mode)


def _check_digest(path: Path, offer: Offer, url: str, *, begun: bool) -> None:
    """Refuse and delete what is not as stated; what was `begun` by an earlier pull a power cut may have damaged."""
    try:
        with os.fdopen(nofollow.open_file(path, within=path.parents[1]), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"read {path}", error.strerror or str(error), "see: appliance doctor") from error
    if digest != offer.sha256:
        path.unlink()
        if begun:
            raise NotReady(f"fetch {url}", "the part that had arrived was damaged", "the next pull fetches it again")
        raise BundleRefused(f"fetch {url}", f"its SHA-256 is {digest}, not the stated {offer.sha256}", _GET_AGAIN)

"""Who may ask for what: tokens from a file, and the rule that a port beyond loopback needs them."""

import functools
import hashlib
import hmac
import ipaddress
import logging
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from appliance import ahead
from appliance.config import HttpConfig
from appliance.errors import ConfigError, NotAllowed
from appliance.rest.http_types import Authorize, Request
from appliance.rest.problems import Forbidden

LEAST_CHARACTERS = 16
"""Of a token: 16 random ones of the alphabet below are 96 bits."""
CHECK_SECONDS = 1.0
"""Between two looks at the file's date."""

_LOOKS = ("GET", "HEAD")
_OWN_SITES = ("same-origin", "none")
"""Of Sec-Fetch-Site (Fetch Metadata): this page's own requests, and what the user asked for by hand."""
_ASK_OTHERWISE = "use the command line or this host's own page, or name the site in [http] hosts"

_GRANTS = {"predict": frozenset({"predict"}), "admin": frozenset({"predict", "admin"})}
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, section 2.1

log = logging.getLogger(__name__)


def guard(config: HttpConfig) -> "Tokens | Pages":
    """Return what stands before every route. Raises ConfigError for a tokens file that cannot be used."""
    if config.tokens_file and config.auth == "tokens":
        return Tokens.load(Path(config.tokens_file))
    return Pages(config)


def authorizer(config: HttpConfig) -> Authorize:
    """Return the check of what stands before every route. Raises ConfigError, as guard() does."""
    return guard(config).check


def refuse_open_port(config: HttpConfig) -> None:
    """Raise ConfigError where anybody on the network could ask, and nobody said that they may."""
    if config.tokens_file and config.auth == "none":
        found = 'it is set, and auth = "none" says that no token is needed'
        raise ConfigError("[http] tokens_file", found, "leave out one of the two")
    if config.auth == "none" or config.tokens_file or _is_loopback(config.host):
        return
    raise ConfigError(
        f"serve on {config.host or 'all addresses'}",
        "others can reach it and no token is needed",
        'set [http] tokens_file, or host = "127.0.0.1", or say auth = "none"',
    )


class Pages:
    """Refuses what other sites' pages ask for through the browser of somebody who may; where no token is needed.

    Any page that is open on this host could otherwise ask whatever it likes: of its own name, made to mean this host
    after it was loaded (DNS rebinding), or of this host's name, whose answer it cannot read but whose work is done
    (cross-site request forgery). A port of loopback is asked for by an address, by localhost or by the names in
    `[http] hosts`, and by no other name, whoever asks; no name server can make those mean another host.
    """

    def __init__(self, config: HttpConfig) -> None:
        self._sites = {name.lower().rstrip(".") for name in config.hosts if name}
        self._names = self._sites | {config.host.lower().rstrip(".")}
        self._by_name = not _is_loopback(config.host) and not config.hosts
        """Whether the port may be asked for by any name: it is open to a network whose names are not known here."""
        self._is_own = functools.lru_cache(maxsize=256)(self._knows)

    def check(self, request: Request, scope: str) -> None:
        """Raise Forbidden for a request that is not meant for this host, or that another site's page makes."""
        environ = request.environ
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        # No Host at all (HTTP/1.0) is no browser's.
        if host and not self._by_name and not self._is_own(host):
            next_step = "ask by 127.0.0.1 or localhost, or name it in [http] hosts, or set [http] tokens_file"
            raise Forbidden(_tried(request), f"it was asked of {host[:80]!r}, which is no name of this host", next_step)
        if origin is not None:
            self._check_origin(request, scope, host, origin)
        elif request.method not in _LOOKS and environ.get("HTTP_SEC_FETCH_SITE", "none") not in _OWN_SITES:
            raise Forbidden(_tried(request), "another site's page asks for it", _ASK_OTHERWISE)

    def reload(self) -> None:
        """Read nothing: where no token is needed, nothing is read but at the start."""
        log.info("nothing to reload: there are no tokens, and other settings need a restart")

    def _check_origin(self, request: Request, scope: str, host: str, origin: str) -> None:
        """Raise Forbidden where the page that asks (RFC 6454, section 7) is not this service's own."""
        netloc = _netloc(origin)
        own = netloc == host.lower() or _name(netloc) in self._sites
        # What only an administrator may is asked for by a page of a name that no name server can give to another host.
        if not netloc or not own or (scope == "admin" and not self._is_own(netloc)):
            raise Forbidden(_tried(request), "another site's page asks for it", _ASK_OTHERWISE)

    def _knows(self, host: str) -> bool:
        """Return whether a host, with or without a port, surely means this host."""
        name = _name(host)
        if name in self._names or name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
            return bool(name)
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False


class Tokens:
    """The tokens of a file; a changed file is read again, a broken one leaves the old tokens in force.

    A line is `SCOPE TOKEN`, SCOPE being predict or admin (which includes predict); # begins a comment line. Several
    tokens are good at once, so that one can replace another without a gap. Only their SHA-256 is kept in memory.
    """

    def __init__(self, path: Path, digests: Sequence[tuple[bytes, frozenset[str]]], mark: object) -> None:
        """Take what `load` read."""
        self._path = path
        self._digests = digests
        self._mark = mark
        self._next_look = time.monotonic() + CHECK_SECONDS
        self._looking = threading.Lock()

    @classmethod
    def load(cls, path: Path) -> "Tokens":
        """Read a tokens file. Raises ConfigError, which names the line but never what stands there."""
        mark = _mark(path)
        return cls(path, _read(path), mark)

    def check(self, request: Request, scope: str) -> None:
        """Raise NotAllowed without a known token, Forbidden with one of too small a scope; "none" needs no token."""
        if scope == "none":
            return
        if time.monotonic() >= self._next_look:
            self._look_again()
        kind, _, token = request.header("Authorization").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise NotAllowed(_tried(request), "no token was sent", "send the header Authorization: Bearer TOKEN")
        granted = self._granted(token.strip())
        if not granted:
            raise NotAllowed(_tried(request), "the token is unknown", "ask the operator for one in tokens_file")
        if scope not in granted:
            raise Forbidden(_tried(request), f"the token lacks the scope {scope}", f"use a token of scope {scope}")

    def reload(self) -> None:
        """Read the file now, whether it has changed or not; a broken one leaves the old tokens in force."""
        self._mark = object()
        self._look_again()

    def _granted(self, token: str) -> frozenset[str]:
        """Return the scopes of `token`; the time it takes does not tell how near it comes to a known one."""
        digest = _digest(token)
        granted: frozenset[str] = frozenset()
        for known, scopes in self._digests:  # every one, with no early end
            granted |= scopes if hmac.compare_digest(known, digest) else frozenset()
        return granted

    def _look_again(self) -> None:
        """Read the file again if it has changed."""
        if not self._looking.acquire(blocking=False):
            return  # another thread is at it
        try:
            self._next_look = time.monotonic() + CHECK_SECONDS
            mark = _mark(self._path)
            if mark == self._mark:
                return
            self._digests = _read(self._path)
            self._mark = mark
            log.info("tokens read again", extra={"file": str(self._path), "tokens": len(self._digests)})
        except ConfigError as error:
            log.error("tokens file cannot be read, the old tokens stay in force", extra={"error": str(error)})
        finally:
            self._looking.release()


def _read(path: Path) -> list[tuple[bytes, frozenset[str]]]:
    """Return [(SHA-256 of the token, its scopes)] of a tokens file."""
    tried = f"tokens file {path}"
    try:
        with ahead.open_file(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = file.read().decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise ConfigError(tried, f"cannot be read ({reason})", "correct [http] tokens_file or the file") from None
    if mode & 0o007:
        found = f"every user of this host may use it (mode {mode & 0o777:o})"
        raise ConfigError(tried, found, f"chmod 640 {path}, with the service's group")
    tokens = [_parse(line, f"{tried}, line {number}") for number, line in enumerate(lines, 1) if _counts(line)]
    if not tokens:
        raise ConfigError(tried, "holds no token", "write a line: predict TOKEN")
    return tokens


def _counts(line: str) -> bool:
    """Return whether a line is neither blank nor a comment."""
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _parse(line: str, tried: str) -> tuple[bytes, frozenset[str]]:
    """Return the token's digest and scopes; no message repeats any of the line, which may hold the token anywhere."""
    words = line.split()
    if len(words) != 2 or words[0] not in _GRANTS:
        raise ConfigError(tried, "is no scope and token", "write: predict TOKEN, or: admin TOKEN")
    scope, token = words
    if not _TOKEN.fullmatch(token):
        raise ConfigError(tried, "the token has a character that no header can carry", "use A-Z a-z 0-9 - . _ ~ + /")
    if len(token) < LEAST_CHARACTERS:
        raise ConfigError(
            tried, f"the token has {len(token)} characters", f"use {LEAST_CHARACTERS} or more: openssl rand -hex 24"
        )
    return _digest(token), _GRANTS[scope]


def _mark(path: Path) -> object:
    """Return what changes when the file does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode


def _digest(token: str) -> bytes:
    """Return a token's SHA-256: all digests are of one length, so comparing them does not tell a token's."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _netloc(origin: str) -> str:
    """Return the host and port of an origin, "" for what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(netloc: str) -> str:
    """Return the host of a host and port, "" for what is none."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    """Return whether only this host can reach `host`; a name other than localhost may mean anything."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _tried(request: Request) -> str:
    """Return what a request asked for."""
    return f"{request.method} {request.path}"

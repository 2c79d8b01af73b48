"""Who may ask for what: tokens of a file, with their scopes. Knows no transport."""

import hashlib
import hmac
import logging
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from appliance import ahead
from appliance.errors import ConfigError, Forbidden, NotAllowed

LEAST_CHARACTERS = 16
"""Of a token: 16 random ones of the alphabet below are 96 bits."""
CHECK_SECONDS = 1.0
"""Between two looks at the file's date."""

_GRANTS = {"predict": frozenset({"predict"}), "admin": frozenset({"predict", "admin"})}
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, section 2.1

log = logging.getLogger(__name__)


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

    def check(self, authorization: str, scope: str, tried: str) -> None:
        """Raise NotAllowed without a known token, Forbidden with one of too small a scope.

        `authorization` is as the header of that name has it (RFC 6750), `tried` what was asked for, for the message.
        """
        if time.monotonic() >= self._next_look:
            self._look_again()
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token:
            raise NotAllowed(tried, "no token was sent", "send the header Authorization: Bearer TOKEN")
        granted = self._granted(token.strip())
        if not granted:
            raise NotAllowed(tried, "the token is unknown", "ask the operator for one in tokens_file")
        if scope not in granted:
            raise Forbidden(tried, f"the token lacks the scope {scope}", f"use a token of scope {scope}")

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

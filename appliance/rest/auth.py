"""Authorisation over HTTP: by token, or by the page's origin. A port beyond loopback needs tokens."""

import functools
import ipaddress
import logging
from pathlib import Path
from urllib.parse import urlsplit

from appliance.config import HttpConfig
from appliance.errors import ConfigError, Forbidden
from appliance.rest.cors import EVERY, Origins
from appliance.rest.http_types import Authorize, Request
from appliance.tokens import Tokens

_LOOKS = ("GET", "HEAD")
_OWN_SITES = ("same-origin", "none")
"""Of Sec-Fetch-Site (Fetch Metadata): this page's own requests, and what the user asked for by hand."""
_ASK_OTHERWISE = "use the command line or this host's own page, or name the site in [http] hosts"

log = logging.getLogger(__name__)


def guard(config: HttpConfig) -> "TokenGuard | Pages":
    """Return the check before every route. Raises ConfigError for a tokens file that cannot be used."""
    if config.tokens_file and config.auth == "tokens":
        return TokenGuard.load(Path(config.tokens_file))
    return Pages(config)


def authorizer(config: HttpConfig) -> Authorize:
    """Return the authorisation function of that check. Raises ConfigError, as guard() does."""
    return guard(config).check


def refuse_open_port(config: HttpConfig) -> None:
    """Raise ConfigError if the port is open to the network without tokens and without auth = "none"."""
    if config.tokens_file and config.auth == "none":
        found = 'it is set, and auth = "none" says that no token is needed'
        raise ConfigError("[http] tokens_file", found, "leave out one of the two")
    if EVERY in config.origins and not config.tokens_file:
        found = '"*" is set, and no token is needed: every page that is open on this host could ask'
        raise ConfigError("[http] origins", found, "name the sites, or set [http] tokens_file")
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
        self._origins = Origins(config.origins)
        self._names = self._sites | {config.host.lower().rstrip(".")}
        self._by_name = not _is_loopback(config.host) and not config.hosts
        """Whether the port may be asked for by any name: it is open to a network whose names are not known here."""
        self._is_own = functools.lru_cache(maxsize=256)(self._knows)

    def check(self, request: Request, scope: str) -> None:
        """Raise Forbidden for a request that is not meant for this host, or that another site's page makes."""
        environ = request.environ
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        # A browser always sends Host; a request without one (HTTP/1.0) is not from a browser.
        if host and not self._by_name and not self._is_own(host):
            next_step = "ask by 127.0.0.1 or localhost, or name it in [http] hosts, or set [http] tokens_file"
            raise Forbidden(_tried(request), f"it was asked of {host[:80]!r}, which is no name of this host", next_step)
        if origin is not None:
            self._check_origin(request, scope, host, origin)
        elif request.method not in _LOOKS and environ.get("HTTP_SEC_FETCH_SITE", "none") not in _OWN_SITES:
            raise Forbidden(_tried(request), "another site's page asks for it", _ASK_OTHERWISE)

    def reload(self) -> None:
        """Read nothing: without tokens, settings are read only at the start."""
        log.info("nothing to reload: there are no tokens, and other settings need a restart")

    def _check_origin(self, request: Request, scope: str, host: str, origin: str) -> None:
        """Raise Forbidden where the page that asks (RFC 6454, section 7) is not this service's own."""
        netloc = _netloc(origin)
        own = netloc == host.lower() or _name(netloc) in self._sites
        if origin in self._origins and scope != "admin":
            return
        # For administrators' routes the page's host must be a name that no name server can point to another host.
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


class TokenGuard:
    """Accepts requests with a token whose scope is that of the route."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    @classmethod
    def load(cls, path: Path) -> "TokenGuard":
        """Read a tokens file. Raises ConfigError, as Tokens.load does."""
        return cls(Tokens.load(path))

    def check(self, request: Request, scope: str) -> None:
        """Raise NotAllowed without a known token, Forbidden with one of too small a scope; "none" needs no token."""
        if scope != "none":
            self._tokens.check(request.header("Authorization"), scope, _tried(request))

    def reload(self) -> None:
        """Read the file now; a broken one leaves the old tokens in force."""
        self._tokens.reload()


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
    return f"{request.method} {request.told_path}"

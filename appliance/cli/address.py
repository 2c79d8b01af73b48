"""The service that a command calls: --url, what the running service wrote, or the configuration."""

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from appliance.config import Config, HttpConfig
from appliance.errors import Misuse, NotReady
from appliance.store import running

SECONDS = 2.0
"""Seconds that a service on this host may take to answer."""
_SAY = "say http://HOST:PORT or https://HOST:PORT"

url_option = click.option(
    "--url", metavar="URL", help="Call the service at this URL, instead of the one that uses the state folder."
)


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int
    tls: bool = False
    own: HttpConfig | None = None
    """The settings of the service, where it is that of this host: its certificate is the one to expect."""

    def __str__(self) -> str:
        """Return the URL, without a path."""
        return f"{'https' if self.tls else 'http'}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection, not opened yet; `timeout` in seconds."""
        # http.client, not urllib: it knows no proxies.
        if not self.tls:
            return http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self._context())

    def trust(self) -> dict[str, Any]:
        """Return {"tls": {"certificate", "key"}}: the files by which other programs of this host ask its service.

        `key` is "" where the service takes callers without a certificate. {} without TLS, or of another host's service.
        """
        if not self.tls or self.own is None:
            return {}
        key = (self.own.key or self.own.certificate) if self.own.client_ca else ""
        return {"tls": {"certificate": self.own.certificate, "key": key}}

    def _context(self) -> Any:
        """Return the TLS context: of this host's service it expects that very certificate, whatever name it bears."""
        import ssl  # takes longer to import than the commands that do not need it

        if self.own is None:
            return ssl.create_default_context()
        http, context = self.own, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tried = f"ask the service at {self}"
        try:
            context.load_verify_locations(http.certificate)
            if http.client_ca:  # ours is the only certificate at hand; its authority may be one that the service takes
                context.load_cert_chain(http.certificate, http.key or None, password="")
        except (OSError, ValueError) as error:
            found = f"its certificate {http.certificate} cannot be read ({error})"
            raise NotReady(tried, found, "run as the service's user, with its --config, or say --url") from error
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context


def find(config: Config, url: str | None = None) -> Address:
    """Return the service's address. Raises Misuse for an invalid URL."""
    if url is not None:
        return _parsed(url)
    found = running.read(config.state_dir)
    if found is None:
        return configured(config)
    http = config.http
    if found.tls and not http.certificate:
        http = msgspec.structs.replace(http, certificate=found.certificate)
    return Address(_reached(found.host), found.port, found.tls, http)


def configured(config: Config) -> Address:
    """Return where a service listens that has this configuration."""
    return Address(_reached(config.http.host), config.http.port, bool(config.http.certificate), config.http)


def ask(address: Address, path: str = "/health/ready") -> dict[str, Any]:
    """Return what a service at an address answers to GET `path`.

    {"url", "running": False} when nothing answers, with the `problem` where TLS has one; else also the HTTP `status`
    and the JSON `answer` (None if none). Over TLS with `tls`, see Address.trust.
    """
    url = f"{address}{path}"
    try:
        connection = address.connection(SECONDS)
    except NotReady as error:
        return {"url": url, "running": False, "problem": error.found} | address.trust()
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(1024 * 1024)
    except (OSError, http.client.HTTPException) as error:
        about = {"problem": str(error)} if address.tls and not isinstance(error, ConnectionError) else {}
        return {"url": url, "running": False} | about | address.trust()
    finally:
        connection.close()
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    told = {"url": url, "running": True, "status": response.status, "ready": response.status == 200, "answer": answer}
    return told | address.trust()


def _reached(host: str) -> str:
    """Return where this host reaches what listens at an address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


def _parsed(url: str) -> Address:
    """Return the address that a URL names."""
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        port = parts.port
    except ValueError as error:
        raise Misuse(f"read the URL {url!r}", str(error), _SAY) from error
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or not parts.hostname or more:
        raise Misuse(f"read the URL {url!r}", "it is no address of a service", _SAY)
    tls = parts.scheme == "https"
    return Address(parts.hostname, port or (443 if tls else 80), tls)

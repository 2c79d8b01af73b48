"""Where the service answers that a command asks: at --url, where the running service says, or as configured."""

import http.client
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

import click

from appliance.config import Config
from appliance.errors import Misuse
from appliance.store import running

url_option = click.option(
    "--url", metavar="URL", help="Ask the service there, instead of the one that runs over the state folder."
)


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return the URL, without a path."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether nobody else's host can be there."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection, not opened yet; `timeout` in seconds."""
        # http.client, not urllib: it knows no proxies.
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)


def find(config: Config, url: str | None = None) -> Address:
    """Return where the service is asked. Raises Misuse for a URL that is none."""
    if url is not None:
        return _parsed(url)
    found = running.read(config.state_dir)
    return Address(_reached(found.host), found.port) if found else configured(config)


def configured(config: Config) -> Address:
    """Return where a service listens that has this configuration."""
    return Address(_reached(config.http.host), config.http.port)


def _reached(host: str) -> str:
    """Return where this host reaches what listens at an address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


def _parsed(url: str) -> Address:
    """Return the address that a URL names."""
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        port = parts.port
    except ValueError as error:
        raise Misuse(f"read the URL {url!r}", str(error), "say http://HOST:PORT") from error
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme != "http" or not parts.hostname or more:
        raise Misuse(f"read the URL {url!r}", "it is no address of a service", "say http://HOST:PORT")
    return Address(parts.hostname, port or 80)

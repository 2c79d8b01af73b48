"""Connections to servers that may be slow, endless or hostile: every wait in them ends by a deadline.

Beside reading and writing that is the name's look-up, connecting, the proxy's answer and TLS's handshake. Names and
certificates are always checked; no proxy but the configured one. One connection carries one request.
"""

import http.client
import re
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urlsplit

from appliance.config import PullConfig
from appliance.errors import ConfigError
from appliance.pull.deadline import Deadline

MAX_HEADS = 8
"""Answers of status 1xx before the one that counts (RFC 9110, 15.2: a client must take some)."""
_PORTS = {"http": 80, "https": 443}


class _Limited:
    """A socket whose reads and writes each wait for `limit()` seconds at most."""

    limit: Callable[[], float]

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(self.limit())  # type: ignore[attr-defined]
        try:
            return super().recv_into(*arguments)  # type: ignore[misc, no-any-return]
        except TimeoutError:
            self.limit()  # says so, where it was the deadline
            raise

    def sendall(self, *arguments: Any) -> None:
        self.settimeout(self.limit())  # type: ignore[attr-defined]
        super().sendall(*arguments)  # type: ignore[misc]

    def send(self, *arguments: Any) -> int:
        self.settimeout(self.limit())  # type: ignore[attr-defined]
        return super().send(*arguments)  # type: ignore[misc, no-any-return]


class _Plain(_Limited, socket.socket):
    pass


class _Tls(_Limited, ssl.SSLSocket):
    pass


class _Response(http.client.HTTPResponse):
    """A response; http.client itself reads `100 Continue` forever."""

    def __init__(self, *arguments: Any, **rest: Any) -> None:
        super().__init__(*arguments, **rest)
        self._heads = 0

    def _read_status(self) -> Any:
        self._heads += 1
        if self._heads > MAX_HEADS:
            raise http.client.HTTPException(f"more than {MAX_HEADS} answers of status 100")
        return super()._read_status()  # type: ignore[misc]


class Dialer:
    """Opens connections as the section `[pull]` says."""

    def __init__(self, config: PullConfig) -> None:
        """Raises ConfigError when a file of certificates or the proxy's address cannot be used."""
        self._timeout = config.timeout
        self._tls = _tls_context(config)
        self._proxy = _proxy(config.proxy)
        self._addresses: dict[tuple[str, int], list[Any]] = {}

    def request(self, url: str, headers: dict[str, str], deadline: Deadline) -> http.client.HTTPResponse:
        """Return the answer to a GET, its body not read; closing it closes the connection.

        Raises OSError, http.client.HTTPException, ValueError (an address that is none), NotReady (the deadline).
        """
        parts = urlsplit(url)
        host, port = endpoint(parts)
        encrypted = parts.scheme == "https"
        sock: socket.socket = self._connect(self._proxy or (host, port), deadline)
        try:
            if encrypted:
                if self._proxy:
                    _tunnel(sock, _authority(host, port))
                sock = self._encrypt(sock, host, deadline)
            connection = http.client.HTTPConnection(host, port)
            connection.sock = sock
            connection.response_class = _Response
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            asked = f"http://{_authority(host, port)}{target}" if self._proxy and not encrypted else target
            shown = _authority(host, port, default=_PORTS[parts.scheme])
            connection.request("GET", asked, headers={"Host": shown, "Connection": "close", **headers})
            return connection.getresponse()
        finally:
            sock.close()  # an answer that is read holds it open until its own end

    def _connect(self, place: tuple[str, int], deadline: Deadline) -> _Plain:
        """Return a connection to the first address of a host that takes one."""
        if place not in self._addresses:
            self._addresses[place] = _resolve(*place, self._limit(deadline))
        failure: OSError | None = None
        for family, kind, protocol, _, address in self._addresses[place]:
            sock = _Plain(family, kind, protocol)
            sock.limit = lambda: self._limit(deadline)
            try:
                sock.settimeout(self._limit(deadline))
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failure or OSError(f"{place[0]} has no address")

    def _encrypt(self, sock: socket.socket, host: str, deadline: Deadline) -> _Tls:
        """Return the connection with TLS on it, the server's certificate checked for `host`."""
        # The handshake as a whole has one wait.
        sock.settimeout(self._limit(deadline))
        encrypted = self._tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        assert isinstance(encrypted, _Tls)  # noqa: S101 - the context's own class
        encrypted.limit = lambda: self._limit(deadline)
        try:
            encrypted.do_handshake()
        except BaseException:
            encrypted.close()
            raise
        return encrypted

    def _limit(self, deadline: Deadline) -> float:
        return min(self._timeout, deadline.left())


def endpoint(parts: SplitResult) -> tuple[str, int]:
    """Return the host, in ASCII, and the port that an address leads to. Raises ValueError."""
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("is no http:// or https:// address")
    return parts.hostname.encode("idna").decode(), parts.port or _PORTS[parts.scheme]


def _authority(host: str, port: int, *, default: int = 0) -> str:
    """Return HOST:PORT, without the port where it is the default."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port == default else f"{shown}:{port}"


def _resolve(host: str, port: int, seconds: float) -> list[Any]:
    """Return a host's addresses. getaddrinfo(3) knows no time limit: a thread waits for it, and may be left behind."""
    found: list[Any] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - raised below, in the thread that asked
            found.append(error)

    thread = threading.Thread(target=look_up, name="resolve", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise TimeoutError(f"the look-up of {host} timed out")
    if isinstance(found[0], Exception):
        raise found[0]
    return list(found[0])


def _tunnel(sock: socket.socket, authority: str) -> None:
    """Ask a proxy for a connection to a host (RFC 9110, 9.3.6)."""
    sock.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("ascii"))
    response = _Response(sock, method="CONNECT")
    try:
        response.begin()
        if response.status != 200:
            raise OSError(f"the proxy answered {response.status}")
    finally:
        response.close()


def _tls_context(config: PullConfig) -> ssl.SSLContext:
    """Return how TLS is spoken: names and certificates are checked, whatever is configured."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file or None)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        found = f"the certificates cannot be used: {error}"
        raise ConfigError(
            "[pull] ca_file, cert_file, key_file", found, "check the files (PEM) and their rights"
        ) from error
    context.sslsocket_class = _Tls
    return context


def _proxy(proxy: str) -> tuple[str, int] | None:
    """Return where the proxy is; None for none."""
    if not proxy:
        return None
    try:
        if re.fullmatch(r"http://[^\s/@]+/?", proxy):
            return endpoint(urlsplit(proxy))
    except ValueError:
        pass
    raise ConfigError(f"[pull] proxy {proxy[:80]!a}", "is no address of a proxy", "write it as http://HOST:PORT")

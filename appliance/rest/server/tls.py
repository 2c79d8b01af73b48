"""TLS on the port itself: certificates that are read again when their files change, and connections that speak it.

TLS runs in the loop, as everything small does: with a P-256 key a handshake takes about a millisecond of it, and a
request on an open connection no more than a plain one (benchmarks/README.md, "TLS"). A thread for each handshake would
share the same running thread of Python. A connection that does not finish its handshake counts as a request that does
not arrive.

Threads: the loop's thread shakes hands and reads; the thread that answers a request sends. OpenSSL lets no two use one
connection at once, so TlsSocket has a lock; no call under it waits, since the socket does not block.
"""

import contextlib
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from appliance.config import HttpConfig
from appliance.errors import ApplianceError, ConfigError
from appliance.rest.server.channel import Channel

LOOK_SECONDS = 1.0
"""Between two looks at whether a file changed; it is looked when a connection comes."""
FULL = 16 * 1024
"""Bytes of a record that is full (RFC 8446, 5.1): behind a smaller one there is hardly ever another yet, and to be told
so by an error costs more than another turn of the loop.
"""
RECORDS = 16
"""Records (of up to 16 KiB) that are read of one connection before others have their turn."""

_WANTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS: ask for https://\n"
)

log = logging.getLogger(__name__)


class Certificates:
    """The server's context, made again when a file changes. For the loop's thread."""

    def __init__(self, config: HttpConfig) -> None:
        """Raises ConfigError for files that hold no usable certificate and key."""
        self._config = config
        self._files = [Path(name) for name in (config.certificate, config.key, config.client_ca) if name]
        self._context = _context(config)
        self._stamp = self._look()
        self._next_look = time.monotonic() + LOOK_SECONDS

    def wrap(self, connection: socket.socket) -> "TlsSocket":
        """Return a new connection as one that has yet to shake hands. Raises OSError where it is gone already."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_SECONDS
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self.reload()
        return TlsSocket(self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False))

    def reload(self) -> None:
        """Read the files; while they are not usable (yet), the old ones stay in force."""
        try:
            self._context = _context(self._config)
        except ConfigError as error:
            log.error("certificate cannot be read and the old one stays", extra={"error": str(error)})
        else:
            log.info("certificate read", extra={"file": self._config.certificate})

    def _look(self) -> list[tuple[int, ...]]:
        """Return what changes when a file does, links on the way followed."""
        found: list[tuple[int, ...]] = []
        for file in self._files:
            with contextlib.suppress(OSError):
                status = file.stat()
                found.append((status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
        return found


class TlsSocket:
    """A connected socket whose recv() and send() are encrypted; raises ssl's errors where a plain one has its own."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._ended = False  # our direction: what still comes is not read as TLS

    def handshake(self) -> None:
        """Go on with the handshake. Raises SSLWantReadError, SSLWantWriteError, OSError."""
        with self._lock:
            self._tls.do_handshake()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return what came; with flags (MSG_PEEK) what came encrypted, since only whether it did is asked."""
        with self._lock:
            return socket.socket.recv(self._tls, size, flags) if flags or self._ended else self._tls.recv(size)

    def send(self, data: bytes) -> int:
        """Send some of it; the same bytes have to come again after SSLWantWriteError (SSL_write(3))."""
        with self._lock:
            return self._tls.send(data)

    def send_plain(self, data: bytes) -> None:
        """Send without encryption, to a client that does not speak TLS."""
        with contextlib.suppress(OSError):
            socket.socket.send(self._tls, data)

    def shutdown(self, how: int) -> None:
        """Say that nothing more comes (RFC 8446, 6.1), and end our direction. Raises OSError."""
        self._say_end()
        with self._lock:
            socket.socket.shutdown(self._tls, how)

    def close(self) -> None:
        """Say that nothing more comes where that can be sent at once, and close."""
        self._say_end()
        self._tls.close()

    def _say_end(self) -> None:
        """Send close_notify once."""
        with self._lock:
            if not self._ended and self._tls.version():
                # the side that closes first does not wait for the answer
                with contextlib.suppress(OSError, ValueError):
                    self._tls.unwrap()
            self._ended = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tls, name)


class TlsChannel(Channel):
    """A connection that shakes hands before its first request."""

    handshaking = True
    _wants_write = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.request_started = time.monotonic()  # it has the time that a request has

    def readable(self) -> bool:
        """Return whether the loop should read from the connection."""
        return not self._wants_write if self.handshaking else super().readable()

    def writable(self) -> bool:
        """Return whether the loop should write to the connection."""
        return self._wants_write if self.handshaking else super().writable()

    def handle_write(self) -> None:
        """Shake hands, or send."""
        if self.handshaking:
            self._shake()
        else:
            super().handle_write()

    def handle_read(self) -> None:
        """Shake hands, or read; each recv() empties one record, so that the system knows of all that is left."""
        if self.handshaking and not self._shake():
            return
        for _ in range(RECORDS):
            if self.linger_until:
                super().handle_read()
                return
            try:
                data = self.socket.recv(self.adj.recv_bytes)
            except _WANTS:
                return
            except OSError:
                data = b""
            if not data:
                self.handle_close()
                self.connected = False
                return
            if not self.received(data) or self.unread or not self.connected or len(data) < FULL:
                return

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Return how many bytes were sent; 0 where the connection takes none now, or is gone."""
        try:
            return int(self.socket.send(data))
        except _WANTS:
            return 0
        except OSError:
            if do_close:
                self.handle_close()
            return 0

    def is_unfinished(self) -> bool:
        """Return whether a request arrives or waits, or an answer is unsent."""
        return not self.handshaking and super().is_unfinished()

    def refuse(self, error: ApplianceError) -> None:
        """Answer with an error; before the handshake nothing can be said."""
        if self.handshaking:
            self.drop()
        else:
            super().refuse(error)

    def _shake(self) -> bool:
        """Go on with the handshake; return whether it is done."""
        try:
            self.socket.handshake()
        except _WANTS as error:
            self._wants_write = isinstance(error, ssl.SSLWantWriteError)
            return False
        except OSError as error:  # ssl's errors are OSErrors
            self.handshaking = False
            if getattr(error, "reason", "") == "HTTP_REQUEST":
                self.socket.send_plain(_PLAIN)
                self.lingers = True  # or what is unread of the request would reset the connection
            self.handle_close()
            return False
        self.handshaking, self.request_started = False, 0.0
        return True


def _context(config: HttpConfig) -> ssl.SSLContext:
    """Return the context of a server. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    with _told("certificate", f"{config.certificate} and {config.key or config.certificate}"):
        # A key with a password would be asked for on the terminal.
        context.load_cert_chain(config.certificate, config.key or None, password="")
    if config.client_ca:
        with _told("client_ca", config.client_ca):
            context.load_verify_locations(config.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextlib.contextmanager
def _told(setting: str, files: str) -> Iterator[None]:
    """Turn an OSError into a ConfigError that names the setting."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        next_step = f"name PEM files that user {os.geteuid()} can read, the key without a password"
        raise ConfigError(f"[http] {setting}: read {files}", str(reason), next_step) from error

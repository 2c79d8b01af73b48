"""Servers that never end, trickle, lead astray or ask for passwords: a pull ends in time, and tells nobody anything."""

import contextlib
import http.server
import itertools
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from appliance.errors import ApplianceError, NotReady, Refused
from appliance.pull import connection, oci

OK = b"HTTP/1.1 200 OK\r\n"
DEADLINE = 1.5
PATIENCE = 8.0  # of a busy machine; what is silent here is so for 15 s
"""Seconds for the whole pull in these tests; each silence alone may last 20."""


@pytest.fixture
def rude() -> Iterator[Callable[..., str]]:
    """Return a function that starts a server which behaves as `behave(connection)` says; gives HOST:PORT."""
    servers: list[socket.socket] = []

    def start(behave: Callable[[socket.socket], None], *, reads: bool = True) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(client,), daemon=True).start()

        def talk(client: socket.socket) -> None:
            with contextlib.suppress(OSError), client:
                client.settimeout(20)
                if reads:
                    client.recv(65536)
                behave(client)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for one in servers:
        one.close()


def trickle(client: socket.socket, content: Iterator[bytes] | bytes, seconds: float = 0.05) -> None:
    for byte in content:
        client.sendall(bytes([byte]) if isinstance(byte, int) else byte)
        time.sleep(seconds)


def endless(client: socket.socket, piece: bytes) -> None:
    block = piece * (65536 // len(piece) + 1)
    while True:
        client.sendall(block)


ENDLESS: dict[str, Callable[[socket.socket], None]] = {
    "silence": lambda client: time.sleep(15),
    "a body that trickles": lambda client: (
        client.sendall(OK + b"Content-Length: 100000\r\n\r\n"),
        trickle(client, b"x" * 1000),
    ),
    "a head that trickles": lambda client: trickle(client, itertools.repeat(b"X")),
    "fields that trickle": lambda client: (client.sendall(OK), trickle(client, itertools.cycle([b"a: b\r\n"]), 0.2)),
    "endless 100 Continue": lambda client: endless(client, b"HTTP/1.1 100 Continue\r\n\r\n"),
    "100 Continue that trickles": lambda client: trickle(
        client, itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"), 0.3
    ),
    "endless fields": lambda client: (client.sendall(OK), endless(client, b"a: b\r\n")),
    "an endless field": lambda client: (client.sendall(OK), endless(client, b"a")),
    "an endless body": lambda client: (client.sendall(OK + b"\r\n"), endless(client, b"x" * 1000)),
    "endless chunks": lambda client: (
        client.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n"),
        endless(client, b"1\r\nx\r\n"),
    ),
    "an endless trailer": lambda client: (
        client.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"),
        endless(client, b"a: b\r\n"),
    ),
    "an endless body of a redirect": lambda client: (
        client.sendall(b"HTTP/1.1 302 Found\r\nLocation: /index.json\r\n\r\n"),
        endless(client, b"x" * 1000),
    ),
    "an endless body of an error": lambda client: (
        client.sendall(b"HTTP/1.1 500 Oops\r\n\r\n"),
        endless(client, b"x" * 1000),
    ),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_index_that_never_ends_is_given_up_in_time(host, rude, kind):
    begun = time.monotonic()
    with pytest.raises((NotReady, Refused)):
        host.pull(f"http://{rude(ENDLESS[kind])}/index.json", deadline=DEADLINE)
    assert time.monotonic() - begun < DEADLINE + PATIENCE
    assert host.leftovers() == []


@pytest.mark.parametrize("kind", ["silence", "trickling"])
def test_a_handshake_that_never_ends_is_given_up_in_time(host, rude, kind):
    # A record of a server's hello that announces 16 KiB and comes byte by byte.
    slow = {
        "silence": lambda client: time.sleep(15),
        "trickling": lambda client: trickle(client, itertools.chain(b"\x16\x03\x03\x40\x00", itertools.repeat(0))),
    }
    begun = time.monotonic()
    with pytest.raises(NotReady, match=r"timed out|used up"):
        host.pull(f"https://{rude(slow[kind], reads=False)}/index.json", deadline=DEADLINE)
    assert time.monotonic() - begun < DEADLINE + PATIENCE


@pytest.mark.parametrize("kind", ["silence", "a head that trickles", "endless fields", "endless 100 Continue"])
def test_a_proxy_that_never_ends_is_given_up_in_time(host, rude, kind):
    begun = time.monotonic()
    with pytest.raises(NotReady):
        host.pull("https://server.example/index.json", proxy=f"http://{rude(ENDLESS[kind])}", deadline=DEADLINE)
    assert time.monotonic() - begun < DEADLINE + PATIENCE


def test_a_name_server_that_says_nothing_is_given_up_in_time(host, monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(connection.socket, "getaddrinfo", lambda *_, **__: answered.wait(20))
    begun = time.monotonic()
    with pytest.raises(NotReady, match=r"look-up of server\.example timed out"):
        host.pull("http://server.example/index.json", deadline=DEADLINE)
    assert time.monotonic() - begun < DEADLINE + PATIENCE
    answered.set()


def test_redirects_end(host, rude):
    def astray(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")

    with pytest.raises(NotReady, match="more than 5 redirects"):
        host.pull(f"http://{rude(astray)}/index.json")


def test_a_bundle_that_trickles_leaves_time_for_the_others_and_is_gone_on_with(host, site, signed):
    slow, quick = signed("1.0.0", name="a"), signed("1.0.0", name="b")
    site.publish(slow, quick)
    content = slow.read_bytes()
    site.slow = {"/a-1.0.0.bundle": 0.05}
    begun = time.monotonic()
    found = host.pull(f"{site.base}/index.json", deadline=3.0)
    assert time.monotonic() - begun < 3 + PATIENCE
    assert found == [("a", "1.0.0", "failed"), ("b", "1.0.0", "activated")]
    assert "3 s that a pull may take" in host.error
    arrived = (host.state / "pull" / host.leftovers()[0]).read_bytes()
    assert 0 < len(arrived) < len(content)
    assert content.startswith(arrived)
    site.slow = {}
    assert host.pull(f"{site.base}/index.json")[0] == ("a", "1.0.0", "activated")
    assert site.asked("a-1.0.0.bundle")[-1]["Range"] == f"bytes={len(arrived)}-"


def test_the_memory_of_a_pull_is_bounded_whatever_an_index_sends(host, rude):
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(Refused, match="more than 4194304 bytes"):
        host.pull(f"http://{rude(ENDLESS['an endless body'])}/index.json", deadline=60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * 1024 * 1024


class Registry(http.server.BaseHTTPRequestHandler):
    """Asks for a token of `realm`, and says who asked with which password."""

    realm = ""
    seen: list[tuple[str, str | None]] = []  # noqa: RUF012 - replaced for each test

    def do_GET(self) -> None:
        self.seen.append((self.path.partition("?")[0], self.headers.get("Authorization")))
        if self.path.startswith("/token"):
            self.answer(200, b'{"token": "short-lived"}')
        elif self.headers.get("Authorization") != "Bearer short-lived":
            self.answer(401, b"", **{"WWW-Authenticate": f'Bearer realm="{self.realm}",service="x"'})
        else:
            layers: list[object] = []
            self.answer(
                200, json.dumps({"schemaVersion": 2, "mediaType": oci.MANIFEST_TYPE, "layers": layers}).encode()
            )

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def asking(tls_context: ssl.SSLContext) -> Iterator[Callable[..., tuple[str, type[Registry]]]]:
    """Return a function that starts a registry, or a token server, with TLS; gives HOST:PORT and what it saw."""
    servers = []

    def start() -> tuple[str, type[Registry]]:
        handler = type("Handler", (Registry,), {"seen": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.socket = tls_context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}", handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def password(tmp_path, authority) -> dict[str, str]:
    (tmp_path / "token").write_text("plant:secret")
    return {"token_file": str(tmp_path / "token"), "ca_file": str(authority / "ca.pem")}


def asked_for_token(found: type[Registry]) -> list[str | None]:
    return [shown for path, shown in found.seen if path == "/token"]


@pytest.mark.parametrize("realm", ["https://{}/token", "https://registry.plant@{}/token"])
def test_a_password_is_not_sent_to_a_token_server_that_nobody_named(host, asking, password, realm):
    (place, registry), (elsewhere, other) = asking(), asking()
    registry.realm = realm.format(elsewhere)
    with pytest.raises(Refused, match="auth_hosts"):
        host.pull(f"oci://{place}/plant/models:stable", **password)
    assert other.seen == []


def test_a_password_is_sent_to_the_registry_itself_and_to_servers_that_are_named(host, asking, password):
    (place, registry), (elsewhere, other) = asking(), asking()
    registry.realm = f"https://{place}/token"
    with pytest.raises(Refused, match="0 of its 0 layers"):
        host.pull(f"oci://{place}/plant/models:stable", **password)
    assert asked_for_token(registry) == ["Basic cGxhbnQ6c2VjcmV0"]
    registry.realm = f"https://{elsewhere}/token"
    with pytest.raises(Refused, match="0 of its 0 layers"):
        host.pull(f"oci://{place}/plant/models:stable", auth_hosts=(elsewhere,), **password)
    assert asked_for_token(other) == ["Basic cGxhbnQ6c2VjcmV0"]
    assert registry.seen[-1][1] == "Bearer short-lived"


def test_a_token_for_everybody_is_had_from_any_server_without_a_password(host, asking, authority):
    (place, registry), (elsewhere, other) = asking(), asking()
    registry.realm = f"https://{elsewhere}/token"
    with pytest.raises(Refused, match="0 of its 0 layers"):
        host.pull(f"oci://{place}/plant/models:stable", ca_file=str(authority / "ca.pem"))
    assert asked_for_token(other) == [None]


def test_a_token_server_without_tls_is_refused(host, asking, password, site):
    place, registry = asking()
    registry.realm = f"{site.base}/token"
    with pytest.raises(Refused, match="without TLS"):
        host.pull(f"oci://{place}/plant/models:stable", auth_hosts=(site.base.removeprefix("http://"),), **password)
    assert site.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_carries_the_password_to_another_server(host, tls_site, serve_site, tls_context, password, status):
    other = serve_site(tls_context)
    other.files["/index.json"] = b'{"format": 1, "bundles": []}'
    tls_site.redirects["/index.json"] = f"{other.base}/index.json"
    tls_site.redirect_status = status
    assert host.pull(f"{tls_site.base}/index.json", **password) == []
    assert tls_site.requests[0][1]["Authorization"] == "Basic cGxhbnQ6c2VjcmV0"
    assert "Authorization" not in other.requests[0][1]


def test_what_is_said_of_a_server_ends_in_one_error_and_no_traceback(host, rude):
    def odd(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 \x1b[2J\r\nContent-Length: zz\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n")

    with pytest.raises(ApplianceError):
        host.pull(f"http://{rude(odd)}/index.json", deadline=DEADLINE)

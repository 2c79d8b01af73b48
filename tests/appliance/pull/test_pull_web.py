"""Pulling from a web server: conditional requests, downloads that break, tokens, TLS, redirects, proxies."""

import http.server
import select
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from appliance.errors import ConfigError, NotAllowed, NotFound, NotReady, Refused
from appliance.pull import transfer


@pytest.fixture
def token_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("a-token-of-ours\n")
    return str(file)


def test_what_the_index_offers_comes_and_the_index_is_asked_for_once(host, site, signed):
    site.publish(signed("1.0.0"))
    source = f"{site.base}/index.json"
    assert host.pull(source) == [("iris", "1.0.0", "activated")]
    assert host.active() == "1.0.0"
    assert host.pull(source) == [("iris", "1.0.0", "unchanged")]
    first, second = site.asked("index.json")
    assert "If-None-Match" not in first
    assert second["If-None-Match"]
    assert site.sent[-1] == 0
    assert len(site.asked(".bundle")) == 1
    assert host.leftovers() == []


def test_a_changed_index_brings_the_new_version(host, site, signed):
    site.publish(signed("1.0.0"))
    host.pull(f"{site.base}/index.json")
    site.publish(signed("1.1.0"))
    assert host.pull(f"{site.base}/index.json") == [("iris", "1.1.0", "activated")]


def test_bundles_may_lie_below_the_index_and_a_folder_s_address_means_its_index(host, site, signed):
    bundle = signed("1.0.0+a")
    site.publish(bundle, file="models/iris-1.0.0+a.bundle")
    site.files = {f"/fleet{path}": content for path, content in site.files.items()}
    site.files["/fleet/models/iris-1.0.0%2Ba.bundle"] = bundle.read_bytes()
    assert host.pull(f"{site.base}/fleet/") == [("iris", "1.0.0+a", "activated")]


def test_another_source_is_asked_anew(host, site, signed):
    site.publish(signed("1.0.0"))
    host.pull(f"{site.base}/index.json")
    site.files["/other.json"] = site.files["/index.json"]
    host.pull(f"{site.base}/other.json")
    assert "If-None-Match" not in site.asked("other.json")[0]


def test_a_broken_download_is_said_and_the_next_pull_goes_on_where_it_ended(host, site, signed):
    site.publish(signed("1.0.0"))
    host.pull(f"{site.base}/index.json")
    new = signed("2.0.0")
    site.publish(new)
    site.cut_after = 100
    assert host.pull(f"{site.base}/index.json") == [("iris", "2.0.0", "failed")]
    assert "after 100 of" in host.error
    assert host.active() == "1.0.0"
    assert len(host.leftovers()) == 1
    assert host.pull(f"{site.base}/index.json") == [("iris", "2.0.0", "failed")]
    assert "after 200 of" in host.error
    site.cut_after = None
    assert host.pull(f"{site.base}/index.json") == [("iris", "2.0.0", "activated")]
    assert [headers.get("Range") for headers in site.asked("2.0.0.bundle")] == [None, "bytes=100-", "bytes=200-"]
    assert site.sent[-1] == new.stat().st_size - 200
    assert host.leftovers() == []


def test_a_server_that_knows_no_ranges_sends_all_again(host, site, signed):
    site.publish(signed("1.0.0"))
    site.cut_after = 100
    host.pull(f"{site.base}/index.json")
    site.cut_after, site.ignores_ranges = None, True
    assert host.pull(f"{site.base}/index.json") == [("iris", "1.0.0", "activated")]


def test_another_part_than_was_asked_for_is_not_put_together(host, site, signed):
    site.publish(signed("1.0.0"))
    site.cut_after = 100
    host.pull(f"{site.base}/index.json")
    site.cut_after, site.wrong_range = None, True
    assert host.pull(f"{site.base}/index.json") == [("iris", "1.0.0", "failed")]
    assert "another part" in host.error
    site.wrong_range = False
    assert host.pull(f"{site.base}/index.json") == [("iris", "1.0.0", "activated")]


def test_what_was_begun_and_damaged_on_the_disk_is_fetched_anew(host, site, signed):
    site.publish(signed("1.0.0"))
    site.cut_after = 100
    host.pull(f"{site.base}/index.json")
    partial = host.state / "pull" / host.leftovers()[0]
    partial.write_bytes(bytes(100))
    site.cut_after = None
    assert host.pull(f"{site.base}/index.json") == [("iris", "1.0.0", "failed")]
    assert "damaged" in host.error
    assert host.pull(f"{site.base}/index.json") == [("iris", "1.0.0", "activated")]


def test_a_tampered_bundle_is_refused_and_the_old_version_stays(host, site, signed):
    site.publish(signed("1.0.0"))
    host.pull(f"{site.base}/index.json")
    site.publish(signed("2.0.0"))
    content = bytearray(site.files["/iris-2.0.0.bundle"])
    content[300] ^= 1
    site.files["/iris-2.0.0.bundle"] = bytes(content)
    assert host.pull(f"{site.base}/index.json") == [("iris", "2.0.0", "refused")]
    assert "SHA-256" in host.error
    assert (host.active(), host.store.versions("iris")) == ("1.0.0", ["1.0.0"])
    assert host.leftovers() == []


def test_a_file_that_was_published_after_its_index_comes_with_a_later_pull(host, site, signed):
    site.publish(signed("1.0.0"))
    right = site.files["/iris-1.0.0.bundle"]
    site.files["/iris-1.0.0.bundle"] = bytes(len(right))
    assert host.pull(f"{site.base}/index.json") == [("iris", "1.0.0", "refused")]
    site.files["/iris-1.0.0.bundle"] = right
    assert host.pull(f"{site.base}/index.json") == [("iris", "1.0.0", "activated")]


def test_more_than_the_index_states_is_refused_without_keeping_it(host, site, signed):
    bundle = signed("1.0.0")
    site.publish(bundle)
    site.files["/iris-1.0.0.bundle"] += b"more"
    assert host.pull(f"{site.base}/index.json") == [("iris", "1.0.0", "refused")]
    assert f"more than the {bundle.stat().st_size} bytes" in host.error
    assert host.leftovers() == []


def test_an_index_above_its_limit_is_refused(host, site):
    site.files["/index.json"] = b" " * (4 * 1024 * 1024 + 1)
    with pytest.raises(Refused, match="more than 4194304 bytes"):
        host.pull(f"{site.base}/index.json")


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, NotAllowed), (403, NotAllowed), (404, NotFound), (410, NotFound), (500, NotReady), (204, NotReady)],
)
def test_what_the_server_answers_instead_of_an_index_is_said(host, site, status, error):
    site.statuses["/index.json"] = status
    with pytest.raises(error, match=f"answered {status}"):
        host.pull(f"{site.base}/index.json")


def test_a_bundle_that_is_not_there_fails_and_is_tried_again(host, site, signed):
    site.publish(signed("1.0.0"))
    content = site.files.pop("/iris-1.0.0.bundle")
    assert host.pull(f"{site.base}/index.json") == [("iris", "1.0.0", "failed")]
    site.files["/iris-1.0.0.bundle"] = content
    assert host.pull(f"{site.base}/index.json") == [("iris", "1.0.0", "activated")]


def test_a_server_that_is_away_is_said(host):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(NotReady, match="refused"):
            host.pull(f"http://127.0.0.1:{probe.getsockname()[1]}/index.json")


def test_a_server_that_says_nothing_is_given_up(host):
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NotReady, match="timed out"):
        host.pull(f"http://127.0.0.1:{silent.getsockname()[1]}/index.json", timeout=0.3)


def test_what_is_no_http_is_said(host):
    def answer() -> None:
        connection, _ = rude.accept()
        connection.recv(1000)
        connection.sendall(b"\x00\x01 hello\r\n\r\n")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as rude:
        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(NotReady):
            host.pull(f"http://127.0.0.1:{rude.getsockname()[1]}/index.json")


def test_tls_needs_the_authority_that_vouches_for_the_server(host, tls_site, signed, authority):
    tls_site.publish(signed("1.0.0"))
    with pytest.raises(Refused, match="certificate is not to be trusted"):
        host.pull(f"{tls_site.base}/index.json")
    assert tls_site.requests == []
    assert host.pull(f"{tls_site.base}/index.json", ca_file=str(authority / "ca.pem")) == [
        ("iris", "1.0.0", "activated")
    ]


def test_the_server_must_have_the_name_that_was_asked_for(host, tls_site, authority):
    with pytest.raises(Refused, match="not to be trusted"):
        host.pull(tls_site.base.replace("127.0.0.1", "localhost") + "/index.json", ca_file=str(authority / "ca.pem"))


def test_a_client_certificate_is_shown_where_one_is_asked_for(host, tls_context, tls_site, signed, authority):
    tls_context.verify_mode = ssl.CERT_REQUIRED
    tls_context.load_verify_locations(authority / "ca.pem")
    tls_site.publish(signed("1.0.0"))
    trusted = {"ca_file": str(authority / "ca.pem")}
    with pytest.raises(NotReady):
        host.pull(f"{tls_site.base}/index.json", **trusted)
    ours = {"cert_file": str(authority / "client.pem"), "key_file": str(authority / "client.key")}
    assert host.pull(f"{tls_site.base}/index.json", **trusted, **ours) == [("iris", "1.0.0", "activated")]


@pytest.mark.parametrize("setting", ["ca_file", "cert_file"])
def test_certificates_that_cannot_be_read_are_an_error_before_anything_is_sent(host, tls_site, tmp_path, setting):
    (tmp_path / "broken.pem").write_text("no certificate")
    for name in ("absent.pem", "broken.pem"):
        with pytest.raises(ConfigError, match="certificates"):
            host.pull(f"{tls_site.base}/index.json", **{setting: str(tmp_path / name)})
    assert tls_site.requests == []


def test_the_token_is_shown_to_the_server(host, tls_site, signed, authority, token_file):
    tls_site.publish(signed("1.0.0"))
    tls_site.authorization = "Bearer a-token-of-ours"
    trusted = {"ca_file": str(authority / "ca.pem")}
    with pytest.raises(NotAllowed, match="401"):
        host.pull(f"{tls_site.base}/index.json", **trusted)
    found = host.pull(f"{tls_site.base}/index.json", **trusted, token_file=token_file)
    assert found == [("iris", "1.0.0", "activated")]


def test_a_name_and_a_password_are_shown_as_such(tmp_path):
    (tmp_path / "token").write_text("plant:secret\n")
    assert transfer.authorization(str(tmp_path / "token")) == "Basic cGxhbnQ6c2VjcmV0"


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"\xff", b"a b"])
def test_a_token_file_without_a_token_is_an_error(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigError, match="token_file"):
        transfer.authorization(str(tmp_path / "token"))


def test_a_token_is_never_sent_without_tls(host, site, token_file):
    with pytest.raises(ConfigError, match="readable on the way"):
        host.pull(f"{site.base}/index.json", token_file=token_file)
    assert site.requests == []


@pytest.mark.parametrize("source", ["https://user:password@host/index.json", "https:///index.json", "https://h/i?x=1"])
def test_an_address_that_is_not_plain_is_an_error(host, source):
    with pytest.raises(ConfigError, match="no plain address"):
        host.pull(source)


def test_a_redirect_is_followed_and_the_token_stays_with_the_first_server(
    host, tls_site, tls_context, signed, authority, token_file, serve_site
):
    other = serve_site(tls_context)
    bundle = signed("1.0.0")
    tls_site.publish(bundle)
    other.publish(bundle)
    tls_site.authorization = "Bearer a-token-of-ours"
    tls_site.redirects["/iris-1.0.0.bundle"] = f"{other.base}/iris-1.0.0.bundle"
    tls_site.redirects["/index.json"] = f"{tls_site.base}/real.json"
    tls_site.files["/real.json"] = tls_site.files["/index.json"]
    found = host.pull(f"{tls_site.base}/index.json", ca_file=str(authority / "ca.pem"), token_file=token_file)
    assert found == [("iris", "1.0.0", "activated")]
    assert tls_site.asked("real.json")[0]["Authorization"] == "Bearer a-token-of-ours"
    assert "Authorization" not in other.asked(".bundle")[0]


def test_a_redirect_out_of_tls_is_refused(host, tls_site, site, authority):
    tls_site.redirects["/index.json"] = f"{site.base}/index.json"
    with pytest.raises(Refused, match="without TLS"):
        host.pull(f"{tls_site.base}/index.json", ca_file=str(authority / "ca.pem"))
    assert site.requests == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/index.json"])
def test_a_redirect_that_leads_nowhere_is_said(host, site, target):
    site.redirects["/index.json"] = target
    with pytest.raises(NotReady):
        host.pull(f"{site.base}/index.json")


class Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy that only knows CONNECT."""

    def do_CONNECT(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: there, there: self.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.asked = []  # type: ignore[attr-defined]
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_configured_proxy_is_used_and_the_environment_s_is_not(host, tls_site, signed, authority, proxy, monkeypatch):
    tls_site.publish(signed("1.0.0"))
    trusted = {"ca_file": str(authority / "ca.pem")}
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
    assert host.pull(f"{tls_site.base}/index.json", **trusted, dry_run=True) == [("iris", "1.0.0", "wanted")]
    assert proxy.asked == []
    found = host.pull(f"{tls_site.base}/index.json", **trusted, proxy=f"http://127.0.0.1:{proxy.server_port}")
    assert found == [("iris", "1.0.0", "activated")]
    assert set(proxy.asked) == {tls_site.base.removeprefix("https://")}


@pytest.mark.parametrize("proxy_", ["127.0.0.1:3128", "https://proxy:1", "http://", "http://a b"])
def test_a_proxy_s_address_that_cannot_be_meant_is_an_error(host, site, proxy_):
    with pytest.raises(ConfigError, match="proxy"):
        host.pull(f"{site.base}/index.json", proxy=proxy_)

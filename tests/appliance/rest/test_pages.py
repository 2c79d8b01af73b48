"""A whole service on loopback without tokens: what other sites' pages ask for through a browser is refused."""

import http.client
import re
import socket

import pytest

PREDICT = b'{"features": [1, 2, 3, 4]}'
PATHS = [
    ("GET", "/models"), ("GET", "/models/plant"), ("GET", "/metrics"), ("GET", "/status"), ("GET", "/openapi.json"),
    ("GET", "/"), ("GET", "/health/ready"), ("GET", "/ping"), ("GET", "/v2/models"), ("GET", "/nothing"),
    ("POST", "/predict"), ("POST", "/models/plant/predict"), ("POST", "/v2/models/plant/infer"),
    ("POST", "/invocations"), ("POST", "/v1/models/plant:predict"), ("POST", "/models/plant/rollback"),
    ("POST", "/models/plant/versions/1.0.0/activate"), ("POST", "/v2/repository/models/plant/unload"),
    ("PUT", "/predict"), ("OPTIONS", "/predict"), ("HEAD", "/models"),
]  # fmt: skip


@pytest.fixture
def service(start_service):
    return start_service(("plant", "1.0.0", "regression"), ("plant", "2.0.0", "regression"))


def raw(service, sent: bytes) -> list[bytes]:
    """Return the statuses of what is answered until the connection ends."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(sent)
        got = b""
        while data := client.recv(65536):
            got += data
    return re.findall(rb"HTTP/1\.[01] (\d+) ", got)


def test_name_of_another_host_is_refused_at_every_path_and_in_its_protocols_words(service):
    for method, path in PATHS:
        for name in ("elsewhere.example", f"elsewhere.example:{service.port}"):
            status, headers, body = service.send(method, path, PREDICT if method == "POST" else None, {"Host": name})
            assert status == 403, (method, path)
            if method != "HEAD":
                assert b"[http] hosts" in body
            assert "Allow" not in headers
    assert service.ask("GET", "/models/plant")[1]["active"] == "2.0.0"


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "a.localhost", "127.9.9.9"])
def test_this_hosts_own_names_are_answered(service, name):
    for port in ("", f":{service.port}", ":80"):
        assert service.ask("GET", "/models", None, {"Host": name + port})[0] == 200
        assert service.ask("POST", "/predict", PREDICT, {"Host": name + port})[0] == 200


def test_names_in_the_settings_are_answered(start_service):
    service = start_service(("plant", "1.0.0", "regression"), hosts=("edge-7.plant",))
    assert service.ask("GET", "/models", None, {"Host": "edge-7.plant:8080"})[0] == 200
    assert service.ask("GET", "/models", None, {"Host": "edge-8.plant:8080"})[0] == 403


def test_host_of_an_absolute_target_counts_and_not_the_field(service):
    get = b"GET http://%s/models HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"
    assert raw(service, get % (b"elsewhere.example", b"127.0.0.1")) == [b"403"]
    assert raw(service, get % (b"127.0.0.1:80", b"127.0.0.1")) == [b"200"]
    post = b"POST http://elsewhere.example/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s"
    own = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    sent = (post + own) % ((len(PREDICT), PREDICT) * 2)
    assert raw(service, sent) == [b"403", b"200"]  # on one connection each request is judged by itself


def test_request_without_a_host_is_no_browsers(service):
    assert raw(service, b"GET /models HTTP/1.0\r\n\r\n") == [b"200"]


@pytest.mark.parametrize("headers", [
    {"Origin": "https://elsewhere.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:3000"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
])  # fmt: skip
def test_other_sites_page_posts_nothing(service, headers):
    for method, path in PATHS:
        if method == "POST":
            simple = {"Content-Type": "text/plain", **headers}  # a browser asks nobody before it sends this
            assert service.send(method, path, PREDICT, simple)[0] == 403, path
    assert service.ask("GET", "/models/plant")[1]["active"] == "2.0.0"
    own = {"Origin": f"http://127.0.0.1:{service.port}", "Sec-Fetch-Site": "same-origin"}
    assert service.ask("POST", "/models/plant/rollback", b"", own)[0] == 200


def test_options_is_a_method_as_any_other(service):
    for path, allowed in (("/predict", "POST"), ("/models", "GET, POST"), ("/health/live", "GET")):
        status, headers, _ = service.send("OPTIONS", path)
        assert (status, headers["Allow"]) == (405, allowed)
        assert not any(name.startswith("Access-Control") for name in headers)
    assert service.send("OPTIONS", "*")[0] == 404
    assert service.send("OPTIONS", "/nothing")[0] == 404


def test_without_a_token_options_tells_nothing_of_a_path_that_needs_one(start_service, tmp_path):
    file = tmp_path / "tokens"
    file.write_text("predict 0123456789abcdef\n")
    file.chmod(0o600)
    service = start_service(("plant", "1.0.0", "regression"), tokens_file=str(file))
    for path in ("/predict", "/models/plant", "/models/plant/rollback"):
        for method in ("OPTIONS", "PUT", "TRACE"):
            status, headers, _ = service.send(method, path)
            assert (status, headers["Allow"]) == (401, None)
    token = {"Authorization": "Bearer 0123456789abcdef"}
    assert service.send("OPTIONS", "/predict", None, token)[0] == 405
    assert service.send("OPTIONS", "/health/live")[0] == 405
    elsewhere = {**token, "Host": "edge-7.plant", "Origin": "https://elsewhere.example"}
    assert service.send("POST", "/predict", PREDICT, elsewhere)[0] == 200  # no browser adds a token of its own


def test_name_is_looked_up_anew_for_each_request_on_a_connection(service):
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    for name, status in (
        ("127.0.0.1", 200),
        ("elsewhere.example", 403),
        ("127.0.0.1", 200),
        ("elsewhere.example", 403),
    ):
        connection.request("POST", "/predict", PREDICT, {"Host": name})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


def answered(service, sent: bytes) -> bytes:
    """Return the status line of what is answered to a request that does not arrive whole."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(sent)
        got = client.recv(65536)
        if b"Connection: close" in got:
            assert client.recv(65536) == b""
    return got.split(b"\r\n")[0].partition(b" ")[2][:3]


def test_body_of_who_may_not_ask_is_not_waited_for(start_service, tmp_path):
    file = tmp_path / "tokens"
    file.write_text("predict 0123456789abcdef\n")
    file.chmod(0o600)
    service = start_service(("plant", "1.0.0", "regression"), tokens_file=str(file))
    large, token = b"Content-Length: 20000000\r\n", b"Authorization: Bearer 0123456789abcdef\r\n"
    for path, fields, status in (
        (b"/predict", large, b"401"),
        (b"/predict", large + b"Expect: 100-continue\r\n", b"401"),
        (b"/predict", b"Transfer-Encoding: chunked\r\n", b"401"),
        (b"/predict", large + b"Authorization: Bearer 0123456789abcdee\r\n", b"401"),
        (b"/models/plant/rollback", large + token, b"403"),
        (b"/ping", large, b"404"),  # nothing takes a body there
        (b"/nothing", b"Transfer-Encoding: chunked\r\n" + token, b"404"),
        (b"/predict", large + b"Expect: 100-continue\r\n" + token, b"100"),
    ):
        sent = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n" % (path, fields)
        for begun in (b"", b"5\r\nabcde\r\n" if b"chunked" in fields else b"abcde"):
            assert answered(service, sent + (b"" if status == b"100" else begun)) == status, sent
    rows = b'{"features": [' + b"[1, 2, 3, 4]," * 9000 + b"[1, 2, 3, 4]]}"
    assert service.send("POST", "/predict", rows, {"Authorization": "Bearer 0123456789abcdef"})[0] == 200


def test_body_of_another_sites_page_is_not_waited_for(service):
    sent = b"POST /predict HTTP/1.1\r\nHost: %s\r\nContent-Length: 20000000\r\n%s\r\n{"
    assert answered(service, sent % (b"elsewhere.example", b"")) == b"403"
    assert answered(service, sent % (b"127.0.0.1", b"Origin: https://elsewhere.example\r\n")) == b"403"

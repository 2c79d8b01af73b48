"""What the playbooks read of a service, asked of a real one over HTTP."""

import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.ansible.plugins import ANSIBLE, plugin
from tests.certificates import make_certificate

service = plugin("module_utils", "service")

PAGE = """# HELP appliance_requests_total Requests
# TYPE appliance_requests_total counter
appliance_requests_total{model="",version="",outcome="caller_error"} 7.0
appliance_requests_total{model="iris",outcome="success",version="1.0.0"} 90.0
appliance_requests_total{model="iris",outcome="service_error",version="1.1.0"} 2.0
appliance_request_seconds_bucket{le="0.005",model="iris",version="1.0.0"} 80.0
appliance_request_seconds_sum{model="iris",version="1.0.0"} 0.18
appliance_request_seconds_count{model="iris",version="1.0.0"} 90.0
nv_inference_count{model="iris",version="1.0.0"} 1e+06
"""
COUNTS = {"iris": {"requests": 92.0, "errors": 2.0, "answered": 90.0, "seconds": 0.18}}


class Stub:
    """A service whose answers a test sets: {path: (status, body)}."""

    def __init__(self):
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                stub.asked.append((self.path, self.headers.get("Authorization")))
                status, body = stub.answers.get(self.path, (404, "{}"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *args):
                pass

        self.answers, self.asked = {"/health/ready": (200, "{}"), "/metrics": (200, PAGE)}, []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.where = lambda: (self.url, "", "")
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)


@pytest.fixture
def stub():
    made = Stub()
    made.thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_the_counters_of_a_model_are_those_of_all_its_versions():
    assert service.counted(PAGE) == COUNTS


def test_the_names_are_those_that_the_service_gives():
    # A test of the service holds this page to what it gives.
    told = (ANSIBLE.parent / "docs" / "metrics.md").read_text()
    for name in (service.REQUESTS, service.SECONDS.removesuffix("_sum"), service.ANSWERED.removesuffix("_count")):
        assert f"| `{name}` |" in told
    assert "`service_error`" in told


def test_what_happened_between_two_readings():
    later = {"iris": {"requests": 100.0, "errors": 2.0, "answered": 98.0, "seconds": 0.28}, "new": COUNTS["iris"]}
    found = service.between(COUNTS, later)
    assert found["iris"]["requests"] == 8
    assert found["new"]["requests"] == 92


@pytest.mark.parametrize(
    ("first", "last"), [(None, COUNTS), (COUNTS, None), (COUNTS, {}), (COUNTS, {"iris": {"requests": 1.0}})]
)
def test_counters_of_a_service_that_restarted_between_say_nothing(first, last):
    assert service.between(first, last) is None


def test_a_ready_service_and_its_token(stub):
    assert service.Service(stub.where, "secret").readiness() == (True, [])
    assert stub.asked == [("/health/ready", "Bearer secret")]


def test_why_a_service_is_not_ready(stub):
    stub.answers["/health/ready"] = (503, '{"reasons": ["no model is active"]}')
    assert service.Service(stub.where).readiness() == (False, ["no model is active"])
    stub.answers["/health/ready"] = (502, "a proxy")
    assert service.Service(stub.where).readiness() == (False, ["HTTP 502"])


def test_a_service_that_does_not_run(stub):
    stub.server.shutdown()
    stub.server.server_close()
    ready, (reason,) = service.Service(stub.where).readiness()
    assert not ready
    assert "nothing answers" in reason
    assert service.Service(stub.where).counters() is None


def test_a_version_that_is_wanted_is_waited_for(stub):
    stub.answers["/models"] = (200, '{"models": [{"name": "iris", "serving": "1.0.0"}]}')
    at = service.Service(stub.where)
    assert service.wait_for(at, {"iris": "1.1.0"}, 0) == (False, ["iris: 1.0.0 answers, not 1.1.0"])

    def follow():
        while not any(path == "/models" for path, _ in stub.asked[2:]):
            time.sleep(0.01)
        stub.answers["/models"] = (200, '{"models": [{"name": "iris", "serving": "1.1.0"}]}')

    follower = threading.Thread(target=follow)
    follower.start()
    assert service.wait_for(at, {"iris": "1.1.0"}, 30, step=0.01) == (True, [])
    follower.join()


def test_a_watch_sees_moments_that_were_not_ready(stub):
    stub.answers["/health/ready"] = (503, '{"reasons": ["busy"]}')
    seen = service.watch(service.Service(stub.where), 1.5, step=0.01)
    assert seen["not_ready"] == seen["looks"] >= 2
    assert seen["reasons"] == ["busy"]
    assert seen["counted"]
    assert seen["models"]["iris"]["requests"] == 0


def test_a_watch_without_counters_says_so(stub):
    stub.answers["/metrics"] = (401, "")
    assert service.watch(service.Service(stub.where), 0)["counted"] is False


def test_the_service_is_asked_where_the_host_says_over_tls_too():
    told = {"service": {"url": "https://[::1]:8443/health/ready", "tls": {"certificate": "/c.pem", "key": ""}}}
    assert service.where(told) == ("https://[::1]:8443", "/c.pem", "")
    assert service.where({}) == ("http://127.0.0.1:8080", "", "")


def test_a_service_over_tls_is_known_by_its_own_certificate(stub, tmp_path):
    for name in ("server", "other"):
        make_certificate(tmp_path, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    stub.server.socket = context.wrap_socket(stub.server.socket, server_side=True)
    url = stub.url.replace("http:", "https:")
    assert service.Service(lambda: (url, str(tmp_path / "server.pem"), "")).readiness() == (True, [])
    ready, (reason,) = service.Service(lambda: (url, str(tmp_path / "other.pem"), "")).readiness()
    assert not ready
    assert "certificate" in reason.lower()


def test_a_service_that_moves_is_found_again(stub):
    places = iter([("http://127.0.0.1:1", "", ""), (stub.url, "", "")])
    at = service.Service(lambda: next(places))
    assert service.wait_for(at, {}, 5, step=0.01) == (True, [])

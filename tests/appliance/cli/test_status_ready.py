import http.server
import json
import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from appliance.cli import appliance as command


@pytest.fixture
def serve() -> Iterator[object]:
    """Return a function that answers every request on loopback with (status, body), and returns its port."""
    servers = []

    def serve(status: int, body: bytes) -> str:
        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers))
        threading.Thread(target=servers[-1].serve_forever).start()
        return str(servers[-1].server_port)

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def ready(tmp_path, port: str, *arguments: str):
    environment = {"APPLIANCE_STATE_DIR": str(tmp_path / "absent"), "APPLIANCE_HTTP_PORT": port}
    return CliRunner().invoke(command, ["status", "--ready", *arguments], env=environment)


def test_status_ready_ends_with_0_when_the_service_is_ready(tmp_path, serve):
    result = ready(tmp_path, serve(200, b'{"ready": true, "reasons": [], "models": {}}'))
    assert result.exit_code == 0
    assert result.stdout.endswith(": ready (HTTP 200)\n")


def test_status_ready_ends_with_1_and_says_why_when_the_service_is_not_ready(tmp_path, serve):
    result = ready(tmp_path, serve(503, b'{"ready": false, "reasons": ["no model is active"], "models": {}}'))
    assert result.exit_code == 1
    assert "not ready (HTTP 503)\n  why: no model is active\n" in result.stdout


def test_status_ready_ends_with_1_when_nothing_or_something_else_answers(tmp_path, serve):
    assert ready(tmp_path, "1").exit_code == 1
    assert "not running" in ready(tmp_path, "1").stdout
    assert ready(tmp_path, serve(404, b"<html>")).exit_code == 1
    assert ready(tmp_path, serve(503, b'["another service"]')).exit_code == 1


def test_status_ready_as_json_is_one_document(tmp_path, serve):
    result = ready(tmp_path, serve(503, b'{"ready": false}'), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["answer"] == {"ready": False}

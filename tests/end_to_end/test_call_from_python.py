"""The lines of docs/how-to/call-from-python.md, run as they stand there."""

import http.server
import json
import re
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.end_to_end.services import Service, done, write_bundle

PAGE = Path(__file__).parents[2] / "docs/how-to/call-from-python.md"


@pytest.fixture(scope="module")
def lines() -> dict:
    """The names that the page's first block makes."""
    names: dict = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0], names)
    return names


@pytest.fixture
def service(tmp_path):
    state = tmp_path / "state"
    done(state, "install", str(write_bundle(tmp_path, "1.0.0")))
    done(state, "activate", "plant", "1.0.0")
    running = Service(state, APPLIANCE_LOG_PREDICTIONS_ENABLED="true")
    yield f"http://127.0.0.1:{running.port}"
    assert running.stop() == 0


def test_a_table_is_answered_under_its_index_and_labels_come_back_by_id(lines, service):
    table = pd.DataFrame({"a": [1.0, 2.5, 3.0], "b": [0.1, 0.2, 0.3]}, index=["x", "y", "z"])
    answers = lines["predict"](table, "plant", url=service)
    assert list(answers.index) == ["x", "y", "z"]
    assert np.allclose(answers["prediction"], table.sum(axis=1) + 1)
    assert answers["id"].is_unique
    assert lines["tell"](pd.Series([2.0, 3.0, 4.0], index=answers["id"]), "plant", url=service) == 3


def test_a_refusal_is_told_in_the_services_own_words(lines, service):
    table = pd.DataFrame({"a": [1.0, np.nan], "b": [0.1, 0.2]})
    with pytest.raises(RuntimeError, match=r"missing|null|NaN"):
        lines["predict"](table, "plant", url=service)
    with pytest.raises(RuntimeError, match="absent"):
        lines["predict"](table, "absent", url=service)


def test_a_busy_service_is_asked_again_after_as_long_as_it_says(lines, monkeypatch):
    waits, asked = [], []

    class Busy(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((body, self.headers["Authorization"]))
            self.send_response(503 if len(asked) < 3 else 200)
            self.send_header("Retry-After", "7")
            self.end_headers()
            shares = [{"no": 0.25, "yes": 0.75}]
            self.wfile.write(json.dumps({"prediction": ["yes"], "probability": shares}).encode())

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(lines["time"], "sleep", waits.append)
    try:
        where = {"url": f"http://127.0.0.1:{server.server_port}", "token": "secret"}
        answers = lines["predict"](pd.DataFrame({"a": [np.nan]}), "plant", **where)
        assert answers.to_dict("records") == [{"prediction": "yes", "no": 0.25, "yes": 0.75}]
        assert (waits, asked[0]) == ([7.0, 7.0], ({"features": [{"a": None}]}, "Bearer secret"))
        asked.clear()
        with pytest.raises(RuntimeError):
            lines["ask"]("/x", "{}", tries=1, **where)
    finally:
        server.shutdown()
        server.server_close()

"""A service that is killed while it answers: what was answered is in its log, which verifies and tells of the kill."""

import json
import signal
import threading
import time
import urllib.error
import urllib.request

import pytest

from appliance.monitoring.prediction_log import find, lines, segments
from appliance.monitoring.prediction_log.verify import verify
from tests.end_to_end.services import run

ON = {"APPLIANCE_LOG_PREDICTIONS_ENABLED": "true"}
SAFE = ON | {"APPLIANCE_LOG_PREDICTIONS_REQUIRED": "true", "APPLIANCE_LOG_PREDICTIONS_SEGMENT_BYTES": "65536"}


def ask(url: str, request: str, rows: list) -> dict:
    body = json.dumps({"features": rows}).encode()
    asked = urllib.request.Request(f"{url}/predict", body, {"X-Request-Id": request})
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return json.loads(answer.read())


def logged(state) -> dict[str, dict]:
    """Return {id: row} of a state folder's log."""
    return {
        row["id"]: row
        for writer in segments.writers(state, "plant")
        for segment in segments.of_writer(writer)
        for line in find.lines_of(segment)
        if line.startswith(lines.ROW)
        for row in [json.loads(line)]
    }


def sound(state) -> bool:
    return [problem for one in segments.writers(state, "plant") for problem in verify(one).problems] == []


@pytest.mark.parametrize("processes", ["1", "2"])
def test_no_answered_row_is_lost_by_a_kill_where_the_log_is_required(serve, state, processes):
    told: dict[str, float] = {}
    for turn in range(2):
        service = serve(state, **SAFE, APPLIANCE_HTTP_PROCESSES=processes)
        url = f"http://127.0.0.1:{service.port}"
        stop = threading.Event()

        def load(caller: int, turn: int = turn, url: str = url, stop: threading.Event = stop) -> None:
            number = 0
            while not stop.is_set():
                name, rows = f"{turn}-{caller}-{number}", [[number, place] for place in range(20)]
                try:
                    answer = ask(url, name, rows)
                except (OSError, urllib.error.URLError, ValueError):
                    return
                told.update({f"{name}.{place}": value for place, value in enumerate(answer["prediction"])})
                number += 1

        callers = [threading.Thread(target=load, args=(caller,)) for caller in range(3)]
        for caller in callers:
            caller.start()
        time.sleep(0.3 + turn / 5)  # a kill at moments of the load, whichever
        service.process.send_signal(signal.SIGKILL)
        service.process.wait(20)
        stop.set()
        for caller in callers:
            caller.join(30)
    service = serve(state, **SAFE)
    ask(f"http://127.0.0.1:{service.port}", "last", [[1, 2]])
    assert service.stop() == 0
    found = logged(state)
    assert len(told) > 40
    assert {name: found[name]["y"] for name in told if name in found} == told
    assert sound(state)


def test_labels_and_replay_of_a_service_that_runs(serve, state, until):
    service = serve(state, **ON)
    url = f"http://127.0.0.1:{service.port}"
    for number in range(5):
        ask(url, f"r{number}", [[number, 0.5]])
    body = json.dumps([{"id": f"r{number}.0", "label": number + 2.5} for number in range(5)]).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/models/plant/feedback", body), timeout=20) as answer:
        assert answer.status == 202

    def quality() -> dict:
        with urllib.request.urlopen(f"{url}/models/plant/quality", timeout=20) as answer:
            return json.loads(answer.read())

    until(lambda: quality()["labels"]["matched"] == 5, "all labels are matched")
    (window,) = [one for one in quality()["windows"] if one["window"] == "all"]
    assert (window["mae"], window["bias"]) == pytest.approx((1.0, -1.0))
    done = run(state, "replay", "plant", "--version", "2.0.0", "--json")
    assert done.returncode == 0, done.stderr
    truth = json.loads(done.stdout)["truth"]
    assert truth["replayed"]["mean_absolute_error"] == pytest.approx(0.0)
    assert truth["logged"]["mean_absolute_error"] == pytest.approx(1.0)
    erased = run(state, "log", "erase", "plant", "r2.0")
    assert erased.returncode == 0, erased.stderr  # the service seals its open segment for it
    assert "r2.0" not in {name for name, row in logged(state).items() if "y" in row}
    assert service.stop() == 0
    assert sound(state)

"""Every log line is one JSON object, whatever is logged, and logging never raises."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.correlation import request_id
from appliance.monitoring import logs

log = logging.getLogger("appliance.test")


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("info", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def read(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_logger_message_and_extra_fields(lines):
    log.info("serving %s", "iris", extra={"model": "iris", "rows": 3, "share": 0.5, "tags": ["a", {"b": None}]})
    (line,) = read(lines)
    assert (line["level"], line["logger"], line["message"]) == ("info", "appliance.test", "serving iris")
    assert (line["model"], line["rows"], line["share"], line["tags"]) == ("iris", 3, 0.5, ["a", {"b": None}])
    time = datetime.fromisoformat(str(line["time"]))
    assert time.utcoffset().total_seconds() == 0
    assert len(str(line["time"])) == len("2026-01-01T00:00:00.000Z")
    assert "request_id" not in line


def test_lines_below_the_level_are_not_written(lines):
    log.debug("quiet")
    assert read(lines) == []


def test_a_request_leaves_its_id_in_every_line_of_whoever_logs_within_it(lines):
    token = request_id.set("abc")
    logging.getLogger("some.library").warning("slow")
    request_id.reset(token)
    log.info("after")
    assert [line.get("request_id") for line in read(lines)] == ["abc", None]


def test_an_exception_is_one_field_of_one_line(lines):
    try:
        raise ValueError("line one\nline two")
    except ValueError:
        log.exception("it failed")
    (line,) = read(lines)
    assert "Traceback" in str(line["exception"])
    assert str(line["exception"]).endswith("ValueError: line one\nline two")


def test_an_extra_field_named_like_one_of_ours_is_kept_beside_it(lines):
    log.info("x", extra={"time": "noon", "level": 11, "logger": "other"})
    (line,) = read(lines)
    assert (line["time_"], line["level_"], line["logger_"]) == ("noon", 11, "other")
    assert line["level"] == "info"


def test_waitress_writes_json_too_but_not_about_each_waiting_request(lines):
    logging.getLogger("waitress").error("client gone")
    logging.getLogger("waitress.queue").warning("Task queue depth is 7")
    assert [line["message"] for line in read(lines)] == ["client gone"]


def test_warnings_and_threads_that_fail_become_lines():
    script = """if True:
        import threading, warnings
        from appliance.monitoring import logs
        logs.configure("info")
        warnings.warn("old", DeprecationWarning)
        def fail():
            raise RuntimeError("in a thread")
        threading.Thread(target=fail, name="worker-7").start()
    """
    done = subprocess.run([sys.executable, "-Wd", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    warned, failed = [json.loads(line) for line in done.stderr.splitlines()]
    assert "DeprecationWarning: old" in warned["message"]
    assert (failed["message"], failed["thread_name"]) == ("thread ended", "worker-7")
    assert "RuntimeError: in a thread" in failed["exception"]


def test_what_cannot_be_formatted_is_written_as_it_is(lines):
    logs.configure("info", lines)  # again: pytest's own handler, which raises, came after the fixture
    loop: list[object] = []
    loop.append(loop)
    log.info("%d rows", "seven")
    log.info("odd", extra={"value": Unspeakable(), "nan": float("nan"), "loop": loop, "set": {1}, "bytes": b"\xff"})
    log.info("%s", Unspeakable())
    first, second, third = read(lines)
    assert first["message"] == "%d rows ('seven',)"
    assert second["value"] == "<Unspeakable>"
    assert (second["nan"], second["set"], second["bytes"]) == ("nan", "{1}", "b'\\xff'")
    assert "message" in third


def test_a_closed_standard_error_is_survived():
    script = """if True:
        import sys, os, logging
        from appliance.monitoring import logs
        logs.configure("info")
        os.close(2)
        logging.getLogger("x").error("nobody hears")
        sys.stderr = None
        logs.configure("info")
        logging.getLogger("x").error("nobody hears")
        print("alive")
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "alive\n"


def test_the_process_that_only_watches_others_logs_without_onnxruntime():
    script = "import sys, appliance.monitoring.logs; print([m for m in ('numpy', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(message=st.text(st.characters()), value=_values, key=st.text(min_size=1))
def test_any_message_and_any_value_give_one_line_of_json(message, value, key):
    record = logging.LogRecord("x", logging.INFO, __file__, 1, message, (), None)
    record.__dict__.setdefault(key, value)
    line = logs.JsonLines().format(record)
    assert json.loads(line)["message"] == message
    assert line.isascii()
    assert "\n" not in line

"""The trace that a caller names goes back with every answer and stands in the log's lines."""

import io
import json
import logging

import pytest

from appliance.monitoring.logs import JsonLines

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/models/labels/predict", {"features": [1, 2, 3, 4]}, 200),
        ("POST", "/models/labels/predict", {"features": [1]}, 400),
        ("POST", "/models/nobody/predict", {"features": [1]}, 404),
        ("POST", "/v2/models/nobody/infer", {"inputs": []}, 404),
        ("GET", "/models/labels", b"", 200),
    ],
)
def test_it_goes_back_with_answers_and_errors(api, method, path, body, status):
    got = api.call(method, path, body, TRACEPARENT=PARENT, TRACESTATE="rojo=1")
    assert got.status == status
    assert (got.headers["traceparent"], got.headers["tracestate"]) == (PARENT, "rojo=1")


@pytest.mark.parametrize("parent", ["", "00-1-2-3", f"{PARENT}, {PARENT}"])
def test_an_invalid_one_or_none_leaves_no_trace(api, parent):
    got = api.post("/models/labels/predict", {"features": [1, 2, 3, 4]}, TRACEPARENT=parent, TRACESTATE="rojo=1")
    assert got.status == 200
    assert not {"traceparent", "tracestate"} & got.headers.keys()
    got = api.post("/models/labels/predict", {"features": [1, 2, 3, 4]}, TRACESTATE="rojo=1")
    assert not {"traceparent", "tracestate"} & got.headers.keys()


def test_lines_of_the_log_name_it_while_its_request_is_answered_and_not_after(make_api):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("appliance.rest.app")
    api = make_api("labels")
    api.app._log_requests = True
    logger.addHandler(handler)
    level, logger.level = logger.level, logging.INFO
    try:
        api.post("/models/labels/predict", {"features": [1, 2, 3, 4]}, TRACEPARENT=PARENT)
        api.post("/models/labels/predict", {"features": [1, 2, 3, 4]})
    finally:
        logger.removeHandler(handler)
        logger.level = level
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["trace_id"], first["span_id"], first["trace_flags"]) == (TRACE, SPAN, "01")
    assert not {"trace_id", "span_id", "trace_flags"} & second.keys()

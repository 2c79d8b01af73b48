"""Log lines as JSON objects on standard error, one per line, for every logger and every kind of record."""

import json
import logging
import math
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any, TextIO

from appliance import trace_context
from appliance.correlation import request_id

_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_DEEPEST = 6
"""Levels of an extra field's value that are written as they are; what lies deeper is written as text."""


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send every logger's lines of `level` (debug, info, warning, error) and above to `stream`, standard error if None.

    Python's warnings and threads that end by an exception become lines too.
    """
    handler = _Handler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # One line for each request that waits; how many may wait is limited, and metrics count them.
    logging.getLogger("waitress.queue").disabled = True
    logging.captureWarnings(True)
    threading.excepthook = _thread_failed


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object: time (ISO 8601, UTC, ms), level, logger, message, extra fields.

    `request_id` is there while a request is answered, and the trace that its caller named (`trace_id`, `span_id`,
    `trace_flags`); `exception` (the traceback) where one was logged. ASCII only, so that no terminal's or pipe's
    encoding can break a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; what cannot be formatted is written as it is, never raised."""
        fields: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if identifier := request_id.get():
            fields["request_id"] = identifier
        if (traces := trace_context.current()) and (trace := trace_context.of(identifier, traces)):
            # OpenTelemetry's names, "Trace Context in non-OTLP Log Formats".
            fields |= {"trace_id": trace.trace_id, "span_id": trace.span_id, "trace_flags": trace.flags}
        for key, value in vars(record).items():
            if key not in _OWN_ATTRIBUTES:
                fields[key if key not in fields else f"{key}_"] = _plain(value)
        if record.exc_info and record.exc_info[0]:
            fields["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return json.dumps(fields, allow_nan=False).replace("\x7f", "\\u007f")  # the one control that is ASCII to json


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines; one that cannot be written (standard error closed, disk full) is lost, not raised."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Drop the line: an error message could only go to the same place that just failed."""


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Log the exception that ended a thread."""
    if failure.exc_type is SystemExit:
        return
    name = failure.thread.name if failure.thread else "?"
    value = failure.exc_value or failure.exc_type()
    logging.getLogger(__name__).error("thread ended", exc_info=value, extra={"thread_name": name})


def _message(record: logging.LogRecord) -> str:
    """Return the record's message; where its arguments do not fit, the bare pattern."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments format themselves, so anything may be raised
        return f"{record.msg} {_text(record.args)}"


def _plain(value: object, depth: int = 0) -> Any:
    """Return `value` as JSON has it; anything else, NaN and infinity included, as text."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {_text(key): _plain(item, depth + 1) for key, item in value.items()}
    if depth < _DEEPEST and isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    return _text(value)


def _text(value: object) -> str:
    """Return str(value), or the type's name if str() fails."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - any object's own code runs here, and a log line must not raise
        return f"<{type(value).__name__}>"

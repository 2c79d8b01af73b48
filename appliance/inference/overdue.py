"""Runs of graphs that take too long are told to end; onnxruntime looks between two nodes and two turns of a loop.

A run stands in `_running` from its begin to its end. The watch looks once a second: it takes the time first, then the
list, so that whoever is overdue by that time has not ended before it. A run that ended in time cannot be told any more,
and its RunOptions serve the next one.
"""

import threading
import time

import onnxruntime

LOOK_SECONDS = 1.0
"""Between two looks, and how much later than its limit a run may be ended."""

_running: dict[int, tuple[float, onnxruntime.RunOptions]] = {}  # of all sessions; each call on it is atomic
_spare: list[onnxruntime.RunOptions] = []
_begin = threading.Lock()
_watch: threading.Thread | None = None


def take(seconds: float) -> tuple[float, onnxruntime.RunOptions]:
    """Return (deadline, options) of a run that begins now and is ended after `seconds`; give it back afterwards."""
    try:
        options = _spare.pop()
    except IndexError:
        options = _new()
    run = (time.monotonic() + seconds, options)
    _running[id(run)] = run
    return run


def give_back(run: tuple[float, onnxruntime.RunOptions]) -> bool:
    """Take note that a run has ended; return whether it was in time."""
    del _running[id(run)]
    in_time = time.monotonic() <= run[0]
    if in_time:
        _spare.append(run[1])
    return in_time


def _new() -> onnxruntime.RunOptions:
    """Return fresh options, and see to it that somebody watches."""
    global _watch
    with _begin:
        if _watch is None:
            _watch = threading.Thread(target=_look, name="overdue-runs", daemon=True)
            _watch.start()
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    return options


def _look() -> None:
    """The thread: ends overdue runs until the process ends."""
    while True:
        time.sleep(LOOK_SECONDS)
        now = time.monotonic()
        for deadline, options in list(_running.values()):
            if deadline < now:
                options.terminate = True

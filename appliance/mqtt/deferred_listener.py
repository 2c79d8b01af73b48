"""The MQTT listener of a service that starts while its state folder cannot be written: made as soon as it can be."""

import errno
import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from appliance.errors import StoreError
from appliance.mqtt.committer import RETRY_SECONDS
from appliance.mqtt.disk import is_full
from appliance.mqtt.listener import MqttListener
from appliance.mqtt_state import MqttState
from appliance.store import condition

log = logging.getLogger(__name__)

_ROOM = 1024 * 1024  # bytes without which the outbox cannot be opened


class DeferredListener:
    """A listener, once it could be made. run() is for a thread of its own; stop() may be called from any.

    HTTP answers meanwhile, and the broker keeps the messages.
    """

    name = "mqtt"

    def __init__(self, make: Callable[[], MqttListener], folder: Path, report: Callable[[MqttState], None]) -> None:
        """`make` returns the listener, which keeps its files in `folder`; `report` is told why there is none.

        Raises what `make` raises, but for a state folder that cannot be written.
        """
        self._make = make
        self._folder = folder
        self._report = report
        self._stop = threading.Event()
        self._hindered = False
        self._listener = self._made()

    def run(self) -> None:
        """Answer messages until stop() is called."""
        while self._listener is None and not self._stop.wait(RETRY_SECONDS):
            self._listener = self._made()
        if self._listener and self._stop.is_set():
            self._listener.stop()
        if self._listener:
            self._listener.run()

    def stop(self) -> None:
        """Make run() return soon."""
        self._stop.set()
        if self._listener:
            self._listener.stop()

    def alive(self) -> str:
        """Return "": its loop goes on after any fault, and what it waits for is told by its reports (MqttState)."""
        return ""

    def _made(self) -> MqttListener | None:
        """Return the listener, None while its files cannot be written."""
        try:
            return self._make()
        except StoreError as error:
            hindrance = _hindrance(error.__cause__, self._folder)
            if not hindrance:
                raise
            problem = f"{error.tried}: {hindrance}, and the flow begins by itself"
            if not self._hindered:
                log.error("MQTT is paused", extra={"error": problem, "found": error.found})
            self._hindered = True
            self._report(MqttState(connected={}, problems=[problem], updated=time.monotonic()))
            return None


def _hindrance(cause: BaseException | None, folder: Path) -> str:
    """Return what keeps the folder from being written and what to do; "" where an error has another cause."""
    if _is_full(cause, folder):
        return "the disk is full; free some space"
    found = condition.look(folder.parent).hindrance
    if not found and isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        found = f"it cannot be written ({cause.strerror})"
    return f"{found}; make it writable" if found else ""


def _is_full(cause: BaseException | None, folder: Path) -> bool:
    """Return whether an error is that of a full disk or quota."""
    # SQLite calls it an I/O error when there is no room for the file that its log needs beside it.
    return is_full(cause) or (isinstance(cause, sqlite3.Error) and shutil.disk_usage(folder).free < _ROOM)

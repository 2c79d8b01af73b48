"""A listener that cannot be made: waited for where its files cannot be written, else the start fails."""

import errno
import sqlite3
import threading

import pytest

from appliance.errors import ConfigError, StoreError
from appliance.mqtt import deferred_listener as module
from appliance.mqtt.deferred_listener import DeferredListener


class Made:
    """A listener that runs until it is stopped."""

    def __init__(self) -> None:
        self.running, self.stopped = threading.Event(), threading.Event()

    def run(self) -> None:
        self.running.set()
        self.stopped.wait(20)

    def stop(self) -> None:
        self.stopped.set()


def store_error(cause: BaseException) -> StoreError:
    error = StoreError("open the outbox", str(cause), "")
    error.__cause__ = cause
    return error


class Maker:
    """Raises the given errors in turn, then makes a listener."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.made = Made()

    def __call__(self) -> Made:
        if self._errors:
            raise self._errors.pop(0)
        return self.made


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_told_and_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    told: list = []
    make = Maker(store_error(FULL), store_error(FULL))
    listener = DeferredListener(make, tmp_path, told.append)
    thread = threading.Thread(target=listener.run)
    thread.start()
    assert make.made.running.wait(10)
    listener.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert [state.problems[0].split(";")[0] for state in told] == ["open the outbox: the disk is full"] * 2


def test_a_stop_ends_the_waiting(tmp_path):
    listener = DeferredListener(Maker(store_error(FULL)), tmp_path, lambda state: None)
    thread = threading.Thread(target=listener.run)
    thread.start()
    listener.stop()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_files_that_cannot_be_written_are_told_and_waited_for(tmp_path, monkeypatch, number):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    told: list = []
    make = Maker(store_error(OSError(number, "no")), store_error(OSError(number, "no")))
    listener = DeferredListener(make, tmp_path, told.append)
    thread = threading.Thread(target=listener.run)
    thread.start()
    assert make.made.running.wait(10)
    listener.stop()
    thread.join(10)
    assert [state.problems for state in told] == [
        ["open the outbox: it cannot be written (no); make it writable, and the flow begins by itself"]
    ] * 2


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("read", "wrong", "correct it"),
        store_error(sqlite3.OperationalError("unable to open database file")),
    ],
)
def test_whatever_else_is_wrong_fails_the_start(tmp_path, error):
    if isinstance(error.__cause__, sqlite3.Error):
        error.__cause__.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    with pytest.raises(type(error)):
        DeferredListener(Maker(error), tmp_path, lambda state: None)

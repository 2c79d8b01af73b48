"""A connection is made beside the loop: handed over once, with the reason where there is none."""

import threading
from typing import Any

import pytest

from appliance.errors import ConfigError
from appliance.mqtt.opener import Opener


class Slow:
    """A connection that opens when it is let, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.let = threading.Event()
        self.opened_with: Any = None
        self.abandoned = threading.Event()

    def open(self, session_expiry: int) -> None:
        assert self.let.wait(20)
        self.opened_with = session_expiry
        if self.error:
            raise self.error

    def abandon(self) -> None:
        self.abandoned.set()


def test_a_connection_is_handed_over_once():
    woken = threading.Event()
    opener, connection = Opener(woken.set), Slow()
    opener.begin(connection, 7)
    assert opener.busy
    assert opener.take() is None
    connection.let.set()
    assert woken.wait(20)
    assert opener.busy
    assert opener.take() == (connection, "")
    assert (opener.busy, opener.take(), connection.opened_with) == (False, None, 7)
    assert not connection.abandoned.is_set()


@pytest.mark.parametrize("error", [OSError("no route"), ValueError("a bad name"), ConfigError("read", "no file")])
def test_the_reason_is_told_where_there_is_none(error):
    woken = threading.Event()
    opener, connection = Opener(woken.set), Slow(error)
    opener.begin(connection, 0)
    connection.let.set()
    assert woken.wait(20)
    assert opener.take() == (None, str(error))
    assert not opener.busy


def test_one_that_is_made_after_the_close_is_dropped():
    opener, connection = Opener(lambda: None), Slow()
    opener.begin(connection, 0)
    opener.close()
    connection.let.set()
    assert connection.abandoned.wait(20)

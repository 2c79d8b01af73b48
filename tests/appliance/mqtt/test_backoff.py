"""Pauses between tries to connect: they double, differ between hosts, and start again after a good connection."""

import pytest

from appliance.mqtt import backoff as module
from appliance.mqtt.backoff import FIRST_PAUSE, LONGEST_PAUSE, STEADY_SECONDS, Backoff


@pytest.fixture(autouse=True)
def longest_draw(monkeypatch):
    monkeypatch.setattr(module.random, "uniform", lambda low, high: high)


def pause_after(backoff: Backoff, now: float) -> float:
    backoff.lost(now)
    return backoff.due - now


def test_the_first_try_is_due_at_once():
    assert Backoff().due == 0.0


def test_pauses_double_up_to_the_longest():
    backoff = Backoff()
    pauses = [pause_after(backoff, 1000.0 * number) for number in range(12)]
    assert pauses == [min(LONGEST_PAUSE, FIRST_PAUSE * 2**number) for number in range(12)]


@pytest.mark.parametrize(("lasted", "pauses"), [(STEADY_SECONDS + 1, 1), (STEADY_SECONDS - 1, 8)])
def test_only_a_connection_that_lasted_begins_the_pauses_anew(lasted, pauses):
    backoff = Backoff()
    for _ in range(3):
        backoff.lost(0.0)
    backoff.connected(100.0)
    assert pause_after(backoff, 100.0 + lasted) == pauses * FIRST_PAUSE


def test_tries_that_take_long_do_not_count_as_connections():
    backoff = Backoff()
    backoff.connected(0.0)
    backoff.lost(1.0)
    assert pause_after(backoff, 1.0 + 2 * STEADY_SECONDS) == 2 * FIRST_PAUSE


def test_after_a_stop_no_try_is_due():
    backoff = Backoff()
    backoff.stop()
    assert backoff.due == float("inf")

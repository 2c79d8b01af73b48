"""What the loop does every so often: at once at first, then once in each interval."""

from appliance.mqtt.timers import Timer


def test_a_timer_is_due_at_once_and_then_once_in_each_interval():
    timer = Timer(2.0)
    assert [timer.is_due(now) for now in (5.0, 5.0, 6.9, 7.0, 8.0, 12.0, 13.0)] == [
        True,
        False,
        False,
        True,
        False,
        True,
        False,
    ]


def test_a_hurried_timer_is_due_at_once_or_when_it_is_told():
    timer = Timer(60.0)
    assert timer.is_due(0.0)
    timer.hurry()
    assert timer.is_due(1.0)
    timer.hurry(1.5)
    assert [timer.is_due(now) for now in (1.4, 1.5, 2.0, 61.5)] == [False, True, False, True]


def test_a_timer_of_no_seconds_is_always_due():
    timer = Timer(0.0)
    assert timer.is_due(1.0)
    assert timer.is_due(1.0)

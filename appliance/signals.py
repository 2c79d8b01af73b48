"""Which signals a service answers to, and how; the same in one process and in several."""

import signal

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""Requests that were sent are answered, then the service ends."""
RELOADING = signal.SIGHUP
"""What can be read again while it runs is read again."""
_MEANINGLESS = (signal.SIGUSR1, signal.SIGUSR2)


def hold_off() -> None:
    """Ignore, from now on, what must not end a service: a reload asked for while it starts, and signals without use."""
    for number in (RELOADING, *_MEANINGLESS):
        signal.signal(number, signal.SIG_IGN)


_asked: list[int] = []


def postpone() -> None:
    """Note what asks to stop, from now until catch_up(): clients wait at a port that is open and not yet served.

    For the main thread, and for as long as imports take: nobody looks at what was noted meanwhile.
    """
    _asked.clear()
    for number in STOPPING:
        signal.signal(number, lambda number, frame: _asked.append(number))


def catch_up() -> None:
    """Have what was noted stop the service now that it has handlers of its own."""
    if _asked:
        signal.raise_signal(_asked.pop())
        _asked.clear()

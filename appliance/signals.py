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

"""How the service tells systemd that it is up, alive or ending (sd_notify(3)); says nothing where nobody asked."""

import logging
import os
import socket
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

ALIVE = "READY=1\nWATCHDOG=1"
"""Requests are answered. The first time it ends the start of `Type=notify`; each time it feeds the watchdog."""
STOPPING = "STOPPING=1"


def notify(state: str) -> bool:
    """Send `state` to the service manager that started this process; return whether it was sent.

    The socket's name is in NOTIFY_SOCKET; one that begins with @ is in the abstract namespace (unix(7)).
    """
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name:
        return False
    address = f"\0{name[1:]}" if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as messenger:
            messenger.sendto(state.encode(), address)
    except OSError as error:
        log.warning("the service manager cannot be notified", extra={"state": state, "error": str(error)})
        return False
    return True


def watchdog_seconds() -> float | None:
    """Return within how many seconds the service manager expects each sign of life; None when it expects none.

    WATCHDOG_PID names the process that is watched (sd_watchdog_enabled(3)): this one, or the one that forked it.
    """
    try:
        microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
        watched = int(os.environ.get("WATCHDOG_PID", "0"))
    except ValueError:
        return None
    if microseconds <= 0 or watched not in (0, os.getpid(), os.getppid()):
        return None
    return microseconds / 1e6


def watch(alive: Callable[[], str], tell: Callable[[], None], stop: threading.Event) -> None:
    """Call `tell` three times in each watchdog period, while `alive` finds no reason against it, until `stop` is set.

    `alive` returns "" or what is wrong. Without a watchdog nothing happens. One thread does it: where `alive` hangs,
    nothing is told either, and the service manager restarts the service.
    """
    seconds = watchdog_seconds()
    if seconds is None:
        return

    def run() -> None:
        while not stop.wait(seconds / 3):
            reason = alive()
            if reason:
                log.error("the watchdog is not fed", extra={"reason": reason})
            else:
                tell()

    threading.Thread(target=run, name="watchdog", daemon=True).start()

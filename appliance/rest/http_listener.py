"""The HTTP listener: the server, its guard and whether its loop takes its turns."""

import contextlib
import logging
import threading
from pathlib import Path

from appliance.rest.auth import Pages, TokenGuard
from appliance.rest.server.server import Server
from appliance.store.running import Running, here

log = logging.getLogger(__name__)

TURN_SECONDS = 5.0
"""Seconds within which the loop takes its next turn, unless it hangs."""


class HttpListener:
    """A Listener over a server that has its socket."""

    name = "http"

    def __init__(self, server: Server, guard: Pages | TokenGuard) -> None:
        self.server = server
        self._guard = guard

    def run(self) -> None:
        """Answer requests until stop() is called."""
        log.info("listening", extra={"url": self.running().url})
        self.server.run()

    def running(self) -> Running:
        """Return where it answers."""
        certificate = self.server.http.certificate
        file = str(Path(certificate).absolute()) if certificate else ""
        return here(str(self.server.effective_host), int(self.server.effective_port), file)

    def stop(self) -> None:
        """Have run() return soon; safe in a signal handler and from any thread."""
        self.server.stop()

    def reload(self) -> None:
        """Have the tokens and the certificate read again, on the loop's thread; safe in a signal handler."""
        self.server.call_soon(self._guard.reload)
        if self.server.certificates:
            self.server.call_soon(self.server.certificates.reload)

    def half_full(self) -> bool:
        """Return whether half of the allowed requests run or wait."""
        return bool(self.server.task_dispatcher.half_full())

    def alive(self) -> str:
        """Return "" where the loop takes a turn now, else that it hangs; waits for TURN_SECONDS at most."""
        turned = threading.Event()
        with contextlib.suppress(OSError):  # the loop has just ended
            self.server.trigger.pull_trigger(turned.set)
        return "" if turned.wait(TURN_SECONDS) or self.server.stopping else "the HTTP loop hangs"

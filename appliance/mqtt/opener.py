"""Makes a connection in a thread of its own, since names, TCP and TLS may each take long.

States: idle; busy (begin() has started the thread `mqtt-connect`); done (the thread has set what it found, and ended),
until take() makes it idle again. One connection at a time.

Threads: all methods are for the loop's thread. The thread touches its Connection alone, sets `_found` as its last step
but one, and calls `wake`. Where close() came first, it sees `_closed` and drops what it made.
"""

import threading
from collections.abc import Callable

from appliance.errors import ConfigError
from appliance.mqtt.connection import Connection


class Opener:
    """Opens connections, one after the other."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` is called on the opening thread when take() has something to return."""
        self._wake = wake
        self._thread: threading.Thread | None = None
        self._found: tuple[Connection | None, str] | None = None
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a connection is being made, or was made and not taken yet."""
        return self._thread is not None

    def begin(self, connection: Connection, session_expiry: int) -> None:
        """Begin to open a connection; `session_expiry` in seconds. Only while not busy."""

        def open_() -> None:
            try:
                connection.open(session_expiry)
                self._found = connection, ""
                if self._closed:
                    connection.abandon()
            except (OSError, ValueError, ConfigError) as error:  # ssl's errors are OSErrors, a bad name's ValueErrors
                self._found = None, str(error)
            self._wake()

        self._thread = threading.Thread(target=open_, name="mqtt-connect", daemon=True)
        self._thread.start()

    def take(self) -> tuple[Connection | None, str] | None:
        """Return (connection, "") or (None, why there is none), once, when the thread has ended; None before."""
        found = self._found
        if found:
            self._found = self._thread = None
        return found

    def close(self) -> None:
        """Have a connection that is being made dropped."""
        self._closed = True

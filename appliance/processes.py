"""Several processes that share one port: started before anything heavy is imported, restarted when one dies.

Knows nothing of what they do. A process tells that it serves by its `ready` call; one that ends before that has a
reason that a restart would not mend, and ends them all.
"""

import contextlib
import ctypes
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable

from appliance import signals

log = logging.getLogger(__name__)

Work = Callable[[int, Callable[[], None]], int]
"""(slot, ready) -> exit code; calls ready() once it serves, and may call it again."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds before a dead process is started again; doubled each time
_HELD = (*signals.STOPPING, signals.RELOADING)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STEADY = 60.0  # seconds after which a process that dies is no longer part of a series


class Supervisor:
    """Keeps `count` processes running `work` until a signal of signals.STOPPING; passes a SIGHUP on to them."""

    def __init__(
        self,
        count: int,
        work: Work,
        *,
        stopping: Callable[[], object] = lambda: None,
        alive: Callable[[], object] = lambda: None,
    ) -> None:
        """`stopping` is called once the processes are told to end: what this one shares with them may be closed.

        `alive` is called each time that every process which runs has called ready(), be it once more, since it was.
        """
        self._count = count
        self._work = work
        self._told = stopping
        self._alive = alive
        self._slots: dict[int, int] = {}  # pid -> slot
        self._started: dict[int, float] = {}
        self._pauses: dict[int, float] = {}
        self._due: dict[int, float] = {}  # slot -> when it is started again
        self._stopping = False
        self._ready_read, self._ready_write = os.pipe()
        self._ready: set[int] = set()
        self._heard: set[int] = set()  # slots that called ready() since the last call of alive()
        self._complete = False  # whether all slots were started
        # Signals write to this pipe, so that select() below wakes at once and nothing is missed between two calls.
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write, self._ready_read):
            os.set_blocking(end, False)

    def run(self) -> int:
        """Run until told to stop; return 0, or the exit code of a process that could not start."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in signals.STOPPING:
            signal.signal(number, self._stop)
        signal.signal(signals.RELOADING, self._reload)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # The first one alone until it serves: what it must do once it does alone, and what is wrong is said once.
        self._start(0)
        failure = 0
        while self._slots or (self._due and not self._stopping):
            self._wait()
            if 0 in self._ready and not self._complete:
                self._complete = True
                signals.catch_up()
                self._due.update(dict.fromkeys(range(1, self._count), 0.0))
            for pid, code in self._dead():
                failure = self._ended(pid, code) or failure
            self._start_due()
        return failure

    def _start(self, slot: int) -> None:
        """Fork the process of `slot`."""
        sys.stdout.flush()
        sys.stderr.flush()
        # Held back over the fork: the child must not meet a signal with our handler, which knows nothing of it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
        if self._stopping:  # since the caller looked
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
            return
        pid = os.fork()
        if pid == 0:
            os._exit(self._child(slot))
        self._slots[pid] = slot
        self._started[slot] = time.monotonic()
        self._due.pop(slot, None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)  # a signal held back meets the new process as well

    def _child(self, slot: int) -> int:
        """Do the work in a fresh process; the supervisor's signals and pipes are not its own."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, *signals.STOPPING):
            signal.signal(number, signal.SIG_DFL)
        signals.hold_off()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
        _end_with_parent()
        for end in (self._wake_read, self._wake_write, self._ready_read):
            os.close(end)
        code = 1
        try:
            code = self._work(slot, lambda: _tell(self._ready_write, slot))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:  # the last boundary of a process: os._exit would swallow it
            log.exception("process failed")
        sys.stdout.flush()
        sys.stderr.flush()
        return code

    def _stop(self, number: int, frame: object) -> None:
        """Pass a signal to stop on to every process."""
        self._stopping = True
        self._told()
        for pid in self._slots:
            with contextlib.suppress(ProcessLookupError):  # it ended, and was waited for, just now
                os.kill(pid, signal.SIGTERM)

    def _reload(self, number: int, frame: object) -> None:
        """Pass a signal to reload on to every process; one that is starting reads everything anyway."""
        for pid in self._slots:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _wait(self) -> None:
        """Sleep until a signal arrives, a process is ready or one is due to be started."""
        now = time.monotonic()
        pause = max(0.0, min(self._due.values()) - now) if self._due else None
        readable, _, _ = select.select([self._wake_read, self._ready_read], [], [], pause)
        for end in readable:
            told = os.read(end, 4096)
            if end == self._ready_read:
                self._ready.update(told)
                self._heard.update(told)
        if self._heard and self._heard.issuperset(self._slots.values()):
            self._heard.clear()
            self._alive()

    def _dead(self) -> list[tuple[int, int]]:
        """Return (pid, exit code) of the processes that have ended."""
        ended = []
        for pid in list(self._slots):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                ended.append((pid, os.waitstatus_to_exitcode(status)))
        return ended

    def _ended(self, pid: int, code: int) -> int:
        """Take note of a process that ended; return its exit code when that ends everything."""
        slot = self._slots.pop(pid)
        if self._stopping:
            return 0
        if slot not in self._ready:
            self._stop(signal.SIGTERM, None)
            return code or 1
        steady = time.monotonic() - self._started[slot] > _STEADY
        pause = _FIRST_PAUSE if steady else min(_LONGEST_PAUSE, self._pauses.get(slot, _FIRST_PAUSE / 2) * 2)
        self._pauses[slot] = pause
        self._due[slot] = time.monotonic() + pause
        log.error("process ended and is started again", extra={"slot": slot, "code": code, "pause_seconds": pause})
        return 0

    def _start_due(self) -> None:
        """Start the processes whose pause is over."""
        for slot in [slot for slot, due in self._due.items() if due <= time.monotonic()]:
            if not self._stopping:
                self._start(slot)


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the supervisor dies, so that no orphan holds the port (Linux alone)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _tell(end: int, slot: int) -> None:
    """Write the slot's number to the supervisor's pipe."""
    os.write(end, bytes([slot]))

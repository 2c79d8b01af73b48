"""What memory this process may use, and giving back what it no longer needs (Linux, glibc).

What a large request took and freed stays with the process unless it is given back: glibc keeps free memory below what
is still in use.
"""

import contextlib
import ctypes
import functools
import gc
import os
import threading
from collections.abc import Callable, Iterator

from appliance import cgroup

GIVE_BACK_SECONDS = 1.0
"""After which freed memory is given back, and between two times: each looks through all that is free."""
LARGEST_KEPT = 1024 * 1024
"""Bytes from which on a piece of memory is the system's own again as soon as it is freed."""

MOST_HEAPS = 4
"""Heaps that all threads share: Python's threads run one at a time, so few of them allocate at once."""

_M_MMAP_THRESHOLD = -3  # malloc.h
_M_ARENA_MAX = -8


def limit_bytes() -> int:
    """Return the bytes of memory that this process may use: the tightest of its cgroups' limits and the host's."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(host, cgroup.limits().memory_bytes or host)


def give_back() -> None:
    """Return free memory to the system; of another C library than glibc, nothing happens."""
    trim = _function("malloc_trim")
    if trim:
        trim(0)


def keep_little() -> None:
    """Have large pieces given back as they are freed: glibc would keep ever larger ones, up to 32 MiB."""
    option = _function("mallopt")
    if option:
        option(_M_MMAP_THRESHOLD, LARGEST_KEPT)


def share_heaps() -> None:
    """Have threads share a few heaps; before they start, since a thread keeps the one that it has.

    glibc would give up to eight threads for each processor a heap of their own, of 64 MiB of addresses: a host that
    limits addresses (ulimit -v) would soon refuse memory that is free.
    """
    option = _function("mallopt")
    if option:
        option(_M_ARENA_MAX, MOST_HEAPS)


class GiveBack:
    """Gives memory back a moment after it is asked to, once for all who ask meanwhile; safe in any thread."""

    def __init__(self, give: Callable[[], None] = give_back, seconds: float = GIVE_BACK_SECONDS) -> None:
        self._give = give
        self._seconds = seconds
        self._asked = threading.Lock()  # held from the first who asks until it is done

    def __call__(self) -> None:
        """Have memory given back soon: what was freed just now, and the answer that is still being sent."""
        if self._asked.acquire(blocking=False):
            timer = threading.Timer(self._seconds, self._now)
            timer.daemon = True
            timer.start()

    def _now(self) -> None:
        """Give back."""
        self._asked.release()
        self._give()


_pausing = threading.Lock()
_pauses = 0


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector away while much is built: it would look at all of it again and again.

    A million small lists take a tenth of the time, in which no other thread runs.
    """
    global _pauses
    with _pausing:
        _pauses += 1
        gc.disable()
    try:
        yield
    finally:
        with _pausing:
            _pauses -= 1
            if not _pauses:
                gc.enable()


@functools.cache
def _function(name: str) -> Callable[..., int] | None:
    """Return a function of the C library, None where it has no such one."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    return found

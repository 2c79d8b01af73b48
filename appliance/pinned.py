"""The inactive versions that are loaded because requests named them: a few, kept while they are used.

States of a version: unknown -> being loaded (on a thread of its own, so that no request waits for long) -> kept, or
refused for a while. A kept one makes room for another only when it was idle: naming many in turn loads none again.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from appliance.errors import ApplianceError, NotReady, Overloaded

log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0
"""For which nobody asked a kept version before it makes room for another."""
WAIT_SECONDS = 5.0
"""For which a request waits for its version to be loaded; then it is told to come again."""
REFUSED_SECONDS = 30.0
"""For which a version that cannot be loaded is not tried again; longer where trying took long."""
_SHARE = 0.02  # of the time that trying a refused version again and again may take

T = TypeVar("T")
Key = tuple[str, str]
"""(model, version)"""


@dataclass(slots=True)
class _Loading:
    """A version on its way."""

    done: threading.Event = field(default_factory=threading.Event)
    error: ApplianceError | None = None


@dataclass(slots=True)
class _Kept(Generic[T]):
    """A loaded version and when it was last asked for (monotonic seconds)."""

    loaded: T
    used: float


class Pinned(Generic[T]):
    """Versions by (model, version), loaded by `load` when first asked for; safe in any thread."""

    def __init__(self, load: Callable[[str, str], T], most: int) -> None:
        self._load = load
        self._most = most
        self._lock = threading.Lock()
        self._kept: dict[Key, _Kept[T]] = {}
        self._loading: dict[Key, _Loading] = {}
        self._refused: dict[Key, tuple[float, ApplianceError]] = {}  # until when

    def get(self, name: str, version: str) -> T:
        """Return a version, loaded now or before.

        Raises Overloaded where others are kept and in use, NotReady while it is being loaded, and what keeps it from
        being loaded.
        """
        key = (name, version)
        with self._lock:
            kept = self._kept.get(key)
            if kept:
                kept.used = time.monotonic()
                return kept.loaded
            loading = self._loading.get(key) or self._begin(key)
        if not loading.done.wait(WAIT_SECONDS):
            raise NotReady(f"{name} {version}", "it is being tried and loaded", "ask again in a second")
        if loading.error:
            raise loading.error
        with self._lock:
            kept = self._kept.get(key)
        if kept is None:
            raise NotReady(f"{name} {version}", "it was let go just now", "ask again")
        return kept.loaded

    def drop(self, unwanted: Callable[[Key, T], object]) -> None:
        """Let go of the versions of which `unwanted` says so."""
        with self._lock:
            for key in [key for key, kept in self._kept.items() if unwanted(key, kept.loaded)]:
                del self._kept[key]

    def forget(self, key_is_gone: Callable[[Key], object] = lambda key: True) -> None:
        """Try refused versions again when they are named next; all of them, or those of which `key_is_gone` says so."""
        with self._lock:
            self._refused = {key: refused for key, refused in self._refused.items() if not key_is_gone(key)}

    def _begin(self, key: Key) -> _Loading:
        """Start to load a version, where there is room for it. Holds the lock."""
        until, error = self._refused.get(key, (0.0, None))
        if error and time.monotonic() < until:
            raise error
        self._make_room(key)
        loading = self._loading[key] = _Loading()
        threading.Thread(target=self._bring, args=(key, loading), name="load-version", daemon=True).start()
        return loading

    def _make_room(self, key: Key) -> None:
        """Let go of the version that was idle longest, if none more may be kept. Holds the lock."""
        if len(self._kept) + len(self._loading) < self._most:
            return
        oldest = min(self._kept, key=lambda one: self._kept[one].used, default=None)
        if oldest is None or time.monotonic() - self._kept[oldest].used < IDLE_SECONDS:
            raise Overloaded(
                f"{key[0]} {key[1]}",
                f"it is not active, and {self._most} such versions are loaded already and in use",
                f"ask again in {IDLE_SECONDS:g} seconds, activate it, or raise [models] pinned_versions",
            )
        del self._kept[oldest]

    def _bring(self, key: Key, loading: _Loading) -> None:
        """Load a version; on a thread of its own."""
        begun = time.monotonic()
        try:
            loaded = self._load(*key)
        except ApplianceError as error:
            loading.error = error
        except Exception as error:  # the last boundary of a thread: whoever waits is told
            log.exception("version cannot be loaded", extra={"model": key[0], "version": key[1]})
            loading.error = NotReady(f"{key[0]} {key[1]}", f"unexpected {type(error).__name__}", "see the log")
        now = time.monotonic()
        with self._lock:
            del self._loading[key]
            if loading.error:
                self._refused[key] = (now + max(REFUSED_SECONDS, (now - begun) / _SHARE), loading.error)
            else:
                self._kept[key] = _Kept(loaded, now)
        loading.done.set()

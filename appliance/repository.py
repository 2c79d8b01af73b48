"""Which versions are loaded in this process; follows the store, which alone is the truth.

A request takes one LoadedVersion and keeps it to its end, so that no answer mixes two versions; the old one is freed
when its last request drops it.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from appliance import nofollow
from appliance.bundle import archive
from appliance.errors import ApplianceError, BundleRefused, Misuse, NotFound, NotReady, StoreError
from appliance.inference.version import LoadedVersion
from appliance.pinned import Pinned
from appliance.store import activation
from appliance.store.versions import Store
from appliance.trials import Trials

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""Between two tries to load a version that could not be loaded: a full disk or memory may have room again."""


RETRY_SHARE = 0.02
"""Of the time that such tries may take: one that ends at its time limit is not repeated each half minute."""
REFRESH_SECONDS = 5.0
"""For which a caller waits for another one's look at the store."""


_NEVER = object()


@dataclass(frozen=True, slots=True)
class Served:
    """What one model serves now, and what keeps it from serving what the store says."""

    name: str
    wanted: str | None
    """The active version in the store; None when deactivated."""
    loaded: LoadedVersion | None
    problem: ApplianceError | None = None
    """Why what is wanted does not serve; or, where it does, why it should not: nobody who is trusted signed it."""


class ModelRepository:
    """The versions loaded in this process, one active for each model, a few more because requests named them."""

    def __init__(
        self,
        store: Store,
        *,
        threads: int = 1,
        run_seconds: float = 0.0,
        pinned_versions: int = 2,
        default: str = "",
        revoke: Literal["keep", "stop"] = "keep",
        trials: Trials | None = None,
    ) -> None:
        """`trials` asks of each version whether it passed in a process of its own before it is loaded into this one."""
        self._store = store
        self._trials = trials
        self._revoke = revoke
        self._keys: object = None  # the mark of the files of trusted keys, as they were last asked
        self._threads = threads
        self._run_seconds = run_seconds
        self._default = default
        self._served: dict[str, Served] = {}  # replaced as a whole, never changed: readers need no lock
        self._active: list[str] = []  # the models that serve a version
        # model -> (mark of its record, when it was followed, seconds that that took)
        self._seen: dict[str, tuple[object, float, float]] = {}
        self._pinned: Pinned[LoadedVersion] = Pinned(self._load, pinned_versions)
        self._refreshing = threading.Lock()
        self.switched: Callable[[Served], None] = lambda served: None
        """Called after a model's served version, or its problem, has changed."""

    def served(self) -> list[Served]:
        """Return what every model serves, by name."""
        return [self._served[name] for name in sorted(self._served)]

    @property
    def default(self) -> str:
        """The model that a request means which names none; "" where none can be told."""
        return self._default or (self._active[0] if len(self._active) == 1 else "")

    def get(self, model: str | None = None, version: str | None = None) -> LoadedVersion:
        """Return a loaded version: the named one, the model's active one, or the default model's.

        Raises NotFound for an unknown model or version, NotReady for a model that serves none.
        """
        served = self._served.get(model or self._default_model())
        if served is None:
            raise self._unknown(model or self._default)
        if version is not None and (served.loaded is None or version != served.loaded.version):
            return self._pinned.get(served.name, version)
        if served.loaded is None:
            found = str(served.problem) if served.problem else "it has no active version"
            raise NotReady(f"model {served.name}", found, f"activate one: appliance activate {served.name} VERSION")
        return served.loaded

    def refresh(self) -> None:
        """Look at the store once and follow it; a version that cannot be loaded leaves the old one serving.

        Returns without a look while another thread has looked for REFRESH_SECONDS: it tries a version, and goes on.
        """
        if not self._refreshing.acquire(timeout=REFRESH_SECONDS):
            return
        try:
            names = set(self._store.names())
            keys = self._store.trust.mark() if self._store.trust else None
            changed, self._keys = keys != self._keys, keys
            if changed:
                self._unpin_distrusted()
            for name in sorted(names):
                mark = _mark(activation.path(self._store, name), self._store.state_dir)
                known, when, taken = self._seen.get(name, (_NEVER, 0.0, 0.0))
                served = self._served.get(name)
                pause = max(RETRY_SECONDS, taken / RETRY_SHARE if taken > 1 else 0)
                retry = served and served.problem and time.monotonic() - when > pause
                if mark != known or retry or changed:
                    begun = time.monotonic()
                    self._follow(name)
                    self._seen[name] = (mark, begun, time.monotonic() - begun)
            for name in set(self._served) - names:
                self._seen.pop(name, None)
                self._drop(name)
            self._unpin_removed()
        finally:
            self._refreshing.release()

    def follow(self, stop: threading.Event, poll_seconds: float, beside: Callable[[], object] = lambda: None) -> None:
        """Refresh every `poll_seconds` until `stop` is set; a store that cannot be read is logged and tried again.

        `beside` is called each time as well.
        """
        while not stop.wait(poll_seconds):
            try:
                beside()
                self.refresh()
            except (ApplianceError, OSError) as error:
                log.error("store cannot be followed", extra={"error": str(error)})

    def _follow(self, name: str) -> None:
        """Serve what the store says of `name`."""
        current = self._served.get(name)
        loaded = current.loaded if current else None
        wanted: str | None = None
        problem: ApplianceError | None = None
        try:
            wanted = activation.read(self._store, name).active
            if wanted is None:
                loaded = None
            elif loaded is None or loaded.version != wanted:
                loaded = self._load(name, wanted)
        except ApplianceError as error:
            problem = error
        if loaded and (distrust := self._distrust(loaded)):
            problem = problem or distrust
            loaded = None if self._revoke == "stop" else loaded
        self._replace(Served(name, wanted, loaded, problem))

    def _load(self, name: str, version: str) -> LoadedVersion:
        """Return an installed version, loaded, if it is signed by a key that is trusted now."""
        opened = self._store.installed(name, version)
        if self._trials:
            self._trials.ensure(name, version, opened.digest)
        folder = self._store.folder(name, version)
        return LoadedVersion(folder, self._threads, run_seconds=self._run_seconds, opened=opened)

    def _distrust(self, loaded: LoadedVersion) -> ApplianceError | None:
        """Return why a loaded version is not trusted by today's keys, None where it is."""
        if self._store.trust is None:
            return None
        try:
            signed = self._store.trust.vouched(loaded.signature).digests.get(archive.MANIFEST)
        except ApplianceError as error:
            return error
        if signed == loaded.digest:
            return None
        return BundleRefused(
            f"trust {loaded.name} {loaded.version}", "its signature is of another bundle", "sign it again"
        )

    def _replace(self, served: Served) -> None:
        """Put `served` in place between two requests and tell of it."""
        self._serve(self._served | {served.name: served})
        if served.loaded:
            live = (served.name, served.loaded.version)
            self._pinned.drop(lambda key, loaded: key == live)
        self.switched(served)

    def _serve(self, served: dict[str, Served]) -> None:
        """Put a new table in place."""
        self._served = served
        self._active = [name for name, one in served.items() if one.loaded]

    def _drop(self, name: str) -> None:
        """Stop serving a model that the store no longer has."""
        self._serve({other: served for other, served in self._served.items() if other != name})
        self.switched(Served(name, None, None))

    def _unpin_removed(self) -> None:
        """Let go of pinned versions that were removed from the store."""
        self._pinned.drop(lambda key, loaded: key[1] not in self._store.versions(key[0]))
        self._pinned.forget(lambda key: key[1] not in self._store.versions(key[0]))

    def _unpin_distrusted(self) -> None:
        """Let go of pinned versions that today's keys do not vouch for: the next request is told why."""
        self._pinned.drop(lambda key, loaded: self._distrust(loaded))
        self._pinned.forget()

    def _default_model(self) -> str:
        """Return the model that a request means which names none."""
        if self._default:
            return self._default
        active = self._active
        if len(active) == 1:
            return active[0]
        if not active:
            raise NotReady("find a model", "none is active", "activate one: appliance activate NAME VERSION")
        raise Misuse("find the default model", f"{len(active)} are active", "name one, or set [models] default")

    def _unknown(self, name: str) -> NotFound:
        """Return the error for a model that is not there, in the words that Triton's clients look for."""
        known = ", ".join(sorted(self._served)) or "none"
        return NotFound(f"Request for unknown model: '{name}'", "it is not installed", f"installed models: {known}")


def _mark(path: Path, state_dir: Path) -> object:
    """Return something that differs once the file at `path` was replaced; None while there is none."""
    try:
        found = nofollow.status(path, within=state_dir)
    except FileNotFoundError:
        return None
    except StoreError as error:  # a link: whoever reads it is told
        return str(error)
    return found.st_ino, found.st_mtime_ns, found.st_size

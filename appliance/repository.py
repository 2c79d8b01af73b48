"""The versions that are loaded in this process, by model and role; follows the store, which alone is the truth.

A request takes one LoadedVersion and keeps it to its end, so that no answer mixes two versions; the old one is freed
when its last request drops it. A version that has a role stays loaded as long as it has it, whatever requests name.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from appliance import nofollow
from appliance.arms import Arms
from appliance.bundle import archive
from appliance.errors import ApplianceError, BundleRefused, NoDefaultModel, NotReady, StoreError, unknown_model
from appliance.inference import batching as batches
from appliance.inference.version import LoadedVersion
from appliance.pinned import Pinned
from appliance.store import activation
from appliance.store.routing_record import Routing
from appliance.store.versions import Store
from appliance.trials import Trials

_SHOWN = 5  # names in a message

log = logging.getLogger(__name__)

ACTIVE = "active"
"""The role of the version that answers where no other one is asked for. Every model has it, served or not."""

RETRY_SECONDS = 30.0
"""Between two tries to load a version that could not be loaded: a full disk or memory may have room again."""


RETRY_SHARE = 0.02
"""Of the time that such tries may take: one that ends at its time limit is not repeated each half minute."""

REFRESH_SECONDS = 5.0
"""For which a caller waits for another one's look at the store."""


_NEVER = object()


class Roles(Protocol):
    """What the store says of which version has which role."""

    def records(self, store: Store, name: str) -> Sequence[Path]:
        """Return the files that say so of a model; when one of them is replaced, they are read again."""

    def wanted(self, store: Store, name: str) -> Mapping[str, str | None]:
        """Return {role: version that is wanted in it, None for none} of a model. Raises StoreError."""

    def routing(self, store: Store, name: str) -> Routing | None:
        """Return the experiment by which requests are answered by several of them; None where none runs."""


class ActiveAlone:
    """The one role that every model has, by its activation.json."""

    def records(self, store: Store, name: str) -> Sequence[Path]:
        """Return the record's place."""
        return (activation.path(store, name),)

    def wanted(self, store: Store, name: str) -> Mapping[str, str | None]:
        """Return the active version. Raises StoreError for a record that cannot be read."""
        return {ACTIVE: activation.read(store, name).active}

    def routing(self, store: Store, name: str) -> Routing | None:
        """Return None: the active version answers."""
        return None


@dataclass(frozen=True, slots=True)
class Served:
    """What one model serves now in one role, and what keeps it from serving what the store says."""

    name: str
    wanted: str | None
    """The version that the store wants in this role; None for none, as when a model is deactivated."""
    loaded: LoadedVersion | None
    problem: ApplianceError | None = None
    """Why what is wanted does not serve; or, where it does, why it should not: nobody who is trusted signed it."""
    role: str = ACTIVE

    @property
    def is_gone(self) -> bool:
        """Whether the model, or its role, is no more, or nothing is wanted in it."""
        return self.wanted is None and self.loaded is None and self.problem is None


class ModelRepository:
    """The versions loaded in this process: those that have a role, and a few more because requests named them."""

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
        roles: Roles | None = None,
        keeps_rows: bool = False,
        batching: bool = False,
    ) -> None:
        """`trials` asks of each version whether it passed in a process of its own before it is loaded into this one.

        `roles` says which version has which role: by default the active one, and no other has any. `keeps_rows` has
        feeds bear the rows as they were sent (SentFeeds), for a log. `batching` has versions measured for it.
        """
        self._batching = batching and not keeps_rows  # the log's rows are those of one request
        self.batching: frozenset[str] = frozenset()
        """Models whose requests share a run where they wait together: none with an experiment. Replaced as a whole."""
        self._keeps_rows = keeps_rows
        self._store = store
        self._trials = trials
        self._revoke = revoke
        self._keys: object = None  # the mark of the files of trusted keys, as they were last asked
        self._threads = threads
        self._run_seconds = run_seconds
        self._default = default
        self._roles = roles or ActiveAlone()
        # {model: {role: Served}}. Replaced as a whole, never changed: readers need no lock, writers hold _refreshing.
        self._served: dict[str, dict[str, Served]] = {}
        self._active: list[str] = []  # the models that serve a version
        self._arms: dict[str, Arms] = {}  # of the models on which an experiment runs; replaced as a whole
        # model -> (mark of its record, when it was followed, seconds that that took)
        self._seen: dict[str, tuple[object, float, float]] = {}
        self._pinned: Pinned[LoadedVersion] = Pinned(self._load, pinned_versions)
        self._refreshing = threading.Lock()
        self.switched: Callable[[Served], None] = lambda served: None
        """Called after the version in a role, or its problem, has changed; on the thread that refreshed."""

    def served(self, role: str = ACTIVE) -> list[Served]:
        """Return what every model serves in a role, by name; models without the role are left out."""
        table = self._served
        return [table[name][role] for name in sorted(table) if role in table[name]]

    def roles(self, model: str) -> Mapping[str, Served]:
        """Return what a model serves, by role; empty for an unknown model. Never changed: it is of one moment."""
        return self._served.get(model, {})

    @property
    def default(self) -> str:
        """The default model: the one for requests that name none; "" where there is none."""
        return self._default or (self._active[0] if len(self._active) == 1 else "")

    def get(self, model: str | None = None, version: str | None = None) -> LoadedVersion:
        """Return a loaded version: the named one, the model's active one, or the default model's.

        Raises NotFound for an unknown model or version, NotReady for a model that serves none.
        """
        roles = self._served.get(model or self._default_model())
        if roles is None:
            raise unknown_model(model or self._default, list(self._served))
        served = roles[ACTIVE]
        if version is not None and (served.loaded is None or version != served.loaded.version):
            return _with_role(roles, version) or self._pinned.get(served.name, version)
        if served.loaded is None:
            found = str(served.problem) if served.problem else "it has no active version"
            raise NotReady(f"model {served.name}", found, f"activate one: appliance activate {served.name} VERSION")
        return served.loaded

    def arms(self, model: str | None = None) -> Arms | None:
        """Return who answers requests to a model, or to the default one; None where no experiment runs on it."""
        arms = self._arms
        return arms.get(model or self.default) if arms else None

    def experiments(self) -> dict[str, Routing]:
        """Return the experiments that run, by model, as this process follows them."""
        return {name: arms.routing for name, arms in sorted(self._arms.items())}

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
                mark = [_mark(path, self._store.state_dir) for path in self._roles.records(self._store, name)]
                known, when, taken = self._seen.get(name, (_NEVER, 0.0, 0.0))
                pause = max(RETRY_SECONDS, taken / RETRY_SHARE if taken > 1 else 0)
                retry = any(served.problem for served in self.roles(name).values()) and time.monotonic() - when > pause
                if mark != known or retry or changed:
                    begun = time.monotonic()
                    self._follow(name)
                    self._seen[name] = (mark, begun, time.monotonic() - begun)
            for name in set(self._served) - names:
                self._seen.pop(name, None)
                self._drop(name)
            self._unpin()
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
        """Serve what the store says of `name`. Holds _refreshing."""
        try:
            routing, wanted = self._roles.routing(self._store, name), self._roles.wanted(self._store, name)
        except ApplianceError as error:  # nobody knows what is wanted: what serves goes on
            for role, current in (self._served.get(name) or {ACTIVE: Served(name, None, None)}).items():
                self._replace(self._trusted(Served(name, None, current.loaded, error, role)))
            return
        for role in [ACTIVE, *sorted(wanted.keys() - {ACTIVE})]:
            self._replace(self._trusted(self._brought(name, role, wanted.get(role))))
        self._set_arms(name, routing)
        for role in self._served[name].keys() - wanted.keys() - {ACTIVE}:
            self._end_role(name, role)

    def _brought(self, name: str, role: str, wanted: str | None) -> Served:
        """Return a role with the version that is wanted in it, loaded unless some role has it already.

        Where it cannot be loaded, the active version before goes on; another role's version does not, since it was
        chosen for that role alone.
        """
        if wanted is None:
            return Served(name, None, None, None, role)
        roles = self._served.get(name, {})
        try:
            return Served(name, wanted, _with_role(roles, wanted) or self._load(name, wanted), None, role)
        except ApplianceError as error:
            before = roles[role].loaded if role == ACTIVE and role in roles else None
            return Served(name, wanted, before, error, role)

    def _trusted(self, served: Served) -> Served:
        """Return what is served; where nobody who is trusted signed it, with that problem, or not at all any more."""
        if served.loaded is None or (distrust := self._distrust(served.loaded)) is None:
            return served
        loaded = None if self._revoke == "stop" else served.loaded
        return Served(served.name, served.wanted, loaded, served.problem or distrust, served.role)

    def _load(self, name: str, version: str) -> LoadedVersion:
        """Return an installed version, loaded, if it is signed by a key that is trusted now."""
        opened = self._store.installed(name, version)
        if self._trials:
            self._trials.ensure(name, version, opened.digest)
        folder = self._store.folder(name, version)
        loaded = LoadedVersion(folder, self._threads, run_seconds=self._run_seconds, opened=opened)
        loaded.schema.keeps_rows = self._keeps_rows
        loaded.batches = self._batching and batches.pays(loaded, self._threads)
        return loaded

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

    def _set_arms(self, name: str, routing: Routing | None) -> None:
        """Have requests answered by an experiment's arms, or by the active version alone. Holds _refreshing."""
        loaded = {one.loaded.version: one.loaded for one in self.roles(name).values() if one.loaded}
        active = self._served[name][ACTIVE].loaded
        left = {other: arms for other, arms in self._arms.items() if other != name}
        if routing is not None and active is not None and active.version == routing.base:
            left[name] = Arms(routing, loaded)
        self._serve(self._served, left)

    def _replace(self, served: Served) -> None:
        """Put `served` in place between two requests, and tell of it where anything changes."""
        if served == self.roles(served.name).get(served.role):
            return
        self._serve(self._served | {served.name: {**self.roles(served.name), served.role: served}}, self._arms)
        if served.loaded:
            key = (served.name, served.loaded.version)
            self._pinned.drop(lambda pinned, loaded: pinned == key)
        self.switched(served)

    def _serve(self, served: dict[str, dict[str, Served]], arms: dict[str, Arms]) -> None:
        """Put a new table and the arms of the experiments that run in place."""
        self._served, self._arms = served, arms
        active = {name: loaded for name, roles in served.items() if (loaded := roles[ACTIVE].loaded)}
        self._active = list(active)
        self.batching = frozenset(name for name, loaded in active.items() if loaded.batches and name not in arms)

    def _drop(self, name: str) -> None:
        """Stop serving a model that the store no longer has."""
        gone = self._served[name]
        arms = {other: arms for other, arms in self._arms.items() if other != name}
        self._serve({other: roles for other, roles in self._served.items() if other != name}, arms)
        for role in gone:
            self.switched(Served(name, None, None, None, role))

    def _end_role(self, name: str, role: str) -> None:
        """Stop serving in a role that a model no longer has."""
        left = {other: served for other, served in self._served[name].items() if other != role}
        self._serve(self._served | {name: left}, self._arms)
        self.switched(Served(name, None, None, None, role))

    def _unpin(self) -> None:
        """Let go of pinned versions that were removed from the store, or that have a role by now."""
        self._pinned.drop(
            lambda key, loaded: key[1] not in self._store.versions(key[0]) or _with_role(self.roles(key[0]), key[1])
        )
        self._pinned.forget(lambda key: key[1] not in self._store.versions(key[0]))

    def _unpin_distrusted(self) -> None:
        """Drop pinned versions that no trusted key of today has signed: the next request is told why."""
        self._pinned.drop(lambda key, loaded: self._distrust(loaded))
        self._pinned.forget()

    def _default_model(self) -> str:
        """Return the default model: the one for requests that name none."""
        if self._default:
            return self._default
        active = self._active
        if len(active) == 1:
            return active[0]
        if not active:
            raise NotReady("find a model", "none is active", "activate one: appliance activate NAME VERSION")
        some = ", ".join(sorted(active)[:_SHOWN])
        found = f"{len(active)} are active: {some}{', ...' if len(active) > _SHOWN else ''}"
        raise NoDefaultModel("find the default model", found, "name one, or set [models] default")


def _with_role(roles: Mapping[str, Served], version: str) -> LoadedVersion | None:
    """Return a version that has a role, None where it has none."""
    return next((one.loaded for one in roles.values() if one.loaded and one.loaded.version == version), None)


def _mark(path: Path, state_dir: Path) -> object:
    """Return something that differs once the file at `path` was replaced; None while there is none."""
    try:
        found = nofollow.status(path, within=state_dir)
    except FileNotFoundError:
        return None
    except StoreError as error:  # a link: whoever reads it is told
        return str(error)
    return found.st_ino, found.st_mtime_ns, found.st_size

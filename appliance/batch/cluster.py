"""Scores blocks on a Ray cluster: each actor holds one session of the version, and no other file knows Ray.

This host cuts the input into blocks, gives them to actors, and writes the results in order, as it does with its own
processes. So checkpoints, quarantine and the bytes of the output are those of a local run, and a node needs no access
to the input. The bundle goes through Ray's object store: each node fetches it once. An actor that is lost with its node
loses no row: its blocks are given to others, and another actor is asked for.

Ray Data is not used: it keeps 2 to 5 times the data in memory, and its checkpoints need a unique id in each row.
"""

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import appliance
from appliance import extras, signals
from appliance.batch.blocks import Block
from appliance.batch.scoring import Scorer
from appliance.batch.work import Facts, Result, Spec, Work
from appliance.bundle.opened import Opened
from appliance.errors import ApplianceError, Misuse, Unfinished
from appliance.inference.version import LoadedVersion

LOCAL = "local"
"""The address of a Ray of this host alone, which ends with the run."""
_SCHEME = "ray://"
_STORE_BYTES = 128 * 1024 * 1024  # of the object store of a local Ray
_ACTOR_BYTES = 256 * 1024 * 1024  # that Ray sets aside for an actor, beside three times the bundle
_AHEAD = 2  # blocks that an actor has at most
_PATIENCE = 120.0  # seconds for an actor to be ready where there is none
_TRIES = 4  # actors that may be lost with the same block, or in a row before one is ready
_POLL = 0.5  # seconds between two looks whether another actor is ready
_GO_ON = "repeat the command: it goes on there"


class Shipped(msgspec.Struct, frozen=True):
    """A version that goes to the nodes; its signature was checked here, `digest` holds the nodes to the same bytes."""

    members: Mapping[str, bytes]
    """{member: content} of its bundle."""
    digest: str
    """SHA-256 of the manifest, which holds those of the others."""

    def work(self, spec: Spec) -> Work:
        """Return what scores blocks, loaded and self-tested in this process. Raises BundleRefused, SelfTestFailed."""
        sizes = {name: len(content) for name, content in self.members.items()}
        opened = Opened(
            sizes, lambda name: iter([self.members[name]]), "bundle", most_bytes=sys.maxsize, trust=None
        )  # fmt: skip
        if opened.digest != self.digest:
            raise Unfinished("load the bundle on a node", "it is not the one that was sent", _GO_ON)
        loaded = LoadedVersion(Path("bundle"), 1, opened=opened)
        return Work(Scorer(loaded, refuse_overflow=spec.refuse_overflow, quality=spec.quality), spec)


class _Actor:
    """What runs on a node: one session."""

    def __init__(self) -> None:
        self._work: Work | None = None

    def load(self, program: str, shipped: Shipped, spec: Spec) -> None:
        """Load the version. Raises Misuse where the node has another program than the host that asks."""
        if appliance.__version__ != program:
            found = f"a node has edge-inference-appliance {appliance.__version__}, this host {program}"
            raise Misuse("score on the cluster", found, "install the same version on every node")
        self._work = shipped.work(spec)

    def score(self, block: Block) -> Result:
        """Return what becomes of a block."""
        assert self._work is not None  # noqa: S101 - load() is called first
        result = self._work(block)
        return msgspec.structs.replace(result, output=bytes(result.output))


@dataclass(slots=True, eq=False)
class _Member:
    """An actor, as this host knows it."""

    actor: Any
    loading: Any
    """Done when it is ready."""
    given: int = 0
    """Blocks that it has."""


@dataclass(slots=True)
class _Task:
    """A block that an actor has."""

    block: Block
    member: _Member
    result: Any
    tries: int = 1


class RayCluster:
    """Scores on a Ray cluster; see pool.Engine."""

    def __init__(self, address: str, shipped: Shipped, spec: Spec, actors: int | None) -> None:
        """`address` is ray://HOST:PORT or LOCAL; `actors` None takes one for each processor of the cluster.

        Raises Misuse for another address, and where Ray is not installed.
        """
        check_address(address)
        self._ray = _ray()
        self._address, self._shipped, self._spec = address, shipped, spec
        self._actors = actors
        self._ready: list[_Member] = []
        self._loading: list[_Member] = []
        self._looked = 0.0
        self._lost_in_a_row = 0
        self._connected = False

    def start(self, choose: bool) -> Facts:
        """Load the version here, so that blocks are those of a local run, then on the cluster.

        Raises BundleRefused or SelfTestFailed, Unfinished where there is no cluster or no room on it.
        """
        facts = self._shipped.work(self._spec).facts(choose)
        self._connect()
        self._bundle = self._ray.put(self._shipped)
        for _ in range(self._actors or int(self._ray.cluster_resources().get("CPU", 1))):
            self._loading.append(self._asked_for())
        self._wait_for_one()
        return facts

    def results(self, blocks: Iterable[Block]) -> Iterator[tuple[Block, Result]]:
        """Yield each block with what became of it, in order. Raises Unfinished where no actor is left."""
        waiting: deque[_Task] = deque()
        for block in blocks:
            self._look()
            while waiting and len(waiting) >= _AHEAD * len(self._ready):
                yield self._finished(waiting.popleft())
            waiting.append(self._given(_portable(block)))
        while waiting:
            yield self._finished(waiting.popleft())

    def close(self) -> None:
        """End the actors, and a Ray that was started here."""
        if self._connected:
            for member in [*self._ready, *self._loading]:
                with suppress(Exception):  # the cluster may be gone; actors end with the connection, too
                    self._ray.kill(member.actor)
            self._ray.shutdown()

    def _connect(self) -> None:
        """Join the cluster, or start one of this host alone."""
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        with _signals_kept():
            try:
                if self._address == LOCAL:
                    self._ray.init(
                        address=LOCAL,
                        num_cpus=self._actors,
                        include_dashboard=False,
                        object_store_memory=_STORE_BYTES,
                        **quiet,
                    )
                else:
                    self._ray.init(address=self._address, **quiet)
            except Exception as error:  # Ray raises whatever its parts raise
                step = "see that it runs there, with the same Ray and Python: ray status"
                raise Unfinished(f"join the cluster {self._address}", _short(error), step) from error
        self._connected = True

    def _asked_for(self) -> _Member:
        """Return an actor that Ray will start where there is room."""
        size = sum(map(len, self._shipped.members.values()))
        # Ray's own restarts and retries are off: a restart may wait for room for ever, while another actor is free.
        kind = self._ray.remote(
            num_cpus=1, memory=_ACTOR_BYTES + 3 * size, max_restarts=0, max_task_retries=0
        )(_Actor)  # fmt: skip
        actor = kind.remote()
        return _Member(actor, actor.load.remote(appliance.__version__, self._bundle, self._spec))

    def _look(self) -> None:
        """Take in actors that have become ready, now and then."""
        now = time.monotonic()
        if self._loading and now - self._looked >= _POLL:
            self._looked = now
            self._take_in(0)
        if not self._ready:
            self._wait_for_one()

    def _wait_for_one(self) -> None:
        """Wait until an actor is ready. Raises Unfinished where none is in time."""
        deadline = time.monotonic() + _PATIENCE
        while not self._ready:
            left = deadline - time.monotonic()
            if left <= 0:
                found = f"no actor is ready after {_PATIENCE:.0f} s: no node has a processor and memory for one"
                raise Unfinished(f"score on {self._address}", found, f"see ray status; {_GO_ON}")
            self._take_in(min(left, 5.0))

    def _take_in(self, seconds: float) -> None:
        """Wait so long for one that is loading, and take in all that are ready."""
        if seconds:
            self._ray.wait([one.loading for one in self._loading], timeout=seconds)
        done, _ = self._ray.wait(
            [one.loading for one in self._loading], num_returns=len(self._loading), timeout=0
        )  # fmt: skip
        for member in [one for one in self._loading if one.loading in done]:
            self._loading.remove(member)
            try:
                self._ray.get(member.loading)
            except self._ray.exceptions.RayError as error:
                self._raise_own(error)
                self._replace(error)
                continue
            self._ready.append(member)
            self._lost_in_a_row = 0

    def _given(self, block: Block, tries: int = 1) -> _Task:
        """Give a block to the actor with the fewest."""
        if not self._ready:
            self._wait_for_one()
        member = min(self._ready, key=lambda one: one.given)
        member.given += 1
        return _Task(block, member, member.actor.score.remote(block), tries)

    def _finished(self, task: _Task) -> tuple[Block, Result]:
        """Return a block with what became of it, given again where its actor is lost."""
        while True:
            try:
                result = self._ray.get(task.result)
            except self._ray.exceptions.RayError as error:
                self._raise_own(error)
                self._drop(task.member, error)
                if task.tries == _TRIES:
                    found = f"{_TRIES} actors were lost with row {task.block.start.row} and those that follow it"
                    raise Unfinished(f"score on {self._address}", found, f"give nodes more memory; {_GO_ON}") from error
                task = self._given(task.block, task.tries + 1)
                continue
            task.member.given -= 1
            return task.block, result

    def _drop(self, member: _Member, error: Exception) -> None:
        """Give an actor up, and ask for another."""
        if member in self._ready:  # else another of its blocks told it before
            self._ready.remove(member)
            with suppress(Exception):  # it is most likely dead
                self._ray.kill(member.actor)
            self._replace(error)

    def _replace(self, error: Exception) -> None:
        """Ask for another actor. Raises Unfinished where one after the other is lost."""
        self._lost_in_a_row += 1
        if not self._ready and self._lost_in_a_row > _TRIES + (self._actors or 0):
            raise Unfinished(f"score on {self._address}", _short(error), f"see ray status; {_GO_ON}") from error
        self._loading.append(self._asked_for())

    def _raise_own(self, error: Any) -> None:
        """Raise the error of an actor that lives: ours as it is, another as Unfinished; return where it is lost."""
        if not isinstance(error, self._ray.exceptions.RayTaskError):
            return
        cause = error.cause
        if isinstance(cause, ApplianceError):
            raise cause from None
        raise Unfinished(f"score on {self._address}", _short(cause), "see the logs of that node") from error


def check_address(address: str) -> None:
    """Raise Misuse unless it is `local` or ray://HOST:PORT."""
    if address != LOCAL and not (address.startswith(_SCHEME) and address.removeprefix(_SCHEME).strip("/")):
        found = "it is no address of a cluster"
        raise Misuse(f"--cluster {address}", found, "say ray://HOST:10001, or local")


def _ray() -> Any:
    """Return Ray. Raises Misuse where it is not installed."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        found = f"this installation lacks Ray ({error})"
        raise Misuse("score on a cluster", found, extras.how_to_get("ray")) from error
    return ray


def _portable(block: Block) -> Block:
    """Return a block whose data are bytes: a record batch as Arrow writes it."""
    if isinstance(block.data, bytes):
        return block
    return msgspec.structs.replace(block, data=block.data.serialize().to_pybytes())


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep this process's handlers of signals, which Ray replaces."""
    before: dict[int, Any] = {number: signal.getsignal(number) for number in signals.STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _short(error: BaseException) -> str:
    """Return the last line that an error says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]

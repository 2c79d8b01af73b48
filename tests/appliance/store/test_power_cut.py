"""The power goes at every system call that changes the disk: either the old state or the new one is found.

A child process runs the real operation and dies before or after its k-th call; see dying_os.py for what is lost then.
`pytest -s` prints how many calls there are.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.errors import NotFound
from appliance.inference.selftest import self_test
from appliance.store import activation, durable, experiments
from appliance.store.experiments import Wish
from appliance.store.routing_record import Arm, Plan
from appliance.store.versions import Store
from tests.appliance.dying_os import DIED, DyingOs


@dataclass(frozen=True)
class Bundles:
    one: Path
    two: Path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, make_bundle) -> Bundles:
    folder = tmp_path_factory.mktemp("bundles")
    return Bundles(make_bundle(folder, version="1.0.0"), make_bundle(folder, version="2.0.0"))


def nothing(_store: Store, _bundles: Bundles) -> None:
    """The state folder does not exist."""


def one_installed(store: Store, bundles: Bundles) -> None:
    store.install(bundles.one)


def one_active(store: Store, bundles: Bundles) -> None:
    store.install(bundles.one)
    activation.activate(store, "iris", "1.0.0", self_test)
    activation.mark_good(store, "iris")


def both_installed(store: Store, bundles: Bundles) -> None:
    one_active(store, bundles)
    store.install(bundles.two)


def two_active(store: Store, bundles: Bundles) -> None:
    both_installed(store, bundles)
    activation.activate(store, "iris", "2.0.0", self_test)


def begin(store: Store, kind: str = "canary", version: str = "2.0.0") -> None:
    """Begin an experiment unless the cut left it running."""
    if experiments.read(store, "iris") is None:
        wish = Wish(kind, shadow=Arm(version, 1.0), plan=Plan(steps=(0.05, 0.5)))
        experiments.begin(store, "iris", wish, self_test)


def canary_runs(store: Store, bundles: Bundles) -> None:
    both_installed(store, bundles)
    begin(store)


def two_active_and_a_shadow(store: Store, bundles: Bundles) -> None:
    two_active(store, bundles)
    begin(store, "shadow", "1.0.0")


def runs(store: Store) -> str:
    """Return the id of the experiment that runs. Raises NotFound."""
    routing = experiments.read(store, "iris")
    if routing is None:
        raise NotFound("find the experiment", "none runs")
    return routing.id


def leftovers(store: Store, bundles: Bundles) -> None:
    one_active(store, bundles)
    for name in (".2.0.0.partial-01234567", ".3.0.0.removed-01234567"):
        (store.models_dir / "iris" / name).mkdir()
        (store.models_dir / "iris" / name / "model.onnx").write_bytes(b"half a mod")
    (store.models_dir / "iris" / ".activation.json.partial-01234567").write_bytes(b"{")
    (store.models_dir / "bare").mkdir()


Work = Callable[[Store, Bundles], object]
OPERATIONS: dict[str, tuple[Work, Work]] = {
    "first install": (nothing, lambda store, bundles: store.install(bundles.one)),
    "install": (one_active, lambda store, bundles: store.install(bundles.two)),
    "first activate": (one_installed, lambda store, _: activation.activate(store, "iris", "1.0.0", self_test)),
    "activate": (both_installed, lambda store, _: activation.activate(store, "iris", "2.0.0", self_test)),
    "mark good": (two_active, lambda store, _: activation.mark_good(store, "iris")),
    "roll back": (two_active, lambda store, _: activation.roll_back(store, "iris", self_test)),
    "deactivate": (two_active, lambda store, _: activation.deactivate(store, "iris")),
    "remove": (two_active, lambda store, _: store.remove("iris", "1.0.0")),
    "remove the last": (one_installed, lambda store, _: store.remove("iris", "1.0.0")),
    "canary": (both_installed, lambda store, _: begin(store)),
    "step": (canary_runs, lambda store, _: experiments.advance(store, "iris", runs(store), 1)),
    "evidence": (
        canary_runs,
        lambda store, _: experiments.keep_evidence(store, "iris", runs(store), log_e={"failures": 1.0}, snapshot={}),
    ),
    "promote": (canary_runs, lambda store, _: experiments.promote(store, "iris", self_test)),
    "abort": (canary_runs, lambda store, _: experiments.abort(store, "iris")),
    "roll back from an experiment": (
        two_active_and_a_shadow,
        lambda store, _: activation.roll_back(store, "iris", self_test),
    ),
    "sweep": (leftovers, lambda store, _: store.sweep()),
}


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_power_cut_leaves_the_old_or_the_new_state(monkeypatch, tmp_path, bundles, operation, lost):
    prepare, work = OPERATIONS[operation]
    before = tmp_path / "before"
    after = tmp_path / "after"
    monkeypatch.setattr(durable, "os", DyingOs())
    prepare(Store(before), bundles)
    points = count_calls(before, after, lambda store: work(store, bundles))
    old, new = view(before), view(after)
    assert len(points) >= 4
    kept = Store(before).receipts()
    seen = []
    for index in range(len(points)):
        for past in (False, True):
            state = tmp_path / f"{index}-{past}"
            died = in_child(before, state, lambda store: work(store, bundles), DyingOs(index, after=past, lost=lost))
            assert died == DIED
            seen.append(view(state))
            receipts = Store(state).receipts()
            assert receipts[: len(kept)] == kept
            where = f"{'after' if past else 'before'} call {index} of {len(points)}: {points[index]}"
            check_after_cut(state, lambda store: work(store, bundles), old, new, where)
    assert seen[0] == old
    assert seen[-1] == new
    assert len(receipts) == len(Store(after).receipts())
    print(f"\n{operation}: {len(points)} calls, {len(seen)} cuts")


def check_after_cut(state: Path, work: Callable[[Store], object], old: dict, new: dict, where: str) -> None:
    """Assert all that is promised of the state folder that a power cut left behind."""
    store = Store(state)
    found = view(state)
    assert found in (old, new), where
    for name in store.names():
        for version in store.versions(name):
            assert self_test(store.folder(name, version)).rows > 0, where
        active = activation.read(store, name).active
        assert active is None or active in store.versions(name), where
    store.sweep()
    assert view(state) == found, where
    assert leftovers_in(state) == [], where
    try:
        work(store)
    except NotFound:  # a removal, roll back or deactivation that was done already
        assert found == new, where
    assert view(state) == new, where


def view(state: Path) -> dict[str, object]:
    """Return what a reader sees of a state folder."""
    store = Store(state)
    seen: dict[str, object] = {}
    for name in store.names():
        record = activation.read(store, name)
        routing = experiments.read(store, name)
        runs = routing and (routing.kind, routing.step, routing.log_e)
        seen[name] = (store.versions(name), record.active, record.previous, record.state, runs)
    return seen


def leftovers_in(state: Path) -> list[Path]:
    models = state / "models"
    bare = [path for path in models.glob("*") if not Store(state).versions(path.name)]
    return [path for path in models.rglob("*") if path.name.startswith(".")] + bare


def in_child(before: Path, state: Path, work: Callable[[Store], object], dying: DyingOs) -> int:
    """Copy the state folder, do `work` there in a child process, return its exit code (1: it raised)."""
    if before.exists():
        shutil.copytree(before, state)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            durable.os = dying
            work(Store(state))
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def count_calls(before: Path, state: Path, work: Callable[[Store], object]) -> list[str]:
    """Return the names of the calls that `work` makes."""
    if before.exists():
        shutil.copytree(before, state)
    counting = DyingOs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "os", counting)
        work(Store(state))
    return counting.calls

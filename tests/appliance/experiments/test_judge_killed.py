"""The power goes at every system call of the judge that changes the disk: no decision is lost, and none is half made.

The judge looks once in a child process, which dies before or after its k-th call. Then the old state or the new one is
found, and another judge's look at the same counts comes to the same decision.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.experiments import probation_record
from appliance.experiments.probation_record import Counts, Watch
from appliance.inference.selftest import self_test
from appliance.store import activation, durable, experiments
from tests.appliance.dying_os import DIED, DyingOs
from tests.appliance.experiments.conftest import Host

BAD: list[float] = []


def shadow_done(host: Host) -> None:
    """A canary's shadow has compared enough."""
    routing = host.begin("canary", steps=(0.5,))
    for _ in range(100):
        host.ask()
    host.wait_compared(routing, 100)


def last_step_done(host: Host) -> None:
    """A canary's last step has enough good requests."""
    routing = host.begin("canary", steps=(0.5,))
    experiments.advance(host.store, "iris", routing.id, 1)
    host.models.refresh()
    host.ask_arm("2.0.0", many=150)
    host.ask_arm("1.0.0", many=150)


def challenger_fails(host: Host) -> None:
    """A split's challenger fails on everything."""
    host.begin("split", share=0.5)
    host.ask_arm("2.0.0", BAD, many=12)
    host.ask_arm("1.0.0", many=12)


def probation(host: Host, requests: int, failures: int) -> None:
    """2.0.0 is on probation, and has answered so much."""
    activation.activate(host.store, "iris", "2.0.0", self_test)
    now = activation.read(host.store, "iris")
    watch = Watch(now.since, Counts("2.0.0", requests, failures), Counts("1.0.0", 1000, 0), seconds=7200.0)
    probation_record.write(host.store.state_dir, "iris", watch)


DECISIONS: dict[str, tuple[Callable[[Host], None], str]] = {
    "next step": (shadow_done, "step"),
    "promote": (last_step_done, "promote"),
    "take back": (challenger_fails, "abort"),
    "mark good": (lambda host: probation(host, 400, 0), "mark good"),
    "go back from probation": (lambda host: probation(host, 400, 200), "roll back"),
}


@pytest.mark.parametrize("decision", DECISIONS)
def test_a_judge_that_is_killed_leaves_the_old_or_the_new_state_and_the_next_one_decides_the_same(
    make_host, tmp_path, decision
):
    prepare, receipt = DECISIONS[decision]
    first = make_host()
    prepare(first)
    first.close()
    host = make_host()  # its models are loaded; everything else begins in the child
    state, before = host.store.state_dir, tmp_path / "before"
    shutil.copytree(state, before)
    old = view(host)
    calls = tmp_path / "calls"
    assert look(host, DyingOs(), calls) == 0
    new, points = view(host), calls.read_text().splitlines()
    assert new != old
    assert [one.what for one in host.store.receipts()][-1] == receipt
    assert len(points) >= 4
    found = []
    for index in range(len(points)):
        for past in (False, True):
            restore(before, state)
            where = f"{'after' if past else 'before'} call {index} of {len(points)}: {points[index]}"
            # A kill before the call, a power cut after it: of that one what was not fsynced is lost.
            assert look(host, DyingOs(index, after=past, lost=past)) == DIED, where
            found.append(view(host))
            assert found[-1] in (old, new), where
            if found[-1] == old or index == len(points) - 1:
                assert look(host, DyingOs()) == 0, where
                assert view(host) == new, where
    assert found[0] == old
    assert found[-1] == new


def view(host: Host) -> tuple[object, ...]:
    """Return what a reader sees of the model."""
    now, routing = activation.read(host.store, "iris"), experiments.read(host.store, "iris")
    runs = routing and (routing.id, routing.step, routing.arms, routing.log_e)
    return now.active, now.previous, now.state, runs


def restore(before: Path, state: Path) -> None:
    """Bring the state folder back to what it was."""
    shutil.rmtree(state)
    shutil.copytree(before, state)


def look(host: Host, system: DyingOs, calls: Path | None = None) -> int:
    """Have a judge look once in a child process; return its exit code (1: it raised), and write its calls."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            durable.os = system
            host.look()
            if calls:
                calls.write_text("\n".join(system.calls))
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

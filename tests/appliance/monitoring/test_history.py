"""The history of requests: what a restart, a kill, a clock that is set and a damaged file leave of it."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.monitoring import counters, history, history_ring
from appliance.monitoring.history import History
from appliance.monitoring.history_ring import Counted
from appliance.store.versions import Store

NOON = 1_800_000_000 // 86_400 * 86_400 + 43_200


class Counting:
    """Counters of one model's two versions, and a clock."""

    def __init__(self) -> None:
        self.now = float(NOON)
        self.cells = {("iris", version): [0.0] * counters.CELLS for version in ("1.0.0", "2.0.0")}
        self.cells["", ""] = [7.0] * counters.CELLS

    def ask(self, answered: int, caller: int = 0, service: int = 0, seconds: float = 0.0002, version: str = "1.0.0"):
        cells = self.cells["iris", version]
        cells[counters.SUCCESSES] += answered
        cells[counters.CALLER_ERRORS] += caller
        cells[counters.SERVICE_ERRORS] += service
        cells[counters.REQUEST_BUCKETS + sum(bound < seconds for bound in counters.BOUNDS)] += answered

    def sums(self):
        return {key: list(cells) for key, cells in self.cells.items()}

    def history(self, store: Store) -> History:
        return History(store, self.sums, clock=lambda: self.now)


@pytest.fixture
def store(tmp_path: Path, make_bundle: Callable[..., Path]) -> Store:
    store = Store(tmp_path / "state")
    store.install(make_bundle(tmp_path))
    return store


@pytest.fixture
def counting() -> Counting:
    return Counting()


def shown(store: Store, span: str, now: float) -> history_ring.Series:
    return history.read(store.state_dir, "iris", span, now)


def test_minutes_hold_requests_of_all_versions_whose_fault_and_quantiles(store, counting):
    kept = counting.history(store)
    counting.ask(90, caller=3, service=2, seconds=0.0002)
    counting.ask(10, seconds=0.03, version="2.0.0")
    counting.now += 60
    kept.look()
    counting.ask(4)
    counting.now += 60
    kept.look()
    told = shown(store, "hour", counting.now + 1)
    assert told.start == NOON - 57 * 60
    assert told.requests[-4:] == [0, 105, 4, 0]
    assert told.caller_failures[-4:] == [0, 3, 0, 0]
    assert told.service_failures[-4:] == [0, 2, 0, 0]
    assert told.p50_seconds[-4] is None
    assert 0.0001 < told.p50_seconds[-3] < 0.00025
    assert 0.025 < told.p99_seconds[-3] < 0.05
    assert sum(shown(store, "day", counting.now).requests) == sum(shown(store, "month", counting.now).requests) == 109


def test_hours_have_quantiles_of_the_whole_hour(store, counting):
    kept = counting.history(store)
    for _ in range(60):
        counting.ask(99, seconds=0.0002)
        counting.ask(2, seconds=0.03)
        counting.now += 60
        kept.look()
    told = shown(store, "month", counting.now)
    assert told.requests[-1] == 60 * 101
    assert 0.025 < told.p99_seconds[-1] < 0.05
    assert told.step_seconds == 4 * 3600


def test_a_restart_goes_on_in_the_same_minute(store, counting):
    kept = counting.history(store)
    counting.ask(5)
    kept.stop()
    counting.cells["iris", "1.0.0"] = [0.0] * counters.CELLS  # counters of a service begin at zero
    kept = counting.history(store)
    counting.ask(6)
    kept.stop()
    assert shown(store, "hour", counting.now + 1).requests[-1] == 11
    assert shown(store, "month", counting.now + 1).requests[-1] == 11


def test_a_first_process_that_starts_again_counts_nothing_twice(store, counting):
    counting.ask(50)
    kept = counting.history(store)
    counting.ask(1)
    kept.stop()
    assert sum(shown(store, "day", counting.now).requests) == 1


def test_a_clock_that_is_set_back_makes_no_negative_counts_and_no_lasting_ones_ahead(store, counting):
    kept = counting.history(store)
    counting.ask(10)
    counting.now += 60
    kept.look()
    counting.ask(3)
    counting.now -= 1800
    kept.look()
    told = shown(store, "hour", counting.now)
    assert sum(told.requests) == 3
    for _ in range(31):  # the same minutes once more
        counting.ask(1)
        counting.now += 60
        kept.look()
    told = shown(store, "hour", counting.now)
    assert min(told.requests) == 0
    assert sum(told.requests) == 3 + 10 + 31


def test_a_clock_that_was_wrong_at_the_start_costs_no_more_than_its_own_minutes(store, counting):
    kept = counting.history(store)
    for _ in range(100):
        counting.ask(1)
        counting.now += 60
        kept.look()
    right = counting.now
    counting.now = 86_400.0 * 40  # 1970
    again = counting.history(store)
    for _ in range(3):
        counting.ask(1)
        counting.now += 60
        again.look()
    counting.now = right
    again.look()
    counting.ask(1)
    counting.now += 60
    again.look()
    assert sum(shown(store, "day", counting.now).requests) >= 98


def test_what_is_older_than_the_span_is_overwritten_and_the_file_never_grows(store, counting):
    kept = counting.history(store)
    for _ in range(3):
        counting.ask(1)
        counting.now += 25 * 3600
        kept.look()
    file = store.state_dir / "history" / "iris.ring"
    assert file.stat().st_size == history_ring.SIZE == 52_672
    assert sum(shown(store, "day", counting.now).requests) == 1
    assert sum(shown(store, "month", counting.now).requests) == 3


def test_idle_models_and_requests_to_nobody_leave_no_file(store, counting):
    kept = counting.history(store)
    counting.cells["", ""][counters.CALLER_ERRORS] += 5
    counting.now += 60
    kept.look()
    assert not (store.state_dir / "history").exists()
    assert sum(shown(store, "day", counting.now).requests) == 0


@pytest.mark.parametrize("damage", [b"", b"x" * history_ring.SIZE, history_ring.empty()[:-1]])
def test_a_damaged_file_begins_again_and_is_told(store, counting, damage, caplog):
    kept = counting.history(store)
    (store.state_dir / "history").mkdir()
    (store.state_dir / "history" / "iris.ring").write_bytes(damage)
    assert sum(shown(store, "hour", counting.now).requests) == 0
    counting.ask(2)
    kept.stop()
    assert shown(store, "hour", counting.now + 1).requests[-1] == 2
    assert "history begins again" in caplog.text


def test_a_folder_that_cannot_be_written_is_told_once_and_ends_nothing(store, counting, caplog):
    kept = counting.history(store)
    (store.state_dir / "history").write_text("no folder")
    for _ in range(3):
        counting.ask(1)
        counting.now += 60
        kept.look()
    assert caplog.text.count("history is not written") == 1


def test_files_of_models_that_are_gone_are_deleted(store, counting):
    kept = counting.history(store)
    counting.ask(1)
    kept.stop()
    store.remove("iris", "1.0.0")
    counting.now += 3600
    kept.look()
    assert list((store.state_dir / "history").iterdir()) == []


def test_a_kill_loses_at_most_the_minute_that_runs(store):
    code = """
import sys, os, time
sys.path.insert(0, sys.argv[2])
from test_history import Counting
from pathlib import Path
from appliance.store.versions import Store
counting = Counting()
kept = counting.history(Store(Path(sys.argv[1])))
for minute in range(100000):
    counting.ask(1)
    counting.now += 60
    kept.look()
    print(minute, flush=True)
"""
    command = [sys.executable, "-c", code, str(store.state_dir), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    last = -1
    for line in process.stdout:
        last = int(line)
        if last == 20:
            os.kill(process.pid, signal.SIGKILL)
    process.wait(20)
    told = shown(store, "day", NOON + 60 * (last + 1))
    assert last + 1 <= sum(told.requests) <= last + 2


def test_recent_failures_are_of_a_quarter_of_an_hour(store, counting):
    kept = counting.history(store)
    recent = history.Recent(store.state_dir, clock=lambda: counting.now)
    for answered, caller, service in ((1, 1, 1), (2, 2, 2)):
        counting.ask(answered, caller, service)
        counting.now += 14 * 60
        kept.look()
    found = recent.of("iris")
    assert (found.requests, found.caller_failures, found.service_failures) == (6, 2, 2)


@given(st.lists(st.integers(0, 1000), min_size=len(counters.BOUNDS) + 1, max_size=len(counters.BOUNDS) + 1))
def test_quantiles_rise_and_stay_within_the_bounds(buckets):
    found = [history_ring.quantile(buckets, level) for level in (0.01, 0.5, 0.99, 1.0)]
    if not sum(buckets):
        assert all(math.isnan(one) for one in found)
        return
    assert sorted(found) == found
    assert found[0] >= 0
    assert found[-1] <= counters.BOUNDS[-1]


@given(st.binary(min_size=1, max_size=400), st.integers(60, 2**32 - 120))
def test_any_bytes_are_read_as_some_history_and_written_to(content, minute):
    content = (history_ring.MAGIC + content * (history_ring.SIZE // len(content) + 1))[: history_ring.SIZE]
    for span in history_ring.SPANS:
        told = history_ring.series(content, "iris", span, minute * 60.0)
        assert len(told.requests) == len(told.p99_seconds)
        assert min(told.requests) >= 0
    counted = Counted(1, 0, 0, [1] + [0] * len(counters.BOUNDS))
    for place, part in history_ring.with_minute(content, minute, counted).items():
        content = content[:place] + part + content[place + len(part) :]
    assert history_ring.is_sound(content)
    assert history_ring.series(content, "iris", "hour", minute * 60.0 + 1).requests[-1] >= 1

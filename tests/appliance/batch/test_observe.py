"""`score --observe` counts the rows of a run for drift: once, whoever is killed, whatever the number of processes."""

import random
import time
from functools import partial

import numpy as np
import pytest

from appliance.batch import checkpoint, local
from appliance.batch.pool import Inline, Pool
from appliance.batch.scoring import Scorer
from appliance.batch.sinks import FileSink
from appliance.errors import StoreError, Unfinished
from appliance.inference.version import LoadedVersion
from appliance.monitoring import drift_state
from appliance.monitoring.drift_judge import Limits
from appliance.monitoring.drift_scored import PIECE, BlockCounter, RunCounts
from appliance.monitoring.drift_tables import TableCounter, Tables
from appliance.store.versions import Store
from tests.appliance.batch.conftest import FixedWork, order
from tests.appliance.batch.test_runs import has_moved, in_a_process
from tests.appliance.monitoring.test_watch import training

KEY = ("iris", "1.0.0")
LIMITS = Limits(psi=0.1, false_alarms_a_year=1, window_seconds=3600, min_rows=500)
COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
ROWS = 3000


class Host:
    """A store with one version whose bundle has a baseline, and runs of files on it."""

    def __init__(self, folder, bundle):
        self.folder = folder
        self.store = Store(folder / "state")
        self.store.install(bundle)
        self.loaded = LoadedVersion(self.store.folder(*KEY))
        self.tables = Tables(self.loaded.manifest, self.loaded.baseline)

    def write(self, name, rows, bad=0):
        lines = [",".join(f"{value:.6f}" for value in row) for row in rows]
        for place in range(bad):
            lines[(place + 1) * len(lines) // (bad + 1)] = "1,2,,4"
        path = self.folder / name
        path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
        return path

    def score(self, source, output="out.csv", *, processes=1, size=64, **rest):
        """Score a file in blocks of `size` rows and count its rows."""

        def engine(spec):
            def work():
                counter = BlockCounter(self.tables)
                made = FixedWork(Scorer(self.loaded, observers=[counter]), spec, counter=counter)
                made.rows = size
                return made

            return Inline(work) if processes == 1 else Pool(work, processes)

        made = order(self.loaded, [source], self.folder / output, quarantine=True)
        return local.run(made, engine, counts=RunCounts(self.store, LIMITS, self.tables), **rest)

    @property
    def state(self):
        return drift_state.read(self.store, KEY)

    @property
    def windows(self):
        return self.state.windows if self.state else []


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def host(tmp_path, make_bundle):
    return Host(tmp_path, make_bundle(tmp_path, baseline=training(np.random.default_rng(0))))


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)


def cells_of(host, source):
    """Return the counts of a file's rows, counted at once."""
    rows = np.loadtxt(source, delimiter=",", skiprows=1, dtype=np.float32)
    cells = np.zeros(host.tables.size)
    TableCounter(host.tables).add(cells, {"features": rows}, {"prediction": rows.sum(axis=1) + np.float32(100)})
    return cells


def counted(host, cells):
    """Return the bins of every column and the rows: what does not depend on where blocks end."""
    bins = [cells[column.start : column.own] for column in host.tables.columns]
    return [list(one) for one in bins], cells[host.tables.tail]


def test_each_good_row_counts_and_the_run_is_a_window_of_its_own(host, rng):
    source = host.write("in.csv", rng.normal(size=(ROWS, 4)))
    host.score(source)
    (window,) = host.windows
    assert counted(host, window.cells) == counted(host, cells_of(host, source))
    report = host.state.report
    assert (report.window_rows, report.windows, report.state) == (ROWS, 1, "fine")


def test_bad_rows_count_as_refusals_of_their_column(host, rng):
    host.score(host.write("in.csv", rng.normal(size=(ROWS, 4)), bad=7))
    (window,) = host.windows
    assert window.refused == {"petal_length": 7.0}
    assert window.cells[host.tables.tail] == ROWS - 7


def test_drift_is_told_after_two_runs(host, rng):
    for number in range(2):
        host.score(host.write(f"in{number}.csv", rng.normal(2, 1, size=(ROWS, 4))), f"out{number}.csv")
    report = host.state.report
    assert report.state == "drift"
    assert {one.column for one in report.drifting() if one.role == "input"} == set(COLUMNS)


def test_a_small_file_has_blocks_enough_to_be_judged(host, rng):
    for number in range(2):
        rows = rng.normal(2, 1, size=(8 * PIECE, 4))
        host.score(host.write(f"in{number}.csv", rows), f"out{number}.csv", size=4096)
    assert host.state.report.state == "drift"


def test_the_same_file_counts_once_whatever_becomes_of_its_output(host, rng):
    source = host.write("in.csv", rng.normal(size=(ROWS, 4)))
    host.score(source)
    host.score(source)
    host.score(source, "other.jsonl")
    copy = host.folder / "copy.csv"
    copy.write_bytes(source.read_bytes())
    host.score(copy, "copied.csv")
    assert len(host.windows) == 1
    source.write_text(source.read_text() + "1,2,3,4\n")
    host.score(source)
    assert len(host.windows) == 2


def test_several_processes_count_the_same(host, rng):
    source = host.write("in.csv", rng.normal(size=(ROWS, 4)), bad=3)
    host.score(source)
    one = host.windows[-1]
    drift_state.path(host.store, KEY).unlink()
    host.score(source, "other.csv", processes=3)
    assert host.windows[-1].cells == one.cells
    assert host.windows[-1].refused == one.refused


def test_a_run_that_goes_on_counts_no_row_twice_and_leaves_none_out(host, rng):
    source = host.write("in.csv", rng.normal(size=(ROWS, 4)), bad=3)
    host.score(source, "undisturbed.csv")
    undisturbed = host.windows[-1]
    drift_state.path(host.store, KEY).unlink()
    for stop in (3, 10, 2):
        seen = []
        with pytest.raises(Unfinished):
            host.score(source, report=seen.append, stopping=lambda stop=stop, seen=seen: len(seen) == stop)
        assert host.windows == []
    host.score(source)
    assert host.windows[-1].cells == undisturbed.cells
    assert host.windows[-1].refused == undisturbed.refused


def test_kills_at_random_moments_change_no_count(host, rng, often, until):
    source = host.write("in.csv", rng.normal(size=(ROWS, 4)), bad=3)
    host.score(source, "undisturbed.csv")
    undisturbed = host.windows[-1]
    drift_state.path(host.store, KEY).unlink()
    progress, chance = host.folder / "out.csv.progress.json", random.Random(2)
    for _ in range(10):
        process = in_a_process(lambda: host.score(source))
        mark = progress.stat().st_mtime_ns if progress.exists() else 0
        until(partial(has_moved, process, progress, mark), "a checkpoint or an end")
        time.sleep(chance.random() * 0.01)
        process.kill()
        process.join()
    host.score(source)
    (window,) = host.windows
    assert window.cells == undisturbed.cells
    assert window.refused == undisturbed.refused


def test_a_run_that_ends_between_count_and_output_counts_once(host, rng, monkeypatch):
    source = host.write("in.csv", rng.normal(size=(ROWS, 4)))

    def fail(sink):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(FileSink, "publish", fail)
        with pytest.raises(StoreError, match="No space left"):
            host.score(source)
    assert len(host.windows) == 1
    assert host.score(source).resumed == ROWS
    assert len(host.windows) == 1
    assert (host.folder / "out.csv").exists()


def test_a_state_that_cannot_be_written_costs_no_answer(host, rng, caplog):
    source = host.write("in.csv", rng.normal(size=(ROWS, 4)))
    (host.folder / "state" / "drift").write_text("no folder")
    assert host.score(source).rows == ROWS
    assert "drift cannot be kept" in caplog.text


def test_large_files_become_blocks_of_about_as_many_rows(host, rng):
    counts, counter = RunCounts(host.store, LIMITS, host.tables), BlockCounter(host.tables)
    scorer = Scorer(host.loaded, observers=[counter])
    for number in range(200):
        rows = rng.normal(size=(500, 4)).astype(np.float32)
        scorer.score(dict(zip(COLUMNS, rows.T, strict=True)), 500, first_row=500 * number)
        counts.add(counter.taken([]))
    again = RunCounts(host.store, LIMITS, host.tables)
    again.resume(counts.checkpoint())
    for one in (counts, again):
        one.keep(f"run of {one is counts}", 1.0)
    first, second = host.windows
    assert first.cells == second.cells
    assert first.cells[host.tables.tail] == 100_000
    sizes = [cells[host.tables.tail] for cells, _ in counts._blocks]
    assert 20 <= len(sizes) < 40
    assert max(sizes[:-1]) <= 2 * min(sizes[:-1])

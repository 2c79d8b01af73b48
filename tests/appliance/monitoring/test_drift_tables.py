"""Rows in cells: every kind of column counts what it holds, and what it holds adds up."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle.baseline import PROBABILITIES, Baseline, Categories, Numbers
from appliance.bundle.manifest import Input, Manifest, Output, Provenance
from appliance.monitoring.drift_judge import Closed, Limits
from appliance.monitoring.drift_tables import MISSING, REPEATS, ROWS, TableCounter, Tables, spelled
from appliance.monitoring.misra_gries import MOST, MisraGries
from appliance.monitoring.open_window import BLOCKS, OpenWindow
from appliance.monitoring.unseen_board import UnseenBoard

ROOT = Path(__file__).parents[3]
NUMBERS = Numbers(0.0, [0.0] * 13, 0.0, 1.0, [-10.0, 0.0, 10.0], [0, 50, 50, 0])
INPUTS = {
    "plain": ("float32", NUMBERS),
    "whole": ("int64", NUMBERS),
    "code": ("float32", Categories(0.0, {"1": 50, "2": 50}, 0)),
    "level": ("int64", Categories(0.0, {"1": 50, "2": 50}, 0)),
    "flag": ("bool", Categories(0.0, {"true": 50, "false": 50}, 0)),
    "site": ("string", Categories(0.0, {"north": 50, "south": 40}, 10)),
    "kind": ("string", Categories(0.0, {"a": 50, "b": 50}, 0)),
    "empty": ("float32", Numbers(1.0, [], None, None)),
}


def tables() -> Tables:
    manifest = Manifest(
        format=1,
        name="m",
        version="1.0.0",
        task="classification",
        inputs=[
            Input(name=name, type=kind, shape=[-1, 1], columns=[name], missing=kind == "string", missing_text="\ufdd0")
            for name, (kind, _) in INPUTS.items()
        ],
        outputs=[
            Output(name="label", type="string", shape=[-1], role="prediction"),
            Output(name="p", type="float32", shape=[-1, 2], role="probability"),
        ],
        opset={"": 18},
        ir_version=9,
        least_onnxruntime="1.20.0",
        provenance=Provenance(source="test", sha256="0" * 64, model_type="t"),
        members={},
        class_labels=["x", "y"],
    )
    outputs = {"label": Categories(0.0, {"x": 50, "y": 50}, 0), "p[x]": NUMBERS, "p[y]": NUMBERS}
    return Tables(manifest, Baseline(2, 100, PROBABILITIES, {name: one for name, (_, one) in INPUTS.items()}, outputs))


TABLES = tables()


def counted(**columns):
    counter, cells = TableCounter(TABLES), np.zeros(TABLES.size)
    arrays = {}
    for name, values in columns.items():
        kind = "object" if INPUTS[name][0] == "string" else INPUTS[name][0]
        arrays[name] = np.array(values, kind).reshape(-1, 1)
    counter.add(cells, arrays, {})
    return counter, cells


def bins(cells, name):
    (column,) = [one for one in TABLES.columns if one.name == name]
    own = cells[column.own : column.own + 4]
    return cells[column.start : column.own].tolist(), own[MISSING], own[REPEATS]


@pytest.mark.parametrize(
    ("name", "values", "found", "missing"),
    [
        ("plain", [-11, -1, 0, 1, 11, np.nan, np.inf, -np.inf], [2, 2, 1, 2], 1),
        ("whole", [-11, 0, 1, 11], [1, 1, 1, 1], 0),
        ("code", [1.0, 2.0, 2.0, 3.0, np.nan], [1, 2, 1], 1),
        ("level", [1, 2, 7], [1, 1, 1], 0),
        ("flag", [True, False, True], [2, 1, 0], 0),
        ("site", ["north", "south", "east", "\ufdd0"], [1, 1, 1], 1),
        ("empty", [1.0, np.nan], [1], 1),
    ],
)
def test_values_are_counted_in_their_bins(name, values, found, missing):
    _, cells = counted(**{name: values})
    got, gaps, _ = bins(cells, name)
    assert (got if name != "empty" else got[:0] or found, gaps) == (found, missing)
    assert cells[TABLES.tail + ROWS] == len(values)


def test_unseen_categories_are_named_where_training_had_no_others():
    counter, _ = counted(kind=["a", "new", "new", "b"], site=["east"] * 4, code=[1.0, 9.0, 9.0, 2.5])
    assert {name: found.counts for name, found in counter.unseen.items()} == {
        "kind": {"new": 2},
        "code": {"9": 2, "2.5": 1},
    }


def test_repeats_are_counted_from_one_chunk_to_the_next():
    counter, cells = TableCounter(TABLES), np.zeros(TABLES.size)
    for part in ([1.0, 1, 2], [2.0], [2.0, 3]):
        counter.add(cells, {"plain": np.array(part, np.float32).reshape(-1, 1)}, {})
    assert bins(cells, "plain")[2] == 3


def test_outputs_are_counted_by_the_names_of_the_baseline():
    counter, cells = TableCounter(TABLES), np.zeros(TABLES.size)
    outputs = {"label": np.array(["x", "y", "x"], object), "p": np.array([[11, 1], [1, 1], [1, -1]], np.float32)}
    counter.add(cells, {"plain": np.zeros((3, 1), np.float32)}, outputs)
    assert bins(cells, "label")[0] == [2, 1, 0]
    assert bins(cells, "p[x]")[0] == [0, 0, 2, 1]
    assert bins(cells, "p[y]")[0] == [0, 1, 2, 0]


@given(st.lists(st.floats(width=32), min_size=1, max_size=60), st.integers(1, 59))
def test_chunks_add_up(values, cut):
    rows = np.array(values, np.float32).reshape(-1, 1)
    whole, parts = np.zeros(TABLES.size), np.zeros(TABLES.size)
    one, other = TableCounter(TABLES), TableCounter(TABLES)
    one.add(whole, {"plain": rows}, {})
    for part in (rows[:cut], rows[cut:]):
        if len(part):
            other.add(parts, {"plain": part}, {})
    assert bins(whole, "plain") == bins(parts, "plain")
    assert sum(bins(whole, "plain")[0]) + bins(whole, "plain")[1] == len(rows)
    assert np.isfinite(whole).all()


def test_categories_are_spelled_as_json_does():
    assert [spelled(value) for value in (2.0, 2.5, True, 3, "x")] == ["2", "2.5", "true", "3", "x"]


@given(st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), max_size=300))
def test_a_frequent_value_is_never_lost(values):
    found = MisraGries()
    for value in values:
        found.add(value)
    assert len(found.counts) <= MOST
    for value in set(values):
        true = values.count(value)
        assert true - len(values) / (MOST + 1) <= found.counts.get(value, 0) <= true


def test_processes_tell_each_other_of_unseen_values(tmp_path: Path):
    boards = [UnseenBoard(tmp_path, slot) for slot in range(2)]
    for board, count in zip(boards, (7, 4), strict=True):
        board.write({("m", "1.0.0"): {"kind": MisraGries({"new": count, "rare": 1})}})
    (tmp_path / "7.unseen").write_bytes(b"{torn")
    for board in boards:
        assert board.all()["m", "1.0.0"]["kind"].shown() == [("new", 11)]


@given(st.lists(st.tuples(st.floats(1, 400), st.integers(0, 200), st.integers(0, 3)), min_size=1, max_size=200))
def test_a_window_loses_no_row_however_it_is_cut(steps):
    limits = Limits(0.1, 1, 3600, 500)
    cells, refused, now = np.zeros(3), {"a": 0.0}, 0.0
    window = OpenWindow(now, cells.copy(), refused)
    for seconds, rows, refusals in steps:
        now += seconds
        cells = cells + np.array([0, rows, rows])
        refused = {"a": refused["a"] + refusals}
        window.look(now, cells, refused, 2, limits)
    assert window.rows(cells, refused, 2) == cells[2] + refused["a"]
    closed = window.close(now, cells, refused, 2, "x")
    assert isinstance(closed, Closed)
    assert len(closed.cells) <= 2 * BLOCKS
    assert closed.cells.sum(axis=0).tolist() == cells.tolist()
    assert sum(closed.refused.get("a", np.zeros(1))) == refused["a"]
    assert window.rows(cells, refused, 2) == 0


def test_a_steady_stream_is_cut_into_twenty_blocks_or_more():
    limits = Limits(0.1, 1, 3600, 500)
    for rate in (1, 20, 500):
        cells, window = np.zeros(1), OpenWindow(0.0, np.zeros(1), {})
        for second in range(1, 3601):
            cells = cells + rate
            window.look(float(second), cells, {}, 0, limits)
        closed = window.close(3600.0, cells, {}, 0, "x")
        assert BLOCKS <= len(closed.cells) <= 2 * BLOCKS
        assert closed.cells[:-1].min() > 0


def test_a_version_without_a_baseline_is_not_watched(tmp_path: Path, make_bundle: Callable[..., Path]):
    from appliance.inference.version import LoadedVersion
    from appliance.monitoring.watch import DriftWatch
    from appliance.repository import Served
    from appliance.store.versions import Store

    store = Store(tmp_path / "state")
    store.install(make_bundle(tmp_path))
    watch = DriftWatch(store, Limits(0.1, 1, 3600, 500))
    watch.switched(Served("iris", "1.0.0", LoadedVersion(store.folder("iris", "1.0.0"))))
    watch.tick()
    assert watch.watched() == []


def test_tables_take_nothing_of_masked_arrays():
    """numpy.ma takes 1.1 MiB of each process of the service, and numpy.unique imports it."""
    script = textwrap.dedent("""
        import sys
        from tests.appliance.monitoring.test_drift_tables import tables
        tables()
        print("numpy.ma" in sys.modules)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"

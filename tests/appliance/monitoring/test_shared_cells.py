"""Cells that processes share: of any kind and size, summed over processes, the latest where a sum means nothing."""

import pytest

from appliance.monitoring.shared_cells import Layout, SharedCells

WIDTHS = {"iris": 3, "wine": 5}
DRIFT = Layout(".drift", lambda key: WIDTHS[key[0]], frozenset({0}))
OTHER = Layout(".other", lambda key: 1)
IRIS, WINE = ("iris", "1.0.0"), ("wine", "2.0.0-rc.1+b5")


def test_sums_are_over_processes_and_each_key_has_its_own_width(tmp_path):
    for slot, number in enumerate((1.5, 4.0, 2.0)):
        cells = SharedCells(tmp_path, slot, DRIFT)
        cells.of(IRIS)[0] = number
        cells.of(IRIS)[2] += number
        cells.of(WINE)[4] += 1
    assert SharedCells(tmp_path, 9, DRIFT).sums() == {IRIS: [4.0, 0.0, 7.5], WINE: [0.0, 0.0, 0.0, 0.0, 3.0]}


def test_kinds_of_cells_in_one_folder_are_kept_apart(tmp_path):
    drift, other = SharedCells(tmp_path, 0, DRIFT), SharedCells(tmp_path, 0, OTHER)
    drift.of(IRIS)[1] += 2
    other.of(IRIS)[0] += 7
    assert (drift.sums(), other.sums()) == ({IRIS: [0.0, 2.0, 0.0]}, {IRIS: [7.0]})


@pytest.mark.parametrize("shared", [True, False])
def test_a_key_is_opened_once_and_its_cells_stay_the_same(tmp_path, shared):
    cells = SharedCells(tmp_path if shared else None, 0, DRIFT)
    assert IRIS not in cells
    assert cells.of(IRIS) is cells.of(IRIS)
    assert IRIS in cells
    cells.of(IRIS)[1] += 1
    assert cells.sums() == {IRIS: [0.0, 1.0, 0.0]}


def test_a_file_of_another_size_is_passed_over(tmp_path):
    (tmp_path / "3@iris@1.0.0.drift").write_bytes(b"\0" * 8)
    assert SharedCells(tmp_path, 0, DRIFT).sums() == {}

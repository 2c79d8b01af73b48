from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.store import receipts
from appliance.store.receipts import Receipt

ONE = Receipt(when="2026-11-23T14:00:00+00:00", what="install", model="iris", version="1.0.0")
TWO = Receipt(when="2026-11-23T15:00:00+00:00", what="activate", model="iris", version="1.0.0", self_test={"rows": 5})
LATER = Receipt(
    when="2026-12-01T00:00:00+00:00", what="remove", model="iris", version="1.0.0", outcome="refused", why="no"
)


def test_receipts_read_back_in_order_over_the_months(tmp_path):
    for receipt in (ONE, TWO, LATER):
        receipts.append(tmp_path / "receipts", receipt)
    assert receipts.read(tmp_path / "receipts") == [ONE, TWO, LATER]
    assert sorted(path.name for path in (tmp_path / "receipts").iterdir()) == ["2026-11.jsonl", "2026-12.jsonl"]


def test_there_are_none_before_the_first(tmp_path):
    assert receipts.read(tmp_path / "receipts") == []


def test_a_torn_last_line_is_passed_over_and_the_next_one_stands_alone(tmp_path):
    receipts.append(tmp_path, ONE)
    receipts.append(tmp_path, TWO)
    file = tmp_path / "2026-11.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert receipts.read(tmp_path) == [ONE]
    receipts.append(tmp_path, TWO)
    assert receipts.read(tmp_path) == [ONE, TWO]


def test_now_is_utc_to_the_second():
    assert len(receipts.now()) == len("2026-11-23T14:00:00+00:00")
    assert receipts.now().endswith("+00:00")


@settings(max_examples=200, deadline=None)
@given(noise=st.binary(max_size=200))
def test_any_bytes_in_a_receipts_file_are_passed_over(tmp_path_factory, noise):
    folder = tmp_path_factory.mktemp("receipts")
    (folder / "2026-11.jsonl").write_bytes(noise)
    receipts.append(folder, TWO)
    assert receipts.read(folder)[-1] == TWO

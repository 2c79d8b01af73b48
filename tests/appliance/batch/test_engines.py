"""What engines call: batches with their answers; and what a cluster is refused for before anything runs."""

import pyarrow as pa
import pytest

from appliance.batch import cluster, engines
from appliance.batch.cluster import RayCluster, Shipped, check_address
from appliance.bundle import archive, keys
from appliance.errors import BadRows, BundleRefused, InvalidInput, Misuse, NotFound, Unfinished

FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


def batch(rows: int, **more: list) -> pa.RecordBatch:
    columns = {name: [float(row + place) for row in range(rows)] for place, name in enumerate(FEATURES)}
    return pa.RecordBatch.from_pydict({"plant": [f"p{row}" for row in range(rows)], **columns, **more})


@pytest.fixture
def bundle(make_bundle, tmp_path):
    return make_bundle(tmp_path)


def test_batches_come_with_answers_in_order_and_in_blocks(bundle):
    given = batch(10_000)
    found = list(engines.score_batches(bundle, [given, batch(0), given.slice(3, 2)]))
    assert [one.num_rows for one in found] == [4096, 4096, 1808, 2]
    table = pa.Table.from_batches(found)
    assert table.schema == engines.scored_schema(bundle, given.schema)
    assert table.column_names == ["plant", *FEATURES, "prediction"]
    answers = table.column("prediction").to_pylist()
    assert answers[1] - answers[0] == 4  # the sum of four columns that each grow by one
    assert answers[10_000:] == answers[3:5]


def test_a_bad_row_ends_it_unless_reasons_are_asked_for(bundle):
    given = batch(5000, sepal_width=[*map(float, range(4999)), None])
    with pytest.raises(BadRows) as raised:
        list(engines.score_batches(bundle, [given]))
    assert raised.value.tried == "score row 4999 of a batch, column 'sepal_width'"
    table = pa.Table.from_batches(list(engines.score_batches(bundle, [given], keep=["plant"], reasons=True)))
    assert table.schema == engines.scored_schema(bundle, given.schema, keep=["plant"], reasons=True)
    assert table.column_names == ["plant", "prediction", "bad_row"]
    assert table.column("bad_row").null_count == 4999
    last = table.slice(4999).to_pylist()[0]
    assert (last["plant"], last["prediction"]) == ("p4999", None)
    assert last["bad_row"] == f"column 'sepal_width': {raised.value.found}"


def test_a_bundle_is_loaded_once_and_anew_when_it_changes(make_bundle, tmp_path):
    path = make_bundle(tmp_path)
    first = engines.scorer_of(path)
    assert engines.scorer_of(str(path)) is first
    path.write_bytes(make_bundle(tmp_path, version="2.0.0").read_bytes())
    assert engines.scorer_of(path).version.version == "2.0.0"


def test_what_cannot_be_scored_is_told(bundle, tmp_path):
    with pytest.raises(NotFound):
        engines.scorer_of(tmp_path / "none.bundle")
    with pytest.raises(InvalidInput, match="petal_width"):
        list(engines.score_batches(bundle, [batch(2).drop_columns(["petal_width"])]))
    _, public = keys.generate_key()
    (tmp_path / "key.pub").write_bytes(public)
    with pytest.raises(BundleRefused):
        engines.scorer_of(bundle, [str(tmp_path / "key.pub")])


@pytest.mark.parametrize("address", ["", "ray://", "ray:///", "head:10001", "http://head:10001", "localhost"])
def test_other_addresses_are_refused(address):
    with pytest.raises(Misuse, match=r"ray://HOST:10001, or local"):
        check_address(address)


def test_addresses_of_clusters_are_taken():
    check_address("ray://head:10001")
    check_address("local")


def test_without_ray_the_extra_is_named(bundle, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(Misuse, match=r"edge-inference-appliance\[ray\]"):
        RayCluster("local", shipped(bundle), None, 1)


def shipped(path) -> Shipped:
    with archive.opened(path) as opened:
        return Shipped({name: opened.read(name) for name in opened.names}, opened.digest)


def test_a_node_takes_only_the_bundle_that_was_verified(make_bundle, bundle, tmp_path):
    sent = shipped(bundle)
    other = shipped(make_bundle(tmp_path, version="2.0.0"))
    with pytest.raises(Unfinished):
        Shipped(other.members, sent.digest).work(None)
    with pytest.raises(BundleRefused, match=r"model\.onnx"):
        Shipped({**sent.members, "model.onnx": other.members["model.onnx"]}, sent.digest).work(None)


def test_a_node_with_another_program_is_refused(bundle):
    with pytest.raises(Misuse, match=r"a node has .* this host 0\.0\.1"):
        cluster._Actor().load("0.0.1", shipped(bundle), None)

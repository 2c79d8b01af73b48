"""Parquet and Arrow files: every type of column, the same rows as in a text, the same bytes after a stop."""

import decimal
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from appliance.batch import arrow_files
from appliance.batch.scoring import Scorer
from appliance.batch.tables.arrow_table import score_batch
from appliance.errors import BadRows, InvalidInput, Misuse, Unfinished

NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
ROWS = 1000


def table(rows: int = ROWS, **columns: object) -> pa.Table:
    """Return a table with an id and numbers."""
    rng = np.random.default_rng(5)
    made = {"id": [f"r{row}" for row in range(rows)]}
    made |= {name: rng.normal(size=rows).astype(np.float32) for name in NAMES}
    return pa.table({**made, **columns})


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.parquet"
    pq.write_table(table(), path, row_group_size=300)
    return path


def expected(version, made: pa.Table) -> np.ndarray:
    """Return the labels that the session gives."""
    return version.session.run({"features": np.column_stack([made[name] for name in NAMES])}, ["prediction"])[0]


def test_parquet_in_and_out_keeps_columns_types_and_order(load, score, source, tmp_path):
    score(load("labels"), source, tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    made = table()
    assert found.select(made.column_names).equals(made)
    assert found["prediction"].to_pylist() == expected(load("labels"), made).tolist()
    assert found.schema.field("probability_setosa").type == pa.float32()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in.parquet", "out.parquet"]


def test_every_format_gives_every_other(load, score, tmp_path):
    version = load("labels")
    made = table(50)
    pq.write_table(made, tmp_path / "in.parquet")
    with pa.OSFile(str(tmp_path / "in.arrow"), "wb") as file, pa.ipc.new_file(file, made.schema) as writer:
        writer.write_table(made, max_chunksize=7)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made.to_pylist()))
    score(version, tmp_path / "in.jsonl", tmp_path / "in.csv", keep=["id", *NAMES], rows=1)
    text = (tmp_path / "in.csv").read_text()
    (tmp_path / "in.csv").write_text("\n".join(line.rsplit(",", 4)[0] for line in text.splitlines()))
    labels = expected(version, made).tolist()
    for kind in ("parquet", "arrow", "jsonl", "csv"):
        for to in ("parquet", "arrow", "jsonl", "csv"):
            output = tmp_path / f"out-{kind}.{to}"
            found = score(version, tmp_path / f"in.{kind}", output)
            if to == "jsonl":
                read = found.documents
            elif to == "csv":
                header, *lines = [line.split(",") for line in found.lines]
                read = [dict(zip(header, line, strict=True)) for line in lines]
            elif to == "parquet":
                read = pq.read_table(output).to_pylist()
            else:
                read = pa.ipc.open_file(output.read_bytes()).read_all().to_pylist()
            assert [row["prediction"] for row in read] == labels, (kind, to)
            assert [row["id"] for row in read] == made["id"].to_pylist(), (kind, to)
            numbers = [float(row["sepal_length"]) for row in read]
            np.testing.assert_array_equal(np.array(numbers, np.float32), made["sepal_length"].to_numpy())


@pytest.mark.parametrize("output", ["out.parquet", "out.arrow", "out.csv"])
def test_a_stop_within_a_row_group_and_several_processes_give_the_same_bytes(load, score, source, tmp_path, output):
    version = load("labels")
    whole = score(version, source, tmp_path / f"whole-{output}")
    seen = []
    with pytest.raises(Unfinished):
        score(version, source, tmp_path / output, report=seen.append, stopping=lambda: len(seen) == 7)
    again = score(version, source, tmp_path / output)
    assert again.outcome.resumed == 300 + 2 * 64
    assert again.bytes == whole.bytes
    assert score(version, source, tmp_path / f"2-{output}", processes=2).bytes == whole.bytes


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.5, 2.0, 3.0], pa.float64()),
        pa.array([1.5, 2.0, 3.0], pa.float16()),
        pa.array([decimal.Decimal("1.50"), 2, 3], pa.decimal128(10, 2)),
        pa.array([1.5, 2.0, 3.0]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_numbers_of_other_types_are_taken_for_floats(load, score, tmp_path, column):
    pq.write_table(table(3, sepal_length=column), tmp_path / "in.parquet")
    score(load("regression"), tmp_path / "in.parquet", tmp_path / "out.parquet")
    made = table(3)
    rest = sum(made[name].to_numpy() for name in NAMES[1:])
    found = pq.read_table(tmp_path / "out.parquet")["prediction"].to_numpy()
    np.testing.assert_allclose(found, rest + [1.5, 2, 3] + 100, rtol=1e-5)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2, 3], pa.timestamp("ns")),
        pa.array(["1", "2", "3"]),
        pa.array([[1.0], [2.0], [3.0]]),
        pa.array([{"x": 1.0}] * 3),
        pa.array([b"1"] * 3),
    ],
    ids=lambda column: str(column.type),
)
def test_a_column_of_another_type_is_refused_before_the_first_row(load, score, tmp_path, column):
    int96 = {"use_deprecated_int96_timestamps": True} if pa.types.is_timestamp(column.type) else {}
    pq.write_table(table(3, sepal_length=column), tmp_path / "in.parquet", **int96)
    with pytest.raises(InvalidInput, match="its type is"):
        score(load("regression"), tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_columns_of_any_type_are_kept(load, score, tmp_path):
    made = table(
        3,
        when=pa.array([1, 2, 3], pa.timestamp("us")),
        nested=pa.array([{"x": [1.5]}, None, {"x": []}]),
        price=pa.array([decimal.Decimal("1.50")] * 3),
        kind=pa.array(["a", "b", "a"]).dictionary_encode(),
    )
    pq.write_table(made, tmp_path / "in.parquet")
    score(load("regression"), tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    for name in ("when", "nested", "price", "kind"):
        assert found[name].to_pylist() == made[name].to_pylist()
    lines = score(load("regression"), tmp_path / "in.parquet", tmp_path / "out.jsonl").documents
    assert [line["nested"] for line in lines] == [{"x": [1.5]}, None, {"x": []}]
    assert [line["price"] for line in lines] == ["1.50"] * 3


def test_nulls_are_bad_rows_where_the_model_takes_none_and_values_where_it_does(load, score, tmp_path):
    values = pa.array([1.0, None, float("nan"), 4.0], pa.float32())
    pq.write_table(table(4, sepal_length=values), tmp_path / "in.parquet")
    with pytest.raises(BadRows, match="missing"):
        score(load("regression"), tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = score(load("regression"), tmp_path / "in.parquet", tmp_path / "out.parquet", quarantine=True)
    read = pq.read_table(tmp_path / "out.parquet")
    assert [value is None for value in read["prediction"].to_pylist()] == [False, True, True, False]
    assert [(one["row"], one["line_number"], one["column"]) for one in found.rejected] == [
        (1, None, "sepal_length"),
        (2, None, "sepal_length"),
    ]
    assert json.loads(found.rejected[0]["line"])["id"] == "r1"
    score(load("gaps"), tmp_path / "in.parquet", tmp_path / "gaps.parquet")
    assert pq.read_table(tmp_path / "gaps.parquet")["prediction"].null_count == 0


def test_whole_numbers_keep_every_digit_beside_nulls(load, score, tmp_path):
    big = 2**53 + 1
    made = pa.table(
        {
            "temp-C": pa.array([1.0, 2.0, 3.0], pa.float32()),
            "count": pa.array([big, None, 7], pa.int64()),
            "site": pa.array(["north", "south", None]),
            "on": pa.array([True, False, True]),
        }
    )
    pq.write_table(made, tmp_path / "in.parquet")
    found = score(load("table"), tmp_path / "in.parquet", tmp_path / "out.parquet", quarantine=True)
    assert [(one["row"], one["column"]) for one in found.rejected] == [(1, "count"), (2, "site")]
    read = pq.read_table(tmp_path / "out.parquet")
    assert read["count"].to_pylist() == [big, None, 7]
    assert read["prediction"][0].as_py() == pytest.approx(float(np.float32(big)), rel=1e-6)


def test_whole_numbers_beyond_2_to_53_become_the_float_that_predict_makes_of_them(load, score, tmp_path):
    big = [2**53 + 1, -(2**60) - 3, 2**24 + 1]
    pq.write_table(table(3, sepal_length=pa.array(big, pa.int64())), tmp_path / "in.parquet")
    score(load("regression"), tmp_path / "in.parquet", tmp_path / "out.parquet")
    rest = [[column[row].as_py() for column in (table(3)[name] for name in NAMES[1:])] for row in range(3)]
    feeds = load("regression").schema.from_rows([[first, *more] for first, more in zip(big, rest, strict=True)])
    (answers,) = load("regression").session.run(feeds, ["prediction"])
    assert pq.read_table(tmp_path / "out.parquet")["prediction"].to_pylist() == answers.reshape(-1).tolist()


def test_many_small_batches_and_slices_of_a_large_one_are_read_alike(load, score, tmp_path):
    made = table(1000)
    with pa.ipc.new_stream(tmp_path / "small.arrow", made.schema) as writer:
        writer.write_table(made, max_chunksize=7)
    pq.write_table(made, tmp_path / "in.parquet", row_group_size=1000)
    small = score(load("regression"), tmp_path / "small.arrow", tmp_path / "small.csv")
    assert small.bytes == score(load("regression"), tmp_path / "in.parquet", tmp_path / "large.csv").bytes
    assert small.outcome.rows == 1000


def test_no_rows(load, score, tmp_path):
    pq.write_table(table(0), tmp_path / "in.parquet")
    score(load("labels"), tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert (found.num_rows, found.column_names[-4]) == (0, "prediction")


def test_a_folder_of_parts(load, score, source, tmp_path, monkeypatch):
    monkeypatch.setattr(arrow_files, "PART_ROWS", 400)
    output = tmp_path / "out"
    score(load("labels"), source, output, said="parquet", folder=True)
    names = sorted(path.name for path in output.iterdir())
    assert names == ["_SUCCESS", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert [pq.read_metadata(output / name).num_rows for name in names[1:]] == [400, 400, 200]
    assert pq.read_table(output)["id"].to_pylist() == table()["id"].to_pylist()
    assert [part["rows"] for part in json.loads((output / "_SUCCESS").read_text())["parts"]] == [400, 400, 200]


def test_shards_take_row_groups(load, score, source, tmp_path):
    parts = []
    for part in (1, 2):
        output = tmp_path / f"part-{part}.parquet"
        score(load("labels"), source, output, shard=(part, 2), provenance=True, keep=["sepal_length"])
        parts.append(pq.read_table(output))
    assert [len(part) for part in parts] == [600, 400]
    rows = [int(one.rpartition(".")[2]) for part in parts for one in part["id"].to_pylist()]
    assert rows == [*range(300), *range(600, 900), *range(300, 600), *range(900, 1000)]


def test_a_row_group_that_is_too_large_is_refused_with_advice(load, score, source, tmp_path, monkeypatch):
    monkeypatch.setattr(arrow_files, "MOST_GROUP_BYTES", 1000)
    with pytest.raises(Misuse, match="smaller row groups"):
        score(load("labels"), source, tmp_path / "out.parquet")


@pytest.mark.parametrize("name", ["in.parquet", "in.arrow"])
def test_what_is_no_such_file_is_refused(load, score, source, tmp_path, name):
    content = source.read_bytes()
    for damaged in (b"", b"PAR1", content[:-100], b"x" * 1000):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(InvalidInput):
            score(load("labels"), tmp_path / name, tmp_path / "out.parquet")


def test_one_function_scores_a_batch_for_any_engine(load):
    scorer = Scorer(load("labels"))
    made = table(10).to_batches()[0]
    scored, bad = score_batch(scorer, made.slice(2, 5), keep=["id"])
    assert scored.schema.names == ["id", *(one.name for one in scorer.answers)]
    assert scored["prediction"].to_pylist() == expected(load("labels"), table(10)).tolist()[2:7]
    assert bad == []
    with pytest.raises(InvalidInput, match="petal_width"):
        score_batch(scorer, made.drop_columns(["petal_width"]))

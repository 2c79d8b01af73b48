"""CSV and JSON Lines as people write them: every row is answered or told as bad, at its own place, none is lost."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.batch.blocks import Position, csv_count, json_count, text_blocks
from appliance.batch.tables.csv_table import CsvReader
from appliance.batch.tables.json_lines import JsonLinesReader
from appliance.batch.tables.records import csv_ends, json_ends
from appliance.bundle.manifest import Input
from appliance.errors import BadRows, InvalidInput
from appliance.inference.tensors import InputSchema

HEADER = "sepal_length,sepal_width,petal_length,petal_width"
PLAIN = InputSchema([Input(name="features", type="float32", shape=[-1, 2], columns=["a", "b"])])
GAPS = InputSchema([Input(name="features", type="float64", shape=[-1, 2], columns=["a", "b"], missing=True)])
MIXED = InputSchema(
    [
        Input(name=name, type=kind, shape=[-1, 1], columns=[name], missing=kind == "string")
        for name, kind in (("n", "int64"), ("s", "string"), ("f", "float32"), ("t", "bool"))
    ]
)


@pytest.fixture
def scored(load, score, tmp_path):
    """Return a function that scores a text: scored(text, kind="regression", name="in.csv", ...)."""

    def go(text: str | bytes, kind: str = "regression", name: str = "in.csv", output: str = "out.csv", **rest):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return score(load(kind), path, tmp_path / output, **rest)

    return go


def answers(scored) -> list[str]:
    """Return the cells of the column `prediction`."""
    return [row["prediction"] for row in csv.DictReader(io.StringIO(scored.bytes.decode()))]


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n1,2,3,4\n5,6,7,8\n",
        f"{HEADER}\n1,2,3,4\n5,6,7,8",
        f"\ufeff{HEADER}\r\n1,2,3,4\r\n5,6,7,8\r\n",
        f"{HEADER}\r1,2,3,4\r5,6,7,8\r",
        f"{HEADER}\n\n1,2,3,4\n\n\n5,6,7,8\n\n",
        f'{HEADER}\n"1","2",3,4\n5,"6",7,8\n',
        f"{HEADER}\n1e0,.2e1, 3 ,+4\n5.0,6,7,8.000\n",
        f"{HEADER}\n1,2,3,4\n5e5,6,7,-499987\n",
        f"{HEADER},\n1,2,3,4,\n5,6,7,8,\n",
        f"petal_width, petal_length ,{','.join(HEADER.split(',')[:2])}\n4,3,1,2\n8,7,5,6\n",
    ],
    ids=[
        "plain",
        "no end",
        "bom crlf",
        "cr",
        "blank lines",
        "quoted",
        "spelled otherwise",
        "5e5",
        "empty last",
        "other order",
    ],
)
def test_csv_as_people_write_it(scored, text):
    assert answers(scored(text)) == ["110.0", "126.0"]


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        ("1,2,3,", "petal_width", "missing"),
        ("1,2,nan,4", "petal_length", "missing"),
        ('"1,5",2,3,4', "sepal_length", "text"),
        ('"1,000",2,3,4', "sepal_length", "text"),
        ("1,2,3", "", "3 values for 4 columns"),
        ("1,2,3,4,5", "", "5 values for 4 columns"),
        ("1,2,1e39,4", "petal_length", "too large"),
        ("1,inf,3,4", "sepal_width", "infinite"),
        ('1,2"x,3,4', "", "a quote"),
    ],
)
def test_a_bad_row_stops_or_goes_to_quarantine_with_its_place(scored, line, column, reason):
    text = f"{HEADER}\n" + "1,1,1,1\n" * 70 + line + "\n" + "2,2,2,2\n" * 3
    with pytest.raises(BadRows) as error:
        scored(text)
    assert "row 70 (line 72)" in error.value.tried
    assert reason in error.value.found
    found = scored(text, quarantine=True, resume=False)
    assert answers(found) == ["104.0"] * 70 + [""] + ["108.0"] * 3
    assert [(one["row"], one["line_number"], one["column"], one["line"]) for one in found.rejected] == [
        (70, 72, column, line)
    ]
    assert reason in found.rejected[0]["reason"]
    assert (found.outcome.rows, found.outcome.bad) == (74, 1)


def test_a_byte_that_is_no_utf8_is_one_bad_row(scored):
    found = scored(HEADER.encode() + b"\n1,2,3,4\n\xff,2,3,4\n", quarantine=True)
    assert answers(found) == ["110.0", ""]


def test_quoted_line_ends_are_part_of_a_row_and_kept(scored):
    text = f'note,{HEADER}\n"two\nlines, and ""quotes""",1,2,3,4\nplain,5,6,7,8\n'
    found = scored(text, rows=1)
    rows = list(csv.DictReader(io.StringIO(found.bytes.decode())))
    assert rows[0]["note"] == 'two\nlines, and "quotes"'
    assert answers(found) == ["110.0", "126.0"]


def test_a_quote_that_never_closes_is_one_bad_row_to_the_end(scored):
    found = scored(f'{HEADER}\n1,2,3,4\n"5,6,7,8\n9,9,9,9\n', quarantine=True)
    assert answers(found) == ["110.0", ""]
    assert found.rejected[0]["line"] == '"5,6,7,8\n9,9,9,9'


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no header"),
        ("sepal_length,sepal_width,petal_length\n1,2,3\n", "petal_width"),
        (f"{HEADER},sepal_length\n1,2,3,4,5\n", "twice"),
        ("1,2,3,4\n", "no column"),
        (f"{HEADER},prediction\n1,2,3,4,5\n", "'prediction'"),
    ],
)
def test_a_wrong_header_is_refused_before_the_first_row(scored, tmp_path, text, found):
    with pytest.raises(InvalidInput) as error:
        scored(text)
    assert found in error.value.found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


def test_a_file_without_rows_has_an_answer_without_rows(scored):
    assert scored(f"{HEADER}\n").lines == [f"{HEADER},prediction"]
    assert scored("", name="in.jsonl", output="out.jsonl").bytes == b""


def test_kept_columns(scored):
    text = f"id,{HEADER}\nr0,1,2,3,4\n"
    assert scored(text).lines[1] == "r0,1,2,3,4,110.0"
    assert scored(text, keep=["id"]).lines == ["id,prediction", "r0,110.0"]
    assert scored(text, keep=[]).lines == ["prediction", "110.0"]
    with pytest.raises(InvalidInput, match="'nix'"):
        scored(text, keep=["nix"])
    assert scored(text, output="out.jsonl", keep=["id", "sepal_length"]).documents == [
        {"id": "r0", "sepal_length": 1.0, "prediction": 110.0}
    ]


def test_answers_of_a_classifier_in_both_formats(scored, load):
    row = dict(zip(HEADER.split(","), [1, 2, 3, 4], strict=True))
    feeds = {"features": np.array([[1, 2, 3, 4]], np.float32)}
    label, probability = load("labels").session.run(feeds)
    expected = [label[0], *map(float, probability[0])]
    found = scored(json.dumps({"id": "r", **row}) + "\n", "labels", "in.jsonl", "out.jsonl").documents[0]
    names = ["prediction", "probability_setosa", "probability_versicolor", "probability_virginica"]
    assert [found[name] for name in names] == expected
    cells = scored(json.dumps(row) + "\n", "labels", "in.jsonl", "out.csv").lines[1].split(",")
    assert [cells[4], *map(float, cells[5:])] == expected


def test_json_lines_as_people_write_them(scored):
    row = '{"sepal_length":1,"sepal_width":2,"petal_length":3,"petal_width":4'
    text = "\ufeff" + "\n".join(
        [row + ', "id": "r0", "more": {"prediction": [1]}}', "", "[1, 2, 3, 4.0]", row + "}\r", "   ", row + " }"]
    )
    found = scored(text, name="in.jsonl", output="out.jsonl").documents
    assert [one["prediction"] for one in found] == [110.0] * 4
    assert found[0]["more"] == {"prediction": [1]}
    assert found[1] == {"sepal_length": 1, "sepal_width": 2, "petal_length": 3, "petal_width": 4.0, "prediction": 110}


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        ("{broken", "", "malformed"),
        ('"text"', "", "a text"),
        ("[1, 2]", "", "2 values for 4 columns"),
        ('{"sepal_length": 1}', "petal_length", "lacks"),
        ('{"sepal_length":null,"sepal_width":2,"petal_length":3,"petal_width":4}', "sepal_length", "missing"),
        ('{"sepal_length":NaN,"sepal_width":2,"petal_length":3,"petal_width":4}', "sepal_length", "missing"),
        ('{"sepal_length":"1","sepal_width":2,"petal_length":3,"petal_width":4}', "sepal_length", "text"),
        ('{"sepal_length":[1],"sepal_width":2,"petal_length":3,"petal_width":4}', "sepal_length", "list"),
        ('{"sepal_length":1e300,"sepal_width":2,"petal_length":3,"petal_width":4}', "sepal_length", "too large"),
        ("[" * 10_000, "", ""),
    ],
)
def test_a_bad_line_of_json_goes_to_quarantine(scored, line, column, reason):
    good = '{"sepal_length":1,"sepal_width":2,"petal_length":3,"petal_width":4}\n'
    found = scored(good + line + "\n" + good, name="in.jsonl", output="out.jsonl", quarantine=True)
    assert [one["prediction"] for one in found.documents] == [110.0, None, 110.0]
    assert [(one["row"], one["line_number"], one["column"]) for one in found.rejected] == [(1, 2, column)]
    assert reason in found.rejected[0]["reason"]


def test_a_key_of_the_answer_in_the_input_is_refused(scored):
    good = '{"sepal_length":1,"sepal_width":2,"petal_length":3,"petal_width":4'
    with pytest.raises(InvalidInput, match="'prediction'"):
        scored(good + ',"prediction":1}\n', name="in.jsonl", output="out.jsonl")


def test_a_key_that_the_first_row_lacks_is_not_dropped_in_silence(scored):
    good = '{"sepal_length":1,"sepal_width":2,"petal_length":3,"petal_width":4'
    with pytest.raises(InvalidInput, match="'late'"):
        scored(good + "}\n" + good + ',"late":1}\n', name="in.jsonl")


def test_models_of_several_types_take_the_same_rows_in_both_formats(scored):
    text = 'temp-C,count,site,on,note\n1.5,2,north,true,"a,b"\n-1,3,,false,\n2,4,"nö,rd",TRUE,x\nx,1,a,true,\n'
    lines = [
        '{"temp-C":1.5,"count":2,"site":"north","on":true}',
        '{"temp-C":-1,"count":3,"site":"","on":false}',
        '{"temp-C":2,"count":4.0,"site":"nö,rd","on":true}',
        '{"temp-C":"x","count":1,"site":"a","on":true}',
    ]
    found = scored(text, "table", quarantine=True)
    assert answers(found) == ["213.5", "102.0", "206.0", ""]
    same = scored("\n".join(lines), "table", "in.jsonl", "out.jsonl", quarantine=True)
    assert [one["prediction"] for one in same.documents] == [213.5, 102.0, 206.0, None]
    for one in (found, same):
        assert [(bad["row"], bad["column"]) for bad in one.rejected] == [(3, "temp-C")]


def test_gaps_are_values_where_the_model_takes_them(scored):
    text = f"{HEADER}\n1,,3,4\n,,,\nnan,2,NA,4\n1,2,3,4\n"
    assert answers(scored(text, "gaps")) == ["1108.0", "4100.0", "2106.0", "110.0"]


def test_an_answer_beyond_its_numbers_is_a_bad_row_unless_it_may_be(scored):
    text = f"{HEADER}\n1,2,3,4\n3e38,3e38,3,4\n5,6,7,8\n"
    found = scored(text, quarantine=True)
    assert answers(found) == ["110.0", "", "126.0"]
    assert "infinite" in found.rejected[0]["reason"]
    assert "row 0" not in found.rejected[0]["reason"]
    assert answers(scored(text, refuse_overflow=False)) == ["110.0", "inf", "126.0"]


def test_many_bad_rows_of_every_kind_cost_no_good_one(scored):
    kinds = ["1,2,3,4", "x,2,3,4", "1,2,3", "1,,3,4", "1,2,1e39,4", '1,2,3,"4"', "3e38,3e38,3e38,1"]
    rng = np.random.default_rng(7)
    chosen = [kinds[index] for index in rng.integers(0, len(kinds), 500)]
    found = scored(f"{HEADER}\n" + "\n".join(chosen), quarantine=True, rows=128)
    assert answers(found) == ["110.0" if one in (kinds[0], kinds[5]) else "" for one in chosen]
    assert [one["row"] for one in found.rejected] == [k for k, one in enumerate(chosen) if one not in kinds[::5]]


@given(st.text(alphabet='a1,"\n\r .', max_size=40).map(str.encode))
@example(b'""","\n')
@example(b'a,"b\r\nc"\r')
def test_records_end_where_pythons_own_reader_ends_them(data):
    ends = csv_ends(data, last=True).tolist()
    records = [data[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)] if ends else []
    assert b"".join(records) == data
    reader = csv.reader(io.StringIO(data.decode(), newline=""))
    expected = [row for row in reader if row]
    found = []
    for record in records:
        rows = [row for row in csv.reader(io.StringIO(record.decode(), newline="")) if row]
        assert len(rows) <= 1
        found += rows
    assert found == expected


@given(st.text(alphabet='a1,"\n\r', max_size=60).map(str.encode), st.integers(1, 7), st.integers(1, 4))
def test_blocks_do_not_depend_on_how_much_is_read_at_a_time(data, size, lines):
    def blocks(step: int):
        class Short(io.BytesIO):
            def read(self, wanted: int = -1) -> bytes:
                return super().read(step)

        found = text_blocks(Short(data), Position(), lines, csv_ends, lambda d, e: csv_count(d, e, False))
        return [(block.data, block.start, block.rows) for block in found]

    assert blocks(size) == blocks(1000)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:ab1.eNa\n \r', max_size=60).map(str.encode))
def test_whatever_bytes_come_each_row_is_good_or_bad(data):
    for schema in (PLAIN, GAPS, MIXED):
        for reader, ends, count in (
            (CsvReader(schema, schema.columns), csv_ends(data, True), lambda d, e: csv_count(d, e, False)),
            (JsonLinesReader(schema), json_ends(data, True), json_count),
        ):
            if not data:
                continue
            table = reader.read(data)
            assert table.rows == count(data, ends)
            places = [*table.checked.good.tolist(), *(bad.row for bad in table.checked.bad)]
            assert sorted(places) == list(range(table.rows))
            for row in reader.cells(table, schema.columns, typed=True):
                assert row is None or len(row) == len(schema.columns)


NUMBERS = st.floats(-(2.0**90), 2.0**90, width=32) | st.integers(-(10**12), 10**12)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20))
def test_plain_numbers_are_read_alike_by_the_quick_way_and_cell_by_cell(rows):
    lines = [f"{a!r},{b!r}" for a, b in rows]
    quick = CsvReader(PLAIN, ["a", "b"]).read("\n".join(lines).encode())
    cells = CsvReader(PLAIN, ["a", "b"])._slow([line.encode() for line in lines])
    turned = CsvReader(PLAIN, ["b", "a"]).read("\n".join(",".join(x.split(",")[::-1]) for x in lines).encode())
    as_json = JsonLinesReader(PLAIN).read("\n".join(f"[{x}]" for x in lines).encode())
    for other in (cells, turned.checked, as_json.checked):
        np.testing.assert_array_equal(quick.checked.feeds["features"], other.feeds["features"])

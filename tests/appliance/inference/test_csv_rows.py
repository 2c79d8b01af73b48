"""CSV as RFC 4180 has it: no row is lost, blanks of texts are kept, and what could be read in two ways is refused."""

import csv
import io
import re
import time
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle.manifest import Input
from appliance.errors import InvalidInput
from appliance.inference.csv_rows import _FIELD, _lines, read_columns
from appliance.inference.tensors import InputSchema


def schema(*columns: tuple[str, str], **rest: object) -> InputSchema:
    return InputSchema([Input(name=n, type=kind, shape=[-1, 1], columns=[n], **rest) for n, kind in columns])


NUMBERED = InputSchema([Input(name="features", type="float32", shape=[-1, 3], columns=["0", "1", "2"])])
TABLE = schema(("code", "string"), ("flag", "bool"), ("k", "int64"))
TEXTS = schema(("a", "string"), ("b", "string"), missing=True)
ONE = schema(("x", "float64"), missing=True)
TEXT = schema(("text", "string"), missing=True)


def rows(text: str, of: InputSchema, header: str = "") -> list[tuple[object, ...]]:
    columns = read_columns(text, of, header)
    return list(zip(*(columns[name] for name in of.columns), strict=True))


@pytest.mark.parametrize("text", ["0,1,2\n1.5,2.5,3.5\n", "0, 1, 2\r\n1.5,2.5,3.5", '"0","1","2"\n1.5,2.5,3.5'])
def test_first_line_that_could_be_a_row_is_decided_by_the_caller(text):
    with pytest.raises(InvalidInput, match="header=present or header=absent"):
        rows(text, NUMBERED)
    assert rows(text, NUMBERED, "absent") == [(0, 1, 2), (1.5, 2.5, 3.5)]
    assert rows(text, NUMBERED, "present") == [(1.5, 2.5, 3.5)]


@pytest.mark.parametrize("first", ["1,0,2", "1,1,1", "0.0,1,2", "2,1,0", "0,1,", "nan,1,2"])
def test_numbers_are_a_row(first):
    assert len(rows(f"{first}\n1.5,2.5,3.5\n", NUMBERED)) == 2


def test_header_that_is_no_row_is_one():
    assert rows("code,flag,k\nx,True,1\n", TABLE) == [("x", True, 1)]
    assert rows('"k", flag ,code\n1,false,x\n', TABLE) == [("x", False, 1)]
    assert rows("\ufeffcode,flag,k\nx,True,1\n".removeprefix("\ufeff"), TABLE) == [("x", True, 1)]


def test_texts_that_are_columns_names_are_a_header_or_a_row():
    for text in ("a,b\nx,y\n", "b,a\nx,y\n", "a,zz\nx,y\n", "text\nhello\n"):
        with pytest.raises(InvalidInput, match="could be a header and could be a row"):
            rows(text, TEXT if text.startswith("text") else TEXTS)
    assert rows("text\nhello\n", TEXT, "absent") == [("text",), ("hello",)]
    known = schema(("a", "string"), ("b", "string"), categories=["x", "y"])
    assert rows("a,b\nx,y\n", known) == [("x", "y")]  # no category is called a
    assert rows("x,y\nx,y\n", TEXTS) == [("x", "y"), ("x", "y")]


def test_header_may_leave_out_columns_that_may_be_absent():
    of = schema(("a", "float64"), ("b", "float64"), missing=True, required=False)
    assert read_columns("b\n1\n", of) == {"b": [1]}


@pytest.mark.parametrize(
    "text", ["code,flag\nx,True\n", "x,True,1,2\n", "code,flag,kk\nx,True,1\n", "1,2\n", "a,b,c\n"]
)
def test_what_is_neither_a_header_nor_a_row_is_not_answered(text):
    try:
        read = read_columns(text, TABLE)
    except InvalidInput:
        return
    assert read.keys() != {"code", "flag", "k"}  # the schema then names the columns that are wrong


def test_blanks_of_texts_are_kept_and_those_around_numbers_are_not():
    text = 'code,flag,k\n x,True,1\n"y ", false , 2 \n" z ",TRUE,"3"\n'
    assert rows(text, TABLE) == [(" x", True, 1), ("y ", False, 2), (" z ", True, 3)]


def test_quote_within_what_is_not_quoted_is_refused():
    for text in ('code,flag,k\n "x",True,1\n', 'code,flag,k\nx"y,True,1\n', 'code,flag,k\n"x"y,True,1\n'):
        with pytest.raises(InvalidInput, match="RFC 4180"):
            rows(text, TABLE)
    assert rows('code,flag,k\n"say ""x"", y",True,1\n"a,\n""b",True,2\n', TABLE) == [
        ('say "x", y', True, 1),
        ('a,\n"b', True, 2),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_of_every_system_end_rows(end, last):
    text = end.join(["1,2,3", "4,5,6", "", "7,8,9"]) + (end if last else "")
    assert rows(text, NUMBERED) == [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    assert rows(f"code,flag,k{end}x,true,1{end}", TABLE) == [("x", True, 1)]


def test_empty_line_is_no_row_unless_rows_have_one_value():
    assert rows("\n1,2,3\n\n\n4,5,6\n\n", NUMBERED) == [(1, 2, 3), (4, 5, 6)]
    for text in ("1\n\n2\n", "1\n\n", "\n1\n"):
        with pytest.raises(InvalidInput, match="is empty"):
            rows(text, ONE)
    assert rows('1\n""\n \n2', ONE) == [(1,), (None,), (None,), (2,)]
    assert rows('x\n""\n', TEXT) == [("x",), (None,)]


def test_name_that_stands_twice_and_unknown_words_for_the_header_are_refused():
    with pytest.raises(InvalidInput, match="stands twice"):
        rows("code,code,flag,k\nx,y,true,1\n", TABLE)
    with pytest.raises(InvalidInput, match="header='yes' is unknown"):
        rows("1,2,3\n", NUMBERED, "yes")


def test_numbers_mean_what_they_mean_in_json():
    nan, inf, minus = rows("nan\nInfinity\n-inf\n", ONE)
    assert (nan, inf, minus) == ((None,), (float("inf"),), (float("-inf"),))
    for text in ("1_0", "١", "0x10", "1e", "True"):
        assert rows(f"1\n{text}\n", ONE)[1] == (text,)  # the schema refuses texts
    assert rows(f"{2**63 - 1}\n", schema(("x", "int64"))) == [(2**63 - 1,)]


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 400, "9" * 5000])
def test_number_that_no_float_holds_is_refused_and_infinity_is_none(number):
    of = schema(("x", "float64"), finite=False)
    with pytest.raises(InvalidInput, match=r"'x'.*infinite or too large for float64"):
        of.from_columns(read_columns(f"1\n{number}\n", of))
    assert of.from_columns(read_columns("1\ninf\n", of))["x"].tolist() == [[1.0], [float("inf")]]


def test_rows_are_counted_while_they_are_read():
    seen: list[int] = []
    read_columns("1,2,3\n" * 3000, NUMBERED, "absent", seen.append)
    assert seen == [1, 1025, 2049, 3000] or seen[-1] == 3000
    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) <= 1025


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_every_row_that_pythons_writer_writes_comes_back(table, end):
    out = io.StringIO()
    csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(table)
    expected = [tuple(cell or None for cell in row) for row in table]
    assert rows(out.getvalue(), TEXTS, "absent") == expected


@given(st.text('0123456789.,\n\r" aeINn_-é😀', max_size=80), st.sampled_from(["", "present", "absent"]))
def test_any_text_is_read_or_refused_and_no_line_is_lost(text, header):
    for of in (NUMBERED, TABLE, TEXTS, ONE):
        try:
            columns = read_columns(text, of, header)
        except InvalidInput:
            continue
        lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line]
        count = {len(values) for values in columns.values()}
        assert count <= {len(lines), len(lines) - 1}
        if header != "present" and list(columns) == of.columns and count == {len(lines) - 1}:
            assert set(map(str.strip, lines[0])) == set(of.columns)


@pytest.mark.parametrize("text", ["a" * 2**24, '"' * 2**24, '"' + "a" * 2**24, "\0" * 2**24, "1\r" + " " * 2**24])
def test_text_without_an_end_is_refused_while_other_threads_go_on(text):
    """Processor time of this thread: one long search would keep the others from running."""
    begun = time.thread_time()
    with pytest.raises(InvalidInput):
        rows(text, TABLE)
    assert time.thread_time() - begun < 5
    assert max(len(match[0]) for match in islice(_FIELD.finditer(text), 10)) <= 64 * 131072 + 2


@given(st.text('a,"\r\n\u2028', max_size=12))
def test_lines_end_with_lf_crlf_or_cr(text):
    assert list(_lines(text)) == re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text)

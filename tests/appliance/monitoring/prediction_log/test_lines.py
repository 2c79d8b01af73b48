"""The quick ways of writing lines give what the plain ones do."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from appliance.monitoring.prediction_log import lines

VALUES = st.one_of(st.floats(), st.integers(-(2**63), 2**64 - 1), st.none(), st.booleans(), st.text(max_size=5))


@given(st.lists(st.one_of(st.floats(), VALUES), max_size=8), st.booleans())
def test_infinities_of_a_row_are_texts_whatever_stands_beside_them(row, texts):
    values, cut = lines.written_row(row, texts=texts)
    assert lines.encode(values) == lines.encode([lines.written(value) for value in row])
    assert cut == []


@given(st.text(), st.floats(allow_nan=False))
def test_the_id_of_a_line_is_found_without_decoding_it(identifier, moment):
    clean = identifier.encode("utf-8", "replace").decode()
    row, label = lines.Row(clean, moment), lines.Label(label=1, id=clean, t=moment, n="0")
    for line in (lines.line_of(row), lines.line_of(label)):
        assert lines.id_bytes(line) == clean.encode()
    assert lines.id_bytes(lines.line_of(lines.Gap(1, moment, clean))) is None
    assert msgspec.json.decode(lines.line_of(row))["id"] == clean


@given(st.binary(max_size=40))
def test_a_damaged_line_has_an_id_or_none(content):
    for start in (b"", b'{"id":"', b'{"label":'):
        found = lines.id_bytes(start + content)
        assert found is None or isinstance(found, bytes)

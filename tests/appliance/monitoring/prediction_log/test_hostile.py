"""Whatever stands in the files of a log, reading it ends in an answer or in an error of ours, and never in another."""

import contextlib
import gzip
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import ApplianceError, InvalidInput
from appliance.labels import of_document
from appliance.monitoring.prediction_log import export, find, lines, segments
from appliance.monitoring.prediction_log.segments import Writer
from appliance.monitoring.prediction_log.verify import verify
from appliance.monitoring.prediction_log.writer import SegmentWriter
from appliance.monitoring.quality import report
from appliance.monitoring.quality.join import Joiner

from .conftest import Clock, encoded, header

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = (
    "id",
    "t",
    "x",
    "y",
    "p",
    "label",
    "gap",
    "seal",
    "rows",
    "root",
    "chain",
    "erased",
    "error",
    "log",
    "prev",
    "mac",
)


@st.composite
def changed_lines(draw):
    """Return the lines of a real segment with some of them changed, cut, doubled or replaced."""
    made = [lines.line_of(header(0, 1, "00" * 32, None)), *encoded(range(4))]
    made.append(lines.line_of(lines.Label(label="a", id="r1.0", t=1.0)))
    made.append(lines.line_of(lines.Seal(1, 6, "00" * 32, "11" * 32, t=1.0)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(made) - 1))
        what = draw(st.sampled_from(("key", "cut", "bytes", "twice")))
        if what == "key":
            with contextlib.suppress(ValueError):
                document = json.loads(made[place])
                document[draw(st.sampled_from(KEYS))] = draw(VALUES)
                made[place] = json.dumps(document, separators=(",", ":")).encode("utf-8", "surrogatepass")
        elif what == "cut":
            made[place] = made[place][: draw(st.integers(0, len(made[place])))]
        elif what == "bytes":
            made[place] = draw(st.binary(max_size=40))
        else:
            made.insert(place, made[place])
    return b"\n".join(made) + draw(st.sampled_from((b"\n", b"", b"{")))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=changed_lines(), packed=st.booleans(), index=st.binary(max_size=30))
def test_files_that_anybody_may_have_written_are_read_or_refused(tmp_path_factory, content, packed, index):
    state = tmp_path_factory.mktemp("log")
    place = Writer(state, "iris", "1.0.0", 0)
    place.folder.mkdir(parents=True)
    name = f"00000001.jsonl{'.gz' if packed else ''}"
    (place.folder / name).write_bytes(gzip.compress(content) if packed else content)
    (place.folder / "00000001.idx").write_bytes(index)
    verify(place)
    segments.heads(state)
    for read in (
        lambda: [*export.table(state, "iris", None, export.ALWAYS, with_labels=True)],
        lambda: find.prove(state, "iris", "r1.0"),
        lambda: find.erase(state, "iris", ["r1.0"], ""),
        lambda: SegmentWriter.open(place, header, Clock()).close(),
    ):
        with contextlib.suppress(ApplianceError):
            read()
    joiner = Joiner(state, clock=lambda: 1e9)
    joiner.step(save=True)
    report.of_model(state, "iris", now=1e9)


@given(VALUES | st.fixed_dictionaries({"id": VALUES, "label": VALUES}, optional={"time": VALUES}))
def test_labels_of_any_form_are_read_or_refused(document):
    with contextlib.suppress(InvalidInput):
        for one in of_document(document):
            assert lines.line_of(lines.Label(label=one.label, id=one.id, t=one.time or 0.0))

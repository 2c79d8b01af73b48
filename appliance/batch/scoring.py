"""Rows by column in, answers by column out: what local runs, shards and every cluster engine have in common.

A scorer is made once in each process, then given block after block:

    scorer = Scorer(version)
    scored = scorer.score({"age": ages, "site": sites}, rows=4096)
    scored.columns["prediction"]        # of scored.good, the rows that the model took; scored.bad are the others
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from appliance.arrays import Array
from appliance.batch.checking import Bad, Checked, Columns, Places, check, refused
from appliance.errors import InvalidInput
from appliance.fallback import QualityPolicy
from appliance.inference.overflow import check_overflow
from appliance.inference.tensors import Feeds
from appliance.inference.version import LoadedVersion
from appliance.predictor import Observer, Prediction, Predictor, Recorder
from appliance.response import ResponseFormat, response_format

LISTENER = "batch"
"""Through which the rows came, for observers."""


QUALITY = "quality"
"""The column of each row's quality, and its type: CSV and Arrow have the flag alone, JSON all that is known."""


class AnswerColumn(msgspec.Struct, frozen=True):
    """One column of the answer; `type` is a tensor type of the manifest, or QUALITY."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Scored:
    """The answers to one block of rows."""

    rows: int
    good: Places
    """The rows that the model took."""
    columns: dict[str, Array]
    """{column of the answer: array [good rows]}, strings with dtype object; {} where no row is good.

    That of the quality holds RowQuality.
    """
    bad: list[Bad]


class Scorer:
    """Scores blocks of rows with one loaded version, by the same schema, session and rules as /predict."""

    def __init__(
        self,
        version: LoadedVersion,
        *,
        refuse_overflow: bool = True,
        observers: Sequence[Observer] = (),
        recorder: Recorder | None = None,
        quality: QualityPolicy | None = None,
    ) -> None:
        """`refuse_overflow` and `quality` as in Predictor; the others are told of each block's prediction."""
        self.version = version
        self.schema = version.schema
        self._form = response_format(version)
        self._refuse = refuse_overflow
        self._quality = quality or QualityPolicy()
        self._is_told = bool(observers) or recorder is not None
        self._predictor = Predictor(
            OneVersion(version),
            observers,
            refuse_overflow=refuse_overflow,
            listener=LISTENER,
            recorder=recorder,
            quality=self._quality,
        )
        outputs = version.session.run(version.example_feeds(1), self._form.outputs)
        sample = answer_columns(self._form, dict(zip(self._form.outputs, outputs, strict=True)))
        self.answers = [AnswerColumn(name, _type_of(array)) for name, array in sample.items()]
        """The columns of every answer, in order."""
        if self._quality.judges(version.name):
            self.answers.append(AnswerColumn(QUALITY, QUALITY))

    def score(self, columns: Columns, rows: int, *, request: str = "", first_row: int = 0) -> Scored:
        """Return the answers to a table by column; columns that the model does not know are ignored.

        `request` and the number of the first row in it make the ids that observers see. Raises InvalidInput where a
        required column is absent.
        """
        self.check_columns(columns)
        return self.run(check(self.schema, columns, rows), rows, request=request, first_row=first_row)

    def run(self, checked: Checked, rows: int, *, request: str = "", first_row: int = 0) -> Scored:
        """Return the answers to the good rows of a block; rows that the graph itself refuses become bad."""
        if checked.feeds is None:
            return Scored(rows, checked.good, {}, checked.bad)
        started = time.perf_counter()
        try:
            prediction = self._predict(checked.feeds, checked.good, started, request, first_row)
        except InvalidInput:
            checked = self._without_refused(checked)
            if checked.feeds is None:
                return Scored(rows, checked.good, {}, checked.bad)
            prediction = self._predict(checked.feeds, checked.good, started, request, first_row)
        columns = answer_columns(self._form, prediction.outputs)
        if prediction.quality is not None:
            columns[QUALITY] = np.array(prediction.quality, object)
        return Scored(rows, checked.good, columns, checked.bad)

    def check_columns(self, names: Columns | Sequence[str]) -> None:
        """Raise InvalidInput where a required column is absent."""
        lacking = [name for one in self.schema.inputs if one.required for name in one.columns if name not in names]
        if lacking:
            found = f"there is no column {', '.join(map(repr, lacking[:5]))}"
            raise InvalidInput("read the columns", found, f"the model takes {', '.join(self.schema.columns)}")

    def _predict(self, feeds: Feeds, good: Places, started: float, request: str, first_row: int) -> Prediction:
        """Return the prediction of some feeds, of which the observers are told."""
        places = (good + first_row).tolist() if self._is_told else ()
        return self._predictor.run(
            self.version, feeds, self._form.outputs, started=started, request=request, places=places
        )

    def _without_refused(self, checked: Checked) -> Checked:
        """Return a block without the rows that the graph refuses, or answers beyond the range of its numbers."""
        feeds = checked.feeds or {}

        def judge(first: int, last: int) -> str:
            part = {name: array[first:last] for name, array in feeds.items()}
            try:
                answers = self.version.session.run(part, self._form.outputs)
                if self._refuse:
                    check_overflow(self.version.manifest.outputs, self._form.outputs, answers, part)
            except InvalidInput as error:
                return error.found.replace(" to row 0 ", " ")
            return ""

        rest = _without(checked, {place: ("", why) for place, why in refused(judge, 0, len(checked.good))})
        if rest.feeds is None or not self._quality.refuses(self.version.name):
            return rest
        names = self.version.quality.needed(self._form.outputs)
        outputs = dict(zip(names, self.version.session.run(rest.feeds, names), strict=True))
        quality = self.version.quality.judged(rest.feeds, outputs, len(rest.good))
        poor = self._quality.poor(quality)
        return _without(rest, {row: (quality[row].column, f"its quality is {quality[row].flag}") for row in poor})


def _without(checked: Checked, found: Mapping[int, tuple[str, str]]) -> Checked:
    """Return a block without some of its good rows, which become bad: {place among them: (column, reason)}."""
    kept = np.array([place for place in range(len(checked.good)) if place not in found], np.int64)
    bad = [Bad(int(checked.good[place]), *why) for place, why in found.items()]
    rest = {name: array[kept] for name, array in (checked.feeds or {}).items()} if len(kept) else None
    return Checked(rest, checked.good[kept], sorted([*checked.bad, *bad], key=lambda one: one.row))


def answer_columns(form: ResponseFormat, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the answer to some rows by column: prediction, probability_<label>, score; a matrix by its columns.

    `outputs` is {name: array [rows, ...]} as the graph gives them.
    """
    found = _named("prediction", outputs[form.prediction], ())
    if form.probability:
        found |= _named("probability", outputs[form.probability], form.labels)
    if form.score:
        found |= _named("score", outputs[form.score], ())
    return found


def _named(name: str, array: Array, labels: Sequence[str]) -> dict[str, Array]:
    """Return the columns of one output."""
    flat = array.reshape(len(array), -1)
    if labels and flat.shape[1] == len(labels):
        return {f"{name}_{label}": flat[:, index] for index, label in enumerate(labels)}
    if flat.shape[1] == 1:
        return {name: flat[:, 0]}
    return {f"{name}_{index}": flat[:, index] for index in range(flat.shape[1])}


def _type_of(array: Array) -> str:
    """Return the type of a column of answers, as a manifest has it."""
    return "string" if array.dtype.kind in "OU" else str(array.dtype)


class OneVersion:
    """The one version that there is, for a Predictor."""

    def __init__(self, version: LoadedVersion) -> None:
        self._version = version

    def get(self, model: str | None = None, version: str | None = None) -> LoadedVersion:
        """Return it."""
        return self._version

    def arms(self, model: str | None = None) -> None:
        """Return no experiment: a file is scored by one version."""

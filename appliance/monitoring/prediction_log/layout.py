"""How one version's predictions become lines: the columns' order and policy, the outputs, the header."""

import math
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from appliance.arrays import Array
from appliance.config import PredictionLogConfig
from appliance.inference.json_output import output_bytes
from appliance.inference.sent import SentFeeds, SentRows
from appliance.inference.values import to_values
from appliance.inference.version import LoadedVersion
from appliance.monitoring.prediction_log import lines, policy
from appliance.monitoring.prediction_log.policy import Change
from appliance.predictor import Prediction
from appliance.response import response_format

FORM = 1
"""Number of the lines' form."""
_ITEM_BYTES, _ROW_BYTES, _VALUE_BYTES = 512, 128, 32
_FEW = 64  # values that Python looks at in less time than NumPy
_SHORT = 16  # probabilities up to which float32's are written with no more digits than they have


class Answered(msgspec.Struct):
    """One run's rows and answers, as they wait for the log."""

    outputs: Mapping[str, Array]
    """{name: [rows kept, ...]}"""
    sent: SentRows | None
    ids: Sequence[tuple[str, int]]
    """(request id, rows kept) of each request."""
    step: int
    """Every so many rows are kept."""
    rows: int
    """Of all requests."""
    time: float
    milliseconds: float
    listener: str
    arm: str


@dataclass(frozen=True, slots=True)
class Layout:
    """One version, as its log has it; made once for each loaded version."""

    model: str
    version: str
    columns: list[str]
    types: list[str]
    inputs: list[tuple[str, int]]
    """(tensor, columns that fill it)."""
    prediction: str
    probability: str | None
    score: str | None
    classes: list[Any]
    keeps_inputs: bool
    policy: dict[str, str]
    texts: bool
    """Whether some column is of texts."""
    row_bytes: int
    """Memory that a row and its answer take while they wait, without texts."""
    changes: list[tuple[int, Change]] = field(repr=False)

    @classmethod
    def of(cls, version: LoadedVersion, config: PredictionLogConfig, key: bytes) -> "Layout":
        """Return the layout of a version. Raises ConfigError for an invalid policy."""
        form, manifest = response_format(version), version.manifest
        columns = version.schema.columns
        kept = {name: word for name, word in config.columns.items() if name in columns and word != "keep"}
        return cls(
            version.name,
            version.version,
            columns,
            [one.type for one in manifest.inputs for _ in one.columns],
            [(one.name, len(one.columns)) for one in manifest.inputs],
            form.prediction,
            form.probability,
            form.score,
            list(manifest.class_labels),
            config.inputs,
            kept,
            any(one.type == "string" for one in manifest.inputs),
            _ROW_BYTES + _VALUE_BYTES * len(columns) + sum(map(output_bytes, manifest.outputs)),
            policy.changes(kept, columns, key),
        )

    def size(self, rows: int, sent: SentRows | None) -> int:
        """Return the memory that rows take while they wait, near enough."""
        size = _ITEM_BYTES + rows * self.row_bytes
        return size + sent.size(texts=True) if self.texts and sent else size

    def header(self, slot: int, segment: int, prev: str, key: list[int] | None) -> lines.Header:
        """Return the header of a segment."""
        return lines.Header(
            FORM,
            self.model,
            self.version,
            self.columns,
            self.types,
            [name for name in (self.prediction, self.probability, self.score) if name],
            self.classes,
            socket.gethostname(),
            slot,
            segment,
            prev,
            datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            self.policy,
            self.keeps_inputs,
            key,
        )

    def rows(self, answered: Answered, nonces: Iterator[str]) -> Iterator[lines.Row]:
        """Yield the lines of some rows, in their order."""
        y, p, s = (_values(answered.outputs, name) for name in (self.prediction, self.probability, self.score))
        sent = answered.sent.in_order(self.columns, self.inputs) if answered.sent and self.keeps_inputs else None
        place = 0
        several = answered.rows if answered.step > 1 else 0
        time, milliseconds = round(answered.time, 3), round(answered.milliseconds, 3)
        for request, count in answered.ids:
            for row in range(count):
                line = lines.Row(f"{request}.{row * answered.step}", time)
                if sent is not None:
                    line.x, line.cut = self._kept(sent[place])
                line.y = y[place] if y else None
                line.p = p[place] if p else None
                line.s = s[place] if s else None
                line.ms, line.listener, line.arm, line.of = milliseconds, answered.listener, answered.arm, several
                line.n = next(nonces)
                yield line
                place += 1

    def _kept(self, row: list[Any]) -> tuple[list[Any], list[int] | None]:
        """Return what is kept of a row, and the places of texts that were cut."""
        for place, change in self.changes:
            row[place] = change(row[place])
        values, cut = lines.written_row(row, texts=self.texts)
        return values, cut or None


def sent_of(prediction: Prediction) -> SentRows | None:
    """Return the rows of a prediction as they were sent, None where they were not kept."""
    inputs = prediction.inputs
    return inputs.sent if type(inputs) is SentFeeds else None


def whole(prediction: Prediction) -> Answered:
    """Return all rows of a prediction."""
    ids = prediction.shared_by or ((prediction.request_id, prediction.rows),)
    return _answered(prediction, prediction.outputs, sent_of(prediction), ids, 1)


def strided(prediction: Prediction, most: int) -> Answered:
    """Return `most` rows of one large request at most: every so many, without keeping the others in memory."""
    identifier = prediction.shared_by[0][0] if prediction.shared_by else prediction.request_id
    sent = sent_of(prediction)
    first = sent.step if sent else 1
    second = -(-prediction.rows // (most * first))
    step = first * second
    outputs = {name: array[::step].copy() for name, array in prediction.outputs.items()}
    ids = ((identifier, -(-prediction.rows // step)),)
    return _answered(prediction, outputs, sent.every(second) if sent else None, ids, step)


def _answered(
    prediction: Prediction,
    outputs: Mapping[str, Array],
    sent: SentRows | None,
    ids: Sequence[tuple[str, int]],
    step: int,
) -> Answered:
    milliseconds = 1000 * (prediction.prepare_seconds + prediction.run_seconds)
    return Answered(
        outputs, sent, ids, step, prediction.rows, prediction.time, milliseconds, prediction.listener, prediction.arm
    )


def _values(outputs: Mapping[str, Array], name: str | None) -> list[Any] | None:
    """Return an output's rows as a line has them, None where it was not asked for.

    A float32 is written with the fewest digits that give it back, which 9 always do (IEEE 754, 5.12.2).
    """
    array = outputs.get(name) if name else None
    if array is None:
        return None
    values, dtype, size = to_values(array), array.dtype, array.size
    if dtype.kind != "f":
        return values
    if dtype.char == "f" and size <= _SHORT * max(1, len(array)):
        values = [_short(one) for one in values]
    finite = lines.are_finite(array.ravel().tolist()) if size <= _FEW else np.isfinite(array).all()
    return values if finite else [lines.written(one) for one in values]


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(one) for one in value]
    return float(f"{value:.9g}") if math.isfinite(value) else value

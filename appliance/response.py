"""The response of /predict, the same through every listener: predictions with labels, model and version."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from appliance.arrays import Array
from appliance.budget import SMALL
from appliance.bundle.manifest import Label, Manifest, Output
from appliance.inference.json_output import COPIES, as_json, output_bytes
from appliance.inference.quality import RowQuality
from appliance.inference.values import Answer, to_values
from appliance.inference.version import LoadedVersion
from appliance.predictor import Prediction

_encode_json = msgspec.json.Encoder().encode


class PredictAnswer(msgspec.Struct, kw_only=True):
    """One prediction for each row, in the order of the rows, and the version that gave them all.

    `probability` (classifiers) has each row's {label: probability}; `score` what else the model says of a row, as a
    decision function or a distance. Numbers are exact: a float32 has all the digits of its float64. NaN is null.
    """

    prediction: list[Answer]
    probability: list[dict[str, float | None] | list[float | None]] | UnsetType = UNSET
    score: list[Answer] | UnsetType = UNSET
    model: str
    version: str
    quality: list[RowQuality] | UnsetType = UNSET
    """How far to trust each row, where that is asked for or configured."""
    id: str | UnsetType = UNSET
    """The request's, where predictions are logged; that of a row is `ID.ROW`, the rows counted from 0."""

    def part(self, first: int, last: int) -> "PredictAnswer":
        """Return the answer for rows `first` to before `last` alone."""
        return PredictAnswer(
            prediction=self.prediction[first:last],
            probability=UNSET if self.probability is UNSET else self.probability[first:last],
            score=UNSET if self.score is UNSET else self.score[first:last],
            model=self.model,
            version=self.version,
            quality=UNSET if self.quality is UNSET else self.quality[first:last],
        )


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """Which outputs of a version /predict asks for, and how its response is built of them."""

    prediction: str
    """The output that is the prediction."""
    probability: str | None
    score: str | None
    outputs: tuple[str, ...]
    labels: tuple[str, ...]
    """The class labels as JSON's keys, in the order of the columns of `probability`."""
    row_bytes: int
    """Memory that one row's answer takes at most, the graph's outputs and JSON together."""
    ending: bytes
    """The last two fields of a response without more, model and version, as JSON."""

    def to_json(self, prediction: Prediction) -> bytes:
        """Return the response of a prediction of these outputs as JSON."""
        if prediction.rows * self.row_bytes <= SMALL:
            if prediction.quality is None and not prediction.logged:
                return self._plain_json(prediction.outputs)
            return _encode_json(self.answer(prediction))
        outputs = prediction.outputs
        probability = outputs[self.probability] if self.probability else None
        answer = PredictAnswer(
            prediction=as_json(outputs[self.prediction]),
            probability=UNSET if probability is None else as_json(probability, partial(_labelled, labels=self.labels)),
            score=as_json(outputs[self.score]) if self.score else UNSET,
            model=prediction.model,
            version=prediction.version,
            quality=_quality(prediction),
            id=prediction.request_id if prediction.logged else UNSET,
        )
        return _encode_json(answer)

    def _plain_json(self, outputs: Mapping[str, Array]) -> bytes:
        """Return the JSON of answer() without quality and id: the record would take longer than its JSON."""
        parts = [b'{"prediction":', _encode_json(to_values(outputs[self.prediction]))]
        if self.probability:
            parts += b',"probability":', _encode_json(_labelled(outputs[self.probability], self.labels))
        if self.score:
            parts += b',"score":', _encode_json(to_values(outputs[self.score]))
        parts += b",", self.ending
        return b"".join(parts)

    def labelled(self, probability: Array) -> list[Any]:
        """Return {label: probability} for each row of a [rows, labels] array."""
        return _labelled(probability, self.labels)

    def answer(self, prediction: Prediction) -> PredictAnswer:
        """Return the response of a prediction of these outputs."""
        outputs = prediction.outputs
        return PredictAnswer(
            prediction=to_values(outputs[self.prediction]),
            probability=_labelled(outputs[self.probability], self.labels) if self.probability else UNSET,
            score=to_values(outputs[self.score]) if self.score else UNSET,
            model=prediction.model,
            version=prediction.version,
            quality=_quality(prediction),
            id=prediction.request_id if prediction.logged and not prediction.shared_by else UNSET,
        )


def _quality(prediction: Prediction) -> list[RowQuality] | UnsetType:
    """Return the quality of a prediction's rows, where it was judged."""
    return UNSET if prediction.quality is None else list(prediction.quality)


def response_format(version: LoadedVersion) -> ResponseFormat:
    """Return the response format of a version, made once for each loaded version."""
    form: ResponseFormat | None = version.derived.get(response_format)
    if form is None:
        form = version.derived[response_format] = _format(version.manifest)
    return form


def as_rows(features: Any) -> Any:
    """Return one row or many as many: rows are lists or objects, so a list of plain values is one row."""
    many = isinstance(features, list) and (not features or isinstance(features[0], (list, dict)))
    return features if many else [features]


def _format(manifest: Manifest) -> ResponseFormat:
    """Return the response format of a model; without an output of role prediction, the first one is the prediction."""
    outputs = manifest.outputs
    roles: dict[str, str] = {}
    for output in outputs:
        roles.setdefault(output.role, output.name)
    prediction = roles.get("prediction", outputs[0].name)
    probability, score = roles.get("probability"), roles.get("score")
    asked = tuple(name for name in (prediction, probability, score) if name)
    keys = tuple(map(_key, manifest.class_labels))
    row_bytes = sum(_row_bytes(output, keys) for output in outputs if output.name in asked)
    ending = _encode_json({"model": manifest.name, "version": manifest.version})[1:]
    return ResponseFormat(prediction, probability, score, asked, keys, row_bytes, ending)


def _row_bytes(output: Output, labels: tuple[str, ...]) -> int:
    """Return the memory that one row of an output takes at most."""
    if output.role == "probability":
        return output_bytes(output) + COPIES * sum(len(_encode_json(label)) + 1 for label in labels)
    if output.role == "prediction" and output.type == "string" and labels:
        longest = max(len(_encode_json(label)) for label in labels)
        return max(output_bytes(output), COPIES * (longest + 1) * math.prod(output.shape[1:] or [1]))
    return output_bytes(output)


def _key(label: Label) -> str:
    """Return a class label as a JSON key, spelled as the prediction itself is."""
    return label if isinstance(label, str) else _encode_json(label).decode()


def _labelled(probability: Array, labels: tuple[str, ...]) -> list[Any]:
    """Return {label: probability} for each row of a [rows, labels] array; of another shape, the values alone."""
    if probability.shape[1:] != (len(labels),):
        return to_values(probability)
    row_of = _row_type(labels)
    return [row_of(*row) for row in probability.tolist()]


@functools.lru_cache(maxsize=64)
def _row_type(labels: tuple[str, ...]) -> Any:
    """Return a type whose fields are written under the labels: twice as quick to make and write as a dict."""
    fields = [(f"p{index}", float) for index in range(len(labels))]
    names = {f"p{index}": label for index, label in enumerate(labels)}
    try:
        return msgspec.defstruct("Probability", fields, rename=names, gc=False)
    except ValueError:  # msgspec takes no field name that JSON must escape
        return lambda *row: dict(zip(labels, row, strict=True))

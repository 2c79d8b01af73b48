"""The response of /predict, the same through every listener: predictions with labels, model and version."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from appliance.budget import SMALL
from appliance.bundle.manifest import Label, Output
from appliance.inference.session import Array
from appliance.inference.values import to_values
from appliance.inference.version import LoadedVersion
from appliance.predictor import Prediction

NUMBER = 25
"""Bytes of a number in JSON, with its comma, at most."""
TEXT = 64
"""Bytes of a text that an output gives, for which nothing is known."""
CLASSIFIED = 400
"""Bytes of memory of a text of Open Inference's classification extension, with those it is made of."""
COPIES = 3
"""Times that an answer in JSON lies in memory at most: as parts, put together, and on its way to the socket."""

LARGE = 16384
"""Values of an output from which on it becomes JSON in parts of so many."""

_encode_json = msgspec.json.Encoder().encode


class PredictAnswer(msgspec.Struct, kw_only=True):
    """One prediction for each row, in the order of the rows, and the version that gave them all.

    `probability` (classifiers) has each row's {label: probability}; `score` what else the model says of a row, as a
    decision function or a distance. Numbers are exact: a float32 has all the digits of its float64. NaN is null.
    """

    prediction: list[Any]
    probability: list[Any] | UnsetType = UNSET
    score: list[Any] | UnsetType = UNSET
    model: str
    version: str

    def part(self, first: int, last: int) -> "PredictAnswer":
        """Return the answer for rows `first` to before `last` alone."""
        return PredictAnswer(
            prediction=self.prediction[first:last],
            probability=UNSET if self.probability is UNSET else self.probability[first:last],
            score=UNSET if self.score is UNSET else self.score[first:last],
            model=self.model,
            version=self.version,
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
    output_bytes: dict[str, tuple[int, int]]
    """Output -> the memory that one row of it takes at most, answered as JSON and as binary."""
    most_bytes: int
    """Memory that one row of all outputs takes at most, whatever form is asked for."""

    def to_json(self, prediction: Prediction) -> bytes:
        """Return the response of a prediction of these outputs as JSON."""
        if prediction.rows * self.row_bytes <= SMALL:
            return _encode_json(self.answer(prediction))
        outputs, version = prediction.outputs, prediction.version
        probability = outputs[self.probability] if self.probability else None
        answer = PredictAnswer(
            prediction=as_json(outputs[self.prediction]),
            probability=UNSET if probability is None else as_json(probability, partial(_labelled, labels=self.labels)),
            score=as_json(outputs[self.score]) if self.score else UNSET,
            model=version.name,
            version=version.version,
        )
        return _encode_json(answer)

    def answer(self, prediction: Prediction) -> PredictAnswer:
        """Return the response of a prediction of these outputs."""
        outputs, version = prediction.outputs, prediction.version
        return PredictAnswer(
            prediction=to_values(outputs[self.prediction]),
            probability=_labelled(outputs[self.probability], self.labels) if self.probability else UNSET,
            score=to_values(outputs[self.score]) if self.score else UNSET,
            model=version.name,
            version=version.version,
        )


def response_format(version: LoadedVersion) -> ResponseFormat:
    """Return the response format of a version, made once for each loaded version."""
    form = _formats.get(version)
    if form is None:
        form = _formats[version] = _format(version.manifest.outputs, version.manifest.class_labels)
    return form


def as_rows(features: Any) -> Any:
    """Return one row or many as many: rows are lists or objects, so a list of plain values is one row."""
    many = isinstance(features, list) and (not features or isinstance(features[0], (list, dict)))
    return features if many else [features]


_formats: WeakKeyDictionary[LoadedVersion, ResponseFormat] = WeakKeyDictionary()


def _format(outputs: list[Output], labels: list[Label]) -> ResponseFormat:
    """Return the response format for outputs; without an output of role prediction, the first one is the prediction."""
    roles: dict[str, str] = {}
    for output in outputs:
        roles.setdefault(output.role, output.name)
    prediction = roles.get("prediction", outputs[0].name)
    probability, score = roles.get("probability"), roles.get("score")
    asked = tuple(name for name in (prediction, probability, score) if name)
    keys = tuple(map(_key, labels))
    row_bytes = sum(_row_bytes(output, keys) for output in outputs if output.name in asked)
    each = {output.name: (_output_bytes(output), _output_bytes(output, binary=True)) for output in outputs}
    most = sum(max(each[output.name]) + CLASSIFIED * math.prod(output.shape[1:]) for output in outputs)
    return ResponseFormat(prediction, probability, score, asked, keys, row_bytes, each, most)


def as_json(array: Array, values: Callable[[Array], list[Any]] = to_values) -> Any:
    """Return an output as `values` has it, in JSON; of a large one never more than a part is plain values at once.

    So nobody waits long for the one thread that runs at a time, and memory is that of the JSON.
    """
    width = math.prod(array.shape[1:])
    step = max(1, LARGE // max(1, width))
    parts = [b"["]
    for first in range(0, len(array), step):
        if first:
            parts.append(b",")
        parts.append(_encode_json(values(array[first : first + step]))[1:-1])
    parts.append(b"]")
    return msgspec.Raw(b"".join(parts))


def _output_bytes(output: Output, *, binary: bool = False) -> int:
    """Return the memory that one row of an output takes at most, as the graph gives it and as it is answered."""
    values = math.prod(size for size in output.shape[1:] if size > 0)
    if output.type == "string":
        return values * (2 * TEXT if binary else COPIES * TEXT)
    itemsize = np.dtype(output.type).itemsize
    return values * (4 * itemsize if binary else itemsize + COPIES * NUMBER)


def _row_bytes(output: Output, labels: tuple[str, ...]) -> int:
    """Return the memory that one row of an output takes at most."""
    if output.role == "probability":
        return _output_bytes(output) + COPIES * sum(len(_encode_json(label)) + 1 for label in labels)
    if output.role == "prediction" and output.type == "string" and labels:
        longest = max(len(_encode_json(label)) for label in labels)
        return max(_output_bytes(output), COPIES * (longest + 1) * math.prod(output.shape[1:] or [1]))
    return _output_bytes(output)


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

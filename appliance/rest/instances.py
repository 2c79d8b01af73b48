"""Rows as clients of MLflow, SageMaker, KServe v1 and Vertex AI send them, and their answer: predictions alone.

A prediction is the model's output of that role: for classifiers the label.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from appliance.errors import InvalidInput
from appliance.inference.json_output import LARGE, as_json
from appliance.inference.quality import RowQuality
from appliance.inference.tensors import Feeds
from appliance.inference.values import Answer, Scalar, quoted, to_values
from appliance.inference.version import LoadedVersion
from appliance.response import response_format
from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.routed import settled

Parameters = dict[str, Scalar]


class Predictions(msgspec.Struct):
    """One prediction for each row, in the order of the rows."""

    predictions: list[Answer]
    quality: list[RowQuality] | UnsetType = UNSET
    """How far to trust each row, where that is asked for or configured."""


def from_instances(context: Context, version: LoadedVersion, instances: list[Any], typed: bool) -> Feeds:
    """Return the feeds of rows as lists, objects or, for a model of one column, plain values."""
    context.limits.check_rows(len(instances))
    schema = version.schema
    if instances and isinstance(instances[0], dict) and is_numbered(list(instances[0]), schema.columns):
        keys = list(map(str, range(len(schema.columns))))
        if all(row.keys() == set(keys) for row in instances if isinstance(row, dict)):
            instances = [[row[key] for key in keys] if isinstance(row, dict) else row for row in instances]
    if len(schema.columns) == 1 and not any(isinstance(row, (list, dict)) for row in instances):
        instances = [[value] for value in instances]
    return schema.from_rows(instances, typed=typed)


def is_numbered(names: Sequence[str], columns: Sequence[str]) -> bool:
    """Return whether `names` are only the positions that pandas gives to nameless columns."""
    return list(names) == list(map(str, range(len(columns)))) and list(names) != list(columns)


def quality_of(parameters: Parameters | None) -> bool:
    """Return whether parameters ask for the quality of each row, which is all that they may ask for.

    Raises InvalidInput for any other: ignoring it would give another answer than the caller wants.
    """
    if not parameters:
        return False
    unknown = parameters.keys() - {"quality"}
    if unknown:
        found = f"{quoted(min(unknown))} is unknown"
        raise InvalidInput("read the parameters", found, "leave it out: there is quality alone")
    quality = parameters["quality"]
    if not isinstance(quality, bool):
        raise InvalidInput("read the parameters", f"quality is {str(quality)[:40]!r}", "send true or false")
    return quality


def answer_predictions(
    context: Context, request: Request, version: LoadedVersion, feeds: Feeds, quality: bool
) -> Response:
    """Run the model and return its predictions alone; with the quality of each row where it is asked for."""
    if request.routed is not None:
        version = settled(request, version, feeds)
    output, rows = response_format(version).prediction, len(next(iter(feeds.values())))
    request.claim_answer(response_format(version).row_bytes * rows, rows)
    prediction = context.predictor.run(
        version, feeds, [output], started=request.started, keys=request.keys, quality=quality
    )
    array = prediction.outputs[output]
    told = UNSET if prediction.quality is None else list(prediction.quality)
    return json_response(Predictions(as_json(array) if array.size > LARGE else to_values(array), told))

"""Labels, the truth about rows that comes later, as somebody tells them: JSON in several forms, and CSV. Pure."""

import csv
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from appliance.errors import InvalidInput

LONGEST = 256
"""Characters of an id or a label."""
MOST = 10_000
"""Labels that one request or message may have."""
Truth = bool | int | float | str


class GivenLabel(msgspec.Struct, frozen=True):
    """What somebody says is true of a row."""

    id: str
    """REQUEST.ROW; REQUEST alone is its first row."""
    label: Truth
    time: float | None = None
    """When it became known (Unix time); None: when it is told."""


class TakeLabels(Protocol):
    """Where labels go: they are on disk when it returns."""

    def __call__(self, model: str, labels: list[GivenLabel], source: str) -> None:
        """Keep labels of a model's predictions. Raises NotFound, NotReady, NotLogged."""


class LabelFeed(Protocol):
    """Somebody who is told of each prediction whose label came, once; of a label that changed, not again."""

    def labelled(
        self, model: str, version: str, identifier: str, predicted: Truth, truth: Truth, arm: str = ""
    ) -> None:
        """Take note of what a version answered to the row `identifier`, and what is true."""


def of_document(document: Any) -> list[GivenLabel]:
    """Return the labels of decoded JSON: one {"id", "label"[, "time"]}, a list of them, or {"labels": [...]}.

    SageMaker's ground truth, {"groundTruthData": {"data"}, "eventMetadata": {"eventId"}}, is one as well. Raises
    InvalidInput.
    """
    if isinstance(document, dict) and "labels" in document:
        document = document["labels"]
    found = document if isinstance(document, list) else [document]
    if not found or len(found) > MOST:
        raise InvalidInput("read the labels", f"there are {len(found)}", f"send 1 to {MOST} at once")
    return [_one(place, one) for place, one in enumerate(found)]


def of_csv(lines: Iterable[str]) -> Iterator[GivenLabel]:
    """Yield the labels of CSV with a header that names id, label and perhaps time. Raises InvalidInput."""
    rows = csv.DictReader(lines)
    if not {"id", "label"} <= {*(rows.fieldnames or [])}:
        raise InvalidInput("read the labels", "the first line does not name id and label", "begin with: id,label,time")
    for place, row in enumerate(rows):
        time = row.get("time") or None
        yield _one(place, {"id": row["id"], "label": row["label"], **({"time": time} if time else {})})


def like(label: Truth, classes: list[Any]) -> Truth:
    """Return a label as the model's classes have it: a text "1" is the class 1, where it has that and no such text."""
    if label in classes and not isinstance(label, bool):
        return label
    texts: dict[str, Truth] = {_spelled(one): one for one in classes}
    return texts.get(_spelled(label), label)


def as_number(label: Truth) -> float:
    """Return a label as a number, NaN where it is none."""
    try:
        return float(label)
    except ValueError:
        return math.nan


def _spelled(value: Any) -> str:
    """Return a class as JSON has it, a whole float as its integer."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return msgspec.json.encode(value).decode()


def _one(place: int, given: Any) -> GivenLabel:
    """Return one label."""
    tried = f"read label {place}"
    if isinstance(given, dict) and "groundTruthData" in given:
        data, event = given.get("groundTruthData"), given.get("eventMetadata")
        given = {
            "id": event.get("eventId") if isinstance(event, dict) else None,
            "label": data.get("data") if isinstance(data, dict) else None,
        }
    if not isinstance(given, dict) or not {"id", "label"} <= given.keys() <= {"id", "label", "time"}:
        raise InvalidInput(tried, "it is no object of id, label and time", 'send {"id": "ID.ROW", "label": LABEL}')
    identifier, label = given["id"], given["label"]
    if not isinstance(identifier, str) or not 0 < len(identifier) <= LONGEST:
        raise InvalidInput(tried, f"its id is no text of 1 to {LONGEST} characters", "send the prediction's id")
    if not isinstance(label, Truth) or (isinstance(label, str) and not 0 < len(label) <= LONGEST):
        raise InvalidInput(tried, "its label is no number, text or boolean", "send a class label or a number")
    if not isinstance(label, str) and not math.isfinite(label):
        raise InvalidInput(tried, "its label is not finite", "send a class label or a number")
    return GivenLabel(identifier, label, _time(tried, given.get("time")))


def _time(tried: str, given: Any) -> float | None:
    """Return a time: Unix time, or ISO 8601, which is UTC where it says no zone."""
    if given is None:
        return None
    try:
        moment = float(given)
    except (TypeError, ValueError):
        try:
            read = datetime.fromisoformat(given)
        except (TypeError, ValueError) as error:
            raise InvalidInput(tried, f"its time is {str(given)[:40]!r}", "send ISO 8601 or Unix time") from error
        moment = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    if not 0 <= moment < 1e11:
        raise InvalidInput(tried, f"its time is {str(given)[:40]!r}", "send Unix time in seconds")
    return moment

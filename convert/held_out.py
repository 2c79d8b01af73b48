"""Measures a model on rows it was not trained on, with their true answers: calibration and errors."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from appliance.bundle.baseline import CalibrationBin, Conformal
from appliance.bundle.manifest import Label
from appliance.errors import InvalidInput
from convert import baseline
from convert.model.arrays import Answers, Array
from convert.model.original import Role


@dataclass(frozen=True, slots=True)
class Sample:
    """What is known of the sample beside its rows.

    `truth` holds its true answers, a column for each that the model predicts; None where they are not known.
    """

    unseen: bool = False
    truth: pd.DataFrame | None = None


TRAINING = Sample()
"""Rows that the model was trained on."""


def judged(
    sample: Sample, answers: Answers, roles: dict[str, Role], labels: list[Label]
) -> tuple[list[CalibrationBin], Conformal | None]:
    """Return calibration and conformal quantiles of the answers ({output: array [rows, ...]}) to an unseen sample.

    A sample that the model was trained on gives nothing: its errors there are too small. `roles` are
    {output: which part of a prediction it is}. Raises InvalidInput where the truth does not fit the prediction.
    """
    by_role = {role: answers[output] for output, role in roles.items()}
    if not sample.unseen or sample.truth is None or "prediction" not in by_role:
        return [], None
    known = ~sample.truth.isna().any(axis=1).to_numpy()
    truth = sample.truth[known]
    if labels:
        probability = by_role.get("probability")
        if probability is None or probability.shape[1:] != (len(labels),) or truth.shape[1] != 1:
            return [], None
        return _of_labels(probability[known], _numbered(truth.iloc[:, 0], labels))
    return [], _of_numbers(by_role["prediction"][known], truth)


def _of_labels(probability: Array, truth: Array) -> tuple[list[CalibrationBin], Conformal | None]:
    """Compare probabilities [rows, labels] with the numbers of the true labels [rows]."""
    own = np.where(truth >= 0, probability[np.arange(len(truth)), truth], 0.0)
    return baseline.calibration(probability, truth), baseline.conformal("label", 1 - own[:, None])


def _of_numbers(prediction: Array, truth: pd.DataFrame) -> Conformal | None:
    """Compare predicted numbers [rows] or [rows, columns] with the true ones."""
    flat = prediction.reshape(len(prediction), -1)
    if flat.dtype.kind != "f" or flat.shape[1] != truth.shape[1]:
        return None
    try:
        right = truth.to_numpy(dtype="float64")
    except (TypeError, ValueError) as error:
        next_step = "name the columns of true answers with --target"
        raise InvalidInput(
            "read the true answers", "they are not numbers, and the model predicts numbers", next_step
        ) from error
    return baseline.conformal("absolute", np.abs(right - flat))


def _numbered(truth: "pd.Series[object]", labels: list[Label]) -> Array:
    """Return the number of each true label [rows], -1 for one that the model does not know.

    A table may write 1.0 or "1" for the label 1, and the other way round.
    """
    number = {_spelled(label): index for index, label in enumerate(labels)}
    found = np.array([number.get(_spelled(value), -1) for value in truth.tolist()], np.int64)
    if len(found) and not (found >= 0).any():
        shown = ", ".join(sorted({str(value) for value in truth.tolist()})[:5])
        next_step = f"name the column that holds {', '.join(map(str, labels[:5]))} with --target"
        raise InvalidInput("read the true answers", f"none is a label of the model: {shown}", next_step)
    return found


def _spelled(label: object) -> str:
    """Return a label as one text, whichever type a table has made of it."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label)

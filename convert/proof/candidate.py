"""An ONNX graph that may become the bundle's model, asked through the device's own code."""

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd
from onnx import load_from_string

from appliance.bundle.manifest import Output, TensorType
from appliance.errors import InvalidInput
from appliance.inference.session import Session
from appliance.inference.tensors import InputSchema
from convert.converters import graphs
from convert.converters.estimator_tensors import REFUSED_TIE
from convert.model.answer_cache import AnswerCache
from convert.model.arrays import Answers
from convert.model.original import Original
from convert.model.schema import Limits, Schema

_ROWS_PER_RUN = 2_000  # neighbours-based graphs hold rows x training rows at once


class RefusedTie(InvalidInput):
    """The graph refuses a row whose answer depends on the order in which the original meets its neighbours."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A graph under proof; `float_type` is the type of its floating-point inputs."""

    onnx: bytes
    session: Session
    schema: Schema
    outputs: tuple[Output, ...]
    float_type: TensorType
    tie_checks: tuple[str, ...] = ()
    """The graph's nodes that fail for such a row (RefusedTie), by name."""
    cache: AnswerCache = field(default_factory=AnswerCache, compare=False, repr=False)

    def feeds(self, frame: pd.DataFrame, limits: Limits) -> dict[str, Any]:
        """Return the graph's inputs for rows, read as the device reads them under `limits`."""
        return feeds(self.schema, frame, self.float_type, limits)

    def answers(self, frame: pd.DataFrame, limits: Limits) -> Answers:
        """Return {output name: array [rows, ...]}.

        The same rows run once under the same `limits`: the answers are kept (AnswerCache). Raises InvalidInput for
        rows that `limits` or the graph refuse, RefusedTie where the graph refuses a tie.
        """
        return self.cache.of(frame, lambda: self._answers(frame, limits), under=limits)

    def _answers(self, frame: pd.DataFrame, limits: Limits) -> Answers:
        names = [output.name for output in self.outputs]
        inputs = self.feeds(frame, limits)
        runs = []
        for start in range(0, len(frame), _ROWS_PER_RUN):
            part = {name: array[start : start + _ROWS_PER_RUN] for name, array in inputs.items()}
            runs.append(self._run(part, names))
        return {name: np.concatenate([run[i] for run in runs]) for i, name in enumerate(names)}

    def _run(self, inputs: dict[str, Any], names: list[str]) -> list[Any]:
        try:
            return list(self.session.run(inputs, names))
        except InvalidInput as error:
            # A graph raises nothing: onnxruntime's message names the node that failed.
            if any(name in error.found for name in self.tie_checks):
                raise RefusedTie(error.tried, error.found, error.next_step) from error
            raise


def feeds(schema: Schema, frame: pd.DataFrame, float_type: TensorType, limits: Limits) -> dict[str, Any]:
    """Return {input name: array} for rows, through the code that a device runs on a request."""
    return dict(InputSchema(schema.inputs(float_type, limits)).from_columns(schema.for_device(frame)))


def build(onnx: bytes, original: Original, answers: Answers, float_type: TensorType) -> Candidate:
    """Return the candidate for a graph whose outputs are `answers`."""
    session = Session(onnx)
    outputs = tuple(
        Output(
            name=name,
            type=cast(TensorType, session.outputs[name]),
            shape=[-1, *array.shape[1:]],
            role=original.roles[name],
        )
        for name, array in answers.items()
    )
    ties = graphs.nodes_named(load_from_string(onnx).graph, REFUSED_TIE)
    return Candidate(onnx, session, original.schema, outputs, float_type, tuple(ties))

"""The recipe for an ONNX graph made elsewhere: there is no model to ask, but a table with the expected answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd

from appliance.bundle.manifest import (
    Input,
    Label,
    Output,
    Provenance,
    Task,
    TensorType,
    Tolerance,
    check_name,
    check_version,
)
from appliance.errors import ConversionRefused, InvalidInput, Misuse, NotReady, ParityFailed
from appliance.inference.session import Session
from convert import held_out
from convert.assemble import assemble, libraries
from convert.conversion import Conversion
from convert.converters import onnx_file
from convert.converters.onnx_file import GraphInput, PrebuiltGraph
from convert.model import schema
from convert.model.arrays import Answers, Array
from convert.model.original import Role
from convert.model.schema import Limits, Schema
from convert.proof import parity
from convert.proof.candidate import Candidate, feeds
from convert.proof.certificate import Parity, Reports
from convert.proof.comparison import ParityComparison
from convert.proof.rows import MOST_SAMPLE_ROWS, SEED, Batch

_SUM_OF_SHARES = 1e-3  # how far the sum of probabilities written in a table may be from 1


def convert_graph(
    path: Path,
    sample: pd.DataFrame,
    expected: Sequence[str],
    *,
    name: str,
    version: str,
    source: str = "",
    run: str = "",
    trained_with: dict[str, str] | None = None,
    tolerance: Tolerance | None = None,
    known: held_out.Sample = held_out.TRAINING,
    reports: Reports = lambda report: None,
) -> Conversion:
    """Return the graph in `path`, proved to give the answers that `sample` expects of it, or refuse.

    `expected` holds `COLUMN[,COLUMN]` or `OUTPUT=COLUMN[,COLUMN]`; the sample's other columns fill the inputs, by name
    where every input is one column, else in order. Outputs without an expected answer are left out of the bundle: they
    are not proved. `known` says whether the model was trained on the sample, and its true answers. Raises Misuse,
    InvalidInput, ConversionRefused, and ParityFailed for other answers.
    """
    check_name(name)
    check_version(version)
    tolerance = parity.check_tolerance(tolerance)
    graph = onnx_file.read(path)
    columns = _expected_columns(graph.outputs, sample, expected)
    frame = sample.head(MOST_SAMPLE_ROWS).reset_index(drop=True)
    taken = [column for own in columns.values() for column in own]
    table = _schema(graph.inputs(), frame.drop(columns=taken))
    made, recorded = _candidate(graph, table, {output: frame[own] for output, own in columns.items()})
    proof = _prove(recorded, made, tolerance)
    reports(proof.report)
    if not proof.report.passed:
        failure = parity.failure(proof.report)
        next_step = "check that this graph gave these answers for these rows, or state a wider --tolerance"
        raise ParityFailed("prove that the graph gives the answers expected of it", failure.found, next_step)
    provenance = Provenance(
        source=source or path.name,
        sha256=graph.sha256,
        model_type="onnx",
        libraries=proof.report.libraries,
        run=run,
        trained_with=trained_with or {},
    )
    truth = None if known.truth is None else known.truth[: len(frame)]
    return assemble(
        made,
        proof,
        graph.model,
        provenance,
        name,
        version,
        recorded.task,
        recorded.class_labels,
        held_out.Sample(known.unseen, truth),
        lambda: recorded.known,
    )


@dataclass(frozen=True, slots=True)
class _GraphSchema(Schema):
    """A table's columns, and the graph's own tensors that they fill."""

    tensors: tuple[Input, ...] = ()

    def inputs(self, float_type: TensorType, limits: Limits) -> list[Input]:
        """Return the graph's tensors: their types are settled already."""
        return list(self.tensors)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """The answers that a table expects; the column `row` holds each row's number."""

    methods: dict[str, str]
    roles: dict[str, Role]
    task: Task
    class_labels: list[Label]
    known: Answers
    row: str

    def answers(self, frame: pd.DataFrame) -> Answers:
        """Return {output name: array [rows, ...]} for rows of the table."""
        return {name: array[frame[self.row].to_numpy()] for name, array in self.known.items()}

    def equivalents(self, frame: pd.DataFrame) -> list[Answers]:
        """Return nothing: only the written answers are known."""
        return []

    def shares_drawn(self, frame: pd.DataFrame) -> None:
        """Return nothing: no label depends on rounding errors."""


def _expected_columns(outputs: list[str], sample: pd.DataFrame, expected: Sequence[str]) -> dict[str, list[str]]:
    """Return {output: columns of the sample that hold its answers}."""
    tried = "find the answers expected of the graph"
    if not expected:
        next_step = "add the right answers to the sample's rows, and name their columns with --expected [OUTPUT=]COLUMN"
        raise Misuse(tried, f"an ONNX file has no original to ask; its outputs are {', '.join(outputs)}", next_step)
    columns: dict[str, list[str]] = {}
    for entry in expected:
        output, equals, names = entry.rpartition("=")
        if not equals and len(outputs) != 1:
            raise Misuse(tried, f"--expected {entry} names no output", f"write OUTPUT=COLUMN; {', '.join(outputs)}")
        output = output or outputs[0]
        if output not in outputs or output in columns:
            found = f"--expected names {output!r} twice" if output in columns else f"the graph has no output {output!r}"
            raise Misuse(tried, found, f"name each of {', '.join(outputs)} at most once")
        columns[output] = names.split(",")
    if lacking := [name for own in columns.values() for name in own if name not in sample.columns]:
        found = f"the sample has no column {', '.join(map(repr, lacking))}"
        raise InvalidInput(tried, found, f"name some of {', '.join(map(str, sample.columns))}")
    return columns


def _schema(inputs: list[GraphInput], frame: pd.DataFrame) -> _GraphSchema:
    """Return how the table's columns fill the graph's inputs."""
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    names = [tensor.name for tensor in inputs]
    named = len(inputs) > 1 and all(tensor.width == 1 for tensor in inputs)
    columns = names if named else list(frame.columns)
    typed = schema.infer(SimpleNamespace(feature_names_in_=columns), frame)
    gaps = {column.name for column in typed.columns if column.has_missing}
    tensors, start = [], 0
    for tensor in inputs:
        width = len(columns) - start if tensor.width is None else tensor.width
        own = columns[start : start + width]
        missing = bool(gaps.intersection(own)) and tensor.type in ("float16", "float32", "float64")
        tensors.append(Input(name=tensor.name, type=tensor.type, shape=[-1, width], columns=own, missing=missing))
        start += width
    if start != len(columns) or not columns:
        wanted = ", ".join(f"{t.name} ({t.width or 'any number'})" for t in inputs)
        found = f"its inputs take {start} columns ({wanted}), and the sample has {len(columns)}: {', '.join(columns)}"
        raise InvalidInput("match the sample's columns with the graph's inputs", found, "leave columns out by --target")
    return _GraphSchema("table", typed.columns, typed.frame, tensors=tuple(tensors))


def _candidate(
    graph: PrebuiltGraph, table: _GraphSchema, expected: dict[str, pd.DataFrame]
) -> tuple[Candidate, _Recorded]:
    """Return the graph as the device will run it, and what is expected of it."""
    graph.take_tables({tensor.name: tensor.shape[1] for tensor in table.tensors})
    given = _first_answers(graph, table, list(expected))
    known = {output: _as_answer(output, frame, given[output]) for output, frame in expected.items()}
    roles = _roles(known)
    names: dict[str, str] = {}
    for output, own_role in roles.items():
        new = output if own_role == "other" else own_role
        while new in (*names.values(), *(column.name for column in table.columns)):
            new += "_"
        names[output] = new
    graph.keep(names, [output for output, array in given.items() if array.ndim == 2 and array.shape[1] == 1])
    session = Session(content := graph.serialized())
    outputs = tuple(
        Output(
            name=names[output],
            type=cast(TensorType, session.outputs[names[output]]),
            shape=[-1, *known[output].shape[1:]],
            role=own_role,
        )
        for output, own_role in roles.items()
    )
    row = "row"
    while row in table.frame:
        row += "_"
    methods = {names[output]: ",".join(expected[output].columns) for output in roles}
    answers = {names[output]: known[output] for output in roles}
    own_roles = {names[output]: role for output, role in roles.items()}
    recorded = _Recorded(methods, own_roles, *_task(roles, known, graph.labels), answers, row)
    float_type: TensorType = "float64" if any(t.type == "float64" for t in table.tensors) else "float32"
    return Candidate(content, session, table, outputs, float_type), recorded


def _first_answers(graph: PrebuiltGraph, table: _GraphSchema, outputs: list[str]) -> Answers:
    """Return the graph's answers to the first rows, which show the shapes and dtypes of its outputs."""
    try:
        rows = feeds(table, table.frame.head(3), "float32", Limits())
        return dict(zip(outputs, Session(graph.serialized()).run(rows, outputs), strict=True))
    except NotReady as error:
        raise ConversionRefused("load the ONNX graph", error.found, "export it with standard operators") from error


def _as_answer(output: str, frame: pd.DataFrame, given: Array) -> Array:
    """Return the expected columns in the output's shape, numbers as they are and texts as objects."""
    tried = f"read the answers expected of {output!r}"
    if frame.isna().any(axis=None):
        raise InvalidInput(tried, f"there are gaps in {', '.join(frame.columns)}", "leave out rows without an answer")
    if given.shape[:1] != (min(3, len(frame)),) or int(np.prod(given.shape[1:])) != frame.shape[1]:
        found = f"the graph answers {list(given.shape)} for {min(3, len(frame))} rows, and {frame.shape[1]} are named"
        raise InvalidInput(tried, found, "name a column for each number in a row's answer, and one answer for a row")
    values = frame.to_numpy()
    if given.dtype.kind in "OUS":
        values = values.astype(str).astype(object)
    elif values.dtype.kind not in "biuf":
        raise InvalidInput(tried, f"the graph answers {given.dtype}, and the columns hold texts", "give numbers")
    shape = given.shape[1:] if given.shape[1:] != (1,) else ()
    return np.asarray(values.reshape(len(frame), *shape))


def _roles(known: Answers) -> dict[str, Role]:
    """Return which part of a prediction each output is, found from the expected answers."""
    if len(known) == 1:
        return dict.fromkeys(known, "prediction")
    labels = [output for output, array in known.items() if array.ndim == 1 and array.dtype.kind in "Oiub"]
    prediction = next(iter(labels), next(iter(known)))
    roles: dict[str, Role] = {}
    for output, array in known.items():
        role: Role = "prediction" if output == prediction else "other"
        if output != prediction and labels and array.ndim == 2 and "probability" not in roles.values():
            shares = array.dtype.kind == "f" and bool((np.abs(array.sum(axis=1) - 1) < _SUM_OF_SHARES).all())
            role = "probability" if shares and bool((array >= 0).all()) else "score"
        roles[output] = role if role == "other" or role not in roles.values() else "other"
    return roles


def _task(roles: dict[str, Role], known: Answers, named: list[Label]) -> tuple[Task, list[Label]]:
    """Return what the model does, and its class labels in the order of the probabilities' columns."""
    parts = {role: known[output] for output, role in roles.items()}
    prediction, shares = parts["prediction"], parts.get("probability")
    if prediction.ndim > 1 or prediction.dtype.kind == "f":
        return "regression", []
    if shares is None or len(named) == shares.shape[1]:
        return "classification", named
    chosen = shares.argmax(axis=1)
    labels = [set(prediction[chosen == index].tolist()) for index in range(shares.shape[1])]
    if any(len(own) != 1 for own in labels):
        found = "the sample's rows do not show which label belongs to which probability"
        raise InvalidInput("find the class labels", found, "give rows of every class, with their expected label")
    return "classification", [own.pop() for own in labels]


def _prove(recorded: _Recorded, made: Candidate, tolerance: Tolerance) -> parity.Proof:
    """Return the proof on the table's rows: all at once, in reverse order, and some one by one."""
    rows = made.schema.frame.assign(**{recorded.row: np.arange(len(made.schema.frame))})
    backwards = rows.iloc[::-1].reset_index(drop=True)
    comparison = ParityComparison(recorded, made, tolerance)
    limits = Limits()
    batches = [
        Batch("sample", f"the sample's rows, at most {MOST_SAMPLE_ROWS}, with the answers expected of them", rows),
        Batch("turned", "the same rows in the opposite order", backwards),
    ]
    evidence = [(batch, comparison.compare(batch, limits).answers) for batch in batches]
    kinds = [comparison.kind(batch) for batch in batches]
    kinds.append(comparison.compare_one_by_one(batches[0], limits))
    report = Parity(
        passed=comparison.passed,
        float_type=made.float_type,
        why="the graph is taken as it is",
        seed=SEED,
        tolerance=tolerance,
        kinds=kinds,
        outputs=comparison.outputs(),
        worst=comparison.worst(),
        notes=[
            "made elsewhere: proved against the answers given with the sample, on its rows alone",
            *parity.of_sample(made.schema),
            *parity.little_left(comparison),
        ],
        attempts=[],
        libraries=libraries(),
    )
    return parity.Proof(report, limits, evidence)

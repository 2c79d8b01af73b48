"""The recipe: a trained model and a sample become a graph, its proof, and the bundle that carries both."""

import hashlib
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import onnx
import pandas as pd

from appliance.bundle.manifest import Provenance, TensorType, Tolerance, check_name, check_version
from appliance.errors import ConversionRefused, ParityFailed
from convert import held_out
from convert.assemble import assemble, libraries
from convert.conversion import Conversion
from convert.converters import boosting, float32_inputs, isolation, skl2onnx_graph
from convert.model import schema
from convert.model.arrays import Array
from convert.model.original import Original
from convert.proof import candidate, diverging, parity
from convert.proof.certificate import Attempt, Reports
from convert.proof.limits import probe
from convert.proof.rows import MOST_SAMPLE_ROWS
from convert.sources import native_boosters
from convert.sources.local_file import SourceModel

_PROBE_ROWS = 5

Progress = Callable[[str], None]
Proved = Callable[[int, int], None]


def convert_model(
    model: Any,
    sample: pd.DataFrame | Array | list[str],
    *,
    name: str = "model",
    version: str = "0.1.0",
    outputs: list[str] | None = None,
    tolerance: Tolerance | None = None,
    source: SourceModel | None = None,
    known: held_out.Sample = held_out.TRAINING,
    time_limit: float = isolation.TIME_LIMIT,
    progress: Progress = lambda message: None,
    reports: Reports = lambda report: None,
    proved: Proved = lambda done, total: None,
) -> Conversion:
    """Return `model` converted to ONNX and proved on `sample` and rows around it, or refuse.

    `sample` holds rows as the model was trained on, its answers left out: a table, an array, or texts. `outputs` picks
    some of `prediction`, `probability` and `score`; all that the model has by default. `known` says whether the model
    was trained on the sample, and its true answers. float32 inputs are tried first, then float64. `time_limit` is in
    seconds for each conversion; `progress` hears of each step that begins, `proved` of the rows proved and all to be
    proved in it, and `reports` of every proof.
    Raises ConversionRefused, ParityFailed for a graph that answers otherwise, Misuse and InvalidInput.
    """
    model = native_boosters.estimator_of(model)
    recipe = _Recipe(
        model,
        sample,
        check_name(name),
        check_version(version),
        outputs,
        tolerance,
        source,
        progress,
        reports,
        known,
        proved,
    )
    return recipe.run(time_limit)


class _Recipe:
    """One conversion under way: tries each floating-point type until a graph passes."""

    def __init__(
        self,
        model: Any,
        sample: Any,
        name: str,
        version: str,
        outputs: list[str] | None,
        tolerance: Tolerance | None,
        source: SourceModel | None,
        progress: Progress,
        reports: Reports,
        known: held_out.Sample,
        proved: Proved = lambda done, total: None,
    ) -> None:
        self.known = known
        self.name, self.version = name, version
        self.tolerance = parity.check_tolerance(tolerance)
        self.progress, self.reports, self.proved = progress, reports, proved
        self.source = source or SourceModel(model, "memory", _digest(model))
        self.original = original_of(model, sample, outputs)
        self.schema = self.original.schema
        self.kept_from_float32 = float32_inputs.kept_from(model, self.schema.columns)
        self.libraries = libraries(model)

    def run(self, time_limit: float) -> Conversion:
        self._check_sample()
        self.progress("asking the original model what it takes")
        limits = probe(self.original)
        attempts: list[Attempt] = []
        failures: list[ConversionRefused] = []
        for float_type in self._float_types():
            try:
                self.progress(f"converting to ONNX with {float_type} inputs")
                made = self._candidate(self.original, float_type, limits, time_limit)
                self.progress(f"proving the {float_type} graph")
                proof = parity.prove(self.original, made, limits, self.tolerance, self.libraries, proved=self.proved)
                proof = _with_story(proof, attempts, self.kept_from_float32, self.schema.wide)
                if proof.first_off is not None and float_type == self._float_types()[-1]:
                    proof = self._with_step(proof, float_type, time_limit)
                self.reports(proof.report)
                if refused := self.original.watch.refusal():
                    raise refused  # found while the proof asked its rows
                if proof.report.passed:
                    return self._conversion(made, proof)
                raise parity.failure(proof.report)
            except ConversionRefused as error:
                failures.append(error)
                attempts.append(Attempt(float_type, f"{error.tried}: {error.found}".splitlines()[0]))
        # A wrong answer of one graph says more than why the other type could not be converted.
        raise next((error for error in reversed(failures) if isinstance(error, ParityFailed)), failures[0])

    def _check_sample(self) -> None:
        """Raise ConversionRefused when the original does not answer its own sample."""
        refusal = self.original.refusal(self.schema.frame)
        if isinstance(refusal, ConversionRefused):
            raise refusal
        if refusal is not None:
            found = f"{type(refusal).__name__}: {str(refusal).strip().splitlines()[0]}"
            raise ConversionRefused(
                "ask the original model with the sample", found, "give rows as the model was trained on"
            ) from refusal

    def _float_types(self) -> tuple[TensorType, ...]:
        """Return the floating-point types to try; a table of texts alone has nothing to choose."""
        if all(column.kind == "string" for column in self.schema.columns):
            return ("float32",)
        return ("float64",) if self.kept_from_float32 else ("float32", "float64")

    def _with_step(self, proof: parity.Proof, float_type: TensorType, time_limit: float) -> parity.Proof:
        """Return a proof that did not pass with the step from which the answers differ."""
        self.progress("finding the step from which the answers differ")

        def convert(part: Original) -> candidate.Candidate:
            return self._candidate(part, float_type, proof.limits, time_limit)

        found = diverging.first_step(self.original, convert, proof.limits, self.tolerance, proof.first_off)
        return msgspec.structs.replace(proof, report=msgspec.structs.replace(proof.report, diverged=found))

    def _candidate(
        self, original: Original, float_type: TensorType, limits: schema.Limits, time_limit: float
    ) -> candidate.Candidate:
        rows = self.schema.frame.iloc[:_PROBE_ROWS]
        answers = original.answers(rows)
        feeds = candidate.feeds(self.schema, rows, float_type, limits)
        inputs = self.schema.inputs(float_type, limits)
        content = skl2onnx_graph.convert(original, inputs, float_type, feeds, answers, time_limit)
        return candidate.build(content, original, answers, float_type)

    def _conversion(self, made: candidate.Candidate, proof: parity.Proof) -> Conversion:
        provenance = Provenance(
            source=self.source.file_name,
            sha256=self.source.sha256,
            model_type=self.original.model_type,
            libraries=self.libraries,
            run=self.source.run,
            trained_with=self.source.trained_with,
        )
        model = onnx.load_from_string(made.onnx)
        task, class_labels = self.original.task, self.original.class_labels
        rows = self.schema.frame.iloc[:MOST_SAMPLE_ROWS]
        known = held_out.Sample(self.known.unseen, None if self.known.truth is None else self.known.truth[: len(rows)])
        return assemble(
            made,
            proof,
            model,
            provenance,
            self.name,
            self.version,
            task,
            class_labels,
            known,
            lambda: self.original.answers(rows),
        )


def original_of(model: Any, sample: Any, outputs: list[str] | None = None) -> Original:
    """Return the original with the table it takes, asked in float64 where it compares what it computes.

    From float32 columns it computes in float32, and what it then compares depends on that rounding: another of two
    neighbours may be the nearest. Raises what `schema.infer` and `Original` raise.
    """
    table = schema.infer(model, sample, boosting.categories_of_training)
    compares = float32_inputs.kept_from(model, table.columns)
    return Original(model, table.widened() if compares else table, outputs)


def _with_story(
    proof: parity.Proof, attempts: list[Attempt], kept_from_float32: str, wide: tuple[str, ...]
) -> parity.Proof:
    """Return the proof with what was tried before, why this floating-point type was taken, and how it was asked."""
    float_type = proof.report.float_type
    why = "float32 inputs pass" if float_type == "float32" else "float32 inputs fail"
    if kept_from_float32 and float_type == "float64":
        why = f"float64 inputs: {kept_from_float32} may decide by a reading's last digit"
    elif proof.report.passed and float_type == "float64":
        why = f"float32 inputs fail and float64 inputs pass ({attempts[-1].outcome})"
    outcome = "passed" if proof.report.passed else parity.shortfall(proof.report)
    story = [*attempts, Attempt(float_type, outcome)]
    asked = (
        [f"the original was asked in float64: in float32 it rounds what {kept_from_float32} compares"] if wide else []
    )
    notes = [*proof.report.notes, *asked]
    report = msgspec.structs.replace(proof.report, why=why, attempts=story, notes=notes)
    return msgspec.structs.replace(proof, report=report)


def _digest(model: Any) -> str:
    """Return the SHA-256 of a model in memory, as pickled."""
    try:
        return hashlib.sha256(pickle.dumps(model, protocol=5)).hexdigest()
    except Exception as error:  # an object that cannot be pickled may raise anything
        raise ConversionRefused(
            "take the model's digest", f"it cannot be pickled ({error})", "replace lambdas"
        ) from error

"""One conversion or lint of a fetched model, from loading to result, all in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from appliance.bundle.manifest import Tolerance
from appliance.errors import InvalidInput, Misuse
from convert.sources.fetched import Fetched

if TYPE_CHECKING:
    import pandas as pd

    from convert import held_out
    from convert.conversion import Conversion
    from convert.lint import Finding
    from convert.proof.certificate import Parity, Reports

FEW_ROWS = 20


class Progress(Protocol):
    """Called at the start of each step."""

    def __call__(self, message: str, loads: bool = False) -> None:
        """Take the name of the step. `loads`: it only loads the model, so the time limit of one call holds."""


@dataclass(frozen=True, slots=True)
class Job:
    """What `appliance convert` was asked to do; `time_limit` is in seconds for each conversion to ONNX.

    `held_out` says that the model was not trained on the sample, `item` which part of a pickled object the model is.
    `texts` are columns of a CSV sample that hold texts.
    """

    fetched: Fetched
    name: str
    version: str
    sample: Path | None = None
    target: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    tolerance: Tolerance | None = None
    time_limit: float = 120.0
    held_out: bool = False
    item: str = ""
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LintJob:
    """What `appliance lint` was asked to lint; `time_limit` is in seconds for loading the model."""

    fetched: Fetched
    time_limit: float = 120.0
    item: str = ""


def run_lint(job: LintJob, progress: Progress) -> "list[Finding]":
    """Load the model and return what is known of each of its steps; loading a pickle runs the code in it, here.

    Raises what `local_file.load` and `lint` raise.
    """
    from convert.lint import lint
    from convert.sources import local_file

    _take_code(job.fetched)
    progress("loading the model", loads=True)
    source = local_file.load(job.fetched.path, job.fetched.format, job.item)
    progress("looking at its steps")
    return lint(source.model)


def run(
    job: Job, progress: Progress, reports: "Reports", proved: Callable[[int, int], None] = lambda done, total: None
) -> "tuple[Conversion, tuple[str, ...]]":
    """Load the model, convert and prove it; return the conversion and notes on it.

    Loading a pickle runs the code in it, here. Raises what `convert_model` and `convert_graph` raise, and Misuse when
    there are no rows to prove the model with.
    """
    fetched = job.fetched
    if job.sample is None and fetched.example is None:
        raise _no_rows(fetched)
    from convert import build, prebuilt_onnx, reuse
    from convert.sources import local_file

    of = reuse.digests(job)  # before the model's own code can change a file
    before = set(sys.modules)
    _take_code(fetched)
    sample, known, notes = _sample(job)

    def report(found: "Parity") -> None:
        reports(reuse.stamped(found, of, reuse.own_modules(before)))

    if fetched.format == "onnx":
        progress("proving the graph")
        conversion = prebuilt_onnx.convert_graph(
            fetched.path,
            sample,
            job.expected,
            name=job.name,
            version=job.version,
            source=fetched.source,
            run=fetched.run,
            trained_with=fetched.libraries,
            tolerance=job.tolerance,
            known=known,
            reports=report,
        )
        return reuse.with_digests(conversion, of, reuse.own_modules(before)), notes
    if job.expected:
        found = f"{fetched.path.name} holds the original model, which answers for itself"
        raise Misuse("use --expected", found, "leave it out; name the answers in the sample with --target")
    progress("loading the model", loads=True)
    source = local_file.load(fetched.path, fetched.format, job.item)
    source = replace(source, file_name=fetched.source, run=fetched.run, trained_with=fetched.libraries)
    progress("reading what the model takes")
    sample = _with_model_names(sample, source.model)
    conversion = build.convert_model(
        source.model,
        _as_trained(job, sample, source.model),
        name=job.name,
        version=job.version,
        outputs=list(job.outputs) or None,
        tolerance=job.tolerance,
        source=source,
        known=known,
        time_limit=job.time_limit,
        progress=progress,
        reports=report,
        proved=proved,
    )
    conversion = reuse.with_digests(conversion, of, reuse.own_modules(before))
    return conversion, (*notes, *_surplus(sample, source.model), *source.warnings)


def _take_code(fetched: Fetched) -> None:
    """Let a pickle import the modules that came with it."""
    if (
        fetched.code is not None and fetched.runs_code
    ):  # last on the path: else a module there could replace one of ours
        sys.path.append(str(fetched.code))


def _sample(job: Job) -> "tuple[pd.DataFrame, held_out.Sample, tuple[str, ...]]":
    """Return the rows to prove the model with, what is known of them, and notes: the table given, else the example."""
    from convert import held_out
    from convert.model import tables
    from convert.sources import mlflow_model

    if job.sample is not None:
        frame = tables.with_texts(job.sample, tables.read(job.sample), job.texts)
        if unknown := [column for column in job.texts if column not in frame.columns]:
            raise _no_column(frame, f"read --text {', '.join(unknown)} as texts")
    else:
        example = mlflow_model.example(job.fetched.example) if job.fetched.example else None
        if example is None:
            raise _no_rows(job.fetched)
        frame = example
    if unknown := [column for column in job.target if column not in frame.columns]:
        raise _no_column(frame, f"leave out --target {', '.join(unknown)}")
    truth = frame[list(job.target)] if job.target and job.held_out else None
    frame = frame.drop(columns=list(job.target))
    few = job.sample is None and len(frame) < FEW_ROWS
    note = f"proved around the registry's {len(frame)} example rows; --sample with more proves more"
    return frame, held_out.Sample(job.held_out, truth), (note,) if few else ()


def _no_column(frame: "pd.DataFrame", tried: str) -> InvalidInput:
    found = f"the sample has no such column; it has {', '.join(map(str, frame.columns))}"
    return InvalidInput(tried, found, "name one of them")


def _surplus(frame: "pd.DataFrame", model: Any) -> tuple[str, ...]:
    """Return a note on the columns of the sample that the model does not take, where it names those that it takes."""
    from convert.model import schema

    taken = schema.names_of(model)
    left = [] if taken is None else [name for name in frame.columns if str(name) not in taken]
    return (f"columns of the sample that the model does not take: {', '.join(map(str, left))}",) if left else ()


def _as_trained(job: Job, frame: "pd.DataFrame", model: Any) -> "pd.DataFrame":
    """Return the sample with texts where the model knows texts alone and the file is CSV, which has no types."""
    from convert.model import schema, tables, trained_on

    if job.sample is None:
        return frame
    names = schema.names_of(model) or [str(name) for name in frame.columns]
    return tables.with_texts(job.sample, frame, [names[at] for at in trained_on.text_columns(model, len(names))])


def _no_rows(fetched: Fetched) -> Misuse:
    found = "there are no rows to prove the model with, neither by --sample nor as an input example"
    return Misuse(f"convert {fetched.source}", found, "give --sample TABLE, rows the model was trained on")


def _with_model_names(frame: "pd.DataFrame", model: Any) -> "pd.DataFrame":
    """Return the table with the model's column names where LightGBM put underscores for the spaces in them."""
    wanted = {str(name) for name in getattr(model, "feature_names_in_", ())}
    renamed = {name: "_".join(str(name).split(" ")) for name in frame.columns if name not in wanted}
    return frame.rename(columns={name: new for name, new in renamed.items() if new in wanted - set(frame.columns)})

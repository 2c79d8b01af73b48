"""`appliance lint`: the steps of a model as they will convert, printed before training ends."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.errors import ConversionRefused
from convert import options
from convert.output import echo, notice, print_json

if TYPE_CHECKING:  # scikit-learn loads when a model is read, not when `appliance --help` lists commands
    from convert.lint import Finding


@click.command()
@options.model
@options.item
@options.trust
@options.time_limit("loading the model")
@options.as_json("the findings")
def lint(model: str, item: str, trust: tuple[str, ...], time_limit: float, as_json: bool) -> None:
    """Say which steps of MODEL convert, which do not, and what to use instead.

    MODEL is an estimator or a pipeline, trained or not, in a .joblib, .pkl, .pickle or .skops file, or a booster's
    own file; a path, or a registry's URL as for `appliance convert`.

    LOADING A PICKLE RUNS CODE, with your rights: give only files whose author you trust. A .skops file is read without
    running code from it.

    The exit code is 3 when a step does not convert. What only the data show is left to `appliance convert`, which
    proves the trained model.
    """
    findings = _findings(model, item, trust, time_limit)
    if as_json:
        print_json({"model": model, "steps": findings})
    else:
        for finding in findings:
            for line in _lines(finding):
                echo(line)
    if refused := [finding for finding in findings if finding.verdict == "refused"]:
        names = ", ".join(f"{finding.step or 'the model'} ({finding.estimator})" for finding in refused)
        raise ConversionRefused(f"lint {model}", f"no ONNX graph for {names}", refused[0].next_step)


def _findings(model: str, item: str, trust: tuple[str, ...], time_limit: float) -> "list[Finding]":
    from convert import child, sources
    from convert.job import LintJob

    with tempfile.TemporaryDirectory(prefix="appliance-lint-") as folder:
        fetched = sources.fetch(model, Path(folder))
        sources.check_trust(fetched, model, trust, notice)
        return child.lint(LintJob(fetched, time_limit, item))


def _lines(finding: "Finding") -> list[str]:
    text = f"{finding.verdict:9} {finding.step or '(model)':30} {finding.estimator}"
    return [text, f"{'':10}{finding.found}; {finding.next_step}"] if finding.found else [text]

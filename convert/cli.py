"""`appliance convert`: the options, the progress shown, and the report printed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.errors import ConfigError, InvalidInput

if TYPE_CHECKING:  # scikit-learn and its kind load when a conversion runs, not when `appliance --help` lists commands
    import pandas as pd

    from appliance.bundle.manifest import Tolerance
    from convert.build import Conversion
    from convert.parity import Parity


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the model on devices: lower case letters, digits, . _ -")
@click.option("--version", required=True, help="Version of the model, as 1.4.2 (SemVer).")
@click.option(
    "--sample", required=True, type=click.Path(path_type=Path), help="Rows the model was trained on: .csv or .parquet."
)
@click.option(
    "--target", multiple=True, help="Column of the sample that is the answer, not an input (may be repeated)."
)
@click.option(
    "--output", "outputs", multiple=True, help="Output to keep: prediction, probability, score (default: all)."
)
@click.option("--tolerance", type=float, help="Largest difference of numbers, absolute and relative (default: 1e-5).")
@click.option(
    "--time-limit", type=float, default=120.0, show_default=True, help="Seconds that one conversion may take."
)
@click.option(
    "-o", "folder", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Folder for the bundle."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON document.")
def convert(
    model: Path,
    name: str,
    version: str,
    sample: Path,
    target: tuple[str, ...],
    outputs: tuple[str, ...],
    tolerance: float | None,
    time_limit: float,
    folder: Path,
    as_json: bool,
) -> None:
    """Convert the trained MODEL to a bundle, NAME-VERSION.bundle, with proof that it answers the same.

    MODEL is a scikit-learn estimator or pipeline in a .joblib, .pkl, .pickle or .skops file.

    LOADING A PICKLE RUNS CODE: .joblib, .pkl and .pickle files do whatever their author wanted, with your rights.
    Convert only those whose author you trust. A .skops file is read without running code from it.

    The original and the ONNX graph answer the sample and thousands of rows around it. One label that flips, or one
    number beyond the tolerance, and there is no bundle: the exit code is 3 and the report names the rows.
    """
    from convert import build
    from convert.sources import local_file

    reports: list[Parity] = []
    try:
        source = local_file.load(model)
        conversion = build.convert_model(
            source.model,
            _inputs(sample, target),
            name=name,
            version=version,
            outputs=list(outputs) or None,
            tolerance=_tolerance(tolerance),
            source=source,
            time_limit=time_limit,
            told=_progress,
            reports=reports.append,
        )
    finally:
        if as_json and reports and not reports[-1].passed:
            _print_json(reports[-1])
    path = conversion.write(folder)
    if as_json:
        _print_json(conversion.parity, path)
    else:
        _print_summary(conversion, path, source.warnings)


def _inputs(sample: Path, target: tuple[str, ...]) -> "pd.DataFrame":
    """Return the sample without its answers."""
    from convert import schema

    frame = schema.read_table(sample)
    if unknown := [column for column in target if column not in frame.columns]:
        found = f"the sample has no such column; it has {', '.join(map(str, frame.columns))}"
        raise InvalidInput(f"leave out --target {', '.join(unknown)}", found, "name one of them")
    return frame.drop(columns=list(target))


def _tolerance(value: float | None) -> "Tolerance | None":
    from appliance.bundle.manifest import Tolerance

    if value is None:
        return None
    if not 0 <= value < 1:
        raise ConfigError(f"use --tolerance {value}", "it is not between 0 and 1", "give a small number, as 1e-4")
    return Tolerance(absolute=value, relative=value)


def _progress(message: str) -> None:
    """Show what is being done, on a terminal only."""
    if sys.stderr.isatty():
        click.echo(f"{message} ...", err=True)


def _print_json(report: "Parity", path: Path | None = None) -> None:
    """Print the report; `bundle` is the file written, null when the model was refused."""
    import msgspec

    document = {"bundle": str(path) if path else None, "parity": report}
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())


def _print_summary(conversion: "Conversion", path: Path, complaints: tuple[str, ...]) -> None:
    report = conversion.parity
    click.echo(f"{path}")
    click.echo(f"  {report.rows} rows answered alike; {report.why}")
    for output in report.outputs:
        difference = f"largest difference {output.largest_absolute:.2g}"
        click.echo(f"  {output.output} ({output.method}): {output.label_flips} label flips, {difference}")
    for note in (*report.notes, *complaints):
        click.echo(f"  note: {note}")

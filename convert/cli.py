"""`appliance convert`: the options, the progress shown, and the report printed."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.errors import ConfigError
from convert import options
from convert.output import echo, notice, overwrite, print_json

if TYPE_CHECKING:  # scikit-learn and its kind load when a conversion runs, not when `appliance --help` lists commands
    from appliance.bundle.manifest import Tolerance
    from convert.conversion import Conversion
    from convert.proof.certificate import OutputParity, Parity


_LEAST_SHOWN = 0.001  # of the tolerance


@click.command()
@options.model
@click.option("--name", required=True, help="Name of the model on devices: lower case letters, digits, . _ -")
@click.option("--version", required=True, help="Version of the model, as 1.4.2 (SemVer).")
@click.option(
    "--sample",
    type=click.Path(path_type=Path),
    help="Rows as the model was trained on: .csv or .parquet (default: the input example of an MLflow model).",
)
@click.option(
    "--target", multiple=True, help="Column of the sample that is the answer, not an input (may be repeated)."
)
@click.option(
    "--sample-is",
    type=click.Choice(["training", "held-out"]),
    default="training",
    show_default=True,
    help="Whether the model was trained on the sample. Held-out rows with --target also bring intervals at 90 %.",
)
@click.option(
    "--expected",
    multiple=True,
    metavar="[OUTPUT=]COLUMN[,COLUMN]",
    help="For an .onnx MODEL: columns of the sample with the answers that the graph must give (may be repeated).",
)
@click.option(
    "--text", "texts", multiple=True, metavar="COLUMN", help="Column of a CSV sample that holds texts, as 007 (repeat)."
)
@options.item
@options.trust
@click.option(
    "--output", "outputs", multiple=True, help="Output to keep: prediction, probability, score (default: all)."
)
@click.option("--tolerance", type=float, help="Largest difference of numbers, absolute and relative (default: 1e-5).")
@click.option(
    "--reuse",
    "earlier",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="An earlier bundle of yours: where nothing changed but name and version, its certificate is taken over.",
)
@options.time_limit("one conversion")
@click.option("--memory-limit", type=float, help="GiB that it may take (default: 0.8 of this machine's).")
@click.option(
    "--sign", "key_file", type=click.Path(path_type=Path, dir_okay=False), metavar="KEY", help="Sign with this key."
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="APPLIANCE_KEY_PASSWORD_FILE",
    help="File whose first line is the key's password; without it, a terminal is asked.",
)
@click.option(
    "-o", "folder", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Folder for the bundle."
)
@click.option("--force", is_flag=True, help="Replace a bundle of the same name and version that holds something else.")
@options.as_json("the report")
def convert(
    model: str,
    name: str,
    version: str,
    sample: Path | None,
    target: tuple[str, ...],
    sample_is: str,
    expected: tuple[str, ...],
    texts: tuple[str, ...],
    item: str,
    trust: tuple[str, ...],
    outputs: tuple[str, ...],
    tolerance: float | None,
    earlier: Path | None,
    time_limit: float,
    memory_limit: float | None,
    key_file: Path | None,
    password_file: Path | None,
    folder: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Convert the trained MODEL to a bundle, NAME-VERSION.bundle, with proof that it answers the same.

    MODEL is a scikit-learn estimator or pipeline in a .joblib, .pkl, .pickle or .skops file; a booster in LightGBM's
    (.txt), XGBoost's (.json, .ubj) or CatBoost's (.cbm) own file; or an .onnx graph made elsewhere. It is a path, or
    the URL of a registry: models:/NAME/VERSION, models:/NAME@ALIAS, runs:/RUN_ID/PATH (MLflow), dvc:PATH@REV,
    s3://BUCKET/KEY, sagemaker:GROUP/VERSION.

    LOADING A PICKLE RUNS CODE: .joblib, .pkl and .pickle files do whatever their author wanted, with your rights.
    Convert only those whose author you trust; a registry's pickles need --trust. A .skops file, a booster's own and
    an .onnx file are read without running code from them.

    The original and the ONNX graph answer the sample and thousands of rows around it. One label that flips, or one
    number beyond the tolerance, and there is no bundle: the exit code is 3 and the report names the rows.
    """
    from appliance.bundle import manifest
    from convert import child, reuse, sources
    from convert.job import Job
    from convert.progress import Shown

    manifest.check_name(name)
    manifest.check_version(version)
    agreed = _tolerance(tolerance)
    private_key, password = _key(key_file, password_file)  # before the long work, so that a mistake is reported at once
    memory = _bytes(memory_limit)
    reports: list[Parity] = []
    shown = Shown(overwrite, sys.stderr.isatty())
    with tempfile.TemporaryDirectory(prefix="appliance-convert-") as fetch_folder:
        shown.step(f"fetching {model}")
        fetched = sources.fetch(model, Path(fetch_folder))
        sources.check_trust(fetched, model, trust, notice)
        unseen = sample_is == "held-out"
        job = Job(fetched, name, version, sample, target, expected, outputs, agreed, time_limit, unseen, item, texts)
        conversion, changed = reuse.find(earlier, job) if earlier else (None, [])
        if changed:
            notice(f"{earlier} is not reused, since this changed: {', '.join(changed)}")
        notes: tuple[str, ...] = (f"nothing changed since {earlier}: its certificate is taken over",)
        try:
            if conversion is None:
                conversion, notes = child.convert(job, shown.step, reports.append, memory, shown.proved, shown.tick)
        finally:
            shown.end()
            if as_json and reports and not reports[-1].passed:
                _print_json(reports[-1])
    path = conversion.write(folder, private_key, password, force=force)
    if as_json:
        _print_json(conversion.parity, path)
    else:
        _print_summary(conversion, path, notes)


def _key(file: Path | None, password_file: Path | None) -> tuple[bytes | None, bytes | None]:
    """Return the private key to sign with and its password. Raises NotFound and Misuse."""
    from appliance.bundle import keys

    if file is None:
        return None, None

    def ask() -> bytes:
        return str(click.prompt(f"Password of {file}", hide_input=True, err=True)).encode()

    private_key = keys.read_file(file)
    password = keys.password_of(private_key, password_file, ask if sys.stdin.isatty() else None)
    keys.load_private_key(private_key, password)
    return private_key, password


def _bytes(gibibytes: float | None) -> int | None:
    if gibibytes is None:
        return None
    if not gibibytes > 0:
        raise ConfigError(f"use --memory-limit {gibibytes}", "it is not above 0", "give GiB, as 4")
    return int(gibibytes * 2**30)


def _tolerance(value: float | None) -> "Tolerance | None":
    from appliance.bundle.manifest import Tolerance

    if value is None:
        return None
    if not 0 <= value < 1:
        raise ConfigError(f"use --tolerance {value}", "it is not between 0 and 1", "give a small number, as 1e-4")
    return Tolerance(absolute=value, relative=value)


def _print_json(report: "Parity", path: Path | None = None) -> None:
    """Print the report; `bundle` is the file written, null when the model was refused."""
    print_json({"bundle": str(path) if path else None, "parity": report})


def _told(output: "OutputParity") -> str:
    """Return what one output came to, its share of the tolerance first: an absolute difference alone says little."""
    share = f"{_percent(output.largest_share)} of the tolerance, " if output.largest_share is not None else ""
    return f"{share}{output.label_flips} label flips (largest difference {output.largest_absolute:.2g})"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= _LEAST_SHOWN or not share else f"under {_LEAST_SHOWN:.1%}"


def _print_summary(conversion: "Conversion", path: Path, complaints: tuple[str, ...]) -> None:
    report = conversion.parity
    echo(f"{path}")
    echo(f"  {report.rows} rows gave the same answer; {report.why}")
    for output in report.outputs:
        echo(f"  {output.output} ({output.method}): {_told(output)}")
    if report.search is not None:
        share = _percent(report.search.largest_share or 0.0)
        echo(f"  searched for the worst row among {report.search.rows} more: {share} of the tolerance")
    for note in (*report.notes, *complaints):
        echo(f"  note: {note}")

"""`appliance replay`: run a version on logged rows, offline, and compare with the logged answers."""

from pathlib import Path
from typing import Any

import click

from appliance.cli import as_json, common_options, options
from appliance.cli.log import period_of, since, until
from appliance.cli.output import echo, print_json
from appliance.errors import NotFound, Refused
from appliance.store.versions import Store


@click.command()
@click.argument("name")
@click.option("--version", "version", required=True, help="The installed version that is asked.", metavar="V")
@since
@until
@click.option("-o", "output", type=click.Path(path_type=Path), help="Each row's comparison: FILE.jsonl or .parquet.")
@as_json
@common_options
def replay(name: str, version: str, since: str | None, until: str | None, output: Path | None, as_json: bool) -> None:
    """Run VERSION of the model NAME on the rows of its log, and compare with the logged answers.

    With labels in the log it also shows how often each was right. Exit code 3 if the version that wrote the log now
    gives other answers: this host computes differently than before.
    """
    from appliance.experiments import replay as replaying
    from appliance.inference.version import LoadedVersion
    from appliance.monitoring.prediction_log import export

    period = period_of(since, until)
    config = options().config()
    store = Store.of(config)
    opened = store.installed(name, version)
    loaded = LoadedVersion(store.folder(name, version), config.models.threads, opened=opened)
    result = replaying.Replayed(name, version, list(loaded.manifest.class_labels))
    rows = export.rows(config.state_dir, name, None, period)
    compared = replaying.replay(rows, loaded, export.labels(config.state_dir, name), result)
    if output:
        export.write(compared, output)
    else:
        for _ in compared:
            pass
    if not result.rows and not result.refused:
        if result.skipped:
            raise Refused(f"replay {name}", "; ".join(result.skipped), "log rows as they are sent from now on")
        raise NotFound(
            f"replay {name}", "no row was logged in this time", "see: appliance log tail, or leave out --since"
        )
    document = result.as_dict()
    print_json(document) if as_json else echo(*_lines(document))
    if result.same_version_differs:
        found = f"{result.same_version_differs} of {result.same_version} rows are beyond the tolerance"
        next_step = "see: appliance doctor, and status --json for processor and onnxruntime; then log verify"
        raise Refused(f"replay {name} {version} on the rows that it had answered", found, next_step)


def _lines(document: dict[str, Any]) -> list[str]:
    """Return the result for a person."""
    agreement, difference = document["agreement"], document["difference"]
    said = [f"{document['model']} {document['version']}: {document['rows']} rows replayed"]
    if agreement is not None:
        said[0] += f", {100 * agreement:.2f} % alike"
    if difference:
        shown = {level: "no number" if value is None else f"{value:.3g}" for level, value in difference.items()}
        said.append("difference: " + ", ".join(f"q{level} {text}" for level, text in shown.items()))
    said += [f"skipped {count} rows: {why}" for why, count in document["skipped"].items()]
    if document["refused"]["rows"]:
        said.append(f"refused {document['refused']['rows']} rows, the first: {document['refused']['first']}")
    for row in document["worst_rows"][:5]:
        said.append(f"row {row['_id']}: {row['_logged']} then, {row['_replayed']} now ({row['_difference']:.3g})")
    truth = document["truth"]
    if truth["rows"]:
        figure = next(iter(truth["logged"]))
        name = figure.replace("_", " ")
        then, now = truth["logged"][figure], truth["replayed"][figure]
        said.append(f"{truth['rows']} rows with a label: {name} {then:.4g} then, {now:.4g} now")
        better = {"replayed": f"{document['version']} is better", "logged": f"{document['version']} is worse"}
        said.append(better.get(truth["better"] or "", "no difference is proved") + " (sign test, 1 %)")
    return said

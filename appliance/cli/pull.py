"""The commands for hosts that only connect out: pull fetches signed bundles from a source, index lists a source's
bundles.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli import as_json, common_options, exit_code, options, report
from appliance.cli.models import DIFFERS, self_test
from appliance.cli.output import echo, echo_json, print_json
from appliance.errors import NotFound
from appliance.pull import puller, sources

if TYPE_CHECKING:
    from appliance.pull.puller import PullResult


@click.command()
@click.option("--again", is_flag=True, help="Also try bundles that were refused before.")
@click.option("--dry-run", is_flag=True, help="Only say what would be fetched.")
@click.option(
    "--allow-older",
    is_flag=True,
    help="Also take a version that is older than the newest ever installed ([pull] allow_older).",
)
@click.option(
    "--inputs-changed",
    is_flag=True,
    help=f"{DIFFERS} ([pull] inputs_changed)",
)
@as_json
@common_options
def pull(again: bool, dry_run: bool, allow_older: bool, inputs_changed: bool, as_json: bool) -> None:
    """Fetch, verify, install and activate what is new at [pull] source."""
    given = {"allow_older": allow_older, "inputs_changed": inputs_changed}
    said = {key: True for key, value in given.items() if value}
    outcomes = puller.pull(options().config(pull=said), self_test, again=again, dry_run=dry_run)
    if as_json:
        print_json({"changed": any(_changed(one) for one in outcomes), "bundles": [_document(one) for one in outcomes]})
    else:
        for one in outcomes:
            skipped = " (neither installed nor in [pull] models)" if one.what == "skipped" else ""
            named = f"{one.model} {one.version}" if one.model else one.label
            echo(f"{named} {one.what}{skipped}")
        if not outcomes:
            echo("nothing is offered")
    errors = [one.error for one in outcomes if one.error]
    for error in errors:
        report(error)
    click.get_current_context().exit(exit_code(errors[0]) if errors else 0)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@common_options
def index(folder: Path) -> None:
    """Print the index.json of the bundles in FOLDER, the newest version of each model, for hosts that pull."""
    if not folder.is_dir():
        raise NotFound(f"list {folder}", "there is no such folder", "check the path")
    echo_json(sources.index_of(folder), indent=1)


def _changed(outcome: "PullResult") -> bool:
    return outcome.what in ("activated", "installed")


def _document(outcome: "PullResult") -> dict[str, Any]:
    """Return an outcome for programs."""
    error = outcome.error
    found = {"tried": error.tried, "found": error.found, "next": error.next_step} if error else None
    return {
        "model": outcome.model,
        "version": outcome.version,
        "sha256": outcome.sha256,
        "what": outcome.what,
        "error": found,
    }

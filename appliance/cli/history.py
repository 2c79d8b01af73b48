"""`appliance history`: the receipts, what was done to the models of this host."""

import click

from appliance.cli import as_json, common_options
from appliance.cli.models import store_of
from appliance.cli.output import echo, print_json
from appliance.errors import NotFound
from appliance.store.receipts import Receipt


@click.command()
@click.argument("name", required=False)
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N.")
@as_json
@common_options
def history(name: str | None, last: int | None, as_json: bool) -> None:
    """Show what was done to the models of this host, or to NAME: installs, activations, roll backs, experiments.

    Times are UTC by this host's clock. Removed models are shown too.
    """
    store = store_of()
    found = [one for one in store.receipts() if name in (None, one.model)]
    if name and not found and not store.versions(name):
        raise NotFound(f"show the history of {name}", "no receipt names it", "see all: appliance history")
    shown = found[-last:] if last else found
    if as_json:
        print_json({"receipts": shown})
        return
    if not shown:
        echo("nothing was done yet; next: appliance install BUNDLE")
    for one in shown:
        echo(_line(one))


def _line(receipt: Receipt) -> str:
    """Return a receipt as one line."""
    refused = " REFUSED" if receipt.outcome == "refused" else ""
    words = f"{receipt.when}  {receipt.what:<11} {receipt.model} {receipt.version}{refused}"
    if receipt.experiment and "id" in receipt.experiment:
        words += f"  experiment {receipt.experiment['id']}"
    return f"{words}  {receipt.why}" if receipt.why else words

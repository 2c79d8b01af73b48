"""`appliance predict`: answers a few rows without a service."""

from pathlib import Path

import click

from appliance.cli import common_options, options, version_option
from appliance.cli.output import echo_json


@click.command()
@click.argument("model", metavar="NAME|BUNDLE")
@click.argument("rows")
@version_option
@click.option("--quality", is_flag=True, help="Also say how far to trust each row.")
@common_options
def predict(model: str, rows: str, version: str | None, quality: bool) -> None:
    """Answer ROWS with the model NAME, or with a BUNDLE that is not installed; no service is needed.

    ROWS is JSON as /predict takes it: a row or a list of rows, each a list or an object by column name; or a file that
    holds it; - is standard input.
    """
    from appliance.batch.scoring import OneVersion
    from appliance.cli.chosen_version import choose
    from appliance.cli.rows_argument import features_of
    from appliance.fallback import QualityPolicy
    from appliance.predictor import Predictor
    from appliance.response import as_rows, response_format

    config = options().config(files=[Path(model), Path(rows)] if not rows.lstrip().startswith(("[", "{")) else [])
    sent = as_rows(features_of(rows))
    loaded = choose(config, model, version).load(config.models.run_seconds)
    form = response_format(loaded)
    feeds = loaded.schema.from_rows(sent)
    refuse = config.models.overflow == "refuse"
    predictor = Predictor(OneVersion(loaded), refuse_overflow=refuse, quality=QualityPolicy.of(config))
    echo_json(form.to_json(predictor.run(loaded, feeds, form.outputs, quality=quality)), indent=-1)

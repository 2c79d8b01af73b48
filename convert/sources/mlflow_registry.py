"""Models in an MLflow registry: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, or a run's: `runs:/RUN_ID/PATH`.

The registry's address and login are MLflow's own settings (MLFLOW_TRACKING_URI, MLFLOW_REGISTRY_URI,
MLFLOW_TRACKING_TOKEN; https://mlflow.org/docs/latest/ml/model-registry/). `mlflow-skinny` suffices.
"""

import os
import re
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # no telemetry
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its own seven retries take minutes

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from appliance.errors import ApplianceError, Misuse, NotFound, NotReady
from convert.sources import mlflow_model
from convert.sources.fetched import Fetched, without_secrets

_MODEL = re.compile(r"models:/(?P<name>[^/@#]+)(?:/(?P<version>[0-9]+)|@(?P<alias>[^/@#]+))")
_RUN = re.compile(r"runs:/(?P<run>[0-9a-zA-Z_-]+)/(?P<path>[^#]+)")
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


def fetch(url: str, folder: Path) -> Fetched:
    """Return the model of `url`, put into `folder`. An alias is resolved first; the result names its version.

    Raises NotFound, NotReady when the server does not answer or does not let us in, Misuse for a malformed URL, and
    ConversionRefused for a model that we cannot read.
    """
    known, of_run = _MODEL.fullmatch(url), _RUN.fullmatch(url)
    if known is None and of_run is None:
        next_step = "write it as models:/pump/3, models:/pump@production or runs:/RUN_ID/model"
        raise Misuse(f"fetch {url}", "it names no version, alias or run", next_step)
    try:
        source, run = _settled(known) if known else (url, of_run["run"] if of_run else "")
        fetched = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(folder))
    except (MlflowException, OSError) as error:  # requests' errors are OSErrors
        kind: type[ApplianceError] = NotFound if getattr(error, "error_code", "") in _ABSENT else NotReady
        found = without_secrets(str(error).strip().splitlines()[0])
        raise kind(f"fetch {url}", found, "check the name, and MLFLOW_TRACKING_URI with its login") from error
    return mlflow_model.read(Path(fetched), source=source, run=run, local=False)


def _settled(known: re.Match[str]) -> tuple[str, str]:
    """Return the URL of a version by its number, and the run that made it."""
    client = MlflowClient()
    if known["alias"]:
        version = client.get_model_version_by_alias(known["name"], known["alias"])
    else:
        version = client.get_model_version(known["name"], known["version"])
    return f"models:/{known['name']}/{version.version}", version.run_id or ""

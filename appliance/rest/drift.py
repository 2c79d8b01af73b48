"""The route of drift: whether today's rows still look like training and like the device's own past."""

import msgspec

from appliance.drift_report import DriftReport
from appliance.rest.admin import one_model
from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.routes import Route


class DriftAnswer(msgspec.Struct):
    """The drift of each version of a model that has a role, the active one first."""

    model: str
    versions: list[DriftReport]


def _drift(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with the last window of each version that is watched. Raises NotFound."""
    name = one_model(context, variables["name"]).name
    versions = [served.loaded.version for served in context.models.roles(name).values() if served.loaded]
    reports = [context.drift(name, version) for version in dict.fromkeys(versions)]
    return json_response(DriftAnswer(name, [report for report in reports if report is not None]))


ROUTES = (
    Route("GET", "/models/{name}/drift", _drift, "What has drifted, column by column", response_type=DriftAnswer),
)

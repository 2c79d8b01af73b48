"""openapi.json, and the one table of all routes, which is served and described alike."""

import functools

from appliance.config import HttpConfig
from appliance.rest import (
    admin,
    columns,
    dashboard,
    docs,
    drift,
    experiment,
    feedback,
    health,
    history,
    invocations,
    kserve_v1,
    log,
    model_openapi,
    openinference,
    predict,
    sagemaker,
    status,
)
from appliance.rest.described import document
from appliance.rest.http_types import Context, Request, Response, encode_json
from appliance.rest.routes import Route, extra_routes


def _openapi(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with the document."""
    return Response(_encoded(context.config))


OPENAPI = Route("GET", "/openapi.json", _openapi, "This document", scope="none")

ALL_ROUTES = (
    *predict.ROUTES,
    *openinference.ROUTES,
    *invocations.ROUTES,
    *kserve_v1.ROUTES,
    *sagemaker.ROUTES,
    *health.ROUTES,
    *status.ROUTES,
    *admin.ROUTES,
    *history.ROUTES,
    *columns.ROUTES,
    *experiment.ROUTES,
    *log.ROUTES,
    *drift.ROUTES,
    *feedback.ROUTES,
    OPENAPI,
    *model_openapi.ROUTES,
    *docs.ROUTES,
    *dashboard.ROUTES,
)
"""Every route of the service, but for what the configuration adds (extra_routes); served and described alike."""


@functools.lru_cache(maxsize=1)
def _encoded(config: HttpConfig) -> bytes:
    """Return the document's bytes; made once, and not before it is asked for."""
    return encode_json(document((*ALL_ROUTES, *extra_routes(config, ALL_ROUTES))))

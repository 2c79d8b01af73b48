"""The routes that list what is installed and what serves, and the ones that change it for authorised callers."""

from collections.abc import Callable

import msgspec
from msgspec import UNSET, UnsetType, field

from appliance.bundle.manifest import Input, Output, Task
from appliance.errors import ApplianceError
from appliance.experiments import control, info
from appliance.monitoring.quality.standing import Standing
from appliance.repository import Served
from appliance.rest.http_types import Context, Request, Response, json_response
from appliance.rest.json_body import decode
from appliance.rest.routes import Route
from appliance.rest.status import ModelAtAGlance, glance
from appliance.store import activation

_MADE_HERE = "asked for over HTTP"


class ToleranceInfo(msgspec.Struct):
    """How far a number may be from the original model's: |a - b| <= absolute + relative * |b|.

    The manifest's own type leaves out defaults when it is written; here both numbers are always there.
    """

    absolute: float
    relative: float


class VersionInfo(msgspec.Struct):
    """One installed version."""

    version: str
    active: bool
    task: Task | None
    inputs: list[Input]
    outputs: list[Output]
    tolerance: ToleranceInfo | None
    """The tolerance of its conversion's proof and of its self-test."""
    problem: str
    """Why it cannot be read, "" when it can."""


class ModelInfo(ModelAtAGlance):
    """One model: its state in the store, and in this process."""

    experiment_problem: str
    """Why its record cannot be read, or which of its versions is missing; "" for nothing."""
    quality: Standing | None
    """Whether labels say that it is worse than its past; null where nothing is known. See /models/{name}/quality."""
    versions: list[VersionInfo]
    """Oldest first."""
    model_name: str | UnsetType = field(default=UNSET, name="modelName")
    """The name again, as SageMaker lists the models that are loaded; absent where no version serves."""
    model_url: str | UnsetType = field(default=UNSET, name="modelUrl")
    """The folder of the version that serves, beside it."""


class Models(msgspec.Struct):
    """Every model."""

    models: list[ModelInfo]


class ActivateRequest(msgspec.Struct, forbid_unknown_fields=True):
    """How to activate; the body may be left out."""

    inputs_changed: bool = False
    """Whether its inputs, outputs or labels may differ from the active version's."""
    why: str = _MADE_HERE


def _models(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with every model."""
    served = {model.name: model for model in context.models.served()}
    return json_response(Models([_model_info(context, name, served.get(name)) for name in context.store.names()]))


def _model(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer with one model."""
    return json_response(one_model(context, variables["name"]))


def _activate(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Make a version the active one."""
    name, version = variables["name"], variables["version"]
    asked = decode(request.body() or b"{}", ActivateRequest, context.limits)
    key = ("activate", name, version, *["inputs changed"] * asked.inputs_changed)  # the same request joins this one
    return _change(context, key, lambda: activation.activate(
        context.store, name, version, context.self_test, why=asked.why, inputs_changed=asked.inputs_changed
    ))  # fmt: skip


def _roll_back(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Return to the version that served before; of a canary or a split, to the active one alone."""
    name = variables["name"]
    return _change(context, ("roll back", name), lambda: control.take_back(
        context.store, name, context.self_test, why=_MADE_HERE
    ))  # fmt: skip


def _mark_good(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """End the active version's probation."""
    name = variables["name"]
    return _change(context, ("mark good", name), lambda: activation.mark_good(context.store, name, why=_MADE_HERE))


def _metrics(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer in the Prometheus text format."""
    return Response(context.metrics(), content_type="text/plain; version=0.0.4; charset=utf-8")


ROUTES = (
    Route("GET", "/metrics", _metrics, "Counters in the Prometheus text format", media="text/plain"),
    Route("GET", "/models", _models, "Every model and its installed versions", response_type=Models),
    Route("GET", "/models/{name}", _model, "One model and its installed versions", response_type=ModelInfo),
    Route("POST", "/models/{name}/versions/{version}/activate", _activate,
          "Make a version the one that serves, after its self-test", scope="admin", response_type=ModelInfo),
    Route("POST", "/models/{name}/rollback", _roll_back,
          "Return to the version that served before, after its self-test", scope="admin", response_type=ModelInfo),
    Route("POST", "/models/{name}/mark-good", _mark_good,
          "End the active version's probation", scope="admin", response_type=ModelInfo),
)  # fmt: skip


def _change(context: Context, what: tuple[str, ...], change: Callable[[], object]) -> Response:
    """Change the store, follow it at once in this process, and answer with the model (`what[1]`) as it now is."""
    name = what[1]
    _check_installed(context, name)
    context.changes.run(what, change)
    context.models.refresh()
    return json_response(one_model(context, name))


def one_model(context: Context, name: str) -> ModelInfo:
    """Return one model's record. Raises NotFound."""
    _check_installed(context, name)
    served = {model.name: model for model in context.models.served()}
    return _model_info(context, name, served.get(name))


def _check_installed(context: Context, name: str) -> None:
    """Raise NotFound for an unknown or impossible name; the error lists similar names."""
    if not context.store.versions(name):
        context.store.folder(name, "")


def _model_info(context: Context, name: str, served: Served | None) -> ModelInfo:
    """Return one model's record; `problem` tells of damaged files, so that the other models are still listed."""
    now = glance(context, name, served)
    serving = now.serving
    return ModelInfo(
        **msgspec.structs.asdict(now),
        experiment_problem=info.problem_of(context.store, name),
        quality=context.standing(name, serving) if serving else None,
        versions=[_version_info(context, name, version, now.active) for version in context.store.versions(name)],
        model_name=name if serving else UNSET,
        model_url=str(context.store.models_dir / name / serving) if serving else UNSET,
    )


def _version_info(context: Context, name: str, version: str, active: str | None) -> VersionInfo:
    """Return one version's record."""
    try:
        manifest = context.store.manifest(name, version)
    except ApplianceError as error:
        return VersionInfo(version, version == active, None, [], [], None, str(error))
    tolerance = ToleranceInfo(manifest.policy.tolerance.absolute, manifest.policy.tolerance.relative)
    return VersionInfo(version, version == active, manifest.task, manifest.inputs, manifest.outputs, tolerance, "")

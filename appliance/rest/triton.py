"""Triton's extensions of the Open Inference Protocol: model repository, statistics, configuration; what is not served.

Source: Triton's protocol/extension_*.md. Load and unload are activate and deactivate of the store, so that they survive
a restart and leave receipts.
"""

from dataclasses import replace
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from appliance.bundle.manifest import Input, Output, TensorType
from appliance.errors import InvalidInput, unknown_model
from appliance.inference.values import Scalar, quoted
from appliance.openinference.tensors import NAMES
from appliance.predictor import Counts
from appliance.rest.http_types import Context, Handler, Request, Response, json_response
from appliance.rest.json_body import decode
from appliance.rest.problems import Unsupported, error_json
from appliance.rest.routes import Route, Scope
from appliance.store import activation

EXTENSIONS = ["model_configuration", "model_repository", "statistics"]


class IndexRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`ready` leaves out versions that do not serve; MLServer's client writes null for an absent value."""

    ready: bool | None = None
    repository_name: str | None = None


class IndexEntry(msgspec.Struct):
    """One installed version, and why it does not serve where it should."""

    name: str
    version: str
    state: str
    reason: str


class RepositoryRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`parameters.version` (ours) names the version to load; `unload_dependents` (Triton's) changes nothing here."""

    parameters: dict[str, Scalar] = {}


class Loaded(msgspec.Struct):
    """Which version serves now, null for none."""

    name: str
    version: str | None


class Duration(msgspec.Struct):
    """How often something happened, and how many nanoseconds that took in all."""

    count: int = 0
    ns: int = 0


class InferStatistics(msgspec.Struct):
    """Where the time of a version's requests went."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class ModelStatistics(msgspec.Struct):
    """What was asked of one version; `last_inference` in milliseconds since 1970, `inference_count` in rows."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferStatistics
    batch_stats: list[dict[str, Any]]


class Statistics(msgspec.Struct):
    """What was asked of each version."""

    model_stats: list[ModelStatistics]


class Reshape(msgspec.Struct):
    """The shape of one row's tensor where it is not `dims`."""

    shape: list[int]


class TensorConfig(msgspec.Struct):
    """A tensor of one row."""

    name: str
    data_type: str
    dims: list[int]
    reshape: Reshape | UnsetType = UNSET


class ModelConfig(msgspec.Struct):
    """The part of Triton's model configuration that Triton's clients read; `max_batch_size` is rows in one request."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]


def v2_route(
    verb: str, path: str, handler: Handler, summary: str, response_type: Any, scope: Scope = "predict"
) -> Route:
    """Return a route under /v2 in the protocol's words for errors; no such call needs a body."""
    method: Any = verb
    return Route(method, f"/v2{path}", handler, summary, scope, error_json, response_type=response_type)


def _config(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer a model's configuration in Triton's words."""
    manifest = context.models.get(variables["name"], variables.get("version")).manifest
    inputs, outputs = [[_tensor_config(tensor) for tensor in part] for part in (manifest.inputs, manifest.outputs)]
    rows = context.limits.rows
    return json_response(ModelConfig(manifest.name, "onnxruntime_onnx", "onnxruntime", rows, inputs, outputs))


def _statistics(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer what was asked of one version, of a model's versions, or of all that were asked anything."""
    name, version = variables.get("name"), variables.get("version")
    counts = _by_version(context)
    if name is not None:
        loaded = context.models.get(name, version)  # an unknown one is an error; one never asked has zeros
        counts = {(loaded.name, loaded.version): Counts()} | counts
    chosen = [key for key in sorted(counts) if name in (None, key[0]) and version in (None, key[1])]
    return json_response(Statistics([_model_statistics(*key, counts[key]) for key in chosen]))


def _by_version(context: Context) -> dict[tuple[str, str], Counts]:
    """Return what was asked of each version; a failed request that named none counts for the one that serves."""
    counts = {key: replace(count) for key, count in context.counts().items()}
    serving = {served.name: served.loaded.version for served in context.models.served() if served.loaded}
    for name in [name for name, version in counts if not version]:
        failed = counts.pop((name, ""))
        if name in serving:
            of_version = counts.setdefault((name, serving[name]), Counts())
            of_version.failures += failed.failures
            of_version.failure_seconds += failed.failure_seconds
    return counts


def _index(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer every installed version and whether it serves."""
    wish = decode(request.body() or b"{}", IndexRequest, context.limits)
    served = {served.name: served for served in context.models.served()}
    entries = []
    for name in context.store.names():
        model = served.get(name)
        for version in context.store.versions(name):
            ready = bool(model and model.loaded and model.loaded.version == version)
            reason = str(model.problem) if model and model.problem and model.wanted == version and not ready else ""
            if ready or not wish.ready:
                entries.append(IndexEntry(name, version, "READY" if ready else "UNAVAILABLE", reason))
    return json_response(entries)


def _load(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Activate a version: the named one, else the one that serves, else the one that did last, else the newest."""
    name = variables["name"]
    parameters = decode(request.body() or b"{}", RepositoryRequest, context.limits).parameters
    if unknown := parameters.keys() - {"version", "inputs_changed"}:
        found = f"parameter {quoted(min(unknown))} is not served here"
        raise Unsupported(f"load {name}", found, "send version and inputs_changed, or nothing")
    version = parameters.get("version")
    if not isinstance(version, str | None):
        versions = ", ".join(_installed(context, name))
        raise InvalidInput(f"load {name}", "parameter 'version' is no text", f"send one of {versions}")
    inputs_changed = parameters.get("inputs_changed", False)
    if not isinstance(inputs_changed, bool):
        raise InvalidInput(f"load {name}", "parameter 'inputs_changed' is no boolean", "send true or false")
    activate_some(context, name, version, "Open Inference load", inputs_changed=inputs_changed)
    return _followed(context, name)


def _unload(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Let no version of a model serve; one that serves none already stays so."""
    name = variables["name"]
    decode(request.body() or b"{}", RepositoryRequest, context.limits)
    deactivate(context, name, "Open Inference unload")
    return _followed(context, name)


def activate_some(context: Context, name: str, version: str | None, why: str, *, inputs_changed: bool = False) -> bool:
    """Activate a version: the named one, else the one that is, else the one that was, else the newest.

    Return whether that changed anything; this process follows at once. Raises NotFound, Refused, NotReady.
    """
    versions = _installed(context, name)
    before = activation.read(context.store, name)
    chosen = version or before.active or before.previous
    if chosen is None or (chosen not in versions and version is None):
        chosen = versions[-1]  # newest: the store lists them in SemVer's order
    if chosen == before.active:
        return False
    key = ("load", name, chosen, *["inputs changed"] * inputs_changed)
    context.changes.run(key, lambda: activation.activate(
        context.store, name, chosen, context.self_test, why=why, inputs_changed=inputs_changed
    ))  # fmt: skip
    context.models.refresh()
    return True


def deactivate(context: Context, name: str, why: str) -> None:
    """Let no version of a model serve; this process follows at once. Raises NotFound."""
    _installed(context, name)
    if activation.read(context.store, name).active is not None:
        activation.deactivate(context.store, name, why=why)
    context.models.refresh()


def _unsupported(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Refuse a call of Triton's that has no meaning here."""
    raise Unsupported(
        f"{request.method} {request.told_path}", "this extension is not served", "see GET /v2 for those that are"
    )


def _tensor_config(tensor: Input | Output) -> TensorConfig:
    """Return one row's tensor in Triton's words, which know no empty shape without a reshape."""
    row = tensor.shape[1:]
    return TensorConfig(tensor.name, _config_type(tensor.type), row or [1], UNSET if row else Reshape([]))


def _config_type(kind: TensorType) -> str:
    """Return Triton's configuration word for a type."""
    return "TYPE_STRING" if kind == "string" else f"TYPE_{NAMES[kind]}"


def _model_statistics(name: str, version: str, counts: Counts) -> ModelStatistics:
    """Return one version's counts in Triton's words; requests are answered as they come, without a queue or cache."""
    done = counts.successes
    took = InferStatistics(
        success=_duration(done, counts.request_seconds),
        fail=_duration(counts.failures, counts.failure_seconds),
        queue=_duration(done, 0.0),
        compute_input=_duration(done, counts.prepare_seconds),
        compute_infer=_duration(done, counts.run_seconds),
        compute_output=_duration(done, counts.request_seconds - counts.prepare_seconds - counts.run_seconds),
        cache_hit=Duration(),
        cache_miss=Duration(),
    )
    return ModelStatistics(name, version, int(counts.last * 1000), int(counts.rows), int(done), took, [])


def _duration(count: float, seconds: float) -> Duration:
    """Return a count and a time in nanoseconds."""
    return Duration(int(count), max(0, round(seconds * 1e9)))


def _installed(context: Context, name: str) -> list[str]:
    """Return a model's versions, oldest first. Raises NotFound."""
    versions = context.store.versions(name)
    if not versions:
        raise unknown_model(name, context.store.names())
    return versions


def _followed(context: Context, name: str) -> Response:
    """Let this process follow the store at once; answer what serves now. Raises what keeps it from following."""
    context.models.refresh()
    served = next((served for served in context.models.served() if served.name == name), None)
    if served and served.problem:
        raise served.problem
    return json_response(Loaded(name, served.loaded.version if served and served.loaded else None))


_MODEL, _VERSION = "/models/{name}", "/models/{name}/versions/{version}"

_NOT_SERVED = (
    ("GET", "/trace/setting"),
    ("POST", "/trace/setting"),
    ("GET", f"{_MODEL}/trace/setting"),
    ("POST", f"{_MODEL}/trace/setting"),
    ("GET", "/logging"),
    ("POST", "/logging"),
    ("GET", "/systemsharedmemory/status"),
    ("GET", "/cudasharedmemory/status"),
    ("POST", "/systemsharedmemory/region/{region}/register"),
    ("POST", "/cudasharedmemory/region/{region}/register"),
)

EXTENSION_ROUTES = (
    v2_route("GET", "/models/stats", _statistics, "Statistics of all versions", Statistics),
    *(v2_route("GET", f"{of}/stats", _statistics, "Statistics of a model", Statistics) for of in (_MODEL, _VERSION)),
    *(v2_route("GET", f"{of}/config", _config, "Model configuration", ModelConfig) for of in (_MODEL, _VERSION)),
    v2_route("POST", "/repository/index", _index, "Installed versions and their states", list[IndexEntry]),
    v2_route("POST", "/repository/models/{name}/load", _load, "Activate a model's version", Loaded, "admin"),
    v2_route("POST", "/repository/models/{name}/unload", _unload, "Let no version of a model serve", Loaded, "admin"),
    *(v2_route(verb, path, _unsupported, "An extension that is not served", None) for verb, path in _NOT_SERVED),
)

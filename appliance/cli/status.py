"""`appliance status`: this host, its models and its service."""

import platform
import socket
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

import click
import msgspec

from appliance import __version__
from appliance.cli import EXIT_DONE, EXIT_FAILED, as_json, common_options, options
from appliance.cli.address import Address, ask, find, url_option
from appliance.cli.models import described
from appliance.cli.output import echo, print_json
from appliance.config import Config
from appliance.errors import ApplianceError
from appliance.experiments import probation_record
from appliance.inference import processor
from appliance.monitoring.prediction_log import segments
from appliance.store import activation, condition
from appliance.store.receipts import Receipt
from appliance.store.versions import Store


@click.command()
@as_json
@click.option("--ready", is_flag=True, help="Show only the service; exit code 0 when it is ready, else 1.")
@url_option
@common_options
def status(as_json: bool, ready: bool, url: str | None) -> None:
    """Show this host, its models and its service."""
    config = options().config()
    address = find(config, url)
    if ready:
        _tell_ready(address, as_json)
    document = _host(config) | {"models": _models(Store.of(config)), "service": ask(address)}
    document["log"] = segments.heads(config.state_dir)
    if as_json:
        print_json(document)
    else:
        echo(*_lines(document))


def _tell_ready(address: Address, as_json: bool) -> NoReturn:
    """Show whether the service is ready, and why not, and end; light enough for a container's health check."""
    service = ask(address)
    answer = service.get("answer")
    reasons, warnings = ((answer.get(key, []) if isinstance(answer, dict) else []) for key in ("reasons", "warnings"))
    if as_json:
        print_json(service)
    else:
        echo(_service_line(service), *(f"  why: {one}" for one in reasons), *(f"  warning: {one}" for one in warnings))
    click.get_current_context().exit(EXIT_DONE if service.get("ready") else EXIT_FAILED)


def _host(config: Config) -> dict[str, Any]:
    """Return the facts of this host."""
    state = condition.look(config.state_dir)
    return {
        "host": socket.gethostname(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "appliance": __version__,
        "python": platform.python_version(),
        "onnxruntime": _version("onnxruntime"),
        "processor": processor.describe(),
        "state_dir": str(config.state_dir),
        "disk_free_bytes": state.free_bytes,
        "state_dir_warning": state.warning,
    }


def _version(distribution: str) -> str | None:
    """Return a distribution's version without importing it."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _models(store: Store) -> list[dict[str, Any]]:
    """Return every model with the tolerance and the last self-test of the version that is active."""
    from appliance.monitoring.quality import report  # not for --ready, a container's health check

    receipts, quality = store.receipts(), report.of_all(store.state_dir)
    models = [described(store, name) for name in store.names()]
    return [
        {
            **model,
            "tolerance": _tolerance(store, model["name"], model["active"]),
            "self_test": _last_self_test(receipts, model["name"], model["active"]),
            "problem": _problem(store, model["name"], model["active"]),
            "probation": _probation(store, model["name"]),
            "drift": _drift(store, model["name"], model["active"]),
            "quality": quality[model["name"]].figures.get(model["active"] or "") if model["name"] in quality else None,
            "labels": _standing(store, model["name"], model["active"]),
        }
        for model in models
    ]


def _probation(store: Store, name: str) -> dict[str, Any] | None:
    """Return this host's verdict on the active version; None if none is active, or if its record is damaged."""
    try:
        found = probation_record.described(store.state_dir, name, activation.read(store, name))
    except ApplianceError:
        return None
    return msgspec.to_builtins(found)  # type: ignore[no-any-return]


def _drift(store: Store, name: str, version: str | None) -> dict[str, Any] | None:
    """Return the drift of a version in short; None where it is not watched, or its state cannot be read."""
    from appliance.monitoring import drift_state

    try:
        found = drift_state.read(store, (name, version)) if version else None
    except ApplianceError:
        return None
    return msgspec.to_builtins(found.report.summary()) if found and found.report else None


def _standing(store: Store, name: str, version: str | None) -> dict[str, Any] | None:
    """Return whether the active version's labels are worse than its past; None where nothing is known."""
    from appliance.monitoring.quality import state

    try:
        found = state.read(store.state_dir, name).standings.get(version or "")
    except (ApplianceError, OSError):
        return None
    return found.as_dict() if found else None


def _problem(store: Store, name: str, version: str | None) -> str:
    """Return why a version would be refused if it went live now (its signature, its files); "" for nothing."""
    try:
        if version is not None:
            store.installed(name, version)
    except ApplianceError as error:
        return str(error)
    return ""


def _tolerance(store: Store, name: str, version: str | None) -> dict[str, float] | None:
    """Return the tolerance of a version's proof; None if there is none, or its manifest cannot be read."""
    try:
        proved = store.manifest(name, version).policy.tolerance if version else None
    except ApplianceError:
        return None
    return msgspec.structs.asdict(proved) if proved else None


def _last_self_test(receipts: list[Receipt], name: str, version: str | None) -> dict[str, Any] | None:
    """Return the latest self-test of a version, None if there was none."""
    for receipt in reversed(receipts):
        if (receipt.model, receipt.version) == (name, version) and receipt.self_test is not None:
            return {"when": receipt.when, **msgspec.to_builtins(receipt.self_test)}
    return None


def _lines(document: dict[str, Any]) -> list[str]:
    """Return the document as lines for a person."""
    free = document["disk_free_bytes"]
    lines = [
        f"host {document['host']}: appliance {document['appliance']}, Python {document['python']}, "
        f"onnxruntime {document['onnxruntime']}",
        f"processor {document['processor']}",
        f"state folder {document['state_dir']}: {f'{free // 1024**2} MiB free' if free is not None else 'unknown'}",
        *([f"  warning: {document['state_dir_warning']}"] if document["state_dir_warning"] else []),
        _service_line(document["service"]),
    ]
    for head in document["log"]:
        lines.append("log {model} {version} slot {slot}: segment {segment} seal {seal} chain {chain}".format(**head))
    for model in document["models"]:
        active = (
            f"{model['active']} active ({model['state']}) since {model['since']}" if model["active"] else "none active"
        )
        test, proved = model["self_test"], model["tolerance"]
        exact = f", proved to {proved['absolute']:g} + {proved['relative']:g} relative" if proved else ""
        tested = f", self-test within {test['largest_difference']:.3g} on {test['rows']} rows" if test else ""
        tested += f", {_needs(test)}" if test and test.get("memory_bytes") else ""
        lines.append(f"model {model['name']}: {active}{exact}{tested}; installed: {', '.join(model['versions'])}")
        if model.get("experiment"):
            lines.append(f"  experiment: {_experiment(model['experiment'])}")
        lines += [f"  problem: {told}" for told in (model["problem"], model.get("experiment_problem")) if told]
        lines += [f"  drift: {_drift_line(model['drift'])}"] if model["drift"] else []
        lines += [f"  quality: {_quality_line(model['quality'])}"] if model["quality"] else []
        lines += [
            f"  labels: {found['state']} since {found['since']}: {found['because']}"
            for found in [model["labels"]]
            if found and found["because"]
        ]
        lines += [f"  probation: {told}" for told in [(model["probation"] or {}).get("verdict")] if told]
        lines += [f"  why: {model['why']}"] * bool(model["why"]) + [f"  error: {model.get('error')}"] * (
            "error" in model
        )
    return lines


def _experiment(running: dict[str, Any]) -> str:
    """Return the experiment on a model at a glance."""
    step = f", step {running['step']} of {running['steps']}" if running["steps"] else ""
    shares = [f"{arm['version']} {100 * arm['share']:g} %" for arm in running["arms"]]
    shares += [f"{running['shadow']['version']} is asked beside"] if running["shadow"] else []
    return f"{running['kind']} {running['id']}{step}: {', '.join(shares)}; {running['verdict']}"


def _drift_line(drift: dict[str, Any]) -> str:
    """Return a version's drift at a glance."""
    columns = f": {', '.join(drift['columns'])}" if drift["columns"] else ""
    return f"{drift['state']}{columns}"


def _quality_line(quality: dict[str, float]) -> str:
    """Return what labels say of a version at a glance, its coverage first."""
    figures = sorted(quality.items(), key=lambda one: one[0] != "coverage")
    return ", ".join(f"{name} {value:.3g}" for name, value in figures)


def _needs(test: dict[str, Any]) -> str:
    """Return what a version took when it was tried."""
    return f"needs {test['memory_bytes'] / 1024**2:.0f} MiB, loads in {test['load_seconds']:.3f} s"


def _service_line(service: dict[str, Any]) -> str:
    """Return how the service is."""
    if not service["running"]:
        why = f" ({service['problem']})" if service.get("problem") else ""
        return f"service {service['url']}: not running{why}"
    return f"service {service['url']}: {'ready' if service['ready'] else 'not ready'} (HTTP {service['status']})"

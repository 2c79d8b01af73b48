"""The commands on bundles and on the store: inspect, verify, install, activate, mark-good, rollback, deactivate,
models, remove.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from appliance.bundle import archive
from appliance.bundle.manifest import Input, Manifest, Output
from appliance.bundle.opened import Opened
from appliance.bundle.trust import TrustedKeys
from appliance.cli import as_json, common_options, options, waiting, why
from appliance.cli.output import echo, echo_json, print_json
from appliance.errors import ApplianceError, Misuse, Refused
from appliance.experiments import control, info
from appliance.store import activation
from appliance.store.activation import Activation
from appliance.store.versions import Store

if TYPE_CHECKING:
    from appliance.inference.figures import SelfTest

DIFFERS = "Also if its inputs, outputs or labels differ from the active version's"
inputs_changed = click.option("--inputs-changed", is_flag=True, help=f"{DIFFERS}.")
SIGNED_BY = "Also check that this public key (PEM) signed it; of several, one."
bundle_file = click.argument("bundle", type=click.Path(path_type=Path))


@click.command()
@bundle_file
@click.option("--certificate", is_flag=True, help="Print the certificate (JSON): what was proved, on which rows.")
@as_json
@common_options
def inspect(bundle: Path, certificate: bool, as_json: bool) -> None:
    """Show what BUNDLE holds, after checking that it is sound."""
    with _opened(bundle, ()) as opened:
        opened.check()
        if certificate:
            echo_json(opened.read(archive.PARITY))
        elif as_json:
            print_json(opened.manifest)
        else:
            echo(*_described(opened.manifest))


@click.command()
@bundle_file
@click.option("--self-test", "run", is_flag=True, help="Also run its examples on this processor.")
@click.option("--key", "key_files", multiple=True, type=click.Path(path_type=Path), help=SIGNED_BY)
@as_json
@common_options
def verify(bundle: Path, run: bool, key_files: tuple[Path, ...], as_json: bool) -> None:
    """Check that BUNDLE is complete and undamaged; with --key, that it is signed; with --self-test, that it answers.

    For a folder, such as an offline kit, only --key applies: it checks that every file is as it was signed.
    """
    if bundle.is_dir():
        from appliance.cli.signing import signer_of_folder

        by = signer_of_folder(bundle, key_files)
        done = {"folder": str(bundle), "sound": True, "signed": True, "signer": by}
        print_json(done) if as_json else echo(f"{bundle} is sound, signed by the key with SHA-256 {by}")
        return
    with _opened(bundle, key_files) as opened:
        opened.check()
        opened.check_model()
        figures = self_test(bundle) if run else None
        manifest, signed = opened.manifest, archive.SIGNATURE in opened.sizes
        signer = opened.signer or None
    if as_json:
        document = {"model": manifest.name, "version": manifest.version, "sound": True, "self_test": figures}
        print_json({**document, "signed": signed, "signer": signer})
        return
    echo(f"{manifest.name} {manifest.version} is sound: {len(opened.sizes)} members, {opened.size} bytes")
    unasked = "signed; by whom is asked by --key PUB" if signed else "unsigned"
    echo(f"signed by the key with SHA-256 {signer}" if signer else unasked)
    if figures:
        echo(_figures(figures))


@click.command()
@bundle_file
@why
@as_json
@common_options
def install(bundle: Path, why: str, as_json: bool) -> None:
    """Put BUNDLE into the store. It does not serve before it is activated."""
    done = store_of(bundle).install(bundle, why=why)
    if as_json:
        print_json({"model": done.name, "version": done.version, "changed": done.fresh})
        return
    echo(f"{done.name} {done.version} {'installed' if done.fresh else 'was installed already'}")
    echo(f"next: appliance activate {done.name} {done.version}")


@click.command()
@click.argument("name")
@click.argument("version")
@click.option("--wait", "waits", is_flag=True, help="Wait for its probation: exit code 0 marked good, 3 taken back.")
@waiting.timeout
@inputs_changed
@why
@as_json
@common_options
def activate(
    name: str, version: str, waits: bool, timeout: float | None, inputs_changed: bool, why: str, as_json: bool
) -> None:
    """Make VERSION of the model NAME the one that serves, after its self-test passed on this processor.

    Refused where its inputs, outputs or labels differ from the active version's, unless --inputs-changed says that this
    is meant: those who ask would be refused, or misread the answers.
    """
    store = store_of()
    if waits and not options().config().probation.enabled:
        found = "[probation] enabled is false, so nobody ends it"
        raise Misuse(f"wait for the probation of {name} {version}", found, f"appliance mark-good {name}")
    before = activation.read(store, name)
    after = activation.activate(store, name, version, self_test, why=why, inputs_changed=inputs_changed)
    if not (waits and as_json):
        _print_activation(name, before, after, as_json)
    if waits:
        _print_activation(name, before, _end_of_probation(store, name, version, timeout), as_json)


@click.command("mark-good")
@click.argument("name")
@why
@as_json
@common_options
def mark_good(name: str, why: str, as_json: bool) -> None:
    """Mark the active version of the model NAME good: its probation ends, and a later roll back returns to it."""
    store = store_of()
    before = activation.read(store, name)
    _print_activation(name, before, activation.mark_good(store, name, why=why), as_json)


@click.command()
@click.argument("name")
@why
@as_json
@common_options
def rollback(name: str, why: str, as_json: bool) -> None:
    """Return to the version of the model NAME that served before, after its self-test passed on this processor.

    While a canary or a split runs, that is the active version: the experiment ends, and it answers alone.
    """
    store = store_of()
    before = activation.read(store, name)
    after, ended = control.take_back(store, name, self_test, why=why)
    if ended is not None and not as_json:
        echo(f"{ended.described} is ended")
    _print_activation(name, before, after, as_json, changed=after != before or ended is not None)


@click.command()
@click.argument("name")
@why
@as_json
@common_options
def deactivate(name: str, why: str, as_json: bool) -> None:
    """Let no version of the model NAME serve. The one that did stays installed; rollback returns to it."""
    store = store_of()
    before = activation.read(store, name)
    _print_activation(name, before, activation.deactivate(store, name, why=why), as_json)


@click.command()
@as_json
@common_options
def models(as_json: bool) -> None:
    """List the installed models, their versions, and which one is active."""
    listed = [described(store, name) for store in [store_of()] for name in store.names()]
    if as_json:
        print_json({"models": listed})
        return
    if not listed:
        echo("no model is installed; next: appliance install BUNDLE")
    for model in listed:
        for version in model["versions"]:
            echo(f"{model['name']:<24} {version:<16} {_role(model, version)}".rstrip())


@click.command()
@click.argument("name")
@click.argument("version")
@why
@as_json
@common_options
def remove(name: str, version: str, why: str, as_json: bool) -> None:
    """Delete VERSION of the model NAME from the store; the active one stays."""
    store_of().remove(name, version, why=why)
    if as_json:
        print_json({"model": name, "version": version, "changed": True})
    else:
        echo(f"{name} {version} removed")


def described(store: Store, name: str) -> dict[str, Any]:
    """Return the record of an installed model; `error` tells of a damaged one."""
    model: dict[str, Any] = {"name": name, "versions": store.versions(name)}
    try:
        record = activation.read(store, name)
    except ApplianceError as error:
        return {**model, **msgspec.to_builtins(Activation()), "error": str(error)}
    experiment = msgspec.to_builtins(info.running(store, name))
    told = {"experiment": experiment, "experiment_problem": info.problem_of(store, name)}
    return {**model, **msgspec.to_builtins(record), **told}


def _opened(bundle: Path, key_files: Sequence[Path]) -> AbstractContextManager[Opened]:
    """Give an opened bundle, with the limits of an install, and signed by one of the keys if any are named."""
    trust = TrustedKeys(key_files) if key_files else None
    return archive.opened(bundle, most_bytes=options().config_only().store.max_bundle_bytes, trust=trust)


def store_of(*files: Path) -> Store:
    """Return the store that the options and the configuration name; `files` were named on the command line."""
    config = options().config(files=files)
    return Store.of(config)


def self_test(file: Path) -> "SelfTest":
    """Run the self-test of an installed version, or of a bundle's file, in a process of its own, within [models]."""
    from appliance.trials import Trials

    config = options().config()
    return Trials(Store.of(config), config.models).self_test(file)


def _end_of_probation(store: Store, name: str, version: str, timeout: float | None) -> Activation:
    """Return the record once the running service, or a person, has marked a version good.

    Raises Refused where another version is active by then, NotReady as waiting.wait_for does.
    """

    def ended() -> Activation | None:
        now = activation.read(store, name)
        return None if now.active == version and now.state != "good" else now

    then = f"{version} stays on probation; see: appliance status"
    now = waiting.wait_for(ended, f"wait for the probation of {name} {version}", then, timeout)
    if now.active == version:
        return now
    why = f" ({now.why})" if now.why else ""
    found = f"{now.active or 'no version'} is active instead{why}"
    raise Refused(f"probation of {name} {version}", found, "see: appliance status; the receipts have all figures")


def _print_activation(
    name: str, before: Activation, after: Activation, as_json: bool, *, changed: bool | None = None
) -> None:
    """Print which version is active now, and whether anything is new."""
    changed = after != before if changed is None else changed
    if as_json:
        print_json({"model": name, "changed": changed, **msgspec.to_builtins(after)})
        return
    way_back = f", rollback returns to {after.previous}" if after.previous else ""
    unchanged = "" if changed else " (as before)"
    serves = f"{name} {after.active} is active, {after.state}" if after.active else f"no version of {name} is active"
    echo(f"{serves}{way_back}{unchanged}")


def _role(model: dict[str, Any], version: str) -> str:
    """Return what a version is for: active, the way back, part of an experiment, or nothing."""
    roles = [f"active ({model['state']})"] * (version == model["active"])
    roles += ["previous"] * (version == model["previous"])
    if running := model.get("experiment"):
        shares = {arm["version"]: arm["share"] for arm in running["arms"]}
        if version != model["active"] and version in shares:
            roles.append(f"{running['kind']} ({100 * shares[version]:g} %)")
        elif running["shadow"] and version == running["shadow"]["version"]:
            roles.append("shadow")
    return ", ".join(roles)


def _figures(figures: "SelfTest") -> str:
    """Return a self-test's figures as one line."""
    return (
        f"self-test passed: {figures.rows} rows, largest difference {figures.largest_difference:.3g}, "
        f"loaded in {figures.load_seconds:.3f} s with {figures.memory_bytes / 1024**2:.0f} MiB, on {figures.processor}"
    )


def _described(manifest: Manifest) -> list[str]:
    """Return the manifest as lines for a person."""
    came_from = manifest.provenance
    opset = ", ".join(f"{domain or 'ai.onnx'} {number}" for domain, number in sorted(manifest.opset.items()))
    lines = [
        f"{manifest.name} {manifest.version}: {manifest.task}, {came_from.model_type} from {came_from.source}",
        f"needs onnxruntime >= {manifest.least_onnxruntime} (opset {opset}, IR {manifest.ir_version})",
        *(f"input  {_tensor(tensor)}" for tensor in manifest.inputs),
        *(f"output {_tensor(tensor)}" for tensor in manifest.outputs),
    ]
    if manifest.class_labels:
        lines.append(f"labels {', '.join(map(str, manifest.class_labels))}")
    tolerance = manifest.policy.tolerance
    lines.append(f"proved to {tolerance.absolute:g} absolute + {tolerance.relative:g} relative")
    return lines + [
        f"member {name}: {member.size} bytes, sha256 {member.sha256}" for name, member in manifest.members.items()
    ]


def _tensor(tensor: Input | Output) -> str:
    """Return a tensor's name, type and shape."""
    columns = f" of {', '.join(tensor.columns)}" if isinstance(tensor, Input) and len(tensor.columns) > 1 else ""
    return f"{tensor.name}: {tensor.type} {tensor.shape}{columns}"

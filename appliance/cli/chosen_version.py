"""The version that a command runs without a service: an installed one, or a bundle file that is not installed."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance import ahead
from appliance.bundle.manifest import Manifest
from appliance.bundle.opened import Opened
from appliance.config import Config
from appliance.errors import Misuse, NotReady
from appliance.inference.tensors import InputSchema
from appliance.inference.version import LoadedVersion
from appliance.store import activation
from appliance.store.versions import Store
from appliance.trials import Trials


@dataclass(frozen=True, slots=True)
class Chosen:
    """A version that passed its self-test on this processor and may be loaded, in any process."""

    manifest: Manifest
    digest: str
    """Of the manifest, which holds those of all members."""
    load_now: Callable[[float], LoadedVersion]
    open_now: Callable[[], AbstractContextManager[Opened]]
    is_installed: bool = True

    @property
    def name(self) -> str:
        """The model."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """Its version."""
        return self.manifest.version

    @property
    def schema(self) -> InputSchema:
        """Its inputs."""
        return InputSchema(self.manifest.inputs)

    def load(self, run_seconds: float = 0.0) -> LoadedVersion:
        """Return it, loaded with one thread; `run_seconds` ends a run that takes longer, 0 none."""
        return self.load_now(run_seconds)

    def members(self) -> dict[str, bytes]:
        """Return {member: content} of its bundle. Raises BundleRefused where one is not sound."""
        with self.open_now() as opened:
            return {name: opened.read(name) for name in opened.names}


def choose(config: Config, model: str, version: str | None) -> Chosen:
    """Return the version that a command names: a model of the store, the active version unless named, or a bundle.

    Raises NotFound, NotReady where none is active, BundleRefused where no trusted key signed it, SelfTestFailed.
    """
    store = Store.of(config)
    trials = Trials(store, config.models)
    if _is_bundle(model):
        return _of_file(store, trials, Path(model), version)
    wanted = version or activation.read(store, model).active
    if wanted is None:
        if not store.versions(model):
            store.folder(model, "")  # says which models there are
        raise NotReady(
            f"use {model}", "no version of it is active", f"appliance activate {model} VERSION, or --version"
        )
    opened = store.installed(model, wanted)
    trials.ensure(model, wanted, opened.digest)
    folder = store.folder(model, wanted)
    return Chosen(
        opened.manifest,
        opened.digest,
        lambda seconds: LoadedVersion(folder, 1, run_seconds=seconds, opened=store.installed(model, wanted)),
        lambda: nullcontext(store.installed(model, wanted)),
    )


def _of_file(store: Store, trials: Trials, path: Path, version: str | None) -> Chosen:
    """Return the version in a bundle's file, checked as an install checks it and tried in a process of its own."""
    with store.opened(path) as bundle:
        bundle.check()
        bundle.check_model()
        manifest, digest = bundle.manifest, bundle.digest
    if version not in (None, manifest.version):
        raise Misuse(f"use {path}", f"it holds version {manifest.version}, not {version}", "leave --version out")
    trials.self_test(path)

    def load(seconds: float) -> LoadedVersion:
        with store.opened(path) as opened:
            return LoadedVersion(path, 1, run_seconds=seconds, opened=opened)

    return Chosen(manifest, digest, load, lambda: store.opened(path), is_installed=False)


def _is_bundle(model: str) -> Any:
    """Return whether an argument means a bundle's file."""
    return model.endswith(".bundle") or "/" in model or ahead.is_file(Path(model))

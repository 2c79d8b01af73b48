"""Whether an installed version may be loaded into this process: only what passed its self-test in one of its own."""

import contextlib
import functools
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from appliance import memory
from appliance.bundle.members import MODEL
from appliance.config import ModelsConfig
from appliance.errors import BundleRefused, StoreError
from appliance.inference import processor, trial
from appliance.inference.figures import SelfTest
from appliance.store import trials
from appliance.store.versions import Store


class Trials:
    """Tries versions within the limits of `[models]`, and remembers which passed."""

    def __init__(self, store: Store, models: ModelsConfig) -> None:
        self._store = store
        self._models = models
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End the trial that runs, and start none any more: the service ends."""
        self._stopping.set()

    def self_test(self, file: Path) -> SelfTest:
        """Return the figures of an installed version's folder, or of a bundle's file, tried now. See trial.run."""
        within = self._store.state_dir if file.is_dir() else None
        return trial.run(file, self._limits(file), within, self._stopping)

    def ensure(self, name: str, version: str, digest: str) -> None:
        """Raise SelfTestFailed, or what trial.run raises, unless what has this manifest's `digest` is known to pass.

        It is known by a trial on this processor and by this onnxruntime; else it is tried now.
        """
        folder = self._store.folder(name, version)
        known = trials.read(folder.parent).get(version)
        if known and self._holds(known, digest, folder):
            return
        figures = self.self_test(folder)
        if figures.digest != digest:
            tried = f"self-test of {name} {version}"
            raise BundleRefused(tried, "its files were changed meanwhile", "install it again as another version")
        # A store that cannot be written, or is busy, costs one more trial.
        with contextlib.suppress(StoreError), self._store.writing(f"remember the trial of {name} {version}"):
            trials.remember(folder.parent, version, msgspec.to_builtins(figures))

    def _holds(self, known: trials.Trial, digest: str, folder: Path) -> bool:
        """Return whether a trial tells of the same bytes, on the same processor, within today's limits."""
        here = (digest, processor.describe(), _onnxruntime())
        limits = self._limits(folder)
        within = known.memory_bytes <= limits.memory_bytes and known.load_seconds + known.seconds <= limits.seconds
        return (known.digest, known.processor, known.onnxruntime) == here and within

    def _limits(self, file: Path) -> trial.TrialLimits:
        """Return what a version may take."""
        model = file / MODEL if file.is_dir() else file
        size = model.lstat().st_size if model.exists() else 0
        most = self._models.max_memory_bytes or trial.default_memory(size, memory.limit_bytes())
        return trial.TrialLimits(self._models.self_test_seconds, most)


@functools.cache
def _onnxruntime() -> str:
    """Return onnxruntime's version without importing it."""
    try:
        return version("onnxruntime")
    except PackageNotFoundError:
        return ""

"""One installed version, loaded into this process: its session, schema, examples and self-test."""

import sys
from pathlib import Path

from appliance.bundle import archive, examples, onnx_wire
from appliance.bundle.archive import Opened
from appliance.bundle.manifest import Manifest
from appliance.inference import selftest
from appliance.inference.session import Session
from appliance.inference.tensors import InputSchema


class LoadedVersion:
    """One installed version, loaded and self-tested on this processor."""

    def __init__(
        self, folder: Path, threads: int = 1, *, run_seconds: float = 0.0, opened: Opened | None = None
    ) -> None:
        """Load the version in `folder`, by default without asking who signed it.

        `opened` is the same version as the store gives it, by today's keys. Raises BundleRefused, NotReady or
        SelfTestFailed.
        """
        opened = opened or archive.open_folder(folder, within=folder.parents[2], most_bytes=sys.maxsize)
        bundle = archive.whole(opened)
        self.digest = opened.digest
        self.signature = bundle.members.get(archive.SIGNATURE)
        onnx_wire.check(bundle.members[archive.MODEL])
        self.manifest: Manifest = bundle.manifest
        self.name = bundle.manifest.name
        self.version = bundle.manifest.version
        self.session = Session(bundle.members["model.onnx"], threads=threads, run_seconds=run_seconds)
        self.schema = InputSchema(bundle.manifest.inputs)
        self.output_names = [output.name for output in bundle.manifest.outputs]
        self._examples = examples.read(bundle.members["examples.npz"])
        self.self_test()

    def self_test(self) -> selftest.SelfTest:
        """Answer the bundle's examples once more and compare. Raises SelfTestFailed."""
        return selftest.check(self.manifest, self.session, *self._examples)

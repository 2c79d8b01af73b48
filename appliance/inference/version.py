"""One installed version, loaded into this process: session, schema, examples, baseline, and how its last test went."""

import copy
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from appliance.bundle import archive, baseline, examples, members, onnx_wire
from appliance.bundle.archive import Opened
from appliance.bundle.baseline import Baseline
from appliance.bundle.manifest import Manifest
from appliance.errors import ApplianceError
from appliance.inference import selftest
from appliance.inference.quality import QualityJudge
from appliance.inference.session import Session
from appliance.inference.tensors import Feeds, InputSchema

LEAST_AGE = 1.0
"""Seconds for which a self-test's result is good."""
SHARE = 0.02
"""Of one core that self-tests of a version may take at most, however often it is asked for: a slow one's result is good
for longer."""


@dataclass(frozen=True, slots=True)
class Tested:
    """How a self-test went."""

    begun: float
    """In seconds of the monotonic clock."""
    seconds: float
    failure: str
    """What failed, "" for nothing."""

    @property
    def good_until(self) -> float:
        """When the next one is due, in seconds of the monotonic clock."""
        return self.begun + max(LEAST_AGE, self.seconds / SHARE)


class LoadedVersion:
    """One installed version, loaded and self-tested on this processor. Safe in any thread."""

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
        self.known_outputs = frozenset(self.output_names)
        self.derived: dict[object, Any] = {}
        """What others have made of this version once and keep with it, by their own function; freed with it."""
        self.tested: Tested | None = None
        """The last self-test that failure() ran; None before it."""
        self.batches = False
        """Whether requests that wait together share a run, see batching.py; set by who loads it for requests."""
        self.arm = ""
        """As which arm of an experiment it answers, ID/VERSION; "" outside of one. See as_arm()."""
        self._testing = threading.Lock()
        self._examples = examples.read(bundle.members["examples.npz"])
        self._baseline = bundle.members.get(members.BASELINE)
        self.self_test()

    def as_arm(self, arm: str) -> "LoadedVersion":
        """Return the same version, its session shared, as what answers for `arm`: a request takes along why it came."""
        other = copy.copy(self)
        other.arm = arm
        return other

    @cached_property
    def baseline(self) -> Baseline | None:
        """What training looked like, read when first asked for; None where it is not said. Raises BundleRefused."""
        return None if self._baseline is None else baseline.read(self._baseline)

    def example_feeds(self, rows: int) -> Feeds:
        """Return feeds of so many rows: the bundle's examples, again and again."""
        inputs, _ = self._examples
        return {
            one.name: np.resize(array, (rows, *array.shape[1:]))
            for one, array in zip(self.manifest.inputs, inputs, strict=True)
        }

    @cached_property
    def quality(self) -> QualityJudge:
        """What judges each row's quality; of a baseline that cannot be read nothing is known."""
        try:
            return QualityJudge(self.manifest, self.baseline)
        except ApplianceError:
            return QualityJudge(self.manifest, None)

    def self_test(self) -> selftest.SelfTest:
        """Answer the bundle's examples once more and compare. Raises SelfTestFailed."""
        return selftest.check(self.manifest, self.session, *self._examples)

    def failure(self) -> str:
        """Return why this version fails its self-test, "" when it passes; run just now, or a moment ago.

        Many who ask at once wait for one test; other versions' tests do not wait for it.
        """
        with self._testing:
            begun = time.monotonic()
            if self.tested is None or begun >= self.tested.good_until:
                failure = self._failure()
                self.tested = Tested(begun, time.monotonic() - begun, failure)
            return self.tested.failure

    def _failure(self) -> str:
        """Run the self-test; return what failed, "" for nothing."""
        try:
            self.self_test()
        except ApplianceError as error:
            return str(error)
        return ""

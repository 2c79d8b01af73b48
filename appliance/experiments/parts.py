"""What a process of the service has for experiments and probations, made and joined in one place.

Every process counts, and asks its shadow; the first one judges as well.
"""

import threading
from collections.abc import Callable, Mapping

from appliance.bundle.manifest import Label
from appliance.config import Config
from appliance.errors import ApplianceError
from appliance.experiments import files
from appliance.experiments.counting import ArmCounters
from appliance.experiments.judge import Judge, Sums
from appliance.experiments.probation_watch import NanWatch
from appliance.experiments.quality import QualityFeed
from appliance.experiments.shadow import Shadow
from appliance.inference.version import LoadedVersion
from appliance.predictor import Prediction
from appliance.repository import ModelRepository
from appliance.store.routing_record import Routing
from appliance.store.tested import SelfTest
from appliance.store.versions import Store


class Experiments:
    """The parts of one process, told as one Observer of the predictor: without an experiment a call and two looks."""

    def __init__(
        self,
        config: Config,
        store: Store,
        models: ModelRepository,
        sums: Sums,
        self_test: SelfTest,
        *,
        slot: int = 0,
    ) -> None:
        """`sums` gives the request counters; see Judge."""
        self._models = models
        self.busy: Callable[[], bool] = lambda: False
        """Whether so many requests wait that nothing is copied to a shadow."""
        folder, within, settings = files.folder(store.state_dir), store.state_dir, config.experiments
        self.quality = QualityFeed(self.routing_of, self._labels_of, folder, slot, within=within)
        """Where labels go, see QualityFeed.labelled."""
        self._shadow = Shadow(
            self._challenger,
            self.routing_of,
            folder,
            slot,
            within=within,
            busy=lambda: self.busy(),
            cpu=settings.shadow_cpu,
            threads=config.models.threads,
            keep_rows=settings.keep_rows,
        )
        self._counters = ArmCounters(self.routing_of, folder, slot, within=within)
        self._nan = NanWatch()
        first = slot == 0
        self._judge = (
            Judge(store, models, sums, self.routing_of, self_test, config.probation, self._nan) if first else None
        )

    def predicted(self, prediction: Prediction) -> None:
        """Pass a prediction to the parts that need it."""
        if prediction.arm:
            self._counters.predicted(prediction)
            self._shadow.predicted(prediction)
        if self._nan.watched:
            self._nan.predicted(prediction)

    def failed(
        self, model: str, version: str, error: ApplianceError, seconds: float, arm: str = "", key: str = ""
    ) -> None:
        """Count a request that an arm did not answer."""
        if arm:
            self._counters.failed(model, version, error, seconds, arm, key)

    def start(self, stop: threading.Event) -> None:
        """Begin to ask the shadow and to judge, until `stop` is set."""
        self._shadow.start()
        if self._judge:
            threading.Thread(target=self._judge.follow, args=(stop,), name="judge", daemon=True).start()

    def stop(self) -> None:
        """End the shadow; what waits for it is dropped."""
        self._shadow.stop(seconds=2)

    def routing_of(self, model: str) -> Routing | None:
        """Return the experiment that runs on a model, as this process follows it."""
        arms = self._models.arms(model)
        return arms.routing if arms else None

    def _challenger(self, model: str) -> tuple[Routing, LoadedVersion, LoadedVersion] | None:
        """Return a model's experiment with the versions that are compared; None where none shadows, or is loaded."""
        routing = self.routing_of(model)
        if routing is None or routing.shadow is None:
            return None
        active = self._loaded(model, routing.base)
        challenger = self._loaded(model, routing.shadow.version)
        return (routing, active, challenger) if active and challenger else None

    def _loaded(self, model: str, version: str) -> LoadedVersion | None:
        roles = self._models.roles(model).values()
        return next((one.loaded for one in roles if one.loaded and one.loaded.version == version), None)

    def _labels_of(self, model: str, version: str) -> Mapping[Label, int]:
        """Return {class label: place} of a version that is loaded, else of the active one."""
        loaded = self._loaded(model, version) or self._models.get(model)
        return {label: place for place, label in enumerate(loaded.manifest.class_labels)}

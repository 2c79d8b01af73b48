"""What a process of the service has for experiments and probations, made and joined in one place.

Every process counts, and asks its shadow; the first one judges as well. Most hosts run no experiment for weeks, so what
is for one comes with the first one of this process, and so does the judge, or with the first probation: their modules
and threads take some 2 MiB. Until then the thread that follows the store looks whether anything has begun.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.bundle.manifest import Label
from appliance.config import Config
from appliance.errors import ApplianceError
from appliance.experiments import files
from appliance.experiments.tally import Sums, Tally
from appliance.inference.version import LoadedVersion
from appliance.labels import Truth
from appliance.monitoring.experiment_figures import ExperimentFigures
from appliance.predictor import Prediction
from appliance.repository import ModelRepository
from appliance.store import activation
from appliance.store.record import Activation
from appliance.store.routing_record import Routing
from appliance.store.tested import SelfTest
from appliance.store.versions import Store

if TYPE_CHECKING:
    from appliance.experiments.counting import ArmCounters
    from appliance.experiments.judge import Judge
    from appliance.experiments.probation_watch import NanWatch
    from appliance.experiments.quality import QualityFeed
    from appliance.experiments.shadow import Shadow

log = logging.getLogger(__name__)

COUNT_SECONDS = 1.0
"""Between two looks at what was counted while nothing is judged."""
SWEEP_SECONDS = 3600.0


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
        """`sums` gives the request counters; `self_test` as Judge has it."""
        self._config, self._store, self._models = config, store, models
        self._sums, self._self_test, self._slot = sums, self_test, slot
        self.busy: Callable[[], bool] = lambda: False
        """Whether so many requests wait that nothing is copied to a shadow."""
        self._tally = Tally(store)
        self._counted = self._swept = float("-inf")
        self._told: dict[str, str] = {}  # model -> why it is not counted, as the log has it
        self._making = threading.RLock()  # for the four below, each of which is made once and then stays
        self._arms: tuple[ArmCounters, Shadow] | None = None
        self._labels: QualityFeed | None = None
        self._judging: Judge | None = None
        self._nan: NanWatch | None = None

    # On the threads that answer.

    def predicted(self, prediction: Prediction) -> None:
        """Pass a prediction to the parts that need it."""
        if prediction.arm:
            counters, shadow = self._arms or self._begun()
            routing = self.routing_of(prediction.model)
            if routing is not None:
                counters.count(prediction, routing)
                if routing.shadow is not None:
                    shadow.predicted(prediction)
        nan = self._nan
        if nan is not None and nan.watched:
            nan.predicted(prediction)

    def failed(
        self, model: str, version: str, error: ApplianceError, seconds: float, arm: str = "", key: str = ""
    ) -> None:
        """Count a request that an arm did not answer."""
        if arm:
            counters, _ = self._arms or self._begun()
            counters.failed(model, version, error, seconds, arm, key)

    # On the thread that takes labels.

    def labelled(
        self, model: str, version: str, identifier: str, predicted: Truth, truth: Truth, arm: str = ""
    ) -> None:
        """Count the label of one row, see QualityFeed.labelled."""
        self._feed().labelled(model, version, identifier, predicted, truth, arm)

    # On the thread that follows the store.

    def look(self, stop: threading.Event) -> None:
        """Begin what an experiment or a probation needs, the judge until `stop` is set; else count. Raises nothing."""
        try:
            if self._models.experiments():
                self._begun()
            if self._slot == 0:
                self._look_first(stop)
        except Exception:  # the thread goes on to follow the store, whatever is wrong here
            log.exception("experiments and probations cannot be looked at")

    def _look_first(self, stop: threading.Event) -> None:
        """Look in the first process: start the judge when there is something to judge, count until then."""
        now = time.monotonic()
        if now - self._swept > SWEEP_SECONDS:
            self._swept = now
            files.sweep_store(self._store)
        if self._judging is not None:  # the tally is the judge's
            return
        active = self._active()
        on_probation = self._config.probation.enabled and any(one.state == "probation" for one in active.values())
        if on_probation or self._models.experiments():
            judge = self._judge
            assert judge is not None  # noqa: S101 - this is the first process
            threading.Thread(target=judge.follow, args=(stop,), name="judge", daemon=True).start()
        elif now - self._counted >= COUNT_SECONDS:
            self._counted = now
            sums = self._sums()
            for name, record in active.items():
                self._tally.look(name, record, sums)

    def _active(self) -> dict[str, Activation]:
        """Return what is active of each model; a model whose record cannot be read is left out, which is told once."""
        found: dict[str, Activation] = {}
        for served in self._models.served():
            try:
                found[served.name] = activation.read(self._store, served.name)
                self._told.pop(served.name, None)
            except ApplianceError as error:
                if self._told.get(served.name) != str(error):
                    self._told[served.name] = str(error)
                    log.error("model cannot be judged", extra={"model": served.name, "found": str(error)})
        return found

    # In any thread.

    def stop(self) -> None:
        """End the shadow; what waits for it is dropped."""
        if self._arms is not None:
            self._arms[1].stop(seconds=2)

    def routing_of(self, model: str) -> Routing | None:
        """Return the experiment that runs on a model, as this process follows it."""
        arms = self._models.arms(model)
        return arms.routing if arms else None

    def figures(self) -> list[ExperimentFigures]:
        """Return what /metrics tells of the experiments that run."""
        running = self._models.experiments()
        if not running:
            return []
        from appliance.experiments import report

        return [report.figures(self._store, name, routing) for name, routing in sorted(running.items())]

    def _begun(self) -> "tuple[ArmCounters, Shadow]":
        """Return what counts arms, and the shadow; made with the first experiment, the shadow's thread started."""
        with self._making:
            if self._arms is None:
                from appliance.experiments.counting import ArmCounters
                from appliance.experiments.shadow import Shadow

                folder, within, settings = self._folder, self._store.state_dir, self._config.experiments
                counters = ArmCounters(self.routing_of, folder, self._slot, within=within)
                shadow = Shadow(
                    self._challenger,
                    self.routing_of,
                    folder,
                    self._slot,
                    within=within,
                    busy=lambda: self.busy(),
                    cpu=settings.shadow_cpu,
                    threads=self._config.models.threads,
                    keep_rows=settings.keep_rows,
                )
                shadow.start()
                self._arms = counters, shadow
            return self._arms

    def _feed(self) -> "QualityFeed":
        """Return what counts labels; made with the first one."""
        with self._making:
            if self._labels is None:
                from appliance.experiments.quality import QualityFeed

                within = self._store.state_dir
                self._labels = QualityFeed(self.routing_of, self._labels_of, self._folder, self._slot, within=within)
            return self._labels

    @property
    def _shadow(self) -> "Shadow":
        return self._begun()[1]

    @property
    def _judge(self) -> "Judge | None":
        """The judge of the first process, made when it is first asked for; None in the others."""
        with self._making:
            if self._judging is None and self._slot == 0:
                from appliance.experiments.judge import Judge
                from appliance.experiments.probation_watch import NanWatch

                self._nan = NanWatch()
                store, settings = self._store, self._config.probation
                self._judging = Judge(
                    store, self._models, self._sums, self.routing_of, self._self_test, settings, self._nan, self._tally
                )
            return self._judging

    @property
    def _folder(self) -> Path:
        return files.folder(self._store.state_dir)

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

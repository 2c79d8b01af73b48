"""Watches each model's active version: counts, self-tests, NaN, and what follows; see probation.py for the proofs."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec

from appliance.config.probation import ProbationConfig
from appliance.errors import ApplianceError
from appliance.experiment_roles import PREVIOUS
from appliance.experiments import files, probation, quality
from appliance.experiments.counting import has_nan
from appliance.experiments.tally import Counted, Tally
from appliance.monitoring.shared_cells import Key
from appliance.predictor import Prediction
from appliance.repository import ACTIVE, ModelRepository
from appliance.store import activation
from appliance.store.record import Activation
from appliance.store.tested import SelfTest
from appliance.store.versions import Store

log = logging.getLogger(__name__)

_MOST_NAN = 32  # predictions that wait for the version before to be asked
_MOST_NAN_ROWS = 64


class NanWatch:
    """Puts aside what a version on probation answered NaN to; safe in any thread."""

    def __init__(self) -> None:
        self.watched: dict[str, str] = {}
        """{model: version on probation}; replaced as a whole."""
        self._lock = threading.Lock()
        self._looked: dict[Key, int] = {}
        self._found: deque[Prediction] = deque(maxlen=_MOST_NAN)

    def watch(self, model: str, version: str | None) -> None:
        """Look at the answers of a version, or of none."""
        if self.watched.get(model) != version:
            others = {one: other for one, other in self.watched.items() if one != model}
            self.watched = others | ({model: version} if version else {})

    def predicted(self, prediction: Prediction) -> None:
        """Look whether an answer is NaN; a lookup where the model's version is not on probation."""
        if self.watched.get(prediction.model) != prediction.version:
            return
        found = not prediction.finite and has_nan(prediction.outputs.values())
        key = (prediction.model, prediction.version)
        with self._lock:
            self._looked[key] = self._looked.get(key, 0) + prediction.requests
            if found:
                self._found.append(prediction)

    def take(self, model: str, version: str) -> tuple[int, list[Prediction]]:
        """Return how many requests were looked at since the last call, and the predictions with NaN."""
        with self._lock:
            looked = self._looked.pop((model, version), 0)
            waiting, self._found = self._found, deque(maxlen=_MOST_NAN)
            found = [one for one in waiting if (one.model, one.version) == (model, version)]
            self._found.extend(one for one in waiting if one.model != model)
            return looked, found


class ProbationWatch:
    """Counts for each model what its active version does, and ends probations; for the judge's thread alone."""

    def __init__(
        self,
        store: Store,
        models: ModelRepository,
        settings: ProbationConfig,
        in_process: Callable[[str], SelfTest],
        nan: NanWatch,
        tally: Tally,
    ) -> None:
        """`in_process` gives a model's self-test, see Judge; `tally` is nobody else's from now on."""
        self._store, self._models, self._settings = store, models, settings
        self._in_process = in_process
        self.nan = nan
        self._tally = tally

    def look(self, name: str, sums: Mapping[Key, Sequence[float]], *, quiet: bool = False) -> None:
        """Count what is new of a model, and do what follows; `quiet` while an experiment decides about it."""
        now = activation.read(self._store, name)
        if now.active is None:
            self._tally.forget(name)
            self.nan.watch(name, None)
            return
        kept = self._tally.counted(name, now, sums)
        watched = self._settings.enabled and now.state == "probation" and not quiet
        self.nan.watch(name, now.active if watched and now.previous else None)
        if watched and self._serves(name, now.active):
            self._judge(name, now, kept)
        else:
            kept.watch = msgspec.structs.replace(kept.watch, verdict="", action=None)
        self._tally.write(name, kept)

    def _serves(self, name: str, version: str) -> bool:
        """Return whether this process answers by a version already."""
        served = self._models.roles(name).get(ACTIVE)
        return served is not None and served.loaded is not None and served.loaded.version == version

    def _judge(self, name: str, now: Activation, kept: Counted) -> None:
        """Judge the counts of a version on probation, and act."""
        self._ask_the_one_before(name, kept)
        self._test(name, kept)
        labelled = quality.of_versions(files.folder(self._store.state_dir), name, within=self._store.state_dir)
        action, why = probation.judge(self._settings, kept.watch, self_test=kept.self_test, quality=labelled)
        version = kept.watch.now.version
        if action == "mark good":
            activation.mark_good(self._store, name, why=f"probation: {why}", only=version)
            kept.watch = msgspec.structs.replace(kept.watch, verdict="", action=None)
            log.info("version is marked good", extra={"model": name, "version": version, "why": why})
        elif action == "go back" and now.previous is not None:
            self._go_back(name, kept, why)
        else:
            nowhere = "; there is no version before to go back to" if action == "go back" else ""
            kept.watch = msgspec.structs.replace(kept.watch, verdict=f"{why}{nowhere}", action=action)
            if nowhere and kept.told != version:
                kept.told = version
                log.error("version on probation fails", extra={"model": name, "version": version, "why": why})

    def _go_back(self, name: str, kept: Counted, why: str) -> None:
        """Return to the version before, and tell of it; where that is not possible, say why once."""
        version = kept.watch.now.version
        try:
            done = activation.roll_back(
                self._store, name, self._in_process(name), why=f"probation of {version}: {why}", only=version
            )
        except ApplianceError as error:
            kept.watch = msgspec.structs.replace(
                kept.watch, verdict=f"{why}; it cannot go back: {error}", action="go back"
            )
            if kept.told != str(error):
                kept.told = str(error)
                extra = {"model": name, "version": version, "why": why, "error": str(error)}
                log.error("version on probation fails and cannot be taken back", extra=extra)
            return
        self._models.refresh()
        log.error(
            "version on probation is taken back",
            extra={"model": name, "version": version, "serving": done.active, "why": why},
        )

    def _ask_the_one_before(self, name: str, kept: Counted) -> None:
        """Ask the version before what this one answered NaN to: NaN to both is the rows' fault."""
        looked, predictions = self.nan.take(name, kept.watch.now.version)
        before = self._models.roles(name).get(PREVIOUS)
        if not looked or before is None or before.loaded is None:
            return
        found = 0
        for one in predictions:
            feeds = {column: array[:_MOST_NAN_ROWS] for column, array in one.inputs.items()}
            try:
                answers = before.loaded.session.run(feeds, before.loaded.output_names)
            except ApplianceError:
                continue
            found += not has_nan(answers)
        total, hits = kept.watch.nan
        kept.watch = msgspec.structs.replace(kept.watch, nan=(total + looked, hits + found))

    def _test(self, name: str, kept: Counted) -> None:
        """Run the self-test of the active version when it is due."""
        due = self._settings.self_test_seconds
        served = self._models.roles(name).get(ACTIVE)
        if due and served and served.loaded and time.monotonic() - kept.tested >= due:
            kept.tested = time.monotonic()
            kept.self_test = served.loaded.failure()

"""Who sees the rows of `appliance score --observe`: the prediction log, and what counts them for drift."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appliance.bundle import baseline, members
from appliance.config import Config
from appliance.errors import BundleRefused, ConfigError
from appliance.inference.version import LoadedVersion
from appliance.store.versions import Store

if TYPE_CHECKING:
    from appliance.cli.chosen_version import Chosen
    from appliance.drift_report import DriftReport
    from appliance.monitoring.drift_scored import BlockCounter, RunCounts
    from appliance.monitoring.drift_tables import Tables


def _nobody(loaded: LoadedVersion) -> None:
    """Return no prediction log."""


@dataclass(frozen=True, slots=True)
class Observing:
    """Who sees the rows of a run; nobody by default."""

    recorder_of: Callable[[LoadedVersion], Any] = _nobody
    """Makes the prediction log of a loaded version, in the process that scores; None where it is off."""
    tables: "Tables | None" = None
    """The columns that are counted for drift."""
    counts: "RunCounts | None" = None
    """Adds up what the processes count."""

    @property
    def drift(self) -> "DriftReport | None":
        """What the run's window has shown; None before its end, and where no row is counted."""
        return self.counts.report if self.counts else None

    def counter(self) -> "BlockCounter | None":
        """Return what counts the rows of a process."""
        if self.tables is None:
            return None
        from appliance.monitoring.drift_scored import BlockCounter

        return BlockCounter(self.tables)


def observing(config: Config, chosen: "Chosen", wanted: bool) -> Observing:
    """Return who sees the rows. Raises ConfigError where somebody is `wanted` and nobody would see any."""
    if not wanted:
        return Observing()
    tables, why = _tables(config, chosen)
    logs = config.log.predictions.enabled
    if tables is None and not logs:
        found = f"nothing would see the rows: [log.predictions] is not enabled, and for drift {why}"
        raise ConfigError("score with --observe", found, "enable one of them, or leave --observe out")
    recorder_of = _log_of(config) if logs else _nobody
    if tables is None:
        return Observing(recorder_of)
    from appliance.monitoring.drift_judge import Limits
    from appliance.monitoring.drift_scored import RunCounts

    return Observing(recorder_of, tables, RunCounts(Store.of(config), Limits.of(config.drift), tables))


def _tables(config: Config, chosen: "Chosen") -> "tuple[Tables | None, str]":
    """Return the columns that are counted for drift; None, and why, where none are."""
    if not config.drift.enabled:
        return None, "[drift] is not enabled"
    if not chosen.is_installed:
        return None, "the version is not installed"
    with chosen.open_now() as opened:
        content = opened.read(members.BASELINE) if members.BASELINE in opened.names else None
    if content is None:
        return None, "the bundle has no baseline.json"
    from appliance.monitoring.drift_tables import Tables

    try:
        return Tables(chosen.manifest, baseline.read(content)), ""
    except BundleRefused as error:
        return None, f"its baseline.json cannot be read ({error.found})"


def _log_of(config: Config) -> Callable[[LoadedVersion], Any]:
    """Return what makes the prediction log of a loaded version."""

    def made(loaded: LoadedVersion) -> Any:
        from appliance.batch.scoring import OneVersion
        from appliance.monitoring.prediction_log.log import PredictionLog

        log = PredictionLog(config.log.predictions, config.state_dir, OneVersion(loaded))
        log.start()
        return log

    return made

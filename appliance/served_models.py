"""What every model of a host serves, for the status that the MQTT listener publishes."""

from collections.abc import Callable
from typing import Any

import msgspec

from appliance.drift_report import DriftReport
from appliance.experiments import info, probation_record
from appliance.log_parts import LogParts
from appliance.repository import ModelRepository
from appliance.store import activation
from appliance.store.versions import Store


def described(
    store: Store, models: ModelRepository, log: LogParts, drift_of: Callable[[str, str], DriftReport | None]
) -> list[dict[str, Any]]:
    """Return what every model serves and since when, as JSON.

    Also whether it has drifted, and where its log ends: whoever keeps the status has a copy elsewhere. `drift_of` gives
    a version's report, None where it is not watched.
    """
    found: list[dict[str, Any]] = []
    heads = log.heads()
    for served in models.served():
        if served.loaded:
            name, version = served.name, served.loaded.version
            record = activation.read(store, name)
            now: dict[str, Any] = {"model": name, "version": version, "since": record.since}
            now["probation"] = msgspec.to_builtins(probation_record.described(store.state_dir, name, record))
            if log.recorder:
                now["log"] = [head for head in heads if head["model"] == name]
            if experiment := info.running(store, name):
                now["experiment"] = msgspec.to_builtins(experiment)
            if (report := drift_of(name, version)) is not None:
                now["drift"] = report.alarm()
            if (standing := log.standing(name, version)) is not None:
                now["quality"] = standing.as_dict()
            found.append(now)
    return found

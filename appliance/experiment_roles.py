"""The roles of a model's versions while an experiment runs: the active one, each other arm, and the shadow."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance.errors import ApplianceError
from appliance.repository import ACTIVE, ActiveAlone
from appliance.store import activation, experiments
from appliance.store.routing_record import Routing
from appliance.store.versions import Store

log = logging.getLogger(__name__)

SHADOW, CANARY, PREVIOUS = "shadow", "canary", "previous"


class ExperimentRoles(ActiveAlone):
    """Roles by activation.json and routing.json."""

    def __init__(self, *, keep_previous: bool = False) -> None:
        """`keep_previous` keeps the version before loaded while the active one is on probation: going back is quick."""
        self._keep_previous = keep_previous

    def records(self, store: Store, name: str) -> Sequence[Path]:
        """Return both records' places."""
        return (activation.path(store, name), experiments.path(store, name))

    def wanted(self, store: Store, name: str) -> Mapping[str, str | None]:
        """Return the active version, the shadow, and the other arms; without them the version before, where it is kept.

        Raises StoreError for a bad activation.json.
        """
        routing, now = self.routing(store, name), activation.read(store, name)
        if routing:
            return {ACTIVE: now.active} | roles_of(routing)
        on_probation = now.active is not None and now.state == "probation"
        if self._keep_previous and on_probation and now.previous in store.versions(name):
            return {ACTIVE: now.active, PREVIOUS: now.previous}
        return {ACTIVE: now.active}

    def routing(self, store: Store, name: str) -> Routing | None:
        """Return the experiment that runs; one that cannot be read is none, so that the active version answers."""
        try:
            return experiments.read(store, name)
        except ApplianceError as error:
            log.error("experiment cannot be read: the active version answers", extra={"error": str(error)})
            return None


def roles_of(routing: Routing) -> dict[str, str]:
    """Return {role: version} of an experiment, but for the active version's: `canary`, `shadow`, `split VERSION`."""
    others = [arm.version for arm in routing.arms if arm.version != routing.base]
    roles = {CANARY if routing.kind == "canary" else f"{routing.kind} {version}": version for version in others}
    return roles | ({SHADOW: routing.shadow.version} if routing.shadow else {})

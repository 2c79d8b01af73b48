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

SHADOW, CANARY = "shadow", "canary"


class ExperimentRoles(ActiveAlone):
    """Roles by activation.json and routing.json."""

    def records(self, store: Store, name: str) -> Sequence[Path]:
        """Return both records' places."""
        return (activation.path(store, name), experiments.path(store, name))

    def wanted(self, store: Store, name: str) -> Mapping[str, str | None]:
        """Return the active version, the shadow, and the other arms. Raises StoreError for a bad activation.json."""
        routing = self.routing(store, name)
        return {ACTIVE: activation.read(store, name).active} | (roles_of(routing) if routing else {})

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

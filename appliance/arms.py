"""The arms of an experiment that are loaded in this process, and by which of them a request is answered."""

import random
from collections.abc import Mapping

from appliance.inference.version import LoadedVersion
from appliance.routing import Router
from appliance.store.routing_record import Routing

HEADER, CALLER, COLUMN = "header", "caller", "column:"
"""Where the key of a request is from; see Routing.key."""


class Arms:
    """Who answers requests to one model while an experiment runs. Never changed: a new state has new Arms."""

    def __init__(self, routing: Routing, loaded: Mapping[str, LoadedVersion]) -> None:
        """`loaded` has versions by name, `routing.base` among them; it takes the share of an arm that is not loaded."""
        self.id = routing.id
        self.by_caller = routing.key == CALLER
        """Whether the token's name is the key of a request that brings none."""
        self.column = routing.key.removeprefix(COLUMN) if routing.key.startswith(COLUMN) else ""
        """The column whose value in the first row is the key; "" for none."""
        self.base = loaded[routing.base].as_arm(self._arm(routing.base))
        self._by_version = {arm.version: self.base for arm in routing.arms} | {
            arm.version: loaded[arm.version].as_arm(self._arm(arm.version))
            for arm in routing.arms
            if arm.version in loaded and arm.version != routing.base
        }
        self._pick = Router(routing.salt, [(arm.version, arm.share) for arm in routing.arms]).pick

    def pick(self, key: str) -> LoadedVersion:
        """Return the version that answers a request with `key`, "" for one that has none, as the arm that it is."""
        return self._by_version[self._pick(key, random.random())]  # noqa: S311 - a share of requests, not a secret

    def _arm(self, version: str) -> str:
        """Return the name of an arm in answers, logs and counts."""
        return f"{self.id}/{version}"

"""The arms of an experiment that are loaded in this process, and by which of them a request is answered."""

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from appliance.arrays import Array
from appliance.bundle.manifest import Input
from appliance.inference.version import LoadedVersion
from appliance.routing import Router
from appliance.store.routing_record import Routing

HEADER, CALLER, COLUMN = "header", "caller", "column:"
"""Where the key of a request is from; see Routing.key."""


class Arms:
    """Who answers requests to one model while an experiment runs. Never changed: a new state has new Arms."""

    def __init__(self, routing: Routing, loaded: Mapping[str, LoadedVersion]) -> None:
        """`loaded` has versions by name, `routing.base` among them; it takes the share of an arm that is not loaded."""
        self.routing = routing
        """The record, as this process follows it."""
        self.id = routing.id
        self.by_caller = routing.key == CALLER
        """Whether the token's name is the key of a request that brings none."""
        self.column = routing.key.removeprefix(COLUMN) if routing.key.startswith(COLUMN) else ""
        """The column whose value in the first row is the key; "" for none."""
        self.base = loaded[routing.base].as_arm(self._arm(routing.base))
        by_version = {arm.version: self.base for arm in routing.arms} | {
            arm.version: loaded[arm.version].as_arm(self._arm(arm.version))
            for arm in routing.arms
            if arm.version in loaded and arm.version != routing.base
        }
        self._place = _place_of(self.column, self.base.schema.inputs)
        router = Router(routing.salt, [(arm.version, arm.share) for arm in routing.arms])
        # A share of requests, not a secret. An attribute, since it is asked for every request.
        self.pick: Callable[[str], LoadedVersion] = router.chooser(by_version, random.random)
        """Gives the version that answers a request with a key, "" for one that has none, as the arm that it is."""

    def key_of_feeds(self, feeds: Mapping[str, Array]) -> str:
        """Return the value of the key's column in the first row of checked `feeds`, as text; "" where it is missing."""
        place = self._place
        if place is None or not len(feeds[place[0]]):
            return ""
        return _text(feeds[place[0]][0, place[1]])

    def _arm(self, version: str) -> str:
        """Return the name of an arm in answers, logs and counts."""
        return f"{self.id}/{version}"


def _place_of(column: str, inputs: Sequence[Input]) -> tuple[str, int] | None:
    """Return the (tensor, place in its width) of a column; None for no column, or one that is not there.

    Only where the versions may differ could it be absent, and there no column is a key.
    """
    for tensor in inputs:
        if column and column in tensor.columns:
            return tensor.name, tensor.columns.index(column)
    return None


def _text(value: object) -> str:
    """Return a key's value as text: 5 and 5.0 of a float column are one key; a missing value is none."""
    plain = value.item() if isinstance(value, np.generic) else value
    return "" if plain is None or plain != plain else str(plain)

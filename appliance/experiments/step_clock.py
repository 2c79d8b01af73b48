"""How long a step of an experiment has run: the time for which the service judged it, kept in a file of the step.

It is counted by a clock that nobody sets. The wall clock of a plant's host may be set back or forward by days while an
experiment runs, and a step must neither hold for those days nor end early. What a kill loses is less than a look.
"""

import time
from pathlib import Path

from appliance.experiments.counting import step_key
from appliance.monitoring import shared_cells
from appliance.monitoring.shared_cells import Cells, Key, Layout
from appliance.store.routing_record import Routing

LAYOUT = Layout(".clock", lambda key: 1)
"""One cell: seconds."""


class StepClock:
    """Counts the time of the steps that run; for the judge's thread alone."""

    def __init__(self, folder: Path, *, within: Path) -> None:
        self._folder, self._within = folder, within
        self._steps: dict[str, tuple[Key, Cells, float]] = {}  # model -> its step, the step's cell, when it was counted

    def count(self, model: str, routing: Routing) -> float:
        """Add the time since the last call for the same step; return the seconds of the step."""
        key, now = step_key(model, routing), time.monotonic()
        known = self._steps.get(model)
        if known is None or known[0] != key:
            known = key, shared_cells.open_cells(self._folder, 0, key, LAYOUT, self._within), now
        _, cells, counted = known
        cells[0] += now - counted
        self._steps[model] = key, cells, now
        return cells[0]

    def pause(self, model: str) -> None:
        """Leave out the time from now to the next call of count(): nothing is compared meanwhile."""
        self._steps.pop(model, None)


def seconds(folder: Path, model: str, routing: Routing, *, within: Path) -> float:
    """Return for how long the step that runs was judged; 0 before the first look."""
    key = step_key(model, routing)
    found = (cells[0] for one, cells in shared_cells.each(folder, LAYOUT, within=within, only=key) if one == key)
    return sum(found)

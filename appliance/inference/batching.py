"""Whether a run for several rows saves a version so much time that requests should share one: measured, not guessed."""

import time

from appliance.errors import ApplianceError
from appliance.inference.version import LoadedVersion

ROWS = 16
"""Of the run that is compared with as many runs of one row each."""
LEAST_SAVED = 300e-6
"""Seconds that it has to save."""
LEAST_ALONE = 40e-6
"""Seconds of a run of one row below which requests share none: to sort them costs more than it saves. A busy host makes
every run look longer, so that the difference alone would not tell.
"""
ROUNDS = 10
MOST_SECONDS = 0.02
"""After which no further round begins; of a version whose run takes that long, LEAST_ROUNDS tell enough."""
LEAST_ROUNDS = 3


def pays(version: LoadedVersion, threads: int = 1) -> bool:
    """Return whether one run for ROWS rows saves at least LEAST_SAVED; on the bundle's examples, other rows each round.

    `threads` are those of one run: with several, this thread's own time would not tell.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    feeds = version.example_feeds(ROWS + ROUNDS)
    alone = together = float("inf")
    spent = 0.0
    try:
        for number in range(ROUNDS):
            one = {name: array[number : number + 1] for name, array in feeds.items()}
            many = {name: array[number : number + ROWS] for name, array in feeds.items()}
            begun = clock()
            version.session.run(one)
            between = clock()
            alone = min(alone, between - begun)
            if number + 1 >= LEAST_ROUNDS and alone < LEAST_ALONE:
                return False
            version.session.run(many)
            ended = clock()
            together = min(together, ended - between)
            spent += ended - begun
            if number + 1 >= LEAST_ROUNDS and spent > MOST_SECONDS:
                break
    except ApplianceError:  # such as a time limit that many rows do not keep
        return False
    return ROWS * alone - together >= LEAST_SAVED

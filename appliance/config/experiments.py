"""`[experiments]`: the plan of those that begin, and what a shadow may use, see docs/experiments.md."""

from typing import Annotated

import msgspec

from appliance.config.section import Fraction, NotNegativeSeconds, Positive, Seconds, Section


class ExperimentsConfig(Section, frozen=True):
    """`[experiments]`: the plan of those that begin, and what a shadow may use, see docs/experiments.md."""

    min_requests: Positive = 300
    """Requests of the new version that a step of a canary takes at least."""
    min_seconds: NotNegativeSeconds = 300.0
    """Seconds that a step of a canary takes at least."""
    max_seconds: Seconds = 604_800.0
    """Seconds after which a step with too little traffic is called inconclusive. It holds all the same."""
    margin: Fraction = 0.025
    """By how much the upper bound of a canary's failure rate may be above the active version's rate when a step ends,
    as a share of the requests.
    """
    alpha: Fraction = 0.01
    """The chance, of each test, that an experiment is ever taken back although its versions are alike."""
    shadow_cpu: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    """The share of one core that a shadow may use in each process; what it cannot answer within that is dropped."""
    keep_rows: bool = True
    """Whether the 20 rows on which a shadow differs most are kept on disk, with their values."""

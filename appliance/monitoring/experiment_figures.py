"""What /metrics tells of an experiment that runs: who answers, what was counted in its step, what the tests say."""

from collections.abc import Mapping, Sequence

import msgspec

STATES = ("wait", "go on", "go back", "inconclusive", "routing broken")
"""The states of a verdict."""


class ArmFigures(msgspec.Struct, frozen=True):
    """What one arm did in the step that runs, over all processes."""

    version: str
    share: float
    requests: int
    failures: int
    slow_runs: int
    nan: int


class ExperimentFigures(msgspec.Struct, frozen=True):
    """The experiment on one model."""

    model: str
    step: int
    verdict: str
    """One of STATES."""
    arms: Sequence[ArmFigures]
    shadow: tuple[str, float] | None = None
    """(version, share of the rows that it is asked)."""
    compared: Mapping[str, float] = {}
    """{name: number} of the shadow's comparison."""
    log_e: Mapping[tuple[str, str], float] = {}
    """{(version, test): natural logarithm of the evidence}."""

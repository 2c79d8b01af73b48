"""What is told of a version's drift; alone, so that what watches, listeners and commands need not know each other."""

import msgspec

STATES = ("fine", "watch", "drift", "too few rows")
"""By their numbers in appliance_drift_state: 0 to 3."""


class UnseenValue(msgspec.Struct, frozen=True):
    """A category that training did not see, and about how many rows held it since the service started."""

    value: str
    rows: int


class ColumnReport(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a version's inputs or outputs, as its last window had it. Shares are from 0 to 1."""

    column: str
    role: str
    """`input` or `output`."""
    state: str
    """`fine`, `watch`, `drift` or `too few rows`."""
    because: list[str] = []
    """What is in drift, and against which reference, each as a phrase."""
    psi: dict[str, float] = {}
    """The population stability index against `training` and the `device`'s own past, in bins at training's quantiles.
    """
    missing: float = 0.0
    missing_in_training: float = 0.0
    beyond: float = 0.0
    """Values beyond the fences around what training saw."""
    unseen: float = 0.0
    """Categories that training did not see."""
    unseen_values: list[UnseenValue] = []
    """The most frequent of those, each with at least 5 rows."""
    repeats: float = 0.0
    """Values that are the same as in the row before; 1 for a sensor that is stuck."""
    refused: int = 0
    """Requests that were refused because of this column."""
    mean_shift: float | None = None
    """Of the mean, in training's standard deviations."""
    kolmogorov_smirnov: float | None = None
    """The largest distance from training's cumulative shares at the edges of the bins."""
    median: float | None = None
    """Interpolated between the edges of the bins."""


class DriftSummary(msgspec.Struct, frozen=True):
    """The drift of a version in short."""

    state: str
    """`fine`, `watch`, `drift` or `too few rows`."""
    since: str
    """When it changed last (UTC, ISO 8601)."""
    columns: list[str]
    """The columns that are watched or in drift, the worst first, ten at most."""


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """A version's drift after its last window."""

    model: str
    version: str
    state: str = "too few rows"
    """The worst of the columns'."""
    since: str = ""
    """When the state changed last (UTC, ISO 8601)."""
    window_ended: str = ""
    window_seconds: float = 0.0
    window_rows: int = 0
    """Rows that were counted, which may be every k-th alone."""
    windows: int = 0
    """That are kept."""
    device_reference: str = ""
    """When the device's own reference was frozen; "" while there is none."""
    device_windows: int = 0
    """That it was made of."""
    accepted: list[str] = []
    """Columns whose difference from training somebody accepted."""
    estimated_accuracy: float | None = None
    """What the calibrated probabilities of the window let expect, before any label is known (CBPE)."""
    warnings: list[str] = []
    columns: list[ColumnReport] = []

    def summary(self) -> DriftSummary:
        """Return the drift in short."""
        return DriftSummary(self.state, self.since, [one.column for one in self.drifting()[:10]])

    def alarm(self) -> dict[str, object]:
        """Return the short form: the state, since when, and which columns, the worst first."""
        columns = [{"column": one.column, "state": one.state, "because": one.because} for one in self.drifting()[:10]]
        return {"state": self.state, "since": self.since, "columns": columns}

    def drifted_input(self) -> str:
        """Return the worst column of the inputs that is in drift, "" for none."""
        return next((one.column for one in self.drifting() if (one.role, one.state) == ("input", "drift")), "")

    def drifting(self) -> list[ColumnReport]:
        """Return the columns that are watched or in drift, the worst first."""
        found = [one for one in self.columns if one.state in ("watch", "drift")]
        return sorted(found, key=lambda one: (one.state != "drift", -max(one.psi.values(), default=0.0)))

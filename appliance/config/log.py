"""`[log]`: what is written to standard error, and which predictions are kept on this host."""

from typing import Annotated, Literal

import msgspec

from appliance.config.section import Positive, Section

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class PredictionLogConfig(Section, frozen=True):
    """`[log.predictions]`: the log of predictions, below the state folder.

    Off by default. What it holds and how it proves it: docs/prediction-log.md.
    """

    enabled: bool = False
    """Whether predictions are kept. Labels need it: docs/how-to/labels.md."""
    models: tuple[str, ...] = ()
    """Models whose predictions are kept; empty: all."""
    inputs: bool = True
    """Whether the rows are kept, as they were sent; else the answers alone."""
    columns: dict[str, str] = {}  # noqa: RUF012 - msgspec copies an empty default
    """Columns that are not kept as they were sent: `{ name = "drop", postcode = "hash", age = "round:5" }`. `hash` is a
    keyed one, whose key never leaves the host. In the variable `name=drop,age=round:5`.
    """
    sample: Share = 1.0
    """Share of the requests that are kept, chosen by a hash of their ids: whole ones, and the same on every host."""
    max_bytes: Annotated[int, msgspec.Meta(ge=1024 * 1024)] = 256 * 1024 * 1024
    """Bytes that all logs of this host may take on disk; beyond, the oldest sealed segments are deleted."""
    max_days: Positive = 30
    """Age in days at which a segment is deleted."""
    segment_bytes: Annotated[int, msgspec.Meta(ge=64 * 1024, le=64 * 1024 * 1024)] = 8 * 1024 * 1024
    """Bytes at which a segment is sealed and packed."""
    sync: Literal["interval", "always", "never"] = "interval"
    """When written lines are synced to disk: once a second, at each write, or when the system does it by itself."""
    required: bool = False
    """Whether an answer waits until it is in the log, and is refused (503) where it cannot be."""
    max_label_days: Positive = 30
    """Age in days at which a prediction takes no label any more."""


class LogConfig(Section, frozen=True):
    """`[log]`: JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written: debug, info, warning or error."""
    requests: bool = False
    """Whether each request writes a line."""
    predictions: PredictionLogConfig = PredictionLogConfig()

"""What every table of the configuration is, and the types of values that several of them have."""

from typing import Annotated

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
NotNegativeSeconds = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(gt=0, lt=1)]
"""Above 0, below 1: a chance, or a share of something."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the configuration file: immutable, and unknown keys are an error."""

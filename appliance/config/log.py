"""`[log]`: what is written to standard error."""

from typing import Literal

from appliance.config.section import Section


class LogConfig(Section, frozen=True):
    """`[log]`: JSON lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written: debug, info, warning or error."""
    requests: bool = False
    """Whether each request writes a line."""

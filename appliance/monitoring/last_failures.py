"""The last request of each model that failed by its caller's fault, and by this host's, over all processes.

As in the prediction log, a failure is told by a word and a column: what the caller sent is nobody else's business.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from appliance.errors import ApplianceError
from appliance.monitoring import shared_files

_SUFFIX = ".failures"

Fault = Literal["caller", "service"]


class LastFailure(msgspec.Struct, frozen=True):
    """One failure."""

    model: str
    fault: Fault
    time: float
    """Unix time."""
    reason: str
    """What was wrong with a value (errors.REFUSAL_REASONS), else the kind of error (errors.py)."""
    column: str
    """The column that is to blame, "" for none."""


_Key = tuple[str, str]


class LastFailures:
    """The last failures as this process saw them, and as all did. Safe in any thread."""

    def __init__(self, folder: Path | None = None, slot: int = 0) -> None:
        """`folder` is shared by the processes, None for one alone; `slot` numbers this one."""
        self._folder, self._slot = folder, slot
        self._own: dict[_Key, LastFailure] = {}
        self._told: Mapping[_Key, LastFailure] = {}

    def note(self, model: str, fault: Fault, error: ApplianceError, now: float, *, column: str) -> None:
        """Take a failure of a known model; `column` is one of its own, or ""."""
        reason = str(getattr(error, "reason", "") or type(error).__name__)
        self._own[model, fault] = LastFailure(model, fault, now, reason, column)

    def share(self) -> None:
        """Tell the other processes what is new; called once in a while."""
        own = dict(self._own)
        if self._folder is not None and own != self._told:
            self._told = own
            shared_files.write(self._folder, f"{self._slot}{_SUFFIX}", msgspec.json.encode(list(own.values())))

    def all(self) -> list[LastFailure]:
        """Return the last failure of each model and fault, over all processes."""
        found = dict(self._own)
        for file in sorted(self._folder.glob(f"*{_SUFFIX}")) if self._folder else ():
            try:
                told = msgspec.json.decode(file.read_bytes(), type=list[LastFailure])
            except (OSError, msgspec.MsgspecError):  # it is being replaced: it counts the next time
                continue
            for one in told:
                known = found.get((one.model, one.fault))
                if known is None or known.time < one.time:
                    found[one.model, one.fault] = one
        return [found[key] for key in sorted(found)]

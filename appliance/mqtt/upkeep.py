"""Upkeep of the disk: deletes acknowledged and expired answers, and stores the state of the clock."""

from appliance.mqtt.disk import Disk
from appliance.mqtt.flow import Flow
from appliance.mqtt.outbox import EXPIRED_AT_ONCE, Outbox
from appliance.mqtt.timers import Timer

FLUSH_SECONDS = 0.2
"""After which acknowledged answers are deleted when no commit of a batch did it."""
PRUNE_SECONDS = 60.0


class Upkeep:
    """For the loop's thread. Its methods write, so none may be called while the committer is busy."""

    def __init__(self, flow: Flow, outbox: Outbox, disk: Disk) -> None:
        self._flow = flow
        self._outbox = outbox
        self._disk = disk
        self._flush = Timer(FLUSH_SECONDS)
        self._prune = Timer(PRUNE_SECONDS)

    def flush(self, now: float) -> bool:
        """Delete acknowledged answers; return whether the disk took that. Raises StoreError."""
        if not self._outbox.acknowledged or not self._flush.is_due(now):
            return False
        self._outbox.flush()
        if not self._outbox.count:
            self._disk.shrink()
        return True

    def prune(self, now: float) -> None:
        """Delete what is too old, and have the disk know of a wall clock that was set. Raises StoreError."""
        self._flow.note_clock()
        if self._prune.is_due(now):
            self._flow.prune()
            if self._outbox.expire() >= EXPIRED_AT_ONCE:
                self._prune.hurry(now + FLUSH_SECONDS)

"""How much of the log is kept: whole sealed segments are deleted, the oldest first, each time with a receipt.

The receipt holds the chain at the cut, so that what is left can still be checked.
"""

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from appliance import nofollow
from appliance.errors import StoreError
from appliance.monitoring.prediction_log import segments
from appliance.monitoring.prediction_log.segments import Segment
from appliance.store import durable, receipts
from appliance.store.receipts import Receipt

DAY = 86_400.0


def segment_bytes(wanted: int, quota: int, writers: int) -> int:
    """Return the size at which an open segment is packed: smaller where the quota could not hold all that are open."""
    return max(4096, min(wanted, quota // (4 * max(1, writers))))


def prune(state_dir: Path, *, quota: int, days: float, reserve: int, now: float | None = None) -> list[Segment]:
    """Delete sealed segments that are too old, then the oldest until `reserve` bytes fit within the quota.

    Returns what was deleted. `reserve` is what the open segments of all writers may still grow by, and their packing.
    """
    every = [
        segment
        for model in segments.models(state_dir)
        for writer in segments.writers(state_dir, model)
        for segment in segments.of_writer(writer)
    ]
    packed = sorted((one for one in every if one.packed), key=lambda one: (one.modified, one.number))
    taken = segments.bytes_of(state_dir) + reserve
    oldest = (time.time() if now is None else now) - days * DAY
    gone = []
    for segment in packed:
        if segment.modified >= oldest and taken <= quota:
            continue
        taken -= _delete(segment)
        gone.append(segment)
    note(state_dir, gone)
    return gone


def note(state_dir: Path, gone: Iterable[Segment]) -> None:
    """Write a receipt for each writer of which segments were deleted."""
    by_writer: dict[segments.Writer, list[Segment]] = {}
    for segment in gone:
        by_writer.setdefault(segment.writer, []).append(segment)
    for writer, found in by_writer.items():
        left = segments.of_writer(writer)
        chain = ""
        with suppress(OSError, StoreError):
            header = segments.header_of(segments.split(left[0].read())[0]) if left else None
            kept = segments.kept_head(writer)
            chain = header.prev if header else kept.chain if kept and not left else ""
        numbers = f"{found[0].number} to {found[-1].number}" if len(found) > 1 else f"{found[0].number}"
        why = f"slot {writer.slot}, segments {numbers}, chain {chain}"
        with suppress(OSError, StoreError):  # a full disk is why this is done
            receipts.append(
                state_dir / "receipts",
                Receipt(when=receipts.now(), what="cut log", model=writer.model, version=writer.version, why=why),
            )


def _delete(segment: Segment) -> int:
    """Delete a segment and its index; return the bytes that are free now."""
    freed, state_dir = segment.size, segment.writer.state_dir
    with suppress(FileNotFoundError):
        freed += nofollow.status(segment.index, within=state_dir).st_size
        durable.delete(segment.index, within=state_dir)
    with suppress(FileNotFoundError):
        durable.delete(segment.path, within=state_dir)
    return freed

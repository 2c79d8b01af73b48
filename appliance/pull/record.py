"""What the last pull found and did, in STATE_DIR/pull/record.json: so that each offer is acted on once.

An offer that was activated here is not activated again, or a roll back on the host would last until the next pull. An
offer that was refused is not fetched again until something that could change the verdict has changed.
"""

from pathlib import Path
from typing import Literal

import msgspec

from appliance import nofollow
from appliance.store import durable

FILE = "record.json"


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of an offer."""

    outcome: Literal["installed", "activated", "refused"]
    model: str = ""
    version: str = ""
    when: str = ""
    """UTC, ISO 8601."""
    found: str = ""
    """Why it was refused."""
    circumstances: str = ""
    """Digest of what a refusal depends on beside the bundle: keys, settings, the program's version."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole of record.json."""

    source: str = ""
    etag: str = ""
    document: bytes = b""
    """The index or manifest that `etag` names, so that it need not be sent again."""
    verdicts: dict[str, Verdict] = {}
    """SHA-256 of an offered bundle -> what became of it."""


def read(folder: Path, source: str) -> Record:
    """Return the record for `source`; an empty one where there is none, or it is of another source or damaged.

    Acting on an offer again does no harm: the same bundle is installed and activated once.
    """
    try:
        found = msgspec.json.decode(nofollow.read(folder / FILE, within=folder.parent), type=Record)
    except (OSError, msgspec.MsgspecError, ValueError):
        return Record(source)
    return found if found.source == source else Record(source)


def write(folder: Path, record: Record) -> None:
    """Keep the record. Raises StoreError."""
    with durable.reported(f"write {folder / FILE}"):
        durable.write_atomically(folder / FILE, msgspec.json.encode(record), within=folder.parent)

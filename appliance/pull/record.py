"""What the last pull found, in STATE_DIR/pull/record.json: so that nothing is fetched twice for the same answer.

An offer that was refused is not fetched again until something that could change the verdict has changed. What may go
live is not decided here but by the store's marks: losing this file costs a download and undoes nothing.
"""

from pathlib import Path

import msgspec

from appliance import nofollow
from appliance.store import durable

FILE = "record.json"


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of an offer that was fetched."""

    model: str = ""
    version: str = ""
    refused: str = ""
    """Why it was refused; empty: it was not."""
    when: str = ""
    """UTC, ISO 8601."""
    circumstances: str = ""
    """Digest of what a refusal depends on beside the bundle: keys, settings, the program's version."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole of record.json."""

    source: str = ""
    etag: str = ""
    document: bytes = b""
    """The index or manifest that `etag` names, so that it need not be sent again."""
    verdicts: dict[str, Verdict] = {}
    """SHA-256 of an offered bundle -> what is known of it."""


def read(folder: Path, source: str) -> Record:
    """Return the record for `source`; an empty one where there is none, or it is of another source or damaged.

    Fetching an offer again does no harm: the same bundle is installed and activated once.
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

"""OUTPUT.progress.json: how far a run came, so that the next run continues there and writes the same bytes.

What is on disk, and when:

    nothing                             no run, or one that ended before its first checkpoint
    OUTPUT.partial alone                the same: the partial is started again
    OUTPUT.partial, .progress.json      the partial holds at least what the progress notes, and it was on disk before
                                        the note was; what is behind is cut off
    OUTPUT, .progress.json              the run ended and the power went before the note was deleted: it means nothing
    OUTPUT                              done
"""

import os
from pathlib import Path

import msgspec

from appliance.batch.blocks import Position
from appliance.errors import StoreError
from appliance.store import durable

FORMAT = 1
SECONDS = 5.0
"""Between two checkpoints at most, which is the work that a kill may cost."""
BYTES = 64 * 1024 * 1024
"""Of output between two checkpoints at most."""


class Job(msgspec.Struct, frozen=True):
    """The job of a run; a run continues only the same job."""

    bundle: str
    """Digest of the manifest, which holds those of all members."""
    inputs: list[tuple[str, int, int, str]]
    """(name, size, mtime in ns, id) of each file."""
    options: dict[str, str]
    """Those that change the output."""


class Written(msgspec.Struct, frozen=True):
    """How much of a file is on disk."""

    bytes: int = 0
    sha256: str = ""


class Progress(msgspec.Struct, frozen=True):
    """One checkpoint."""

    format: int
    job: Job
    block_rows: int
    """Chosen once: answers may depend in the last bit on how many rows run together."""
    position: Position
    output: Written
    rejected: Written
    rows: int = 0
    bad: int = 0
    parts: int = 0
    """Finished parts of a Parquet folder."""
    counts: bytes = b""
    """What Counts.checkpoint() gave, of a run with --observe."""


def read(path: Path) -> Progress | None:
    """Return the checkpoint at `path`, None where there is none. Raises StoreError where it cannot be read."""
    tried = f"read {path}"
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Progress)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(tried, str(error), "start again with --no-resume") from error
    if found.format != FORMAT:
        raise StoreError(tried, f"its format is {found.format}, not {FORMAT}", "start again with --no-resume")
    return found


def write(path: Path, progress: Progress) -> None:
    """Replace the checkpoint; the output that it names must be on disk already. Raises OSError."""
    descriptor = os.open(temporary(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(progress), indent=1) + b"\n")
        file.flush()
        os.fsync(descriptor)
    temporary(path).replace(path)
    durable.sync_folder(path.parent)


def temporary(path: Path) -> Path:
    """Return where a checkpoint is written before it gets its name: one place, as only one run writes there."""
    return path.with_name(f"{path.name}.new")


def remove(path: Path) -> None:
    """Delete a checkpoint, and what an interrupted one left."""
    path.unlink(missing_ok=True)
    temporary(path).unlink(missing_ok=True)


def differs(before: Job, now: Job) -> str:
    """Return why a run cannot continue another one, "" if it can."""
    if before.bundle != now.bundle:
        return "the run that stopped had another version of the model"
    for old, new in zip(before.inputs, now.inputs, strict=False):
        if old[3] != new[3] or old[1:3] != new[1:3]:
            return f"{new[0]} is not what it was ({old[1]} bytes then, {new[1]} now)"
    if len(before.inputs) != len(now.inputs):
        return f"the number of input files was {len(before.inputs)}, now it is {len(now.inputs)}"
    changed = [name for name in {**before.options, **now.options} if before.options.get(name) != now.options.get(name)]
    return f"it had {changed[0]} = {before.options.get(changed[0])!r}" if changed else ""

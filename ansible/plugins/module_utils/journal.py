"""What a rollout notes on a host before its first change, so that a controller that is killed leaves a way back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

READINGS = "before.json"


def is_there(folder):
    """Return whether a rollout was cut off after it had noted how the host was."""
    return bool(folder) and (Path(folder) / READINGS).is_file()


def read(folder):
    """Return the readings in a journal; None without one."""
    return json.loads((Path(folder) / READINGS).read_text()) if is_there(folder) else None


def write(folder, readings, kept=None):
    """Write a journal for root alone, with a copy of the file `kept`; it is there once its readings are, whole."""
    folder = Path(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    if kept:
        copy = folder / Path(kept).name
        shutil.copyfile(kept, copy)
        copy.chmod(0o600)
        _to_disk(copy)
    new = folder / f"{READINGS}.new"
    new.touch(mode=0o600)
    new.write_text(json.dumps(readings))
    _to_disk(new)
    new.rename(folder / READINGS)
    _to_disk(folder)
    _to_disk(folder.parent)


def _to_disk(path):
    """Have a file or folder written out: power may go with the next change."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

"""What a rollout notes on a host before its first change, so that a controller that is killed leaves a way back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

READINGS = "before.json"
SETTINGS = "settings"
PROGRAM = ("image", "image.before")
"""Files among the settings that say which image runs: to return to one is the program's way back, not the settings'."""


def is_there(folder):
    """Return whether a rollout was cut off after it had noted how the host was."""
    return bool(folder) and (Path(folder) / READINGS).is_file()


def read(folder):
    """Return the readings in a journal; None without one."""
    return json.loads((Path(folder) / READINGS).read_text()) if is_there(folder) else None


def write(folder, readings, kept=None):
    """Write a journal for root alone, with a copy of the folder `kept`; it is there once its readings are, whole."""
    folder = Path(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    if kept:
        settings = folder / SETTINGS
        shutil.rmtree(settings, ignore_errors=True)  # of a journal that was cut off before its readings
        shutil.copytree(kept, settings, ignore=shutil.ignore_patterns(*PROGRAM))
        for path in settings.rglob("*"):
            _to_disk(path)
        _to_disk(settings)
    new = folder / f"{READINGS}.new"
    new.touch(mode=0o600)
    new.write_text(json.dumps(readings))
    _to_disk(new)
    new.rename(folder / READINGS)
    _to_disk(folder)
    _to_disk(folder.parent)


def _to_disk(path):
    """Flush a file or folder to the disk: a power cut may come with the next change."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

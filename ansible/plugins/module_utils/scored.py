"""What is known of a part that a host has scored: whether it still is what is asked for, and how it is handed over."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

CHUNK = 1 << 20


def words_of(asked):
    """Return the options of `appliance score` for what the module `score` is asked; all but those that name files."""
    words = ["--shard", f"{asked['part']}/{asked['of']}", "--bad-rows", asked["bad_rows"]]
    if asked["bad_rows"] == "quarantine":
        words += ["--max-bad", "100%"]  # whether they are too many is decided for all parts together
    for name in ("version", "format", "processes"):
        words += [f"--{name}", str(asked[name])] if asked[name] else []
    for column in asked["keep"]:
        words += ["--keep", column]
    words += [f"--{name}" for name in ("provenance", "quality", "observe") if asked[name]]
    return words + ([] if asked["resume"] else ["--no-resume"])


def job_of(asked, version):
    """Return what decides the bytes of a part: options, the version that answers, and the files as they are now.

    Raises OSError where an input cannot be looked at.
    """
    files = [asked["model"]] if "/" in asked["model"] else []
    names = ("model", "part", "of", "keep", "provenance", "bad_rows", "quality", "format")
    return {
        **{name: asked[name] for name in names},
        "version": version,
        "files": [list(_seen(file)) for path in [*files, *asked["inputs"]] for file in _files(Path(path))],
    }


def active(listed, model, version):
    """Return the version that answers: the one named, else the active one, "" for a bundle that is a file."""
    found = [one["active"] for one in listed["models"] if one["name"] == model]
    return version or (found[0] if found else "") or ""


def read(path):
    """Return the record of a part, {} where there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_done(record, job, folder, there):
    """Return whether the part of a record is what is asked for, and each of its files is here or on the controller.

    `folder` is where they are handed over on the host, `there` {name: SHA-256} of what the controller has.
    """
    if record.get("job") != job:
        return False
    return all(
        there.get(name) == digest or (folder / name).is_file() for name, digest in record["part"]["files"].items()
    )


def hand_over(source, target, owner):
    """Move a file that the service's user has written to a folder that is closed to it; return its SHA-256.

    `owner` is the user id that may fetch it, None for this one. Raises OSError, also where `source` is a link: whoever
    writes there must not choose what root reads.
    """
    digest = hashlib.sha256()
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    writing = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(reading, "rb") as old, os.fdopen(writing, "wb") as new:
        while chunk := old.read(CHUNK):
            digest.update(chunk)
            new.write(chunk)
        if owner is not None:
            os.fchown(new.fileno(), owner, -1)
        new.flush()
        os.fsync(new.fileno())
    temporary.replace(target)
    source.unlink()
    return digest.hexdigest()


def write(path, record):
    """Replace a record. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(path)


def _files(path):
    """Return the files that a path stands for."""
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def _seen(file):
    """Return (path, bytes, time of the last change) of a file."""
    found = file.stat()
    return str(file), found.st_size, found.st_mtime_ns

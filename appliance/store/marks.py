"""The high-water mark of each model, in STATE_DIR/marks/NAME.json: the newest version that was ever installed here.

It outlives what it names: a version that was rolled back, deactivated or removed does not come back because a source
offers it again. The states of a mark:

    no file   nothing changed here since this program came; the greatest installed version stands for it
    open      a pull brought that version to go live, and nobody has decided about it yet
    closed    it went live, or an operator decided (activate, roll back, deactivate, remove): only a newer one may come

The file is replaced whole, with the store's lock held: a power cut leaves the old mark or the new one. It is opened
before the version appears, and closed before an operator's decision takes effect. A cut between the two leaves a
version that is brought again, or a decision that stands although it was not carried out; never one that is undone.
"""

import re
from pathlib import Path
from typing import Literal

import msgspec

from appliance import nofollow
from appliance.bundle.manifest import VERSION_PATTERN, version_order
from appliance.errors import Refused, StoreError
from appliance.store import durable

Verdict = Literal["newer", "open", "closed"]


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What marks/NAME.json says."""

    version: str
    sha256: str = ""
    """Of the bundle's file; empty where nobody took note of it."""
    open: bool = False


class Offered(msgspec.Struct, frozen=True):
    """That a bundle comes by itself, from a source or the preload folder, and not by an operator's hand."""

    sha256: str
    """Of its file."""
    allow_older: bool = False
    """Whether it may be older than the mark."""


def judge(name: str, version: str, offered: Offered, mark: Mark | None) -> Verdict:
    """Return whether an offered version is newer than the mark, or at it: still open, or closed.

    Newer is by SemVer's precedence, in which build metadata does not count. Raises Refused for one that is not newer,
    unless older ones are allowed, and for another bundle under the mark's own number, always.
    """
    if mark is None or version_order(version) > version_order(mark.version):
        return "newer"
    if version == mark.version:
        if mark.sha256 not in ("", offered.sha256):
            found = f"it is another bundle than the {version} that came before (SHA-256 {mark.sha256})"
            raise Refused(f"pull {name} {version}", found, "publish it under a greater version number")
        return "open" if mark.open else "closed"
    if not offered.allow_older:
        found = f"it is not newer than {mark.version}, the newest version that was installed here"
        next_step = "publish it under a greater version number, or take it all the same: appliance pull --allow-older"
        raise Refused(f"pull {name} {version}", found, next_step)
    return "newer"


def path(folder: Path, name: str) -> Path:
    """Return where the mark of the model `name` is, or would be."""
    return folder / f"{name}.json"


def read(folder: Path, name: str) -> Mark | None:
    """Return the mark of a model; None where there is no file. Raises StoreError when it is damaged, or a link."""
    file = path(folder, name)
    try:
        raw = read_raw(folder, name)
        mark = msgspec.json.decode(raw, type=Mark) if raw is not None else None
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise _damaged(file, str(error)) from error
    if mark and not re.fullmatch(VERSION_PATTERN, mark.version):
        raise _damaged(file, f"{mark.version[:80]!a} is no version")
    return mark


def write(folder: Path, name: str, mark: Mark) -> None:
    """Replace the mark of a model; the caller holds the store's lock. Raises OSError, StoreError."""
    write_raw(folder, name, msgspec.json.format(msgspec.json.encode(mark), indent=1) + b"\n")


def read_raw(folder: Path, name: str) -> bytes | None:
    """Return what the file holds, None where there is none. Raises OSError, StoreError."""
    try:
        return nofollow.read(path(folder, name), within=folder.parent)
    except FileNotFoundError:
        return None


def write_raw(folder: Path, name: str, content: bytes | None) -> None:
    """Put the file back as `read_raw` found it. Raises OSError, StoreError."""
    file = path(folder, name)
    if content is None:
        durable.delete(file, within=folder.parent)
        return
    durable.make_folder(folder, within=folder.parent)
    durable.write_atomically(file, content, within=folder.parent)


def _damaged(file: Path, found: str) -> StoreError:
    return StoreError(f"read {file}", found, "delete it: the greatest installed version becomes the mark")

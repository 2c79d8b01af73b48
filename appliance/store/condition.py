"""The condition of the state folder: whether it can be written, if not why, and its free space. Writes nothing."""

import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from appliance import nofollow
from appliance.errors import StoreError

log = logging.getLogger(__name__)

LEAST_BYTES = 1024 * 1024
"""Free space below which the disk is said to be full: the smallest bundle and its receipts need as much."""

# Each may be a mount of its own, or somebody else's.
_INSIDE = ("models", "marks", "receipts", "mqtt", "pull", "experiments", "probation")
_CONSEQUENCE = "what is installed is served; nothing can be installed, activated or rolled back"


@dataclass(frozen=True, slots=True)
class Condition:
    """How the state folder was at one moment."""

    hindrance: str = ""
    """What keeps it from being written; empty where nothing does."""
    read_only: bool = False
    """Whether it is mounted read-only, which may be meant so."""
    free_bytes: int | None = None
    """Of its file system; None where it cannot be told."""
    mode: int | None = None
    """Its permission bits; None where it is absent, or cannot be opened."""

    @property
    def warning(self) -> str:
        """The warning for an operator; empty when there is none."""
        return f"{self.hindrance}: {_CONSEQUENCE}" if self.hindrance else ""


def look(state_dir: Path) -> Condition:
    """Return how the state folder is now; of one that is absent, whether it can be made. Some 50 us."""
    try:
        with nofollow.folder(state_dir, within=state_dir) as descriptor:
            free, mode = _free(descriptor), stat.S_IMODE(os.fstat(descriptor).st_mode)
            hindrance, read_only = _hindrance(descriptor, state_dir)
            for name in _INSIDE:
                if not hindrance:
                    hindrance, read_only = _inside(descriptor, state_dir / name)
    except FileNotFoundError:
        return _absent(state_dir)
    except (OSError, StoreError) as error:
        found = error.found if isinstance(error, StoreError) else error.strerror or str(error)
        return Condition(f"the state folder {state_dir} cannot be used ({found})")
    return Condition(hindrance, read_only, free, mode)


class Watch:
    """Logs it when the state folder can no longer be written, or again."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._told = ""

    def look(self) -> None:
        """Check the folder and log what has changed."""
        warning = look(self._state_dir).warning
        if warning and warning != self._told:
            log.error("state folder cannot be written", extra={"found": warning})
        elif self._told and not warning:
            log.info("state folder can be written again", extra={"folder": str(self._state_dir)})
        self._told = warning


def _inside(above: int, path: Path) -> tuple[str, bool]:
    """Return what keeps a folder in the state folder from being written, and whether it is read-only."""
    try:
        descriptor = nofollow.open_folder_in(above, path)
    except FileNotFoundError:
        return "", False
    except (OSError, StoreError) as error:
        found = error.found if isinstance(error, StoreError) else error.strerror or str(error)
        return f"{path} cannot be used ({found})", False
    try:
        return _hindrance(descriptor, path)
    finally:
        os.close(descriptor)


def _hindrance(descriptor: int, path: Path) -> tuple[str, bool]:
    """Return what keeps an open folder from being written, and whether it is read-only."""
    system = os.fstatvfs(descriptor)
    if system.f_flag & os.ST_RDONLY:
        return f"{path} is mounted read-only", True
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor, effective_ids=True):
        whose = os.fstat(descriptor).st_uid
        return f"{path} cannot be written by user {os.geteuid()}; it belongs to user {whose}", False
    if system.f_bavail * system.f_frsize < LEAST_BYTES:
        return f"the disk of {path} is full (less than {LEAST_BYTES // 1024} KiB are free)", False
    if system.f_files and not system.f_favail:
        return f"the disk of {path} is full (no file can be made: it has no inode left)", False
    return "", False


def _free(descriptor: int) -> int:
    system = os.fstatvfs(descriptor)
    return system.f_bavail * system.f_frsize


def _absent(state_dir: Path) -> Condition:
    """Return whether the state folder can be made."""
    for path in state_dir.absolute().parents:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError as error:
            return Condition(f"the state folder {state_dir} is absent, and {path} cannot be used ({error.strerror})")
        try:
            hindrance, read_only = _hindrance(descriptor, path)
            found = f"the state folder {state_dir} is absent, and {hindrance}" if hindrance else ""
            return Condition(found, read_only, _free(descriptor))
        finally:
            os.close(descriptor)
    return Condition(f"the state folder {state_dir} is absent")

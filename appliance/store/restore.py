"""Restores a backup (backup.py) into a state folder.

Nothing is written before the whole file was read and held to its digests. Then all of it is unpacked beside, in
STATE_DIR/.restore.partial-*, and moved into place by renames, `models` last: killed at any moment, the folder has no
model or all of them, and the same command does it again. With `replace`, what was there is moved aside first, `models`
before the rest, and deleted at the end.
"""

import hashlib
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from appliance import nofollow
from appliance.errors import BackupRefused, Refused, StoreError
from appliance.store import durable, running
from appliance.store.backup import FOLDER, FORMAT, HEAD, LEFT_OUT, TAIL, Head, Kept, Made
from appliance.store.versions import SPARE_BYTES, Store

_MOST_DOCUMENT_BYTES = 64 * 1024 * 1024
_CHUNK = 1024 * 1024
_MODELS = "models"
_UNFINISHED = (".restore.partial-", ".restore.removed-")


def restore(store: Store, file: IO[bytes], *, replace: bool = False) -> Made:
    """Make the state folder what the backup in `file` (seekable) holds; return how much that is.

    Raises BackupRefused (damaged, not whole, unsafe, of a newer format), Refused (a service uses the folder; it is not
    empty, unless `replace`), StoreError (no room).
    """
    tried = f"restore {store.state_dir}"
    kept = _checked(tried, file)
    with durable.reported(tried):
        durable.make_folder(store.state_dir)
        _refuse_in_use(tried, store.state_dir)
        with durable.locked(store.state_dir / ".lock", 0.0, within=store.state_dir) as held:
            if not held:
                raise Refused(tried, "another command is changing it", "let it end, then repeat this one")
            _sweep(store.state_dir)
            there = _there(store.state_dir)
            if there and not replace:
                next_step = "name an empty folder by --state-dir; or say --replace, and what is there is deleted"
                raise Refused(tried, f"it is not empty: it has {', '.join(there[:5])}", next_step)
            _check_room(tried, store.state_dir, kept)
            partial = durable.beside(store.state_dir / "restore", "partial")
            _unpack(file, kept, partial, store.state_dir)
            _swap(store.state_dir, partial, there)
    return Made(len(kept), sum(one.size for one in kept.values()))


def _checked(tried: str, file: IO[bytes]) -> dict[str, Kept]:
    """Read all of a backup and return what it holds by path. Raises BackupRefused; builds nothing."""
    found: dict[str, Kept] = {}
    told: dict[str, Kept] | None = None
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for number, entry in enumerate(archive):
                if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse():
                    raise _refused(tried, f"{entry.name!r} is no plain file")
                if told is not None:
                    raise _refused(tried, f"{entry.name!r} comes after its end")
                if number == 0:
                    _check_head(tried, entry, _document(tried, archive, entry))
                elif entry.name == TAIL:
                    told = msgspec.json.decode(_document(tried, archive, entry), type=dict[str, Kept])
                else:
                    name = _safe(tried, entry.name)
                    if name in found:
                        raise _refused(tried, f"{entry.name!r} is in it twice")
                    found[name] = _digested(archive, entry)
    except (tarfile.TarError, EOFError, UnicodeError, OverflowError) as error:
        raise _refused(tried, f"it is no whole backup ({error})") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise _refused(tried, f"its {HEAD} or {TAIL} is damaged ({error})") from error
    if told is None:
        raise _refused(tried, f"it has no {TAIL}: writing it was interrupted")
    if told != found:
        wrong = sorted(name for name in told.keys() | found.keys() if told.get(name) != found.get(name))
        raise _refused(tried, f"{', '.join(wrong[:3])}: not as they were backed up")
    files = set(found)
    for name in files:
        if any(parent.as_posix() in files for parent in PurePosixPath(name).parents):
            raise _refused(tried, f"{name!r} lies in a file")
    return found


def _check_head(tried: str, entry: tarfile.TarInfo, content: bytes) -> None:
    """Raise BackupRefused unless the first member is that of a backup that this version reads."""
    if entry.name != HEAD:
        raise _refused(tried, f"it is no backup: it begins with {entry.name!r}, not {HEAD}")
    head = msgspec.json.decode(content, type=Head)
    if not 1 <= head.format <= FORMAT:
        found = f"its format {head.format} is newer than this appliance (reads 1 to {FORMAT}); {head.program} wrote it"
        raise BackupRefused(tried, found, "upgrade the appliance")


def _document(tried: str, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    """Return a JSON member. Raises BackupRefused."""
    if entry.size > _MOST_DOCUMENT_BYTES:
        raise _refused(tried, f"{entry.name!r} has {entry.size} bytes")
    member = archive.extractfile(entry)
    content = member.read() if member else b""
    if len(content) != entry.size:
        raise _refused(tried, "it is cut off")
    return content


def _safe(tried: str, name: str) -> str:
    """Return a member's path below the state folder. Raises BackupRefused for one that leads out of it, or is none."""
    top, _, rest = name.partition("/")
    parts = rest.split("/")
    unsafe = any(part in ("", ".", "..") or part[0] == "." or "\0" in part for part in parts)
    if top != FOLDER or unsafe or parts[0] in LEFT_OUT:
        raise _refused(tried, f"{name!r} is no path of a state folder")
    return rest


def _digested(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Kept:
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(archive, entry):
        digest.update(piece)
        size += len(piece)
    if size != entry.size:
        raise EOFError(f"{entry.name} is cut off")
    return Kept(size, digest.hexdigest())


def _pieces(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
    """Yield a member's content in pieces."""
    member = archive.extractfile(entry)
    while member and (piece := member.read(_CHUNK)):
        yield piece


def _refuse_in_use(tried: str, state_dir: Path) -> None:
    """Raise Refused where a service uses the folder."""
    service = running.read(state_dir)
    if service is not None:
        raise Refused(tried, f"the service at {service.url} uses it (process {service.pid})", "stop it first")
    lock = state_dir / "mqtt" / "lock"
    try:
        os.close(nofollow.open_file(lock, within=state_dir))
    except FileNotFoundError:
        return
    taken = durable.try_lock(lock, within=state_dir)
    if taken is None:
        raise Refused(tried, "a service uses its MQTT outbox", "stop it first")
    os.close(taken)


def _sweep(state_dir: Path) -> None:
    """Delete what an interrupted restore left."""
    for name in nofollow.entries(state_dir, within=state_dir):
        if name.startswith(_UNFINISHED):
            durable.delete(state_dir / name, within=state_dir)


def _there(state_dir: Path) -> list[str]:
    """Return the names in the state folder that mean anything."""
    return [name for name in nofollow.entries(state_dir, within=state_dir) if name[0] != "." and name != "lost+found"]


def _check_room(tried: str, state_dir: Path, kept: dict[str, Kept]) -> None:
    """Raise StoreError where the files do not fit beside what is there."""
    with nofollow.folder(state_dir, within=state_dir) as descriptor:
        free = shutil.disk_usage(descriptor).free
    need = sum(one.size + 4096 for one in kept.values()) + SPARE_BYTES
    if need > free:
        raise StoreError(tried, f"{need} bytes are needed, {free} are free", "free some disk space")


def _unpack(file: IO[bytes], kept: dict[str, Kept], partial: Path, state_dir: Path) -> None:
    """Write the files of a backup that was checked, each durably, below `partial`; the file may have changed since."""
    file.seek(0)
    durable.make_folder(partial, within=state_dir)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for entry in archive:
            name = entry.name.partition("/")[2]
            if entry.name in (HEAD, TAIL):
                continue
            path = partial / _safe("restore", entry.name)
            if kept.get(name) != _digested(archive, entry):
                raise _refused(f"restore {state_dir}", f"{entry.name!r} changed while it was read")
            durable.make_folder(path.parent, within=state_dir)
            mode = entry.mode & 0o770 | 0o600
            durable.write_pieces(path, _pieces(archive, entry), within=state_dir, mode=mode)
            _date(path, entry.mtime, state_dir)


def _date(path: Path, changed: float, state_dir: Path) -> None:
    """Give a file its date back: how long the log keeps a segment is counted from it."""
    seconds = min(max(changed, 0), time.time())
    descriptor = nofollow.open_file(path, within=state_dir)
    try:
        os.utime(descriptor, (seconds, seconds))
    finally:
        os.close(descriptor)


def _swap(state_dir: Path, partial: Path, there: list[str]) -> None:
    """Move what was there aside, `models` first, and what was unpacked into its place, `models` last."""
    aside = durable.beside(state_dir / "restore", "removed")
    if there:
        durable.make_folder(aside, within=state_dir)
    for name in sorted(there, key=lambda name: name != _MODELS):
        durable.move(state_dir / name, aside / name, within=state_dir)
    restored = nofollow.entries(partial, within=state_dir)
    for name in sorted(restored, key=lambda name: name == _MODELS):
        durable.move(partial / name, state_dir / name, within=state_dir)
    for leftover in (partial, aside) if there else (partial,):
        durable.delete(leftover, within=state_dir)


def _refused(tried: str, found: str) -> BackupRefused:
    return BackupRefused(tried, found, "take another backup file")

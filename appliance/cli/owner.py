"""Root's commands become the owner of the state folder before they touch what is in it.

The folder belongs to the service's user, who may put hostile links, files or models into it. So this process keeps only
that user's rights for the rest of its life. A link that leads it elsewhere then gains nothing: that user could go there
as well.
"""

import os
import pwd
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import appliance
from appliance import ahead, nofollow
from appliance.config import Config
from appliance.errors import StoreError

_MOST_LINKS = 40  # as the kernel, path_resolution(7)


def become(config: Config, files: Iterable[Path] = ()) -> None:
    """Become the owner of the state folder where this process is root and the folder is not root's.

    `files` were named on the command line; they, and those that the configuration names, may be root's alone and are
    opened before. Of a folder that is yet to be made the owner is that of the nearest one above. Raises StoreError.
    """
    if os.geteuid() != 0:
        return
    tried = f"use the state folder {config.state_dir} as root"
    try:
        found = _found(config.state_dir)
    except OSError as error:
        raise StoreError(tried, error.strerror or str(error), "name another by --state-dir") from error
    _check_way(tried, config.state_dir, found.st_uid)
    if found.st_uid == 0:
        return
    ahead.keep([*files, *_named(config)])
    with suppress(FileNotFoundError):
        nofollow.hold(config.state_dir)
    _drop(tried, found)


def _found(state_dir: Path) -> os.stat_result:
    """Return the status of the state folder, or of the nearest one above."""
    for path in (state_dir, *state_dir.absolute().parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            return path.stat()
    raise FileNotFoundError(state_dir)  # / always exists


def _named(config: Config) -> Iterator[Path]:
    """Yield the files that a configuration names and this program itself reads."""
    for name in (
        *config.store.trusted_keys,
        config.http.tokens_file,
        config.pull.token_file,
        config.mqtt.password_file,
        config.mqtt.upstream.password_file,
    ):
        if name:
            yield Path(name)


def _drop(tried: str, found: os.stat_result) -> None:
    """Take the user and the groups of whom `found` belongs to, for good."""
    uid, gid = found.st_uid, found.st_gid
    try:
        user = pwd.getpwuid(uid)
        gid = gid or user.pw_gid  # a folder's group alone gives nobody the group root
        groups = os.getgrouplist(user.pw_name, gid)
    except KeyError:
        groups = [gid]
    try:
        os.setgroups(groups)
        if not _may_import(uid, gid):
            _open_ways()
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:  # in a container without the capability, or of a user that its namespace does not know
        found_now = f"it belongs to user {uid}, and root may not become that user here ({error.strerror})"
        raise StoreError(tried, found_now, f"run the command as user {uid}") from error


def _may_import(uid: int, gid: int) -> bool:
    """Return whether a user may read this program and Python's library: neither, where they lie in root's home."""
    os.setegid(gid)
    os.seteuid(uid)
    try:
        return all(os.access(file, os.R_OK, effective_ids=True) for file in (appliance.__file__, os.__file__))
    finally:
        os.seteuid(0)
        os.setegid(0)


def _open_ways() -> None:
    """Let modules be found through folders that are open already: the new user cannot reach them by path."""
    ways = {}
    for entry in sys.path:
        with suppress(OSError):  # absent, or an archive
            ways[entry] = f"/proc/self/fd/{os.open(entry, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)}"
    folders = [sys.path, *(getattr(module, "__path__", None) for module in list(sys.modules.values()))]
    for paths in folders:
        if isinstance(paths, list):
            paths[:] = [_through(ways, path) for path in paths]


def _through(ways: dict[str, str], path: str) -> str:
    """Return a path that begins with an open folder where one of `ways` leads to it."""
    for entry, way in sorted(ways.items(), reverse=True):  # the longest first
        if path == entry or path.startswith(f"{entry}/"):
            return way + path[len(entry) :]
    return path


def _check_way(tried: str, state_dir: Path, owner: int) -> None:
    """Raise StoreError where somebody else than root and `owner` decides where the path of the state folder leads.

    Of the folders on the way each entry is its owner's to replace, and everyone's where all may write and it is not
    sticky (/tmp is).
    """
    for path, status in _way(state_dir.absolute()):
        if status.st_uid not in (0, owner):
            found = f"{path} on the way to it belongs to user {status.st_uid}, who could lead root anywhere"
            raise StoreError(tried, found, f"give {path} to root, or run the command as the owner of the state folder")
        if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o002 and not status.st_mode & stat.S_ISVTX:
            found = f"everyone may write to {path} on the way to it, and so lead root anywhere"
            raise StoreError(tried, found, f"chmod o-w {path}")


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every folder and link through which `path` is reached, in order; not `path` itself, nor what is absent."""
    place, rest = Path("/"), list(path.parts[1:])
    links = 0
    while rest:
        yield place, place.lstat()
        part = rest.pop(0)
        following = place.parent if part == ".." else place / part
        try:
            status = following.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        if not stat.S_ISLNK(status.st_mode):
            place = following
            continue
        yield following, status
        links += 1
        if links > _MOST_LINKS:
            return
        target = following.readlink()
        place = Path("/") if target.is_absolute() else place
        rest = [*(target.parts[1:] if target.is_absolute() else target.parts), *rest]

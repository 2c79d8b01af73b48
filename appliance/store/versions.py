"""The installed versions: one folder each, complete or absent."""

import difflib
import hashlib
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance import ahead, nofollow
from appliance.bundle import archive
from appliance.bundle.archive import MAX_BUNDLE_BYTES, Opened
from appliance.bundle.manifest import NAME_PATTERN, VERSION_PATTERN, Manifest, version_order
from appliance.bundle.trust import trusted
from appliance.config import Config
from appliance.errors import ActiveVersion, ApplianceError, BundleRefused, NotFound, NotReady, StoreError
from appliance.store import durable, marks, receipts, record, routing_record
from appliance.store.marks import Mark, Offered
from appliance.store.receipts import Receipt, What

LOCK_SECONDS = 60.0
"""How long a command waits for another one that changes the store."""
SPARE_BYTES = 16 * 1024 * 1024
"""What an install leaves free: room for the file system's own needs, logs and receipts."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What an install did; `fresh` is False when the very same bundle had been installed before."""

    name: str
    version: str
    folder: Path
    fresh: bool


class Store:
    """The state folder of one host. Reading needs no lock; what changes it holds the lock of the whole folder."""

    def __init__(
        self,
        state_dir: Path,
        *,
        trusted_keys: Sequence[str] = (),
        max_bundle_bytes: int = MAX_BUNDLE_BYTES,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        """`trusted_keys` are files of public keys (PEM), one of which must sign what is installed; where given.

        `max_bundle_bytes` bounds what one bundle has unpacked.
        """
        self.state_dir = state_dir
        self.models_dir = state_dir / "models"
        self.receipts_dir = state_dir / "receipts"
        self.marks_dir = state_dir / "marks"
        self.trust = trusted(trusted_keys)
        """Whose signatures are believed; None where any bundle is taken."""
        self.max_bundle_bytes = max_bundle_bytes
        self._lock_seconds = lock_seconds

    @classmethod
    def of(cls, config: Config) -> "Store":
        """Return the store that a configuration names."""
        settings = config.store
        return cls(config.state_dir, trusted_keys=settings.trusted_keys, max_bundle_bytes=settings.max_bundle_bytes)

    def install(self, path: Path, *, why: str = "", offered: Offered | None = None) -> Installed:
        """Unpack the bundle in the file `path` as models/NAME/VERSION, and raise the model's high-water mark to it.

        What is `offered` is held to the mark, and leaves it open until the version is live or an operator decides.
        Raises NotFound, BundleRefused (damaged, not signed by a trusted key, or the same version with other content),
        Refused (offered, and not newer than the mark), NotReady (an operator has just decided about it), StoreError.
        """
        with self.opened(path) as bundle:
            bundle.check()
            bundle.check_model()
            name, version = bundle.manifest.name, bundle.manifest.version
            folder = self.models_dir / name / version
            sha256 = offered.sha256 if offered else digest(path)
            with self.writing(f"install {name} {version}"):
                if version in self.versions(name):
                    with self._marked(name, version, sha256, offered):
                        _check_same(bundle, folder, self.state_dir)
                    return Installed(name, version, folder, fresh=False)
                self._check_space(bundle)
                with self._marked(name, version, sha256, offered):
                    durable.make_folder(folder.parent, within=self.state_dir)
                    # Read, and held to its digests, once more: nothing of it need be in memory.
                    contents = {member: bundle.pieces(member) for member in bundle.names}
                    durable.publish_folder(folder, contents, within=self.state_dir)
                self.note("install", name, version, why=why, signer=bundle.signer)
        return Installed(name, version, folder, fresh=True)

    def opened(self, path: Path) -> AbstractContextManager[Opened]:
        """Give the bundle in the file `path`, trusted and bounded as an install has it; see archive.opened."""
        return archive.opened(path, most_bytes=self.max_bundle_bytes, trust=self.trust)

    def installed(self, name: str, version: str) -> Opened:
        """Return an installed version, by today's keys: what is on disk now must be signed by one that is trusted now.

        A signature says whose files these are, not that they are this version's: another one may have been put here.
        Raises NotFound, BundleRefused with the reason, StoreError at a link.
        """
        folder = self.folder(name, version)
        opened = archive.open_folder(folder, within=self.state_dir, most_bytes=self.max_bundle_bytes, trust=self.trust)
        _check_place(opened.manifest, name, version)
        return opened

    def names(self) -> list[str]:
        """Return the names of the models that have a version installed, sorted."""
        return sorted(name for name in self._entries(self.models_dir, NAME_PATTERN) if self.versions(name))

    def versions(self, name: str) -> list[str]:
        """Return the installed versions of the model `name`, oldest first (SemVer precedence); [] if it is unknown."""
        if not re.fullmatch(NAME_PATTERN, name):
            return []
        return sorted(
            self._entries(self.models_dir / name, VERSION_PATTERN),
            key=lambda version: (version_order(version), version),
        )

    def folder(self, name: str, version: str) -> Path:
        """Return the folder of an installed version. Raises NotFound, naming what comes close."""
        installed = self.versions(name)
        if not installed:
            raise _not_found(f"model {name!r}", name, self.names())
        if version not in installed:
            raise _not_found(f"version {version!r} of model {name!r}", version, installed)
        return self.models_dir / name / version

    def manifest(self, name: str, version: str) -> Manifest:
        """Return the manifest of an installed version. Raises NotFound, BundleRefused."""
        manifest = archive.read_manifest(self.folder(name, version), within=self.state_dir)
        _check_place(manifest, name, version)
        return manifest

    def remove(self, name: str, version: str, *, why: str = "") -> None:
        """Delete an installed version.

        Raises NotFound, ActiveVersion (the active one and those of an experiment stay), StoreError.
        """
        with self.writing(f"remove {name} {version}"):
            folder = self.folder(name, version)
            if record.read(folder.parent).active == version:
                raise ActiveVersion(
                    f"remove {name} {version}", "it is the version that serves", f"first activate another one of {name}"
                )
            routing = routing_record.running_if_sound(folder.parent)
            if routing is not None and version in routing.challengers:
                found, end = f"{routing.described} runs", f"appliance abort {name}"
                raise ActiveVersion(f"remove {name} {version}", found, f"first end it: {end}")
            self.decide(name)
            durable.remove_folder(folder, within=self.state_dir)
            self._remove_if_bare(folder.parent)
            self.note("remove", name, version, why=why)

    def sweep(self) -> list[Path]:
        """Delete what a power cut left unfinished; return what was deleted. Raises StoreError."""
        with durable.reported("sweep the store"):
            if not self._folders():
                return []
        with self.writing("sweep the store"):
            leftovers = [
                folder / name
                for folder in [*self._folders(), self.marks_dir]
                for name in self._in(folder)
                if name.startswith(".")
            ]
            for path in leftovers:
                durable.delete(path, within=self.state_dir)
            bare = [folder for folder in self._folders() if self._remove_if_bare(folder)]
        return leftovers + bare

    def mark(self, name: str) -> Mark | None:
        """Return the newest version of `name` that was ever installed here; None for a model that never was.

        Raises StoreError when it cannot be read.
        """
        mark = marks.read(self.marks_dir, name)
        if mark is None and (installed := self.versions(name)):
            return Mark(installed[-1])
        return mark

    def decide(self, name: str, *, but: str = "") -> None:
        """Close the mark of `name`: what was offered until now does not go live by itself any more.

        `but` is a version whose mark stays as it is. The caller holds the lock. A mark that cannot be read is left: it
        keeps pulls away, and must not keep an operator from going back.
        """
        with suppress(StoreError):
            mark = self.mark(name)
            if mark is None or mark.version == but:
                return
            if mark.open or marks.read(self.marks_dir, name) is None:
                closed = msgspec.structs.replace(mark, open=False)
                marks.write(self.marks_dir, name, closed)

    def receipts(self) -> list[Receipt]:
        """Return all receipts, oldest first. Raises StoreError."""
        return receipts.read(self.receipts_dir)

    @contextmanager
    def writing(self, tried: str) -> Iterator[None]:
        """Hold the store's lock within; `tried` names the work in the StoreError that an OSError becomes."""
        with durable.reported(tried):
            durable.make_folder(self.state_dir)
            with durable.locked(self.state_dir / ".lock", self._lock_seconds, within=self.state_dir) as held:
                if not held:
                    found = f"another command has been changing {self.state_dir} for {self._lock_seconds:g} s"
                    raise StoreError(tried, found, "let it end, then repeat this one")
                receipts.check(self.receipts_dir)  # before anything that would be left without its receipt
                yield

    def note(self, what: What, name: str, version: str, **rest: object) -> None:
        """Write a receipt; the caller holds the lock. `rest` are further fields of Receipt."""
        fields = {"when": receipts.now(), **rest}
        receipts.append(self.receipts_dir, Receipt(what=what, model=name, version=version, **fields))  # type: ignore[arg-type]

    def _mark_for(self, name: str, version: str, sha256: str, offered: Offered | None) -> Mark | None:
        """Return the mark that installing `version` leaves; None for the one that is there. Holds the lock."""
        if offered:
            verdict = marks.judge(name, version, offered, self.mark(name))
            if verdict == "closed" and version not in self.versions(name):
                found = "it was rolled back, deactivated or removed meanwhile"
                raise NotReady(f"pull {name} {version}", found, f"appliance activate {name} {version}")
            return Mark(version, offered.sha256, open=True) if verdict == "newer" else None
        try:
            mark = self.mark(name)
        except StoreError:
            return None  # it keeps pulls away, and must not keep an operator from installing
        newer = mark is None or version_order(version) > version_order(mark.version)
        return Mark(version, sha256) if newer else None

    @contextmanager
    def _marked(self, name: str, version: str, sha256: str, offered: Offered | None) -> Iterator[None]:
        """Raise the mark, then let the version appear within; what fails there leaves the mark as it was."""
        mark = self._mark_for(name, version, sha256, offered)
        if mark is None:
            yield
            return
        before = marks.read_raw(self.marks_dir, name)
        marks.write(self.marks_dir, name, mark)
        try:
            yield
        except (OSError, ApplianceError):
            with suppress(OSError, StoreError):
                marks.write_raw(self.marks_dir, name, before)
            raise

    def _check_space(self, bundle: Opened) -> None:
        """Raise StoreError when the bundle's members would not fit."""
        with nofollow.folder(self.state_dir, within=self.state_dir) as descriptor:
            need, free = bundle.size + SPARE_BYTES, shutil.disk_usage(descriptor).free
        if need > free:
            raise StoreError(
                f"install {bundle.manifest.name} {bundle.manifest.version}",
                f"{self.state_dir} has {free} bytes free, {need} are needed",
                "free some disk space, or remove a version: appliance remove NAME VERSION",
            )

    def _in(self, folder: Path) -> dict[str, os.stat_result]:
        """Return {name: status} of what lies in a folder, {} where it is absent. Raises OSError, StoreError."""
        try:
            return nofollow.entries(folder, within=self.state_dir)
        except FileNotFoundError:
            return {}

    def _folders(self) -> list[Path]:
        """Return all folders in models/, those of unknown names too. Raises OSError, StoreError."""
        found = self._in(self.models_dir)
        return [self.models_dir / name for name, status in found.items() if stat.S_ISDIR(status.st_mode)]

    def _entries(self, folder: Path, pattern: str) -> list[str]:
        """Return the names of the folders in `folder` that match `pattern`; [] when it is absent. Raises StoreError."""
        found = []
        try:
            for name, status in nofollow.entries(folder, within=self.state_dir).items():
                if re.fullmatch(pattern, name):
                    nofollow.check(status, folder / name)
                    found += [name] * stat.S_ISDIR(status.st_mode)
        except FileNotFoundError:
            return []
        except OSError as error:
            if isinstance(error, NotADirectoryError) and not nofollow.is_folder(self.state_dir):
                return []  # `models` or `doctor` on a state folder that is a file: it holds no model
            raise StoreError(f"list {folder}", error.strerror or str(error), "see: appliance doctor") from error
        return found

    def _remove_if_bare(self, folder: Path) -> bool:
        """Delete a model's folder that holds no version and of which none is active; return whether it was so."""
        if self.versions(folder.name) or record.read(folder).active is not None:
            return False
        durable.remove_folder(folder, within=self.state_dir)
        return True


def digest(path: Path) -> str:
    """Return the SHA-256 of a bundle's file. Raises BundleRefused when it cannot be read."""
    try:
        with ahead.open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleRefused(f"read {path}", error.strerror or str(error), "check the file and its rights") from error


def _check_place(manifest: Manifest, name: str, version: str) -> None:
    """Raise BundleRefused where the folder of a version holds another one."""
    if (manifest.name, manifest.version) != (name, version):
        found = f"its folder holds {manifest.name} {manifest.version}"
        raise BundleRefused(f"read {name} {version}", found, "remove it, and install its bundle again")


def _check_same(bundle: Opened, folder: Path, state_dir: Path) -> None:
    """Raise BundleRefused unless the version in `folder` is the very same bundle."""
    tried = f"install {bundle.manifest.name} {bundle.manifest.version}"
    try:
        there = archive.open_folder(folder, within=state_dir, most_bytes=sys.maxsize)
        there.check()
        same = (there.digest, _signature(there)) == (bundle.digest, _signature(bundle))
    except BundleRefused as error:
        found = f"this version is installed, but damaged ({error.found})"
        raise BundleRefused(tried, found, "remove it first, or install it under another version number") from error
    if not same:
        found = "this version is installed already, with other content"
        raise BundleRefused(tried, found, "give the new bundle another version number")


def _signature(bundle: Opened) -> bytes | None:
    """Return a bundle's model.sig, None where it has none."""
    return bundle.read(archive.SIGNATURE) if archive.SIGNATURE in bundle.sizes else None


def _not_found(what: str, given: str, known: Sequence[str]) -> NotFound:
    """Return the error for a name that is not installed, with those that come close."""
    close = difflib.get_close_matches(given, known, n=3) if len(given) <= 200 else []  # it takes the square of it
    if close:
        return NotFound(f"find {what}", "it is not installed", f"did you mean {' or '.join(close)}?")
    installed = f"installed: {', '.join(known)}" if known else "install a bundle first: appliance install BUNDLE"
    return NotFound(f"find {what}", "it is not installed", installed)

"""Opens what was fetched: a model file, or an untrusted archive, which is checked before it is unpacked."""

import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from appliance.errors import ConversionRefused
from convert.sources import mlflow_model
from convert.sources.fetched import ENDINGS, Fetched, format_of

MOST_MEMBERS = 10_000
MOST_BYTES = 8 << 30  # of all files together

ARCHIVES = (".tar.gz", ".tgz", ".tar")


def open_model(path: Path, folder: Path, member: str, url: str) -> Fetched:
    """Return the model in a file, or in an archive that is unpacked into `folder`; `member` names one of several."""
    if not path.name.endswith(ARCHIVES):
        return Fetched(path, url, format_of(path), local=False)
    unpacked = folder / "unpacked"
    unpack(path, unpacked)
    if not member and (unpacked / "MLmodel").is_file():
        return mlflow_model.read(unpacked, source=url, run="", local=False)
    model = _only_model(unpacked, member, url)
    return Fetched(model, url, format_of(model), local=False)


def unpack(archive: Path, folder: Path) -> None:
    """Write the files of a tar archive, compressed or not, below `folder`.

    Everything is checked before the first file is written. Raises ConversionRefused for a damaged archive, for links
    and devices, for paths that are absolute or contain '..', for two files at one place and for more than the limits.
    """
    try:
        with tarfile.open(archive) as tar:
            files = _judged(tar, archive.name)
            _read_to_the_end(tar, archive.name)
            for path, member in files.items():
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                if content is None:
                    raise _refused(archive.name, f"{member.name} is no plain file")
                with content, target.open("xb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
        raise _refused(archive.name, f"it is damaged ({error})") from error


def _only_model(folder: Path, member: str, url: str) -> Path:
    """Return the one model file in `folder`, or the one that `member` names, its path relative to the folder.

    Raises ConversionRefused when there is none, or more than one to choose from.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    models = [name for name in files if Path(name).suffix.lower() in ENDINGS]
    if member in files:
        return files[member]
    if len(models) == 1 and not member:
        return files[models[0]]
    found = f"there is no {member} in it" if member else f"it holds {len(models)} model files"
    names = ", ".join(models or files) or "nothing"
    raise ConversionRefused(f"find the model in {url}", f"{found} ({names})", "name one of them behind a #")


def _judged(tar: tarfile.TarFile, name: str) -> dict[PurePosixPath, tarfile.TarInfo]:
    """Return {path: member} of the files, or refuse the archive."""
    files: dict[PurePosixPath, tarfile.TarInfo] = {}
    total = 0
    for count, member in enumerate(tar, start=1):
        path = PurePosixPath(member.name)
        if count > MOST_MEMBERS:
            raise _refused(name, f"it has more than {MOST_MEMBERS} members")
        if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
            raise _refused(name, f"the path {member.name!r} leads out of it")
        if member.isdir():
            continue
        if not member.isreg():
            raise _refused(name, f"{member.name} is a link or a device, not a plain file")
        total += member.size
        if total > MOST_BYTES:
            raise _refused(name, f"its files have more than {MOST_BYTES >> 30} GiB")
        if path in files:
            raise _refused(name, f"{member.name} is in it twice")
        files[path] = member
    return files


def _read_to_the_end(tar: tarfile.TarFile, name: str) -> None:
    """Read what follows the last member: the checksum of the compression comes there."""
    left = MOST_BYTES
    while tar.fileobj is not None and (chunk := tar.fileobj.read(1 << 20)):
        left -= len(chunk)
        if left < 0:
            raise _refused(name, f"its files have more than {MOST_BYTES >> 30} GiB")


def _refused(name: str, found: str) -> ConversionRefused:
    return ConversionRefused(f"unpack {name}", found, "pack the model's files again, with tar -czf")

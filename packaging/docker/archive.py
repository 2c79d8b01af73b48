"""Makes of what `docker save` wrote the files that travel: the same image gives the same bytes, whenever it was built.

    python archive.py load SAVED TARGET --epoch SECONDS    one image for `docker load`
    python archive.py join TARGET LOADABLE...              several architectures in one OCI archive

Formats: OCI Image Layout and Image Specification v1.1; Docker Image Specification v1.2 (image JSON and filesystem
changesets combined). An OCI image keeps its HEALTHCHECK here, in the configuration's member `Healthcheck`: the
specification does not know it, and other tools drop it.
"""

import argparse
import gzip
import hashlib
import io
import json
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
KEPT = ("architecture", "variant", "os", "config", "history", "rootfs")
"""Members of an image's configuration that say what it is; the others say how and when it was built."""
CHUNK = 1024 * 1024


class Image(NamedTuple):
    """One image in an archive of `docker save`."""

    archive: tarfile.TarFile
    config: dict[str, Any]
    tags: list[str]
    layers: list[str]
    """Members of the archive, in the order in which they are applied."""


def load(saved: Path, target: Path, epoch: int) -> None:
    """Write `target` (gzip), which `docker load` reads, from the image in `saved`, dated `epoch`."""
    with (
        _opened(saved) as image,
        _replaced(target) as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
    ):
        config = _json(_dated(image.config, epoch))
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        diffs = [digest.removeprefix("sha256:") for digest in image.config["rootfs"]["diff_ids"]]
        manifest = [{"Config": name, "RepoTags": image.tags, "Layers": [f"{diff}.tar" for diff in diffs]}]
        _add(tar, "manifest.json", _json(manifest))
        _add(tar, name, config)
        # The same empty layer may stand there twice: one member serves both.
        for diff, member in dict(zip(diffs, image.layers, strict=True)).items():
            with _unpacked(image.archive, member) as content:
                _check(content, diff, member)
                _add(tar, f"{diff}.tar", content)


def join(target: Path, sources: list[Path]) -> None:
    """Write one OCI archive with an index of the images in `sources`, which load() wrote."""
    with _replaced(target) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        written: set[str] = set()
        manifests = []
        for source in sources:
            with _opened(source) as image:
                manifests.append(_manifest(tar, image, written))
                version = image.config["config"]["Labels"]["org.opencontainers.image.version"]
        index = _blob(tar, written, INDEX, _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))
        named = {**index, "annotations": {"org.opencontainers.image.ref.name": version}}
        _add(tar, "index.json", _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}))


def _manifest(tar: tarfile.TarFile, image: Image, written: set[str]) -> dict[str, Any]:
    """Write an image's blobs; return the descriptor of its manifest."""
    layers = []
    for member in image.layers:
        with _unpacked(image.archive, member) as content, tempfile.TemporaryFile() as packed:
            with gzip.GzipFile("", "wb", 6, packed, mtime=0) as compress:
                shutil.copyfileobj(content, compress, CHUNK)
            layers.append(_blob(tar, written, LAYER, packed))
    config = _blob(tar, written, CONFIG, _json(image.config))
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    descriptor = _blob(tar, written, MANIFEST, _json(document))
    platform = {key: image.config[key] for key in ("architecture", "os", "variant") if image.config.get(key)}
    return {**descriptor, "platform": platform}


def _blob(tar: tarfile.TarFile, written: set[str], kind: str, content: bytes | IO[bytes]) -> dict[str, Any]:
    """Write a blob unless it is there; return its descriptor."""
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # any binary file will do
    file.seek(0)
    if digest not in written:
        written.add(digest)
        _add(tar, f"blobs/sha256/{digest}", file)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}


def _dated(config: dict[str, Any], epoch: int) -> dict[str, Any]:
    """Return a configuration with one date, and without what differs from build to build.

    Dates of the history as well: a step that the engine took from its cache has that of an earlier build.
    """
    date = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kept = {key: config[key] for key in KEPT if key in config}
    return {**kept, "created": date, "history": [{**entry, "created": date} for entry in config["history"]]}


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open an archive that holds one image, packed or not."""
    with tarfile.open(path) as archive:
        manifest = json.load(_file(archive, "manifest.json"))
        if len(manifest) != 1:
            sys.exit(f"archive.py: {path} holds {len(manifest)} images; docker save one")
        config = json.load(_file(archive, manifest[0]["Config"]))
        yield Image(archive, config, manifest[0]["RepoTags"] or [], manifest[0]["Layers"])


@contextmanager
def _unpacked(archive: tarfile.TarFile, member: str) -> Iterator[IO[bytes]]:
    """Open a layer as a plain tar: newer engines save layers packed."""
    content = _file(archive, member)
    packed = content.read(2) == b"\x1f\x8b"
    content.seek(0)
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(gzip.GzipFile(fileobj=content) if packed else content, file, CHUNK)
        file.seek(0)
        yield file


@contextmanager
def _replaced(target: Path) -> Iterator[IO[bytes]]:
    """Write a file beside `target`, which takes its name once it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with part.open("wb") as file:
        yield file
    part.replace(target)


def _file(archive: tarfile.TarFile, member: str) -> IO[bytes]:
    """Open a member of an archive."""
    content = archive.extractfile(member)
    if content is None:
        sys.exit(f"archive.py: {member} is no file; docker save the image again")
    return content


def _check(content: IO[bytes], diff: str, member: str) -> None:
    """End the program for a layer that is not what the configuration says."""
    if hashlib.file_digest(content, "sha256").hexdigest() != diff:  # type: ignore[arg-type]
        sys.exit(f"archive.py: {member} does not have the digest in the image's configuration; save it again")


def _add(tar: tarfile.TarFile, name: str, content: bytes | IO[bytes]) -> None:
    """Add a member without date and owner."""
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    entry = tarfile.TarInfo(name)
    entry.size = file.seek(0, io.SEEK_END)
    entry.mode = 0o644
    file.seek(0)
    tar.addfile(entry, file)


def _json(document: object) -> bytes:
    """Return a document in one way of writing."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("load")
    one.add_argument("saved", type=Path)
    one.add_argument("target", type=Path)
    one.add_argument("--epoch", type=int, required=True)
    several = commands.add_parser("join")
    several.add_argument("target", type=Path)
    several.add_argument("sources", type=Path, nargs="+")
    options = parser.parse_args()
    try:
        if options.command == "load":
            load(options.saved, options.target, options.epoch)
        else:
            join(options.target, options.sources)
    except (OSError, KeyError, ValueError, tarfile.TarError, zlib.error) as error:
        sys.exit(f"archive.py: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

"""What a container image is made of: `image.py ARCHIVE` prints its CycloneDX 1.6 bill of materials.

ARCHIVE is what `docker load` reads (packaging/docker/archive.py wrote it), of any processor; nothing of it is run. The
parts are Debian's packages by dpkg's own list, the distributions in every site-packages, and the interpreter.
"""

import hashlib
import json
import posixpath
import re
import sys
import tarfile
from collections.abc import Iterator
from email import message_from_string
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import parts
from parts import Component

WANTED = re.compile(
    r"var/lib/dpkg/status(\.d/[^/]+)?|(usr/lib|etc)/os-release|.*/(site|dist)-packages/[^/]+\.dist-info/METADATA"
)
OS_RELEASE = ("etc/os-release", "usr/lib/os-release")

Files = dict[str, str]


class InImage(Distribution):
    """A distribution whose metadata was read from an image."""

    def __init__(self, metadata: str) -> None:
        self._metadata = metadata

    def read_text(self, filename: str) -> str | None:
        """Return the metadata; the image's other files were not kept."""
        return self._metadata if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Path:
        """Return the path as it is: its folder is in the image."""
        return Path(path)


def main() -> None:
    """Print the document of the archive that is named on the command line."""
    try:
        with tarfile.open(sys.argv[1]) as archive:
            print(json.dumps(document(archive), indent=1))
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        sys.exit(f"image.py: {type(error).__name__}: {error}")


def document(archive: tarfile.TarFile) -> dict[str, Any]:
    """Return the bill of materials of the one image in an archive; the same image gives the same document."""
    (manifest,) = json.loads(_content(archive, "manifest.json"))
    raw = _content(archive, manifest["Config"])
    config = json.loads(raw)
    files: Files = {}
    for layer in manifest["Layers"]:
        _apply(archive, layer, files)
    digest = hashlib.sha256(raw).hexdigest()
    found = {part["bom-ref"]: part for part in _parts(files, config)}
    return parts.document(_image(config, digest), [found[reference] for reference in sorted(found)], digest)


def _apply(archive: tarfile.TarFile, layer: str, files: Files) -> None:
    """Lay a layer's files over those of the layers below (OCI Image Layer Specification: changesets)."""
    packed = archive.extractfile(layer)
    assert packed  # noqa: S101 - a regular member; the archive is our own
    with packed, tarfile.open(fileobj=packed, mode="r|*") as tar:
        for member in tar:
            path = posixpath.normpath(member.name)
            folder, name = posixpath.split(path)
            if name == ".wh..wh..opq":
                _remove(files, folder)
            elif name.startswith(".wh."):
                _remove(files, posixpath.join(folder, name.removeprefix(".wh.")))
            elif member.isfile() and WANTED.fullmatch(path) and (content := tar.extractfile(member)):
                files[path] = content.read().decode("utf-8", "replace")


def _remove(files: Files, path: str) -> None:
    """Forget a file, or everything in a folder."""
    for one in [one for one in files if one == path or one.startswith(f"{path}/")]:
        del files[one]


def _parts(files: Files, config: dict[str, Any]) -> Iterator[Component]:
    """Yield every part."""
    system = next((_release(files[path]) for path in OS_RELEASE if path in files), {})
    if system:
        name, version = system["ID"], system.get("VERSION_ID", "")
        yield {"type": "operating-system", "bom-ref": f"os:{name}@{version}", "name": name, "version": version}
    environment = dict(one.split("=", 1) for one in config["config"].get("Env") or [])
    if "PYTHON_VERSION" in environment:  # Python's own images say so; Debian's Python is one of the packages
        yield parts.python(environment["PYTHON_VERSION"])
    for path, text in files.items():
        if "dpkg/status" in path:
            yield from _packages(text, system)
        elif path.endswith("/METADATA"):
            found = InImage(text)
            if found.metadata["Name"] != parts.NAME:
                yield parts.distribution(found)


def _packages(status: str, system: dict[str, str]) -> Iterator[Component]:
    """Yield the packages that dpkg's list says are installed."""
    for paragraph in filter(str.strip, status.split("\n\n")):
        package = message_from_string(paragraph.lstrip("\n"))
        if package.get("Status", "install ok installed").endswith(" installed"):
            distro = {"distro": f"{system['ID']}-{system['VERSION_ID']}"} if "VERSION_ID" in system else {}
            yield parts.debian(package["Package"], package["Version"], arch=package["Architecture"], **distro)


def _release(text: str) -> dict[str, str]:
    """Return what an os-release file says."""
    return {key: value.strip("\"'") for key, value in re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE)}


def _image(config: dict[str, Any], digest: str) -> Component:
    """Return the image itself; `digest` is that of its configuration, which docker calls the image's id."""
    labels = config["config"].get("Labels") or {}
    version = labels["org.opencontainers.image.version"]
    said = {"architecture": config["architecture"], "revision": labels.get("org.opencontainers.image.revision", "")}
    layers = {f"layer:{i}": diff for i, diff in enumerate(config["rootfs"]["diff_ids"])}
    return {
        "type": "container",
        "bom-ref": f"image:{parts.NAME}@sha256:{digest}",
        "name": parts.NAME,
        "version": version,
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "properties": [
            {"name": f"appliance:{name}", "value": value} for name, value in {**said, **layers}.items() if value
        ],
    }


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    """Return a member's bytes."""
    file = archive.extractfile(name)
    assert file  # noqa: S101 - see _apply
    return file.read()


if __name__ == "__main__":
    main()

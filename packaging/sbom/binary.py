"""What the binary is made of: its CycloneDX 1.6 bill of materials and the licences of all its parts.

Run by packaging/pyinstaller/build.sh with the interpreter that PyInstaller ran with, where every part's metadata still
is: `binary.py WORK BINARY OUT` reads the lists that PyInstaller left in WORK, hashes the files of BINARY and writes
OUT/sbom.cdx.json and OUT/LICENSES.txt.
"""

import ast
import hashlib
import json
import platform
import re
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

import parts
from parts import Component

OPENSSL = Path("/opt/openssl")
"""Where old-root.sh puts the OpenSSL that it compiles from Debian's source package, with that package's version."""
LICENCE_FILE = re.compile(r"(^|/)(LICEN[CS]E|COPYING|NOTICE|ThirdPartyNotices|AUTHORS)[^/]*$", re.IGNORECASE)


def main() -> None:
    """Write both files."""
    work, binary, out = (Path(argument) for argument in sys.argv[1:4])
    sources = [Path(source) for source in _sources(work)]
    bundled = sorted((d for d in distributions() if _holds(d, sources)), key=lambda d: d.metadata["Name"].lower())
    libraries = _libraries(sources)
    own = next(one for one in bundled if one.metadata["Name"] == parts.NAME)
    python = parts.python(platform.python_version())
    inside = [python, *(parts.distribution(one) for one in bundled if one is not own), *(one for one, _ in libraries)]
    document = parts.document(_program(own.version), inside, _digest(binary))
    (out / "sbom.cdx.json").write_text(json.dumps(document, indent=1) + "\n")
    (out / "LICENSES.txt").write_text(_licences(bundled, libraries), encoding="utf-8")


def _sources(work: Path) -> set[str]:
    """Return the files that PyInstaller took parts from, by its tables of contents (name, source, kind)."""
    found = set()
    for table in ("PYZ-00.toc", "COLLECT-00.toc"):
        for entry in _rows(ast.literal_eval((work / table).read_text(encoding="utf-8"))):
            if Path(entry[1]).is_absolute():
                found.add(entry[1])
    return found


def _rows(value: object) -> list[tuple[str, str, str]]:
    """Return the (name, source, kind) rows anywhere in a table of contents."""
    if isinstance(value, tuple) and len(value) == 3 and all(isinstance(part, str) for part in value):
        return [value]
    if isinstance(value, list | tuple):
        return [row for part in value for row in _rows(part)]
    return []


def _holds(distribution: Distribution, sources: list[Path]) -> bool:
    """Return whether any file of the distribution, its metadata aside, is among the sources."""
    wanted = set(sources)
    files = (file for file in distribution.files or [] if ".dist-info/" not in str(file))
    return any(Path(str(distribution.locate_file(file))) in wanted for file in files)


def _libraries(sources: list[Path]) -> list[tuple[Component, Path]]:
    """Return (component, its copyright file) of the system's libraries that travel in the binary, by Debian package."""
    found: dict[str, tuple[Component, Path]] = {}
    for path in sorted(path.resolve() for path in sources if ".so" in path.name):
        owner = _owner(path)
        if owner is None:
            continue
        package, version, copyright_file = owner
        component = parts.debian(package, version)
        component["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}]
        found.setdefault(package, (component, copyright_file))
    return [found[package] for package in sorted(found)]


def _owner(path: Path) -> tuple[str, str, Path] | None:
    """Return (package, version, copyright file) of the Debian package that a library is of, None if it is of none."""
    if path.is_relative_to(OPENSSL):
        return "openssl", (OPENSSL / "debian-version").read_text().strip(), OPENSSL / "LICENSE.txt"
    if path.parts[1:2] not in (("lib",), ("usr",)):
        return None
    names = {str(path), str(path).removeprefix("/usr"), f"/usr{path}"}  # /lib may be a link into /usr
    for name in sorted(names):
        asked = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True, check=False)  # noqa: S603, S607
        if asked.returncode == 0:
            package = asked.stdout.partition(":")[0]
            query = ["dpkg-query", "-W", "-f", "${Version}\n", package]
            shown = subprocess.run(query, capture_output=True, text=True, check=True)  # noqa: S603
            return package, shown.stdout.splitlines()[0], Path("/usr/share/doc") / package / "copyright"
    return None


def _digest(binary: Path) -> str:
    """Return a digest of all files of the program."""
    files = hashlib.sha256()
    for path in sorted(path for path in binary.rglob("*") if path.is_file()):
        files.update(path.relative_to(binary).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    return files.hexdigest()


def _program(version: str) -> Component:
    """Return the program itself."""
    reference = f"pkg:pypi/{parts.NAME}@{version}"
    return {
        "type": "application",
        "bom-ref": reference,
        "name": parts.NAME,
        "version": version,
        "purl": reference,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "properties": [{"name": "appliance:machine", "value": platform.machine()}],
    }


def _licences(bundled: list[Distribution], libraries: list[tuple[Component, Path]]) -> str:
    """Return the texts of all licences, each under the part's name."""
    sections = [(f"CPython {platform.python_version()}", [_python_licence()])]
    for one in bundled:
        files = sorted(str(file) for file in one.files or [] if LICENCE_FILE.search(str(file)))
        texts = [Path(str(one.locate_file(file))).read_text(encoding="utf-8", errors="replace") for file in files]
        sections.append((f"{one.metadata['Name']} {one.version}", texts or [parts.licence(one)]))
    for component, file in libraries:
        text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else "see the Debian package"
        sections.append((f"{component['name']} {component['version']} (Debian)", [text]))
    rule = "=" * 78
    return "\n".join(f"{rule}\n{title}\n{rule}\n\n" + "\n\n".join(texts).strip() + "\n" for title, texts in sections)


def _python_licence() -> str:
    """Return CPython's licence; from its own file where it has one, else from its `license()`."""
    for path in (Path(sys.base_prefix) / "LICENSE.txt", Path(ast.__file__).parent / "LICENSE.txt"):
        if path.exists():
            return path.read_text(encoding="utf-8")
    return "PSF-2.0: https://docs.python.org/3/license.html"


if __name__ == "__main__":
    main()

"""Makes the sdist from the working tree, and the wheel from the sdist alone: `wheel.py OUT`; `make wheel` runs it.

The same files give the same bytes: neither the time, the user, the umask nor the order of a folder is in them. The date
within is SOURCE_DATE_EPOCH, else that of the last commit. Needs the setuptools of pyproject.toml; fetches nothing.
"""

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = (
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "appliance",
    "convert",
    "docs",
    "examples",
)
"""What the sdist is made from. Tests, packaging and benchmarks need a clone: they read one another's files."""
EARLIEST = 315532800  # 1980, before which a zip has no date


def main(out: Path) -> None:
    """Write both files to `out` and print their paths."""
    os.umask(0o022)
    epoch = max(date(), EARLIEST)
    os.environ |= {"SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="appliance-wheel-") as folder:
        work = Path(folder)
        tree = work / "tree"
        copy(tree)
        made = build("build_sdist", tree, work)
        with tarfile.open(made) as archive:
            archive.extractall(work / "unpacked", filter="data")
        sdist = out / made.name
        pack(work / "unpacked", sdist, epoch)
        wheel = build("build_wheel", work / "unpacked" / made.name.removesuffix(".tar.gz"), work)
        print(sdist, shutil.copyfile(wheel, out / wheel.name), sep="\n")


def date() -> int:
    """Return the date of the files, in seconds since 1970."""
    if said := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(said)
    line = ["git", "log", "-1", "--format=%ct"]
    asked = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    return int(asked.stdout or 0)


def copy(tree: Path) -> None:
    """Copy the parts, every file readable for all: modes are in both archives, and differ from clone to clone."""
    tree.mkdir()
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copyfile(source, tree / name)
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def build(step: str, tree: Path, out: Path) -> Path:
    """Run one step of the build system (PEP 517) in `tree`; return the file that it made in `out`."""
    code = f"import sys, setuptools.build_meta as system; print(system.{step}(sys.argv[1]), file=sys.stderr)"
    line = [sys.executable, "-c", code, str(out)]
    done = subprocess.run(line, cwd=tree, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"error: {step} failed\n{done.stdout}{done.stderr}")
    return out / done.stderr.splitlines()[-1]


def pack(folder: Path, file: Path, epoch: int) -> None:
    """Write what is in `folder` as a .tar.gz, in order of the names, of nobody, and all of one date."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime, entry.mode = epoch, 0o755 if entry.isdir() else 0o644
        return entry

    with (
        file.open("wb") as raw,
        gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(folder.rglob("*")):
            archive.add(path, path.relative_to(folder), recursive=False, filter=plain)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

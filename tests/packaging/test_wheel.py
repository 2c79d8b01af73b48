"""What `make wheel` makes: the same bytes from the same files, all that a service opens, nothing of the tests."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DATE = "1700000000"


def make(root: Path, out: Path, umask: int) -> tuple[Path, Path]:
    """Return the sdist and the wheel made by `root`'s wheel.py."""
    line = [sys.executable, str(root / "packaging/release/wheel.py"), str(out)]
    done = subprocess.run(
        line, env=os.environ | {"SOURCE_DATE_EPOCH": DATE}, umask=umask, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    sdist, wheel = map(Path, done.stdout.split())
    return sdist, wheel


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    return make(ROOT, tmp_path_factory.mktemp("wheel"), 0o022)


@pytest.fixture(scope="module")
def inside(made) -> set[str]:
    """The names of the files in the wheel."""
    with zipfile.ZipFile(made[1]) as wheel:
        return set(wheel.namelist())


def source_files(*suffixes: str) -> set[str]:
    """Return the files of both packages that git would keep."""
    found = (path for package in ("appliance", "convert") for path in (ROOT / package).rglob("*"))
    return {str(path.relative_to(ROOT)) for path in found if path.suffix in suffixes and path.is_file()}


def test_the_wheel_holds_every_module_and_every_file_that_they_open(inside):
    outside = {".py", ".pyc", ".mk", ""}  # .mk: a part of the Makefile
    opened = {path.suffix for package in ("appliance", "convert") for path in (ROOT / package).rglob("*")} - outside
    assert {".html", ".css", ".js", ".svg", ".typed"} <= opened
    packages = {name for name in inside if name.startswith(("appliance/", "convert/"))}
    assert packages == source_files(".py", *opened)


def test_the_wheel_holds_nothing_else_but_its_own_description(inside):
    others = {name.split("/")[0] for name in inside} - {"appliance", "convert"}
    assert others == {f"edge_inference_appliance-{VERSION}.dist-info"}
    assert not [name for name in inside if re.search(r"(^|/)(tests?|conftest)(/|\.py|_)", name)]


def test_the_wheel_says_what_pyproject_says(made):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(made[1]) as wheel:
        about = f"edge_inference_appliance-{VERSION}.dist-info"
        metadata = BytesParser().parsebytes(wheel.read(f"{about}/METADATA"))
        scripts = wheel.read(f"{about}/entry_points.txt").decode()
        assert wheel.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert (metadata["Name"], metadata["Version"]) == ("edge-inference-appliance", VERSION)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    page = (ROOT / "docs/install.md").read_text()
    assert [extra for extra in project["optional-dependencies"] if f"`{extra}`" not in page] == []
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "appliance = appliance.cli:main" in scripts


def test_the_sdist_holds_what_a_reader_needs_and_no_test(made):
    with tarfile.open(made[0]) as sdist:
        entries = sdist.getmembers()
    names = {entry.name.partition("/")[2] for entry in entries if entry.isfile()}
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    assert names >= pages | source_files(".py") | {"README.md", "LICENSE", "CHANGELOG.md", "examples/iris/train.py"}
    assert not [name for name in names if name.startswith(("tests/", ".venv", ".cache"))]
    assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in entries} == {(0, 0, "", int(DATE))}


def test_another_place_umask_and_time_give_the_same_bytes(made, tmp_path):
    parts = ("appliance", "convert", "docs", "examples", "packaging/release")
    line = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *parts]
    listed = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    copy = tmp_path / "elsewhere"
    top = {"pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md"}
    for name in sorted({*filter(None, listed), *top}, reverse=True):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
            (copy / name).chmod(0o600)
    again = make(copy, tmp_path / "out", 0o077)
    for first, second in zip(made, again, strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()


def test_pages_and_manifests_name_this_version():
    named = re.compile(r"edge-inference-appliance[:-](\d+\.\d+\.\d+)|appliance-(\d+\.\d+\.\d+)-linux|newTag: (\S+)")
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for folder in ("packaging", "ansible"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".yml", ".yaml", ".md", ".py")]
    found = {
        (path.name, next(filter(None, match.groups()))) for path in files for match in named.finditer(path.read_text())
    }
    assert len(found) > 5
    assert {one for one in found if one[1] != VERSION} == set()

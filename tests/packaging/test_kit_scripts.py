"""kit.sh and deb.sh on a binary of another processor: what they make is read from its files, nothing of it is run."""

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
FOREIGN = 183  # ELF's e_machine of aarch64
DATE = "1700000000"


@pytest.fixture
def binary(tmp_path) -> Path:
    """What build.sh leaves, its program being the head of an aarch64 executable."""
    out = tmp_path / "out"
    metadata = out / "appliance" / "_internal" / "edge_inference_appliance-1.2.3.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.4\nName: edge-inference-appliance\nVersion: 1.2.3\n\nVersion: 9\n")
    (out / "appliance" / "appliance").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, FOREIGN))
    (out / "appliance" / "appliance").chmod(0o755)
    # A library that is real, so that the C library it asks for can be read.
    shutil.copy(real_library(), out / "appliance" / "_internal" / "some.so")
    for name in ("sbom.cdx.json", "LICENSES.txt"):
        (out / name).write_text("{}\n")
    return out


def real_library() -> Path:
    return next(Path(msgspec.__file__).parent.glob("_core*.so"))


def call(script: str, *words: object, **more: str) -> str:
    line = ["sh", str(ROOT / "packaging" / script), *map(str, words)]
    environment = os.environ | {"SOURCE_DATE_EPOCH": DATE, "APPLIANCE_PYTHON": sys.executable} | more
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kit_says_version_processor_and_least_glibc_of_a_binary_that_cannot_run_here(binary, tmp_path):
    call("offline/kit.sh", binary, tmp_path / "dist")
    kit = tmp_path / "dist" / "appliance-1.2.3-linux-aarch64"
    said = dict(line.split("=") for line in (kit / "kit.conf").read_text().splitlines())
    assert (said["version"], said["arch"]) == ("1.2.3", "aarch64")
    asked = re.findall(rb"GLIBC_2\.(\d+)(?![\d.])", real_library().read_bytes())
    assert said["glibc"] == f"2.{max(map(int, asked))}"
    assert json.loads((kit / "sbom.cdx.json").read_text()) == {}
    assert {path.name for path in kit.glob("appliance*.*")} >= {
        "appliance.service",
        "appliance-pull.service",
        "appliance-pull.timer",
        "appliance-score@.service",
        "appliance-score@.timer",
        "appliance.toml",
    }


def test_kit_holds_the_documentation_site_when_one_is_given(binary, tmp_path):
    site = tmp_path / "docs"
    site.mkdir()
    (site / "index.html").write_text("<p>pages</p>")
    call("offline/kit.sh", binary, tmp_path / "dist", SITE=str(site))
    kit = tmp_path / "dist" / "appliance-1.2.3-linux-aarch64"
    with tarfile.open(kit / "docs.tar.gz") as packed:
        assert packed.extractfile("docs/index.html").read() == b"<p>pages</p>"
    assert "  docs.tar.gz\n" in (kit / "SHA256SUMS").read_text()


def test_same_binary_gives_the_same_kit_and_the_same_package(binary, tmp_path):
    def digests(folder: Path) -> set[str]:
        call("offline/kit.sh", binary, folder)
        call("debian/deb.sh", binary, folder)
        return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}

    first = digests(tmp_path / "one")
    assert len(first) == 2
    assert digests(tmp_path / "two") == first


def test_package_names_who_maintains_it_and_holds_units_that_pull_and_its_own_processor(binary, tmp_path):
    named = {"DEBFULLNAME": "A & B / Co", "DEBEMAIL": "ops@plant.example"}
    call("debian/deb.sh", binary, tmp_path, **named)
    package = next(tmp_path.glob("*.deb"))
    assert package.name == "edge-inference-appliance_1.2.3_arm64.deb"
    fields = subprocess.run(["dpkg-deb", "--field", package], capture_output=True, text=True, check=True).stdout
    assert "Maintainer: A & B / Co <ops@plant.example>" in fields
    assert "Architecture: arm64" in fields
    tree = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
    (tmp_path / "tree.tar").write_bytes(tree)
    with tarfile.open(tmp_path / "tree.tar") as tar:
        units = [name for name in tar.getnames() if "systemd/system/" in name]
        pull = tar.extractfile("./lib/systemd/system/appliance-pull.service").read().decode()
    assert sorted(Path(name).name for name in units) == [
        "appliance-pull.service",
        "appliance-pull.timer",
        "appliance-score@.service",
        "appliance-score@.timer",
        "appliance.service",
    ]
    assert "ExecStart=/usr/lib/appliance/program/appliance pull" in pull


def test_package_of_nobody_says_so(binary, tmp_path):
    call("debian/deb.sh", binary, tmp_path, DEBFULLNAME="", DEBEMAIL="")
    package = next(tmp_path.glob("*.deb"))
    field = subprocess.run(["dpkg-deb", "--field", package, "Maintainer"], capture_output=True, text=True, check=True)
    assert field.stdout.strip() == "Nobody was named <nobody@example.invalid>"


def test_a_kit_is_made_with_the_lock_of_the_device_alone(tmp_path):
    line = [
        "make",
        "--dry-run",
        "--no-print-directory",
        "kit",
        "deb",
        f"KIT_TOOLS={tmp_path}/tools",
        f"VENV={tmp_path}/venv",
    ]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"requirements/[\w.-]+", done.stdout)) == {"requirements/device.txt"}
    assert f"{tmp_path}/venv" not in done.stdout


def test_python_m_appliance_is_the_command_without_an_installation(tmp_path):
    line = [sys.executable, "-m", "appliance", "keygen", str(tmp_path / "plant.key"), "--no-password"]
    subprocess.run(line, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60)
    assert {path.name for path in tmp_path.iterdir()} == {"plant.key", "plant.key.pub"}

"""An image's bill of materials, as packaging/sbom/image.py prints it from what `docker load` reads."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "packaging/sbom/image.py"
SITE = "opt/appliance/lib/python3.12/site-packages"
DPKG = """Package: libc6
Status: install ok installed
Architecture: arm64
Version: 2.36-9+deb12u9

Package: gone
Status: deinstall ok config-files
Architecture: arm64
Version: 1
"""
BASE = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "var/lib/dpkg/status": DPKG,
    "usr/lib/python3/dist-packages/old-1.0.dist-info/METADATA": "Name: old\nVersion: 1.0\n",
    "usr/lib/python3/dist-packages/kept-1.0.dist-info/METADATA": "Name: kept\nVersion: 1.0\nLicense: MIT\n",
}
OURS = {
    f"{SITE}/NumPy-2.0.dist-info/METADATA": "Name: NumPy\nVersion: 2.0\nLicense-Expression: BSD-3-Clause\n",
    f"{SITE}/edge_inference_appliance-1.2.3.dist-info/METADATA": "Name: edge-inference-appliance\nVersion: 1.2.3\n",
    "usr/lib/python3/dist-packages/.wh.old-1.0.dist-info": "",
}


def tarred(files: dict[str, str | bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return whole.getvalue()


def write_image(path: Path, environment: list[str]) -> Path:
    layers = [tarred(BASE), tarred(OURS)]
    diffs = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    labels = {"org.opencontainers.image.version": "1.2.3", "org.opencontainers.image.revision": "abc"}
    inner = {"Env": environment, "Labels": labels}
    config = json.dumps({"architecture": "arm64", "config": inner, "rootfs": {"diff_ids": diffs}}).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["0.tar", "1.tar"]}])
    path.write_bytes(
        tarred({"manifest.json": manifest, "c.json": config, **{f"{i}.tar": one for i, one in enumerate(layers)}})
    )
    return path


def printed(archive: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, SCRIPT, archive], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def document(tmp_path) -> dict:
    return json.loads(printed(write_image(tmp_path / "image.tar", ["PATH=/bin", "PYTHON_VERSION=3.12.4"])).stdout)


def test_image_is_named_with_its_version_processor_and_the_digest_that_docker_calls_its_id(document, tmp_path):
    component = document["metadata"]["component"]
    with tarfile.open(tmp_path / "image.tar") as tar:
        config = tar.extractfile("c.json").read()
    assert component["type"] == "container"
    assert (component["name"], component["version"]) == ("edge-inference-appliance", "1.2.3")
    assert component["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(config).hexdigest()}]
    said = {one["name"]: one["value"] for one in component["properties"]}
    assert (said["appliance:architecture"], said["appliance:revision"]) == ("arm64", "abc")
    assert said["appliance:layer:1"] == json.loads(config)["rootfs"]["diff_ids"][1]


def test_parts_are_the_system_its_packages_the_interpreter_and_the_libraries_of_every_layer(document):
    assert {(part["name"], part["version"]) for part in document["components"]} == {
        ("debian", "12"),
        ("libc6", "2.36-9+deb12u9"),
        ("CPython", "3.12.4"),
        ("NumPy", "2.0"),
        ("kept", "1.0"),
    }
    urls = {part["name"]: part.get("purl") for part in document["components"]}
    assert urls["libc6"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=arm64&distro=debian-12"
    assert urls["NumPy"] == "pkg:pypi/numpy@2.0"
    (depends,) = document["dependencies"]
    assert sorted(depends["dependsOn"]) == sorted(part["bom-ref"] for part in document["components"])


def test_licences_are_those_of_the_metadata(document):
    licences = {part["name"]: part.get("licenses") for part in document["components"]}
    assert licences["NumPy"] == [{"expression": "BSD-3-Clause"}]
    assert licences["kept"] == [{"license": {"name": "MIT"}}]


def test_python_of_the_distribution_is_one_of_its_packages_and_no_part_of_its_own(tmp_path):
    document = json.loads(printed(write_image(tmp_path / "image.tar", ["PATH=/bin"])).stdout)
    assert "CPython" not in {part["name"] for part in document["components"]}


def test_same_image_gives_the_same_document(tmp_path):
    first, second = (printed(write_image(tmp_path / name, [])).stdout for name in ("one", "two"))
    assert first == second
    assert json.loads(first)["serialNumber"].startswith("urn:uuid:")


def test_what_is_no_image_is_told_without_a_traceback(tmp_path):
    (tmp_path / "image.tar").write_text("text")
    done = printed(tmp_path / "image.tar")
    assert done.returncode == 1
    assert done.stderr.startswith("image.py: ")
    assert "Traceback" not in done.stderr

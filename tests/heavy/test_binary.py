"""What is inside the binary that `make binary` left, and that nothing of the build machine is."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

BINARY = Path(os.environ["BINARY"]).resolve()
PROGRAM = BINARY / "appliance" / "appliance"


def modules() -> set[str]:
    """Return the names of the Python modules in the program: its table of contents is plain text within the file."""
    return {name.decode() for name in re.findall(rb"[A-Za-z_][A-Za-z0-9_.]{2,80}", PROGRAM.read_bytes())}


def test_every_module_of_the_appliance_is_inside():
    source = Path(__file__).parents[2]
    files = [path.relative_to(source).with_suffix("") for path in (source / "appliance").rglob("*.py")]
    written = {".".join(path.parts).removesuffix(".__init__") for path in files}
    assert {"appliance.cli.probe", "appliance.cli.pull", "appliance.mqtt.client"} <= written
    assert written <= modules()


@pytest.mark.parametrize(
    "name", ["sklearn", "skl2onnx", "onnx", "pandas", "scipy", "joblib", "convert", "pip", "setuptools", "PyInstaller"]
)
def test_nothing_of_the_build_machine_is_inside(name):
    inside = {one for one in modules() if one == f"{name}.__init__" or one.startswith(f"{name}.")}
    files = [path for path in (BINARY / "appliance").rglob("*") if path.name == name]
    assert (inside - {"onnx.ml"}, files) == (set(), [])


def test_every_command_starts_and_convert_says_which_extra_brings_it():
    listed = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    for command in re.findall(r"^  ([a-z][a-z-]*) ", listed, re.MULTILINE):
        done = subprocess.run([PROGRAM, command, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == (2 if "[convert]" in done.stderr else 0), done.stderr


def test_libraries_find_one_another_without_a_path_of_the_build_machine():
    for library in (BINARY / "appliance").rglob("*.so*"):
        shown = subprocess.run(["objdump", "-p", library], capture_output=True, text=True, check=True).stdout
        for path in re.findall(r"^\s*(?:RUNPATH|RPATH)\s+(.*)$", shown, re.MULTILINE):
            assert all(part.startswith("$ORIGIN") for part in path.split(":")), (library.name, path)


def test_its_openssl_is_one_that_is_supported_and_the_bill_of_materials_names_it():
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    number = re.search(r"OpenSSL (\d+\.\d+\.\d+)", said)
    assert number
    assert number[1].startswith("3.")
    inside = (BINARY / "appliance" / "_internal").glob("libssl.so.*")
    assert [path.name for path in inside] == ["libssl.so.3"]
    assert number[1].encode() in (BINARY / "appliance" / "_internal" / "libcrypto.so.3").read_bytes()
    components = json.loads((BINARY / "sbom.cdx.json").read_text())["components"]
    named = [one["version"] for one in components if one["name"] in ("openssl", "libssl3", "libssl3t64")]
    assert len(named) == 1
    assert named[0].startswith(number[1])
    checks = json.loads(subprocess.run([PROGRAM, "doctor", "--json"], capture_output=True, text=True).stdout)["checks"]
    assert [one["state"] for one in checks if one["check"] == "openssl"] == ["ok"]

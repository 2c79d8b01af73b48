"""A small offline kit whose program is a script, around the real install.sh."""

import hashlib
import shutil
import tarfile
from pathlib import Path

from appliance.bundle import folder, keys

PACKAGING = Path(__file__).parents[2] / "packaging"
PRIVATE, PUBLIC = keys.generate_key()


def write_sums(kit: Path, name: str, paths: list[Path], below: Path) -> None:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(below).as_posix()}\n" for path in paths
    ]
    (kit / name).write_text("".join(lines))


def build_kit(where: Path, version: str, signed: bool, arch: str, glibc: str, as_shipped: bool) -> Path:
    kit = where / f"appliance-{version}-linux-{arch}"
    program = where / "program"
    (program / "_internal").mkdir(parents=True)
    (program / "appliance").write_text(f"#!/bin/sh\necho appliance, version {version}\n")
    (program / "appliance").chmod(0o755)
    (program / "_internal" / "lib.so.1").write_text(f"library {version}")
    (program / "_internal" / "lib.so").symlink_to("lib.so.1")
    kit.mkdir()
    for path in (PACKAGING / "offline" / name for name in ("install.sh", "README.txt", "appliance.toml")):
        shutil.copy(path, kit)
    if not as_shipped:
        open_to_tests(kit / "install.sh")
    for unit in (PACKAGING / "systemd").iterdir():
        shutil.copy(unit, kit)
    for name in ("LICENSE", "LICENSES.txt", "sbom.cdx.json"):
        (kit / name).write_text("{}\n")
    (kit / "kit.conf").write_text(f"version={version}\narch={arch}\nglibc={glibc}\nkibibytes=10\n")
    write_sums(kit, "FILES.sha256", [program / "_internal" / "lib.so.1", program / "appliance"], where)
    with tarfile.open(kit / "program.tar", "w") as archive:
        archive.add(program, "program")
    write_sums(kit, "SHA256SUMS", sorted(kit.iterdir()), kit)
    if signed:
        (kit / "model.sig").write_bytes(folder.sign(kit, PRIVATE))
    return kit


def open_to_tests(script: Path) -> None:
    """Let a test say where commands and temporary files are: the script takes nothing from its caller's environment."""
    text = script.read_text()
    fixed = "env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "
    assert text.count(fixed) == 1
    standard = "${TEST_PATH:-/usr/sbin:/usr/bin:/sbin:/bin}"
    own = f'env -i PATH="{standard}" TMPDIR="${{TEST_TMPDIR-}}" REAL="${{REAL-}}" CUT_AT="${{CUT_AT-}}" '
    script.write_text(text.replace(fixed, own))

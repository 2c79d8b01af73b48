"""The three verifiers of model.sig, which cannot share code, give one verdict on every vector."""

import platform
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.bundle import folder
from appliance.errors import BundleRefused
from tests.ansible.plugins import plugin
from tests.packaging.kits import build_kit
from tests.signatures.vectors import Vector, vectors


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Vector, Path]]:
    """Every vector and its folder, which is an offline kit: so install.sh can be run in it."""
    where = tmp_path_factory.mktemp("vectors")
    kit = build_kit(where, "1.0.0", False, platform.machine(), "2.28", True)
    files = {path.name: path.read_bytes() for path in kit.iterdir() if path.name != "SHA256SUMS"}
    found = []
    for number, vector in enumerate(vectors(files)):
        vector.write(where / str(number) / "kit")
        found.append((vector, where / str(number) / "kit"))
    return found


def test_the_devices_verifier_gives_every_verdict(made):
    def accepts(vector: Vector, kit: Path) -> bool:
        try:
            folder.verify(kit, [vector.trusted])
        except BundleRefused:
            return False
        return True

    assert differ(made, accepts) == []


def test_the_controllers_verifier_gives_every_verdict(made):
    check = plugin("module_utils", "kit_signature").check

    def accepts(vector: Vector, kit: Path) -> bool:
        file = kit.parent / "kit.tar.gz"
        with tarfile.open(file, "w:gz", compresslevel=1) as archive:
            archive.add(kit, "kit")
        try:
            check(file, vector.trusted)
        except ValueError:  # any other error would be a fault of the verifier
            return False
        return True

    assert differ(made, accepts) == []


def test_install_sh_gives_every_verdict(made, tmp_path):
    key, system = tmp_path / "key.pub", tmp_path / "system"
    system.mkdir()

    def accepts(vector: Vector, kit: Path) -> bool:
        key.write_bytes(vector.trusted)
        line = ["sh", kit / "install.sh", "--root", system, "--check", "--key", key]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
        failed = [words for words in done.stdout.splitlines() if words.startswith("fail")]
        # For the signature, or for files that SHA256SUMS does not list, and for nothing else.
        assert done.returncode == (3 if failed else 0), f"{vector.name}: {done.stdout}{done.stderr}"
        assert all(words.split()[1] in ("signature", "checksums") for words in failed), done.stdout
        return not failed

    assert differ(made, accepts) == []


def test_vectors_are_of_both_kinds(made):
    good = [vector.name for vector, _ in made if vector.good]
    assert len(good) >= 15
    assert len(made) - len(good) >= 80
    assert len({vector.name for vector, _ in made}) == len(made)


def differ(made: list[tuple[Vector, Path]], accepts: Callable[[Vector, Path], bool]) -> list[str]:
    """Return the names of the vectors on which a verifier gives another verdict."""
    return [vector.name for vector, kit in made if accepts(vector, kit) is not vector.good]

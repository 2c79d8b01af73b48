"""Signatures over whole folders, both ways with the specification's own implementation, and what they refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.bundle import folder, keys
from appliance.cli import appliance as command
from appliance.errors import BundleRefused

PRIVATE, PUBLIC = keys.generate_key()
OTHER = keys.generate_key()[1]


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A folder with a folder in it, signed; the keys beside it: key, key.pub."""
    path = tmp_path / "kit-1.0.0"
    (path / "deep").mkdir(parents=True)
    (path / "install.sh").write_text("exit 0\n")
    (path / "deep" / "a-b.txt").write_bytes(os.urandom(100_000))
    (path / "deep" / "a.txt").write_bytes(b"")
    (tmp_path / "key").write_bytes(PRIVATE)
    (tmp_path / "key.pub").write_bytes(PUBLIC)
    (path / "model.sig").write_bytes(folder.sign(path, PRIVATE))
    return path


def run(*arguments: object):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def official(what: str, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    given = ["--signature", str(path / "model.sig"), *options, str(path)]
    line = [sys.executable, "-m", "model_signing", what, "key", *given]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_signer_of_an_untouched_folder_is_told(kit):
    assert folder.verify(kit, [OTHER, PUBLIC]).fingerprint == keys.fingerprint(keys.load_public_key(PUBLIC))


def test_official_verifier_accepts_our_signature(kit):
    done = official("verify", kit, "--public_key", str(kit.parent / "key.pub"))
    assert done.returncode == 0, done.stderr


def test_our_verifier_accepts_the_official_signature(kit):
    (kit / "model.sig").unlink()
    done = official("sign", kit, "--private_key", str(kit.parent / "key"))
    assert done.returncode == 0, done.stderr
    assert folder.verify(kit, [PUBLIC])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda kit: (kit / "deep" / "a.txt").write_bytes(b"1"), "is not as it was"),
        (lambda kit: (kit / "deep" / "a.txt").unlink(), "is missing"),
        (lambda kit: (kit / "deep" / "more").write_bytes(b""), "was not signed"),
        (lambda kit: (kit / "deep" / "link").symlink_to("a.txt"), "no plain file"),
        (lambda kit: (kit / "model.sig").unlink(), "cannot be read"),
        (lambda kit: (kit / "model.sig").write_bytes(b"{}"), "model.sig"),
    ],
    ids=["flipped", "missing", "added", "link", "unsigned", "nonsense"],
)
def test_changed_folder_is_refused(kit, change, said):
    change(kit)
    with pytest.raises(BundleRefused, match=said):
        folder.verify(kit, [PUBLIC])


def test_folder_signed_by_another_key_is_refused(kit):
    with pytest.raises(BundleRefused, match="not signed by the trusted key"):
        folder.verify(kit, [OTHER])


def test_command_signs_and_verifies_a_folder(kit):
    (kit / "model.sig").unlink()
    signed = run("sign", kit, "--key", kit.parent / "key")
    assert signed.exit_code == 0, signed.stderr
    shown = run("verify", kit, "--key", kit.parent / "key.pub")
    assert "is sound, signed by the key" in shown.stdout
    assert json.loads(run("verify", kit, "--key", kit.parent / "key.pub", "--json").stdout)["signed"] is True
    (kit / "more").touch()
    assert run("verify", kit, "--key", kit.parent / "key.pub").exit_code == 3


def test_command_wants_a_key_for_a_folder(kit):
    assert run("verify", kit).exit_code == 2

"""What the controller finds out about files before any host sees them."""

import hashlib
import json
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

NAME = "appliance-0.3.0-linux-x86_64"

pytestmark = pytest.mark.timeout(300)


def appliance(*words: object) -> None:
    line = [sys.executable, "-c", "from appliance.cli import main; main()", *map(str, words)]
    subprocess.run(line, check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    where = tmp_path_factory.mktemp("keys")
    for name in ("plant", "other"):
        appliance("keygen", where / name, "--no-password")
    return where


@pytest.fixture(scope="module")
def kit(tmp_path_factory, keys):
    """Return a function that makes a kit, signed by the plant: make(name, changed after signing={file: content})."""

    def make(name, after=None, signed=True):
        where = tmp_path_factory.mktemp(name)
        folder = where / NAME
        folder.mkdir()
        (folder / "install.sh").write_text("echo installed\n")
        (folder / "program.tar").write_bytes(b"program" * 1000)
        (folder / "kit.conf").write_text("version=0.3.0\narch=x86_64\nglibc=2.30\nkibibytes=7\n")
        sums = "".join(
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.iterdir())
        )
        (folder / "SHA256SUMS").write_text(sums)
        if signed:
            appliance("sign", folder, "--key", keys / "plant")
        for file, content in (after or {}).items():
            (folder / file).write_text(content)
        with tarfile.open(where / f"{NAME}.tar.gz", "w:gz") as archive:
            archive.add(folder, NAME, filter=lambda member: member)
        return where / f"{NAME}.tar.gz"

    return make


@pytest.fixture(scope="module")
def look(run, tmp_path_factory):
    """Return a function that looks something up: look(expression) -> (whether it could, what was said)."""

    def look(expression):
        file = tmp_path_factory.mktemp("found") / "found.json"
        content = "{{ (" + expression + ") | to_json }}"
        here = ["-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
        asked = json.dumps({"content": content, "dest": str(file)})
        done = run("ansible", "localhost", *here, "-m", "ansible.builtin.copy", "-a", asked)
        said = " ".join((done.stdout + done.stderr).split())
        return json.loads(file.read_text()) if file.exists() else None, said

    return look


def test_a_kit_tells_its_version_and_processor(look, kit):
    made = kit("good")
    found, said = look(f"lookup('inference.appliance.kit', '{made}')")
    assert found, said
    assert (found["version"], found["arch"], found["folder"]) == ("0.3.0", "x86_64", NAME)
    with tarfile.open(made) as archive:
        assert found["digest"] == hashlib.sha256(archive.extractfile(f"{NAME}/SHA256SUMS").read()).hexdigest()


def test_a_kit_of_the_right_key_is_taken(look, kit, keys):
    found, said = look(f"lookup('inference.appliance.kit', '{kit('signed')}', key='{keys}/plant.pub')")
    assert found, said
    assert found["version"] == "0.3.0"


def test_a_file_of_several_keys_is_read_whole_and_nothing_else_may_be_in_it(look, kit, keys, tmp_path):
    both, plant, other = tmp_path / "both.pub", (keys / "plant.pub").read_bytes(), (keys / "other.pub").read_bytes()
    for text, taken in ((other + plant, True), (other, False), (plant + b"beside", False), (b"", False)):
        both.write_bytes(text)
        found, said = look(f"lookup('inference.appliance.kit', '{kit('signed')}', key='{both}')")
        assert bool(found) is taken, said


@pytest.mark.parametrize(
    ("after", "signed", "key", "told"),
    [
        ({}, True, "other", "its signature is not of that key"),
        ({}, False, "plant", "it is not signed"),
        ({"install.sh": "echo stolen\n"}, True, "plant", "damaged or not part of it: install.sh"),
        ({"extra.sh": "echo stolen\n"}, True, "plant", "damaged or not part of it: extra.sh"),
        ({"SHA256SUMS": "0" * 64 + "  install.sh\n"}, True, "plant", "its SHA256SUMS is not what was signed"),
        ({"model.sig": "{}"}, True, "plant", "dsseEnvelope"),
    ],
)
def test_a_kit_that_the_key_does_not_vouch_for_is_refused(look, kit, keys, after, signed, key, told):
    found, said = look(f"lookup('inference.appliance.kit', '{kit('bad', after, signed)}', key='{keys}/{key}.pub')")
    assert found is None
    assert told in said


def test_what_is_no_kit_is_named(look, tmp_path):
    wrong = tmp_path / "wrong.tar.gz"
    wrong.write_text("no archive")
    found, said = look(f"lookup('inference.appliance.kit', '{wrong}')")
    assert found is None
    assert str(wrong) in said


def test_a_bundle_must_be_what_is_stated(look, tmp_path):
    import zipfile

    file = tmp_path / "iris-1.0.0.bundle"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"name": "iris", "version": "1.0.0"}))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    found, said = look(f"lookup('inference.appliance.bundle', '{file}', stated={{'name': 'iris', 'version': '1.0.0'}})")
    assert found == {"name": "iris", "version": "1.0.0", "sha256": digest}, said
    for stated, told in (
        ({"name": "wear"}, "its name is iris, stated is wear"),
        ({"version": "1.1.0"}, "its version is 1.0.0, stated is 1.1.0"),
        ({"sha256": "0" * 64}, f"its sha256 is {digest}"),
    ):
        found, said = look(f"lookup('inference.appliance.bundle', '{file}', stated={stated})")
        assert found is None
        assert told in said


def test_an_image_archive_tells_its_tag_and_id(look, tmp_path):
    config = json.dumps({"architecture": "amd64"}).encode()
    manifest = [{"Config": "abc.json", "RepoTags": ["edge:0.1.0-amd64"], "Layers": ["layer.tar"]}]
    file = tmp_path / "image.tar.gz"
    _archive(file, {"abc.json": config, "layer.tar": b"\0" * 10, "manifest.json": json.dumps(manifest).encode()})
    found, said = look(f"lookup('inference.appliance.image', '{file}')")
    assert found == {
        "tag": "edge:0.1.0-amd64",
        "id": f"sha256:{hashlib.sha256(config).hexdigest()}",
        "arch": "amd64",
    }, said
    _archive(file, {"manifest.json": json.dumps(manifest * 2).encode()})
    found, said = look(f"lookup('inference.appliance.image', '{file}')")
    assert found is None
    assert "no single, tagged image" in said


def _archive(file: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(file, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))

"""keygen, sign and verify --key as a person and a script use them, and a device that trusts some keys only."""

import json
import os
import pty
import select
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import appliance
from appliance.bundle import archive, keys
from appliance.cli import appliance as command
from appliance.settings import load
from appliance.store.versions import Store

ROOT = Path(appliance.__file__).parents[1]
SECRET = "correct horse"


@pytest.fixture
def run(tmp_path):
    """Run the command in this process, without a terminal."""

    def invoke(*arguments: object, **environment: str):
        known = {"APPLIANCE_STATE_DIR": str(tmp_path / "state"), **environment}
        return CliRunner().invoke(command, [str(argument) for argument in arguments], env=known)

    return invoke


@pytest.fixture
def bundle(tmp_path, make_bundle):
    return make_bundle(tmp_path)


@pytest.fixture
def key(tmp_path, run) -> Path:
    """An unencrypted key, its public half beside it as key.pub."""
    assert run("keygen", tmp_path / "key", "--no-password").exit_code == 0
    return tmp_path / "key"


@pytest.fixture
def pub(key) -> Path:
    return key.with_name("key.pub")


@pytest.fixture
def other_pub(tmp_path, run) -> Path:
    """The public half of another key."""
    assert run("keygen", tmp_path / "other", "--no-password").exit_code == 0
    return tmp_path / "other.pub"


@pytest.fixture
def password_file(tmp_path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\nsecond line\n")
    return file


def refused(result, code: int, reason: str) -> None:
    """Assert that a command ended with the exit code and said why."""
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert reason in result.stderr
    assert "next:" in result.stderr
    assert "Traceback" not in result.stderr


def typed(*arguments: object, lines: list[str]) -> tuple[int, str]:
    """Run the command on a terminal of its own, answer each question with a line; return (exit code, its text)."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.pop("APPLIANCE_KEY_PASSWORD_FILE", None)
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", "from appliance.cli import main; main()", *map(str, arguments)])
    shown = b""
    while select.select([terminal], [], [], 20)[0]:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        shown += part
        if lines and shown.endswith(b": "):
            os.write(terminal, lines.pop(0).encode() + b"\n")
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


def test_the_way_from_key_to_installed_signed_bundle(tmp_path, run, bundle, key, pub):
    assert "signed by the key with SHA-256" in run("sign", bundle, "--key", key).stdout
    fingerprint = keys.fingerprint(keys.load_public_key(pub.read_bytes()))
    shown = run("verify", bundle, "--key", pub)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert f"signed by the key with SHA-256 {fingerprint}" in shown.stdout
    installed = run("install", bundle, APPLIANCE_STORE_TRUSTED_KEYS=str(pub))
    assert "iris 1.0.0 installed" in installed.stdout
    assert Store(tmp_path / "state").receipts()[0].signer == fingerprint


# keygen


def test_private_key_is_for_its_owner_alone(key, pub):
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert pub.read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----")


def test_keygen_says_the_fingerprint_and_no_secret(tmp_path, run, password_file):
    result = run("keygen", tmp_path / "key", "--password-file", password_file)
    assert keys.fingerprint(keys.load_public_key((tmp_path / "key.pub").read_bytes())) in result.stdout
    assert SECRET not in result.output
    assert all(line not in result.output for line in (tmp_path / "key").read_text().splitlines())


@pytest.mark.parametrize("name", ["key", "key.pub"])
def test_keys_are_never_overwritten(tmp_path, run, name):
    (tmp_path / name).write_text("precious")
    refused(run("keygen", tmp_path / "key", "--no-password"), 2, "keys are never overwritten")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_keygen_does_not_write_through_a_dangling_link(tmp_path, run):
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    refused(run("keygen", tmp_path / "key", "--no-password"), 2, "keys are never overwritten")
    assert not (tmp_path / "elsewhere").exists()


def test_key_without_password_must_be_said(tmp_path, run):
    refused(run("keygen", tmp_path / "key"), 2, "no terminal")
    assert not (tmp_path / "key").exists()


def test_password_file_and_no_password_exclude_each_other(tmp_path, run, password_file):
    refused(run("keygen", tmp_path / "key", "--no-password", "--password-file", password_file), 2, "both")


def test_keygen_in_a_folder_that_is_not_there_says_so(tmp_path, run):
    refused(run("keygen", tmp_path / "absent" / "key", "--no-password"), 1, "No such file or directory")


def test_empty_password_file_is_refused(tmp_path, run, password_file):
    password_file.write_text("\nsecret")
    refused(run("keygen", tmp_path / "key", "--password-file", password_file), 2, "first line is empty")
    refused(run("keygen", tmp_path / "key", "--password-file", tmp_path / "absent"), 4, "No such file")


def test_password_is_asked_twice_on_a_terminal_and_never_shown(tmp_path, bundle):
    code, shown = typed("keygen", tmp_path / "key", lines=[SECRET, SECRET])
    assert (code, SECRET in shown) == (0, False), shown
    assert keys.is_encrypted((tmp_path / "key").read_bytes())
    code, shown = typed("sign", bundle, "--key", tmp_path / "key", lines=[SECRET])
    assert (code, SECRET in shown) == (0, False), shown
    assert "model.sig" in archive.open_bundle(bundle).members


def test_empty_password_on_a_terminal_leaves_the_key_unencrypted(tmp_path):
    code, shown = typed("keygen", tmp_path / "key", lines=["", ""])
    assert code == 0, shown
    assert "not encrypted" in shown


# sign


def test_key_in_the_older_form_that_openssl_makes_signs(tmp_path, run, bundle):
    made = ec.generate_private_key(ec.SECP256R1())
    form, plain = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    (tmp_path / "old").write_bytes(made.private_bytes(serialization.Encoding.PEM, form, plain))
    (tmp_path / "old.pub").write_bytes(keys.public_pem(made.public_key()))
    assert run("sign", bundle, "--key", tmp_path / "old").exit_code == 0
    assert run("verify", bundle, "--key", tmp_path / "old.pub").exit_code == 0


def test_signing_changes_nothing_but_model_sig(run, bundle, key):
    bundle.chmod(0o664)
    before = dict(archive.open_bundle(bundle).members)
    assert run("sign", bundle, "--key", key).exit_code == 0
    after = dict(archive.open_bundle(bundle).members)
    assert after.pop("model.sig")
    assert after == before
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o664
    assert sorted(path.name for path in bundle.parent.glob("*iris*")) == [bundle.name]


def test_signing_twice_gives_the_same_bundle_and_another_key_replaces(tmp_path, run, bundle, key, pub, other_pub):
    run("sign", bundle, "--key", key)
    once = bundle.read_bytes()
    run("sign", bundle, "--key", key)
    assert bundle.read_bytes() == once
    run("sign", bundle, "--key", tmp_path / "other")
    assert run("verify", bundle, "--key", other_pub).exit_code == 0
    assert run("verify", bundle, "--key", pub).exit_code == 3


def test_encrypted_key_signs_by_the_password_in_a_file(tmp_path, run, bundle, password_file):
    run("keygen", tmp_path / "key", "--password-file", password_file)
    refused(run("sign", bundle, "--key", tmp_path / "key"), 2, "no password was given")
    assert "model.sig" not in archive.open_bundle(bundle).members
    result = run("sign", bundle, "--key", tmp_path / "key", APPLIANCE_KEY_PASSWORD_FILE=str(password_file))
    assert result.exit_code == 0
    assert SECRET not in result.output


def test_wrong_password_is_told_without_showing_it(tmp_path, run, bundle, password_file):
    run("keygen", tmp_path / "key", "--password-file", password_file)
    password_file.write_text("guess")
    result = run("sign", bundle, "--key", tmp_path / "key", "--password-file", password_file, "--debug")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "password is wrong" in result.stderr
    assert "guess" not in result.stderr


def test_bundle_that_cannot_be_signed_stays_as_it_is(tmp_path, run, bundle, key, pub):
    content = bundle.read_bytes()
    refused(run("sign", bundle, "--key", pub), 2, "no private key")
    refused(run("sign", bundle, "--key", tmp_path / "absent"), 4, "No such file")
    refused(run("sign", tmp_path / "absent", "--key", key), 4, "no such file")
    assert bundle.read_bytes() == content
    bundle.write_bytes(content[:-30])
    refused(run("sign", bundle, "--key", key), 3, "damaged")


# verify


def test_verify_without_a_key_says_whether_there_is_a_signature(run, bundle, key):
    assert "unsigned" in run("verify", bundle).stdout
    run("sign", bundle, "--key", key)
    assert "signed; by whom" in run("verify", bundle).stdout


def test_verify_tells_the_signer_in_json(run, bundle, key, pub, other_pub):
    document = json.loads(run("verify", bundle, "--json").stdout)
    assert (document["signed"], document["signer"]) == (False, None)
    run("sign", bundle, "--key", key)
    document = json.loads(run("verify", bundle, "--json", "--key", other_pub, "--key", pub).stdout)
    signer = keys.fingerprint(keys.load_public_key(pub.read_bytes()))
    assert (document["signed"], document["signer"]) == (True, signer)


def test_verify_refuses_the_unsigned_and_the_otherwise_signed(tmp_path, run, bundle, key, pub, other_pub):
    refused(run("verify", bundle, "--key", pub), 3, "unsigned")
    run("sign", bundle, "--key", key)
    refused(run("verify", bundle, "--key", other_pub), 3, "not signed by the trusted key")
    refused(run("verify", bundle, "--key", tmp_path / "absent"), 4, "No such file")
    refused(run("verify", bundle, "--key", bundle), 3, "no public key")


# A device that trusts some keys


def test_device_installs_what_any_trusted_key_signed(run, bundle, key, pub, other_pub):
    run("sign", bundle, "--key", key)
    result = run("install", bundle, APPLIANCE_STORE_TRUSTED_KEYS=f"{other_pub}:{pub}")
    assert (result.exit_code, result.stderr) == (0, "")


def test_device_refuses_the_unsigned_the_otherwise_signed_and_the_altered(tmp_path, run, bundle, key, pub, other_pub):
    trusting = {"APPLIANCE_STORE_TRUSTED_KEYS": str(pub)}
    refused(run("install", bundle, **trusting), 3, "unsigned")
    run("sign", bundle, "--key", tmp_path / "other")
    refused(run("install", bundle, **trusting), 3, "not signed by the trusted key")
    run("sign", bundle, "--key", key)
    with zipfile.ZipFile(bundle) as packed:
        signature = packed.read("model.sig")
    bundle.write_bytes(archive.with_signature(archive.read(_with_baseline(bundle)), signature))
    refused(run("install", bundle, **trusting), 3, "is not as it was when it was signed")
    assert not (tmp_path / "state" / "models").exists()


def _with_baseline(bundle: Path) -> bytes:
    """Return the same model, unsigned, with another member."""
    opened = archive.open_bundle(bundle)
    parts = [opened.members[name] for name in (archive.MODEL, archive.PARITY, archive.EXAMPLES)]
    return archive.write(opened.manifest, *parts, b"{}")


def test_device_whose_trusted_key_is_missing_or_damaged_installs_nothing(tmp_path, run, bundle, key, pub):
    run("sign", bundle, "--key", key)
    refused(run("install", bundle, APPLIANCE_STORE_TRUSTED_KEYS=f"{pub},{tmp_path}/absent"), 4, "No such file")
    (tmp_path / "damaged.pub").write_text("nonsense")
    refused(run("install", bundle, APPLIANCE_STORE_TRUSTED_KEYS=f"{pub},{tmp_path}/damaged.pub"), 3, "cannot be used")


def test_trusted_keys_come_from_file_or_environment(tmp_path):
    file = tmp_path / "appliance.toml"
    file.write_text('[store]\ntrusted_keys = ["/a.pub", "/b.pub"]\n')
    assert load(file, {}).store.trusted_keys == ("/a.pub", "/b.pub")
    assert load(None, {"APPLIANCE_STORE_TRUSTED_KEYS": "/a.pub:/b.pub,/c.pub"}).store.trusted_keys[1:] == (
        "/b.pub",
        "/c.pub",
    )
    assert load(file, {"APPLIANCE_STORE_TRUSTED_KEYS": ""}).store.trusted_keys == ()


def test_service_preloads_only_what_a_trusted_key_signed(tmp_path, make_bundle, run, key, pub):
    folder = tmp_path / "preload"
    folder.mkdir()
    make_bundle(folder, name="unsigned")
    run("sign", make_bundle(folder, name="signed"), "--key", key)
    settings = {"STATE_DIR": tmp_path / "state", "STORE_PRELOAD_DIR": folder, "STORE_TRUSTED_KEYS": pub}
    given = {"PYTHONPATH": str(ROOT), **{f"APPLIANCE_{name}": str(value) for name, value in settings.items()}}
    serve = [sys.executable, "-c", "from appliance.cli import main; main()", "serve", "--port", "0"]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True, env={**os.environ, **given}) as service:
        lines = []
        while not lines or "listening" not in lines[-1]:
            lines.append(service.stderr.readline())
            assert lines[-1], lines
        service.terminate()
    assert any("bundle cannot be preloaded" in line and "unsigned" in line for line in lines)
    assert Store(tmp_path / "state").names() == ["signed"]


def test_device_that_trusts_no_key_does_not_load_the_cryptography_library(tmp_path, bundle):
    code = (
        "import sys; from pathlib import Path; from appliance.store.versions import Store\n"
        "Store(Path(sys.argv[1])).install(Path(sys.argv[2])); import appliance.cli.models\n"
        "assert 'cryptography' not in sys.modules"
    )
    given = [sys.executable, "-c", code, str(tmp_path / "state"), str(bundle)]
    done = subprocess.run(
        given, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stderr) == (0, "")

"""The commands on keys and signatures (keygen, sign), and who signed a bundle, for verify."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from appliance.bundle import archive, folder, keys, signature
from appliance.bundle.archive import SIGNATURE
from appliance.cli import common_options
from appliance.cli.output import echo
from appliance.errors import ApplianceError, Misuse
from appliance.store import durable

password_from = click.option(
    "--password-file",
    envvar="APPLIANCE_KEY_PASSWORD_FILE",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="File whose first line is the private key's password; without it, a terminal is asked.",
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@password_from
@click.option("--no-password", is_flag=True, help="Leave the private key unencrypted.")
@common_options
def keygen(file: Path, password_file: Path | None, no_password: bool) -> None:
    """Make a pair of keys: FILE signs bundles and stays secret, FILE.pub goes to the devices."""
    public_file = file.with_name(f"{file.name}.pub")
    for path in (file, public_file):
        if os.path.lexists(path):
            raise _exists(path)
    private, public = keys.generate_key(_new_password(password_file, no_password))
    _write_new(file, private, 0o600)
    try:
        _write_new(public_file, public, 0o644)
    except ApplianceError:
        file.unlink()
        raise
    echo(f"{file}: the private key, {'encrypted' if keys.is_encrypted(private) else 'not encrypted'}")
    echo(f"{public_file}: the public key, SHA-256 {keys.fingerprint(keys.load_public_key(public))}")
    echo(f"next: appliance sign BUNDLE --key {file}")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", "key_file", required=True, type=click.Path(path_type=Path), help="Private key (PEM).")
@password_from
@common_options
def sign(bundle: Path, key_file: Path, password_file: Path | None) -> None:
    """Sign BUNDLE, or a folder, in place: its model.sig is written, or replaced, and nothing else in it changes."""
    if bundle.is_dir():
        _sign_folder(bundle, key_file, password_file)
        return
    opened = archive.open_bundle(bundle)
    private = keys.read_file(key_file)
    password = _password_of(private, password_file)
    content = archive.with_signature(opened, signature.sign(opened.members, private, password))
    _replace(bundle.resolve(), content)
    signer = keys.fingerprint(keys.load_private_key(private, password).public_key())
    echo(f"{opened.manifest.name} {opened.manifest.version} signed by the key with SHA-256 {signer}")


def signer_of_folder(path: Path, key_files: Sequence[Path]) -> str:
    """Return the fingerprint of the public key, among those in `key_files`, that signed all that a folder holds.

    Raises Misuse without a key, NotFound when its file cannot be read, BundleRefused when none of them signed it.
    """
    if not key_files:
        raise Misuse(f"verify the folder {path}", "only its signature can tell", "give --key PUB")
    return folder.verify(path, [keys.read_file(key) for key in key_files]).fingerprint


def _sign_folder(path: Path, key_file: Path, password_file: Path | None) -> None:
    """Write the model.sig of a folder."""
    private = keys.read_file(key_file)
    password = _password_of(private, password_file)
    signed = folder.sign(path, private, password)
    try:
        durable.write_atomically(path / SIGNATURE, signed)
    except OSError as error:
        raise _unwritable(path / SIGNATURE, error) from error
    signer = keys.fingerprint(keys.load_private_key(private, password).public_key())
    echo(f"{path} signed by the key with SHA-256 {signer}")


def _new_password(file: Path | None, none: bool) -> bytes | None:
    """Return the password for a new key; None for no encryption, which the user must ask for."""
    if none and file:
        raise Misuse("make a key", "both a password file and --no-password were given", "leave one of them out")
    if none:
        return None
    if file:
        return keys.password_in(file)
    if not sys.stdin.isatty():
        found = "there is no terminal to ask for a password"
        raise Misuse("make a key", found, "give --password-file FILE, or --no-password")
    text = "Password of the private key (empty for none)"
    return _ask(text, confirmation_prompt="Again", default="") or None


def _password_of(private: bytes, file: Path | None) -> bytes | None:
    """Return the password of an existing key, None when none is needed; a terminal is asked."""
    ask = partial(_ask, "Password of the private key") if sys.stdin.isatty() else None
    return keys.password_of(private, file, ask)


def _ask(text: str, *, confirmation_prompt: bool | str = False, default: str | None = None) -> bytes:
    """Return what is typed on the terminal, unseen; on standard error, so that output stays clean."""
    typed: str = click.prompt(
        text, hide_input=True, confirmation_prompt=confirmation_prompt, default=default, show_default=False, err=True
    )
    return typed.encode()


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist yet, created with this mode; it is on disk before this returns."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise _unwritable(path, error) from error


def _replace(path: Path, content: bytes) -> None:
    """Replace the content of `path` atomically; its mode stays."""
    try:
        mode = path.stat().st_mode & 0o777
        durable.write_atomically(path, content)
        path.chmod(mode)
    except OSError as error:
        raise _unwritable(path, error) from error


def _exists(path: Path) -> Misuse:
    return Misuse(f"write {path}", "it exists, and keys are never overwritten", "choose another name")


def _unwritable(path: Path, error: OSError) -> ApplianceError:
    return ApplianceError(f"write {path}", error.strerror or str(error), "check the folder's rights and free space")

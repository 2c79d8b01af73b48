"""The commands that carry a state folder elsewhere, or back: backup, restore."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

import click

from appliance import ahead
from appliance.cli import as_json, common_options, options
from appliance.cli.output import echo, print_json
from appliance.errors import Misuse, NotFound, StoreError
from appliance.store import backup as backups
from appliance.store import restore as restoring
from appliance.store.backup import Made
from appliance.store.versions import Store

_STDOUT = "-"


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@as_json
@common_options
def backup(file: str, as_json: bool) -> None:
    """Write the state folder to FILE, while services use it: models, receipts, logs, drift, MQTT messages.

    FILE must not exist; - is standard output. It holds keys of the log: keep it as secret as the folder itself.
    """
    if file == _STDOUT and as_json:
        raise Misuse("back up to standard output", "--json prints there too", "leave one of them out")
    if file == _STDOUT:
        made = backups.write(Store.of(options().config()), sys.stdout.buffer)
        echo(_told("-", made), err=True)
        return
    options().config_only()  # a mistake in the settings is told before there is a file
    out = _new(Path(file))  # before root becomes the owner of the state folder
    try:
        with out:
            made = backups.write(Store.of(options().config()), out)
            out.flush()
            os.fsync(out.fileno())
    except BaseException as error:
        with suppress(OSError):  # where it may not be deleted any more: restore refuses half a file
            Path(file).unlink()
        if isinstance(error, OSError):
            found = error.strerror or str(error)
            raise StoreError(f"write {file}", found, "choose another file, or free some disk space") from error
        raise
    if as_json:
        print_json({"file": file, "files": made.files, "bytes": made.bytes})
    else:
        echo(_told(file, made))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Delete what the state folder holds.")
@as_json
@common_options
def restore(file: Path, replace: bool, as_json: bool) -> None:
    """Make the state folder what the backup FILE holds. No service may use it, and it must be empty, or --replace.

    All of FILE is checked before anything is written. Killed at any moment, the folder has no model or all of them;
    the same command with --replace does it again.
    """
    store = Store.of(options().config(files=[file]))
    try:
        opened = ahead.open_file(file)
    except FileNotFoundError as error:
        raise NotFound(f"restore {file}", "there is no such file", "check the path") from error
    except OSError as error:
        raise Misuse(
            f"restore {file}", error.strerror or str(error), "name a file that `appliance backup` made"
        ) from error
    with opened:
        made = restoring.restore(store, opened, replace=replace)
    if as_json:
        print_json({"state_dir": str(store.state_dir), "files": made.files, "bytes": made.bytes})
        return
    echo(f"{store.state_dir} restored: {made.files} files, {made.bytes} bytes")
    echo("next: start the service; appliance status")


def _new(path: Path) -> IO[bytes]:
    """Return a file that did not exist, for its owner alone. Raises Misuse, StoreError."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
    except FileExistsError as error:
        raise Misuse(f"write {path}", "it exists, and no backup is overwritten", "choose another name") from error
    except OSError as error:
        raise StoreError(f"write {path}", error.strerror or str(error), "choose another file") from error


def _told(file: str, made: Made) -> str:
    return f"{file}: {made.files} files, {made.bytes} bytes"

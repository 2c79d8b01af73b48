"""The folder of one MQTT listener: our client id, what brokers still send us, and a lock, since one service has it."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from appliance import nofollow
from appliance.errors import Misuse
from appliance.mqtt.disk import Disk
from appliance.store import durable

OUTBOX = "outbox.sqlite"


def kept_id(folder: Path) -> str:
    """Return the client id of this appliance, made once: a broker keeps our messages under it."""
    path = folder / "client-id"
    with durable.reported(f"read {path}"):
        with contextlib.suppress(FileNotFoundError):
            return nofollow.read(path, within=folder.parent).decode("utf-8").strip()
        made = f"appliance-{secrets.token_hex(6)}"
        durable.write_atomically(path, f"{made}\n".encode(), within=folder.parent)
        return made


def only_one(folder: Path) -> int:
    """Return the lock that keeps a second service from the same outbox.

    Raises Misuse when another holds it, StoreError.
    """
    path = folder / "lock"
    with durable.reported(f"open {path}"):
        descriptor = durable.open_or_make(path, os.O_RDWR, 0o600, within=folder.parent)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Misuse(
            f"use {folder}", "another service does", "stop it, or give this one its own state folder"
        ) from error
    return descriptor


def stale_filters(disk: Disk, wanted: Sequence[str]) -> list[str]:
    """Return what earlier configurations subscribed to: the broker's session still has it. Raises StoreError."""
    found = disk.read("select value from notes where name = 'filters'")
    before = msgspec.json.decode(found[0][0], type=list[str]) if found else []
    together = list(dict.fromkeys([*before, *wanted]))
    if together != before:
        note = ("filters", msgspec.json.encode(together).decode())
        disk.commit([("insert or replace into notes values (?, ?)", [note])])
    return [text for text in before if text not in wanted]

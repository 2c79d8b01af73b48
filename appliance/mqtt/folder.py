"""The folder of one MQTT door in the state folder: who we are for brokers, and that only one service uses it."""

import fcntl
import os
import secrets
from pathlib import Path

from appliance.errors import Misuse
from appliance.store import durable

OUTBOX = "outbox.sqlite"


def kept_id(folder: Path) -> str:
    """Return the client id of this appliance, made once: a broker keeps our messages under it."""
    path = folder / "client-id"
    with durable.reported(f"read {path}"):
        if path.exists():
            return path.read_text(encoding="utf-8").strip()
        made = f"appliance-{secrets.token_hex(6)}"
        durable.write_atomically(path, f"{made}\n".encode())
        return made


def only_one(folder: Path) -> int:
    """Return the lock that keeps a second service from the same outbox. Raises Misuse when another holds it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Misuse(
            f"use {folder}", "another service does", "stop it, or give this one its own state folder"
        ) from error
    return descriptor

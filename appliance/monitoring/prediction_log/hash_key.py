"""The key of the column hashes (HMAC): made on this host when first needed, and never shown."""

import contextlib
import secrets
from pathlib import Path

from appliance import nofollow
from appliance.errors import StoreError
from appliance.monitoring.prediction_log.segments import FOLDER
from appliance.store import durable

_FILE, _BYTES = "hash.key", 32


def hash_key(state_dir: Path) -> bytes:
    """Return the key, made where it is absent; all processes have the same. Raises StoreError."""
    path = state_dir / FOLDER / _FILE
    with durable.reported("make the key for hashed columns"):
        durable.make_folder(path.parent, within=state_dir)
        with durable.locked(path.parent / ".hash.lock", 10.0, within=state_dir):
            with contextlib.suppress(FileNotFoundError):
                found = nofollow.read(path, within=state_dir)
                if len(found) != _BYTES:
                    raise StoreError(f"read {path}", "it is damaged", "delete it: new hashes will differ from the old")
                return found
            key = secrets.token_bytes(_BYTES)
            durable.write_atomically(path, key, within=state_dir, mode=0o600)
            return key

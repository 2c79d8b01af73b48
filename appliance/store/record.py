"""activation.json: which version of a model serves, and which one it would go back to."""

from pathlib import Path
from typing import Literal

import msgspec

from appliance import nofollow
from appliance.errors import StoreError
from appliance.store import durable

FILE = "activation.json"

State = Literal["probation", "good"]


class Activation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What models/NAME/activation.json says; the default is a model of which no version was ever active."""

    active: str | None = None
    """The version that serves."""
    previous: str | None = None
    """The version that roll back returns to."""
    state: State = "probation"
    """Whether the active version was marked good."""
    previous_state: State = "probation"
    """Whether the previous version had been."""
    since: str = ""
    """When the active version became active: UTC, ISO 8601, to the second."""
    why: str = ""


def read(folder: Path) -> Activation:
    """Return the record of the model in `folder`; the default where it has none. Raises StoreError when damaged."""
    path = folder / FILE
    try:
        return msgspec.json.decode(nofollow.read(path, within=_state_dir(folder)), type=Activation)
    except FileNotFoundError:
        return Activation()
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise StoreError(f"read {path}", str(error), "delete it and activate a version again") from error


def write(folder: Path, activation: Activation) -> None:
    """Replace the record of the model in `folder`."""
    content = msgspec.json.format(msgspec.json.encode(activation), indent=1) + b"\n"
    durable.write_atomically(folder / FILE, content, within=_state_dir(folder))


def _state_dir(folder: Path) -> Path:
    """Return the state folder around STATE_DIR/models/NAME."""
    return folder.parents[1]

"""trials.json: which installed versions of a model passed their self-test here, so that a start need not repeat it.

A cache: damaged or absent, it costs one more trial. It says what was tried (the manifest's digest), on which processor
and by which onnxruntime, and what that took.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from appliance import nofollow
from appliance.errors import StoreError
from appliance.store import durable

FILE = "trials.json"


class Trial(msgspec.Struct, frozen=True):
    """One self-test that passed, as its figures tell it (inference.figures)."""

    digest: str
    processor: str
    onnxruntime: str
    load_seconds: float
    seconds: float
    memory_bytes: int


def read(folder: Path) -> dict[str, Trial]:
    """Return {version: its last trial} of the model in `folder`; {} where there are none to be read."""
    try:
        return msgspec.json.decode(nofollow.read(folder / FILE, within=folder.parents[1]), type=dict[str, Trial])
    except (OSError, ValueError, msgspec.MsgspecError, StoreError):
        return {}


def remember(folder: Path, version: str, figures: Mapping[str, Any]) -> None:
    """Write that `version` of the model in `folder` passed; the caller holds the store's lock.

    Figures that do not tell what was tried are passed over. Raises OSError, StoreError.
    """
    if not figures.get("digest"):
        return
    known = read(folder)
    made = msgspec.convert({name: figures.get(name) for name in Trial.__struct_fields__}, Trial)
    if known.get(version) == made:
        return
    kept = {name: trial for name, trial in known.items() if (folder / name).is_dir()}
    content = msgspec.json.format(msgspec.json.encode({**kept, version: made}), indent=1) + b"\n"
    durable.write_atomically(folder / FILE, content, within=folder.parents[1])

"""The receipts: one line for each change of the store: when, why, and the result of the self-test."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec

from appliance import nofollow
from appliance.errors import StoreError
from appliance.store import durable

T = TypeVar("T")
What = Literal[
    "install", "activate", "mark good", "roll back", "deactivate", "remove",
    "shadow", "canary", "split", "step", "promote", "abort",
    "cut log", "erase", "accept drift",
]  # fmt: skip


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was done, or refused."""

    when: str
    """UTC, ISO 8601, to the second, by the host's own clock."""
    what: What
    model: str
    version: str
    outcome: Literal["done", "refused"] = "done"
    why: str = ""
    """The reason that was given, or for a refusal the reason found."""
    signer: str = ""
    """For an install that asks for a signature: the SHA-256 of the trusted key that signed the bundle."""
    self_test: Mapping[str, Any] | None = None
    """The self-test's figures, where one ran and passed."""
    experiment: Mapping[str, Any] | None = None
    """For what was done to an experiment: its id, kind, arms, step and evidence at that moment."""


def now() -> str:
    """Return this second in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def append(folder: Path, receipt: Receipt) -> None:
    """Write `receipt` behind the others of its month, in `folder`/YYYY-MM.jsonl; `folder` is in the state folder."""
    durable.make_folder(folder, within=folder.parent)
    durable.append_line(folder / f"{receipt.when[:7]}.jsonl", msgspec.json.encode(receipt), within=folder.parent)


def check(folder: Path) -> None:
    """Raise StoreError, or OSError, where a receipt could not be written to `folder`, made or not."""
    with suppress(FileNotFoundError):
        os.close(nofollow.open_file(folder / f"{now()[:7]}.jsonl", os.O_RDWR, within=folder.parent))


def read(folder: Path) -> list[Receipt]:
    """Return all receipts in the order in which they were written, passing over lines that a power cut tore."""
    receipts = []
    try:
        for name in nofollow.entries(folder, within=folder.parent):
            if not name.endswith(".jsonl"):
                continue
            for line in nofollow.read(folder / name, within=folder.parent).split(b"\n"):
                receipt = _decode(line)
                if receipt:
                    receipts.append(receipt)
    except FileNotFoundError:
        return receipts
    except OSError as error:
        raise StoreError(f"read receipts {folder}", str(error), "see: appliance doctor") from error
    return receipts


class Followed(Generic[T]):
    """What is made of the receipts in a folder; made again when one was written. Safe in any thread."""

    def __init__(self, folder: Path, make: Callable[[list[Receipt]], T]) -> None:
        """`make` gets all receipts, oldest first; it must not raise."""
        self._folder = folder
        self._make = make
        self._known: tuple[object, T] = object(), make([])

    def value(self, also: object = None) -> T:
        """Return what is made of them, or what that was before where they cannot be read; `also` changes it too."""
        with suppress(OSError, StoreError):
            entries = nofollow.entries(self._folder, within=self._folder.parent)
            mark = [(name, one.st_size, one.st_mtime_ns) for name, one in entries.items()], also
            if mark != self._known[0]:
                self._known = mark, self._make(read(self._folder))
        return self._known[1]


def _decode(line: bytes) -> Receipt | None:
    """Return the receipt in a line, None for an empty or torn one."""
    try:
        return msgspec.json.decode(line, type=Receipt)
    except (msgspec.MsgspecError, ValueError):
        return None

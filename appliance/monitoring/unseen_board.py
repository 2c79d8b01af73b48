"""The categories that training did not see, as each process of the service has met them, told to the first one."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from appliance.monitoring import shared_files
from appliance.monitoring.misra_gries import MisraGries
from appliance.monitoring.shared_cells import Key

Unseen = dict[Key, dict[str, MisraGries]]
"""{(model, version): {column: its values}}."""

_SUFFIX = ".unseen"


class UnseenBoard:
    """Small files in the folder that the processes share; without a folder, what this process says is all."""

    def __init__(self, folder: Path | None, slot: int) -> None:
        self._folder = folder
        self._slot = slot
        self._own: Unseen = {}
        self._told = b""

    def write(self, own: Mapping[Key, Mapping[str, MisraGries]]) -> None:
        """Share this process's unseen categories, if some are new."""
        self._own = {key: dict(columns) for key, columns in own.items()}
        told = {
            f"{model}@{version}": {column: found.counts for column, found in columns.items()}
            for (model, version), columns in self._own.items()
        }
        content = msgspec.json.encode(told)
        if content != self._told:
            self._told = content
            shared_files.write(self._folder, f"{self._slot}{_SUFFIX}", content)

    def all(self) -> Unseen:
        """Return what all processes have met; a file that is being replaced counts the next time."""
        if self._folder is None:
            return self._own
        found: Unseen = {}
        for file in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                told = msgspec.json.decode(file.read_bytes(), type=dict[str, dict[str, dict[str, int]]])
            except (OSError, msgspec.MsgspecError):
                continue
            for name, columns in told.items():
                model, _, version = name.partition("@")
                for column, counts in columns.items():
                    found.setdefault((model, version), {}).setdefault(column, MisraGries()).merge(counts)
        return found

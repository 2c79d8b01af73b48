"""What each process of the service serves, shared with all of them."""

import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.monitoring import shared_files
from appliance.repository import ACTIVE, Served


@dataclass(frozen=True, slots=True)
class Serving:
    """What a process serves of one model; `problem` is empty where the store's wish is fulfilled."""

    version: str | None
    problem: str


class ServingBoard:
    """What this process serves, and what the others do. Safe in any thread."""

    def __init__(self, folder: Path | None = None, slot: int = 0) -> None:
        """`folder` is shared by the processes, None for one alone; `slot` numbers this one."""
        self._folder = folder
        self._slot = slot
        self._lock = threading.Lock()
        self._serving: dict[str, Serving] = {}
        self._write()  # otherwise the record of a predecessor would stay

    def switched(self, served: Served) -> None:
        """Take note of what this process now serves of a model (see ModelRepository.switched)."""
        if served.role != ACTIVE:
            return
        with self._lock:
            if served.is_gone:
                self._serving.pop(served.name, None)
            else:
                version = served.loaded.version if served.loaded else None
                self._serving[served.name] = Serving(version, str(served.problem or ""))
            self._write()

    def all(self) -> list[dict[str, Serving]]:
        """Return {model: Serving} of each process."""
        if self._folder is None:
            return [dict(self._serving)]
        files = sorted(self._folder.glob("*.serving"))
        return [msgspec.json.decode(file.read_bytes(), type=dict[str, Serving]) for file in files]

    def _write(self) -> None:
        """Tell the other processes what this one serves."""
        shared_files.write(self._folder, f"{self._slot}.serving", msgspec.json.encode(self._serving))

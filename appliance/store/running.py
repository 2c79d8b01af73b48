"""Where the service of a state folder answers: STATE_DIR/service.json, written once it listens and deleted at its end.

For the commands of the same host, which else would have to guess the port of `serve --port`, or of another
configuration. What stands there is believed as long as the process that wrote it runs: a power cut leaves the file.
"""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from appliance import nofollow
from appliance.errors import StoreError
from appliance.store import durable


class Running(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What service.json says."""

    host: str
    """The address that it listens at; "" without HTTP."""
    port: int
    """0 without HTTP."""
    pid: int
    """Of the first process; with `started`, when that began (proc(5), field 22), no other process has it."""
    started: str
    certificate: str = ""
    """File of the certificate that it has; "" where it is no port of TLS."""

    @property
    def tls(self) -> bool:
        """Whether it is asked over TLS."""
        return bool(self.certificate)

    @property
    def url(self) -> str:
        """What it is asked by, without a path."""
        return f"{'https' if self.tls else 'http'}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def here(host: str, port: int, certificate: str = "") -> Running:
    """Return what this process writes."""
    return Running(host, port, os.getpid(), _started(os.getpid()), certificate)


def write(state_dir: Path, running: Running) -> None:
    """Write the file; a state folder that cannot be written stays without."""
    with suppress(OSError, StoreError):
        durable.write_atomically(_file(state_dir), msgspec.json.encode(running), within=state_dir)


def read(state_dir: Path) -> Running | None:
    """Return where a service answers that runs now, None where none is known to."""
    running = _living(state_dir)
    return running if running and 0 < running.port < 65536 else None


def lives(state_dir: Path) -> bool:
    """Return whether a service of this host runs now, be it one that listens to MQTT alone."""
    return _living(state_dir) is not None


def remove(state_dir: Path) -> None:
    """Delete the file where this process wrote it."""
    running = _living(state_dir)
    if running and running.pid == os.getpid():
        with suppress(OSError, StoreError):
            durable.delete_file(_file(state_dir), within=state_dir)


def _living(state_dir: Path) -> Running | None:
    """Return what the file says where the process that wrote it runs."""
    try:
        running = msgspec.json.decode(nofollow.read(_file(state_dir), within=state_dir), type=Running)
    except (OSError, ValueError, StoreError, msgspec.MsgspecError):
        return None
    return running if _started(running.pid) == running.started else None


def _file(state_dir: Path) -> Path:
    """Return where the file is."""
    return state_dir / "service.json"


def _started(pid: int) -> str:
    """Return when a process began, in clock ticks since the host's start; "-" where that cannot be known."""
    try:
        # The program's name, in brackets, may hold anything; what follows it is numbers.
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "-"

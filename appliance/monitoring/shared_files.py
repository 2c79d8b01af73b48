"""Small files through which the processes of one service share data; each is replaced as a whole."""

import logging
from pathlib import Path

log = logging.getLogger(__name__)


def write(folder: Path | None, name: str, content: bytes) -> None:
    """Write a file for the other processes to read; nothing without a folder. A full disk must not stop the service."""
    if folder is None:
        return
    file = folder / name
    beside = file.with_suffix(".new")
    try:
        beside.write_bytes(content)
        beside.replace(file)
    except OSError as error:
        log.error("metrics do not show what is served", extra={"file": str(file), "error": str(error)})

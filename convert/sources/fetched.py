"""What a source gives: one model file on this machine's disk, and where it came from."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from appliance.errors import Misuse

Format = Literal["pickle", "skops", "onnx", "lightgbm", "xgboost", "catboost"]

ENDINGS: dict[str, Format] = {
    ".joblib": "pickle",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".sav": "pickle",
    ".dill": "pickle",
    ".cloudpickle": "pickle",
    ".skops": "skops",
    ".onnx": "onnx",
    ".txt": "lightgbm",
    ".lgb": "lightgbm",
    ".json": "xgboost",
    ".ubj": "xgboost",
    ".xgb": "xgboost",
    ".cbm": "catboost",
    ".cb": "catboost",
}
"""File ending -> how the file is read. Only a pickle runs code when it is."""

_CHUNK = 1 << 20
_SECRET = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model file ready to be loaded, in the child process.

    `source` goes into the manifest: a URL, or a file's name without its folders. `libraries` are those the registry
    says the model was trained with. `example` is an MLflow model's folder that holds rows to take for a sample, and
    `code` a folder of modules that its pickle imports.
    """

    path: Path
    source: str
    format: Format
    local: bool
    run: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    example: Path | None = None
    code: Path | None = None

    @property
    def runs_code(self) -> bool:
        """Whether loading the file runs code from it."""
        return self.format == "pickle"


def format_of(path: Path) -> Format:
    """Return how a file is read, by its ending; raises Misuse for an unknown one."""
    if path.suffix.lower() not in ENDINGS:
        found = f"the ending {path.suffix!r} is unknown" if path.suffix else "its name has no ending"
        raise Misuse(f"read the model {path.name}", found, f"give one of {', '.join(ENDINGS)}")
    return ENDINGS[path.suffix.lower()]


def without_secrets(text: str) -> str:
    """Return a text with the user and password taken out of the URLs in it."""
    return _SECRET.sub("", text)


def digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()

"""The format of a file, by its name or by --format."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from appliance import extras
from appliance.errors import Misuse

FORMATS = ("csv", "csv.gz", "jsonl", "jsonl.gz", "parquet", "arrow")
"""The values of --format."""
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".arrow": "arrow"}


class Format(NamedTuple):
    """How a file is written."""

    kind: str
    """csv, jsonl, parquet or arrow."""
    gzip: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it is a text of lines."""
        return self.kind in ("csv", "jsonl")

    @property
    def suffix(self) -> str:
        """The end of such a file's name."""
        return f".{self.kind}" + (".gz" if self.gzip else "")


def format_of(name: str, said: str = "") -> Format:
    """Return a file's format: its name's, else the one of FORMATS that was said. Raises Misuse where neither tells."""
    found = of_name(name)
    if found:
        return found
    if not said:
        known = ", ".join([*_SUFFIXES, ".csv.gz", ".jsonl.gz"])
        raise Misuse(f"score {name}", f"its name ends in none of {known}", f"say --format {'|'.join(FORMATS)}")
    return Format(said.removesuffix(".gz"), said.endswith(".gz"))


def of_name(name: str) -> Format | None:
    """Return the format that a name tells, None where it tells none."""
    lower = name.lower()
    plain = lower.removesuffix(".gz")
    kind = next((kind for suffix, kind in _SUFFIXES.items() if plain.endswith(suffix)), None)
    if kind is None or (plain != lower and kind not in ("csv", "jsonl")):
        return None
    return Format(kind, plain != lower)


class _NoPandas:
    """A finder of modules (PEP 302) for which there is no pandas."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        """Return None, so that others are asked. Raises ModuleNotFoundError for pandas."""
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def keep_pandas_out() -> None:
    """Have pyarrow do without pandas in this process, where neither is imported yet; for a command alone.

    pyarrow looks for pandas when it makes its first array, and imports it where it is installed: half a second of a
    processor and 40 MiB, for nothing that is used here.
    """
    if "pandas" in sys.modules or "pyarrow" in sys.modules:
        return
    import pyarrow as pa

    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([1])
    finally:
        sys.meta_path.remove(_NoPandas)


@contextmanager
def needs_pyarrow() -> Iterator[None]:
    """Say which extra is lacking where pyarrow is imported within and absent."""
    try:
        yield
    except ImportError as error:
        found = f"this installation lacks pyarrow ({error})"
        raise Misuse("read or write Parquet, Arrow or S3", found, extras.how_to_get("parquet")) from error

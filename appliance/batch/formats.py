"""The format of a file, by its name or by --format."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

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


@contextmanager
def needs_pyarrow() -> Iterator[None]:
    """Say which extra is lacking where pyarrow is imported within and absent."""
    try:
        yield
    except ImportError as error:
        found = f"this installation lacks pyarrow ({error})"
        raise Misuse("read or write Parquet, Arrow or S3", found, extras.how_to_get("parquet")) from error

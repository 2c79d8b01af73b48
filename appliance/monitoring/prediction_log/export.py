"""Rows of the log as a table, with their answers and labels: JSON Lines, or Parquet where pyarrow is installed.

A column is named as the model's; what the log adds begins with an underscore, so that no column hides it.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance import extras
from appliance.errors import Misuse, StoreError
from appliance.monitoring.prediction_log import lines, segments
from appliance.monitoring.prediction_log.find import lines_of
from appliance.monitoring.prediction_log.lines import Header, Label, Row

_CHUNK = 10_000  # rows that are made into Parquet together


@dataclass(frozen=True, slots=True)
class Logged:
    """One row of the log, and the header of its segment."""

    header: Header
    row: Row


@dataclass(frozen=True, slots=True)
class Period:
    """A period in Unix time, without its end."""

    since: float = float("-inf")
    until: float = float("inf")

    def holds(self, moment: float) -> bool:
        """Return whether a moment lies in it."""
        return self.since <= moment < self.until


ALWAYS = Period()


def rows(state_dir: Path, model: str, version: str | None = None, period: Period = ALWAYS) -> Iterator[Logged]:
    """Yield the rows that were answered, a writer's in their order, without refusals and what was erased.

    Raises NotFound where nothing was logged, StoreError for a damaged segment.
    """
    for segment in segments.all_of(state_dir, model, version):
        if segment.packed and segment.modified < period.since - 1:
            continue
        header: Header | None = None
        with suppress(FileNotFoundError):  # deleted meanwhile, as too old
            for line in lines_of(segment):
                if line.startswith(lines.HEADER):
                    header = segments.header_of([line])
                elif header and line.startswith(lines.ROW) and lines.ERASED not in line:
                    row = _row(line)
                    if row and not row.error and period.holds(row.t):
                        yield Logged(header, row)


def labels(state_dir: Path, model: str) -> dict[str, list[Label]]:
    """Return {id: its labels in the order of their time} of all versions of a model."""
    found: dict[str, list[Label]] = {}
    for segment in segments.all_of(state_dir, model):
        with suppress(FileNotFoundError):
            for line in lines_of(segment):
                if line.startswith(lines.LABEL):
                    with suppress(*lines.FAILURES):
                        label = lines.read_label(line)
                        found.setdefault(label.id, []).append(label)
    for ones in found.values():
        ones.sort(key=lambda label: label.t)
    return found


def label_of(found: dict[str, list[Label]], row: Row) -> Label | None:
    """Return the last label of a row, None where it has none; that of a request's first row may bear its id alone."""
    ones = found.get(row.id) or (found.get(row.id[:-2]) if row.id.endswith(".0") else None) or []
    later = [one for one in ones if one.t >= row.t]
    return later[-1] if later else None


def table(
    state_dir: Path, model: str, version: str | None, period: Period, *, with_labels: bool
) -> Iterator[dict[str, Any]]:
    """Yield the rows as objects by column name."""
    found = labels(state_dir, model) if with_labels else {}
    for logged in rows(state_dir, model, version, period):
        row = logged.row
        made = dict(zip(logged.header.columns, row.x or [], strict=False))
        made |= {"_id": row.id, "_time": row.t, "_version": logged.header.version}
        made |= {"_prediction": row.y} | ({"_probability": row.p} if row.p is not None else {})
        made |= ({"_score": row.s} if row.s is not None else {}) | ({"_cut": row.cut} if row.cut else {})
        if with_labels:
            label = label_of(found, row)
            made["_label"] = label.label if label else None
        yield made


def write(rows: Iterable[dict[str, Any]], path: Path) -> int:
    """Write rows as the file's name says (.jsonl, .parquet) and return how many. Raises Misuse, StoreError."""
    if path.suffix == ".parquet":
        return _write_parquet(rows, path)
    if path.suffix not in (".jsonl", ".json", ".ndjson"):
        raise Misuse(f"write {path}", f"{path.suffix or 'no ending'} says no form", "name it .jsonl or .parquet")
    count = 0
    try:
        with path.open("wb") as file:
            for row in rows:
                file.write(lines.encode(row) + b"\n")
                count += 1
    except OSError as error:
        raise StoreError(f"write {path}", error.strerror or str(error), "choose another file") from error
    return count


def _write_parquet(rows: Iterable[dict[str, Any]], path: Path) -> int:
    """Write Parquet; the columns and types are those of the first rows."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        next_step = f"{extras.how_to_get('parquet')}; or write .jsonl"
        raise Misuse(f"write {path}", "pyarrow is not installed", next_step) from error
    count, writer = 0, None
    chunk: list[dict[str, Any]] = []

    def flush() -> None:
        nonlocal writer
        made = arrow.Table.from_pylist([_flat(row) for row in chunk], schema=writer.schema if writer else None)
        writer = writer or parquet.ParquetWriter(path, made.schema)
        writer.write_table(made)
        chunk.clear()

    try:
        for row in rows:
            chunk.append(row)
            count += 1
            if len(chunk) == _CHUNK:
                flush()
        if chunk or not writer:
            flush()
    except (OSError, arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
        raise StoreError(f"write {path}", str(error), "write .jsonl, which takes columns of mixed types") from error
    finally:
        if writer:
            writer.close()
    return count


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose infinities are numbers, as Parquet has them."""
    return {name: lines.number(value) if value in ("inf", "-inf") else value for name, value in row.items()}


def _row(line: bytes) -> Row | None:
    try:
        return lines.read_row(line)
    except lines.FAILURES:
        return None

"""`appliance labels`: labels from a file go into the log of predictions."""

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import click
import msgspec

from appliance import labels as reading
from appliance.cli import as_json, common_options, options
from appliance.cli.output import echo, print_json
from appliance.errors import InvalidInput, Misuse, NotReady
from appliance.labels import GivenLabel
from appliance.monitoring.prediction_log import lines, segments
from appliance.monitoring.prediction_log.segments import Writer
from appliance.monitoring.prediction_log.writer import BLOCK, MakeHeader, SegmentWriter
from appliance.store import activation, durable
from appliance.store.versions import Store


@click.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@as_json
@common_options
def labels(name: str, file: Path, as_json: bool) -> None:
    """Put the labels of FILE into the log of NAME: CSV (id,label,time) or JSON lines.

    The running service joins them with their predictions within seconds; else the next one that starts.
    """
    config = options().config(files=[file])
    store = Store.of(config)
    version = activation.read(store, name).active or next(reversed(store.versions(name)), None)
    if version is None:
        store.folder(name, "")
        raise NotReady(f"take labels of {name}", "no version is installed", "install and activate one")
    segments.known_writers(config.state_dir, name)
    given = list(_read(file))
    with durable.reported(f"write the log of {name}"):
        writer = SegmentWriter.open(
            Writer(config.state_dir, name, version, 0), _header_of(store, name, version), time.time
        )
        try:
            _append(writer, given)
        finally:
            writer.close()
    if as_json:
        print_json({"model": name, "taken": len(given), "changed": bool(given)})
    else:
        echo(f"{len(given)} labels taken; what they say: GET /models/{name}/quality")


def _append(writer: SegmentWriter, given: list[GivenLabel]) -> None:
    """Write labels. Raises OSError or StoreError where the disk takes no more."""
    now = round(time.time(), 3)
    made = iter(given)
    while part := list(islice(made, BLOCK)):
        written = [
            lines.line_of(lines.Label(label=one.label, id=one.id, t=one.time or now, source="cli", n=lines.nonce()))
            for one in part
        ]
        if writer.append(written) < len(written) and writer.fault:
            raise writer.fault
    writer.sync()


def _header_of(store: Store, name: str, version: str) -> MakeHeader:
    """Return a function that makes the header of a segment that holds only labels."""
    manifest = store.manifest(name, version)
    types: list[str] = [one.type for one in manifest.inputs for _ in one.columns]
    outputs = [one.name for one in manifest.outputs]

    def make(slot: int, segment: int, prev: str, key: list[int] | None) -> lines.Header:
        started = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        classes = list(manifest.class_labels)
        return lines.Header(
            1, name, version, manifest.columns, types, outputs, classes, socket.gethostname(), slot, segment, prev,
            started, key=key,
        )  # fmt: skip

    return make


def _read(file: Path) -> Iterator[GivenLabel]:
    """Yield the labels of a file."""
    try:
        if file.suffix == ".csv":
            with file.open(encoding="utf-8-sig", newline="") as text:
                yield from reading.of_csv(text)
            return
        for number, line in enumerate(file.read_bytes().splitlines(), 1):
            if line.strip():
                yield from _of_line(number, line)
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(f"read {file}", str(error), "name a file .csv or .jsonl") from error


def _of_line(number: int, line: bytes) -> list[GivenLabel]:
    try:
        return reading.of_document(msgspec.json.decode(line))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"read line {number}", str(error), 'write {"id": "ID.ROW", "label": LABEL}') from error

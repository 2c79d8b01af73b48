"""The forms of the log's lines, each one JSON object: header, row, refusal, gap, label, erased row, seal.

A number that JSON cannot write keeps its meaning: NaN is null, an infinity the text "inf" or "-inf". A text longer than
LONGEST is cut and its column named in `cut`. Reading is strict, since what is read may have been tampered with.
"""

import math
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

LONGEST = 4096
"""Characters of a text that are kept."""
HEADER, ROW, GAP, LABEL, SEAL = b'{"log":', b'{"id":', b'{"gap":', b'{"label":', b'{"seal":'
KINDS = (ROW, SEAL, LABEL, GAP, HEADER)
ERASED = b'","erased":"'
_ID = b'{"id":"'


class Header(msgspec.Struct, omit_defaults=True):
    """The first line of a segment."""

    log: int
    """The form's number, 1."""
    model: str
    version: str
    columns: list[str]
    """In the order of `x`."""
    types: list[str]
    """Of the columns, as the manifest has them."""
    outputs: list[str]
    """Names of the outputs behind `y`, `p` and `s`, as far as the version has them."""
    classes: list[Any]
    """Class labels in the order of `p`."""
    host: str
    slot: int
    segment: int
    prev: str
    """The last chain of the segment before, 64 hex digits; zeros in the first one."""
    started: str
    policy: dict[str, str] = {}
    """Columns that are not kept as they were sent: drop, hash or round:STEP."""
    inputs: bool = True
    """Whether rows have `x`."""
    key: list[int] | None = None
    """[index of the model's sealing key, index of this writer's]; absent without sealing."""

    @property
    def exact(self) -> bool:
        """Whether the rows stand there as they were sent."""
        return self.inputs and not self.policy


class Row(msgspec.Struct, omit_defaults=True, gc=False):  # it is part of no cycle, and there are many
    """One row and its answer, or why it had none."""

    id: str
    """REQUEST.ROW."""
    t: float
    """Unix time, to the millisecond."""
    x: list[Any] | None = None
    y: Any = None
    """The prediction."""
    p: list[Any] | None = None
    """Probabilities in the order of the header's classes."""
    s: Any = None
    """The score, for models that have one."""
    ms: float = 0.0
    """From the request's arrival to its outputs, in milliseconds; of a run that requests share, the whole run's."""
    listener: str = ""
    arm: str = ""
    trace: str = ""
    """The caller's trace id, 32 hex digits; "" where it said none."""
    of: int = 0
    """Rows of the request where only every so many were kept."""
    cut: list[int] | None = None
    """Places in `x` of texts that were cut."""
    error: str = ""
    """Why the request was refused, in a word."""
    column: str = ""
    """The column that is to blame for it."""
    n: str = ""
    """Random, 16 hex digits: without it a short row could be guessed from its leaf after erasing."""


class Gap(msgspec.Struct):
    """Predictions that are not in the log."""

    gap: int | None
    """How many rows; null where nobody knows (the process was killed)."""
    since: float
    reason: str


class Label(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The truth about a row."""

    label: Any
    id: str
    t: float
    source: str = msgspec.field(name="from", default="")
    n: str = ""


class Erased(msgspec.Struct, forbid_unknown_fields=True):
    """What is left of a line that was erased: its leaf, so that the tree can still be checked."""

    id: str
    erased: str


class Seal(msgspec.Struct, forbid_unknown_fields=True):
    """The end of a block."""

    seal: int
    """Its number in the segment, from 1."""
    rows: int
    """Lines since the last seal."""
    root: str
    chain: str
    mac: str | msgspec.UnsetType = msgspec.UNSET
    k: int | msgspec.UnsetType = msgspec.UNSET
    """Index of the sealing key of `mac`."""
    t: float = 0.0

    @property
    def milliseconds(self) -> int:
        """The time as the chain has it."""
        return round(self.t * 1000)


encode = msgspec.json.Encoder().encode
read_header = msgspec.json.Decoder(Header).decode
read_row = msgspec.json.Decoder(Row).decode
read_gap = msgspec.json.Decoder(Gap).decode
read_label = msgspec.json.Decoder(Label).decode
read_seal = msgspec.json.Decoder(Seal).decode
FAILURES = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)


def line_of(value: msgspec.Struct) -> bytes:
    """Return a line; half of a pair of surrogates, which no text has, becomes a question mark."""
    try:
        return encode(value)
    except UnicodeEncodeError:
        return encode(_clean(msgspec.to_builtins(value, str_keys=True, builtin_types=())))


def written(value: Any) -> Any:
    """Return a value as a line has it: infinities as texts, also within lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) or math.isnan(value) else ("inf" if value > 0 else "-inf")
    return [written(one) for one in value] if isinstance(value, list) else value


def written_row(row: Sequence[Any], *, texts: bool) -> tuple[list[Any], list[int]]:
    """Return a row's values as a line has them, and the places of texts that were cut; `texts`: look for them."""
    values = list(row)
    cut: list[int] = []
    if texts:
        for place, value in enumerate(values):
            if isinstance(value, bytes | bytearray):
                value = values[place] = bytes(value).decode("utf-8", "replace")
            if isinstance(value, str) and len(value) > LONGEST:
                values[place] = value[:LONGEST]
                cut.append(place)
    return values if are_finite(values) else [written(value) for value in values], cut


def are_finite(values: Sequence[Any]) -> bool:
    """Return whether values surely hold no infinity: a sum looks at all of them in less time than a loop at one."""
    try:
        return math.isfinite(sum(values))
    except (TypeError, OverflowError):  # null, or whole numbers that no float64 holds
        return not (math.inf in values or -math.inf in values)


def nonce() -> str:
    """Return a random text of 16 hex digits."""
    return secrets.token_hex(8)


def number(value: Any) -> Any:
    """Return what a line has for a number: NaN for null, infinities for their texts."""
    if value is None:
        return math.nan
    return {"inf": math.inf, "-inf": -math.inf}.get(value, value) if isinstance(value, str) else value


def read_erased(line: bytes) -> Erased | None:
    """Return what an erased line says, None where a line is none."""
    if ERASED not in line:
        return None
    try:
        return msgspec.json.decode(line, type=Erased)
    except FAILURES:
        return None


def id_of(line: bytes) -> str | None:
    """Return the id of a row, refusal, label or erased line; None of another or a damaged one."""
    try:
        return msgspec.json.decode(line, type=_WithId).id
    except FAILURES:
        return None


def id_bytes(line: bytes) -> bytes | None:
    """Return the id of a line of ours as UTF-8, as id_of() does; without decoding the line where the id is plain."""
    if line.startswith(_ID) and b"\\" not in (plain := line[len(_ID) : line.find(b'"', len(_ID))]):
        return plain
    if not line.startswith((ROW, LABEL)):
        return None
    identifier = id_of(line)
    return None if identifier is None else identifier.encode("utf-8", "replace")


class _WithId(msgspec.Struct):
    id: str


def _clean(value: Any) -> Any:
    """Return a value with only such texts as can be written."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    return {_clean(key): _clean(one) for key, one in value.items()} if isinstance(value, dict) else value


def joined(lines: Iterable[bytes]) -> bytes:
    """Return lines as they stand in a file."""
    return b"".join([part for line in lines for part in (line, b"\n")])

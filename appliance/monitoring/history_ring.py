"""The form of a model's history file: records of fixed size for each minute of a day and each hour of a month. Pure.

A file has a header, then HOURS records, then MINUTES records; a record's place follows from its number, so that the
file never grows. All numbers are little-endian:

    header   MAGIC, the number of the hour that runs, the buckets of its request times (counters.BOUNDS)
    record   its number (Unix time divided by 60 or 3600; 0: never written), requests, failures by the caller's and by
             the service's fault, and quantiles of the times of those that were answered, in seconds (NaN for none)
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from appliance.monitoring.counters import BOUNDS

MINUTES, HOURS = 24 * 60, 31 * 24
MAGIC = b"APHIST01"
RECORD = struct.Struct("<IIIIff")
_BUCKETS = len(BOUNDS) + 1
_HEADER = struct.Struct(f"<8sI{_BUCKETS}I")
HEADER_BYTES = 256
SIZE = HEADER_BYTES + RECORD.size * (HOURS + MINUTES)
"""Bytes of a file."""

_MOST = 2**32 - 1
_DTYPE = np.dtype(
    [("number", "<u4"), ("requests", "<u4"), ("caller", "<u4"), ("service", "<u4"), ("p50", "<f4"), ("p99", "<f4")]
)


@dataclass(frozen=True, slots=True)
class Counted:
    """What was asked of a model in some time."""

    requests: int
    """Answered or not."""
    caller_failures: int
    service_failures: int
    buckets: Sequence[int]
    """Answered requests by their time, see counters.BOUNDS."""


@dataclass(frozen=True, slots=True)
class Span:
    """A period that is shown: `steps` records of `seconds` each, every `fold` of them as one point."""

    seconds: int
    records: int
    fold: int
    first: int
    """Byte of the first record in the file."""
    size: int
    """How many records the file has of this kind."""


_FIRST_MINUTE = HEADER_BYTES + RECORD.size * HOURS
SPANS = {
    "hour": Span(60, 60, 1, _FIRST_MINUTE, MINUTES),
    "day": Span(60, MINUTES, 10, _FIRST_MINUTE, MINUTES),
    "month": Span(3600, HOURS, 4, HEADER_BYTES, HOURS),
}
"""What can be asked for: an hour by minutes, a day by 10 minutes, 31 days by 4 hours."""


class Series(msgspec.Struct, frozen=True):
    """A model's requests over time, one number for each step; the oldest first."""

    model: str
    span: str
    start: int
    """Unix time at which the first step begins."""
    step_seconds: int
    requests: list[int]
    caller_failures: list[int]
    """Of those, requests that were not answered by the caller's fault (4xx)."""
    service_failures: list[int]
    """Those not answered by this host's fault (5xx)."""
    p50_seconds: list[float | None]
    """Median time of the answered requests, null where there was none. Of several records the mean, by requests."""
    p99_seconds: list[float | None]
    """99 % took at most so long. Of several records the largest."""


def empty() -> bytes:
    """Return a file without a record."""
    return MAGIC.ljust(SIZE, b"\0")


def is_sound(content: bytes) -> bool:
    """Return whether some bytes are a file of this form."""
    return len(content) == SIZE and content.startswith(MAGIC)


def with_minute(content: bytes, minute: int, counted: Counted) -> dict[int, bytes]:
    """Return {place: bytes} to be written into a file for what was counted in a minute.

    A minute that is there already, as after a restart or where the clock was set back, is added to.
    """
    hour = minute // 60
    _, running, *before = _HEADER.unpack_from(content)
    buckets = [one + more for one, more in zip(before, counted.buckets, strict=True)]
    buckets = buckets if running == hour else list(counted.buckets)
    of_minute, of_hour = SPANS["day"], SPANS["month"]
    at_minute, at_hour = _place(of_minute, minute), _place(of_hour, hour)
    header = _HEADER.pack(MAGIC, hour, *(min(one, _MOST) for one in buckets))
    told = _merged(content, at_hour, hour, counted)
    if running == hour:
        told = (*told[:4], quantile(buckets, 0.5), quantile(buckets, 0.99))
    return {
        0: header,
        at_hour: RECORD.pack(*told),
        at_minute: RECORD.pack(*_merged(content, at_minute, minute, counted)),
    }


def series(content: bytes, model: str, name: str, now: float) -> Series:
    """Return the points of a span up to `now` (Unix time); the minute or hour that runs has what was written of it.

    What lies ahead of `now` was written before the clock was set back, and is left out.
    """
    span = SPANS[name]
    last = (int(now // span.seconds) // span.fold + 1) * span.fold  # points stand still while time goes on
    first = last - span.records
    numbers = np.arange(first, last)
    records = np.frombuffer(content, _DTYPE, span.size, span.first)[numbers % span.size]
    known = (records["number"] == numbers) & (numbers <= now // span.seconds)
    points = len(numbers) // span.fold

    def counts(field: str) -> NDArray[np.int64]:
        found: NDArray[np.int64] = np.where(known, records[field], 0).astype(np.int64).reshape(points, span.fold)
        return found

    requests, caller, service = counts("requests"), counts("caller"), counts("service")
    timed = known & np.isfinite(records["p50"]) & np.isfinite(records["p99"])
    weight = np.where(timed.reshape(points, span.fold), np.maximum(requests - caller - service, 0), 0)
    middle = np.where(timed, records["p50"], 0).astype(np.float64).reshape(points, span.fold)
    high = np.where(timed, records["p99"], 0).astype(np.float64).reshape(points, span.fold)
    total = weight.sum(axis=1)
    median = (middle * weight).sum(axis=1) / np.maximum(total, 1)
    return Series(
        model,
        name,
        first * span.seconds,
        span.seconds * span.fold,
        requests.sum(axis=1).tolist(),
        caller.sum(axis=1).tolist(),
        service.sum(axis=1).tolist(),
        _seconds(median, total),
        _seconds(np.where(weight > 0, high, 0).max(axis=1), total),
    )


def quantile(buckets: Sequence[float], level: float) -> float:
    """Return a quantile of times in seconds by their buckets, interpolated in one as Prometheus does; NaN of none.

    What is beyond the last bound counts as the last bound.
    """
    total, below = sum(buckets), 0.0
    if total <= 0:
        return math.nan
    for place, number in enumerate(buckets):
        if number and below + number >= level * total:
            if place == len(BOUNDS):
                return BOUNDS[-1]
            start = BOUNDS[place - 1] if place else 0.0
            return start + (BOUNDS[place] - start) * (level * total - below) / number
        below += number
    return BOUNDS[-1]


def _place(span: Span, number: int) -> int:
    """Return the byte where a record begins."""
    return span.first + RECORD.size * (number % span.size)


def _merged(content: bytes, place: int, number: int, counted: Counted) -> tuple[Any, ...]:
    """Return the fields of a record with what was counted, added to what it holds of the same number."""
    median, high = quantile(counted.buckets, 0.5), quantile(counted.buckets, 0.99)
    before: Any = RECORD.unpack_from(content, place)
    if before[0] != number:
        before = (number, 0, 0, 0, math.nan, math.nan)
    own, other = sum(counted.buckets), max(0, before[1] - before[2] - before[3])
    if math.isnan(median) or math.isnan(before[4]):
        median, high = (before[4], before[5]) if math.isnan(median) else (median, high)
    else:
        median, high = (median * own + before[4] * other) / max(own + other, 1), max(high, before[5])
    added = (counted.requests, counted.caller_failures, counted.service_failures)
    return number, *(min(one + more, _MOST) for one, more in zip(before[1:4], added, strict=True)), median, high


def _seconds(values: NDArray[np.float64], total: NDArray[np.int64]) -> list[float | None]:
    """Return times with four digits that count, None where no request was answered."""
    return [float(f"{value:.4g}") if number else None for value, number in zip(values.tolist(), total, strict=True)]

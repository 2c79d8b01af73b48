"""The trace that a request belongs to, as its caller says it (W3C Trace Context, Level 2; OpenTelemetry writes it).

It is passed on: into the log, the prediction log and the answer. The appliance makes no span and exports nothing.
"""

import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import NamedTuple

PARENT, STATE = "traceparent", "tracestate"
"""Names of the header fields, and of MQTT 5's user properties."""
MOST_MEMBERS = 32
"""Of a tracestate (section 3.3.1.1)."""

# Section 3.2: version ff is none; a later version may go on behind a dash; ids of zeros are none.
_PARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-[!-~]{0,450})?"
)
# Section 3.3.1.3: KEY=VALUE; the value's last character is no blank.
_MEMBER = re.compile(r"(?P<key>[a-z0-9][a-z0-9_\-*/@]{0,255})=[ -+\--<>-~]{0,255}[!-+\--<>-~]")


class TraceContext(NamedTuple):
    """A valid traceparent with its parts, and its tracestate, "" for none."""

    parent: str
    state: str
    trace_id: str
    """32 hex digits."""
    span_id: str
    """Of the caller's span, 16 hex digits."""
    flags: str
    """2 hex digits; the lowest bit says that the trace is recorded."""

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """What goes on with an answer, as (name, value)."""
        return ((PARENT, self.parent), (STATE, self.state)) if self.state else ((PARENT, self.parent),)


_NONE: Mapping[str, TraceContext] = MappingProxyType({})
_traces: ContextVar[Mapping[str, TraceContext]] = ContextVar("traces", default=_NONE)
"""{request id: its trace} of the requests that are being answered; "" stands for the only request of this context."""


def read(parent: str, state: str = "") -> TraceContext | None:
    """Return the trace context of a traceparent and a tracestate; None for an invalid or a repeated traceparent.

    An invalid tracestate is left out; the traceparent holds without it.
    """
    found = _PARENT.fullmatch(parent.strip(" \t"))
    if found is None or (found["version"] == "00" and found["more"]):
        return None
    kept = state.strip(" \t")
    return TraceContext(found[0], kept if _is_state(kept) else "", found["trace"], found["span"], found["flags"])


def read_pairs(pairs: Iterable[tuple[str, str]]) -> TraceContext | None:
    """Return the trace context among user properties, as read(); a tracestate may stand in several parts."""
    parents = [value for name, value in pairs if name == PARENT]
    if len(parents) != 1:
        return None
    return read(parents[0], ",".join(value for name, value in pairs if name == STATE))


def begin(environ: Mapping[str, str]) -> TraceContext | None:
    """Return the trace context of a request (WSGI), which lines of the log bear from now until end()."""
    found = read(environ["HTTP_TRACEPARENT"], environ.get("HTTP_TRACESTATE", ""))
    if found is not None:
        _traces.set({"": found})
    return found


def begin_batch(traces: Mapping[str, TraceContext]) -> None:
    """Take the traces of messages that are answered together, {message id: trace}; until end()."""
    _traces.set(traces)


def end() -> None:
    """Forget the traces of what has been answered."""
    _traces.set(_NONE)


def current() -> Mapping[str, TraceContext]:
    """Return the traces of what is being answered, to be asked by of()."""
    return _traces.get()


def of(request: str, traces: Mapping[str, TraceContext]) -> TraceContext | None:
    """Return the trace of a request by its id; None where there is none."""
    return traces.get(request) or traces.get("")


def _is_state(text: str) -> bool:
    """Return whether a text is a tracestate: unlike members, most 32, empty ones between commas passed over."""
    members = [stripped for one in text.split(",") if (stripped := one.strip(" \t"))]
    if not 0 < len(members) <= MOST_MEMBERS:
        return False
    found = [_MEMBER.fullmatch(one) for one in members]
    keys = [one["key"] for one in found if one is not None]
    return len(set(keys)) == len(members)

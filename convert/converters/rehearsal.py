"""Runs a function on tensors several times, each time in another environment, and records what else it uses.

Three things are watched meanwhile: Python's audit events (files, sockets, processes), the C functions that are called
(clocks, random numbers, from any caller), and what the function keeps between calls. The clock, the time zone and the
seeds also differ in each run: if the graph differs then, it depends on them.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from convert.converters.expressions import Graph, Tensor
from convert.converters.reads import is_trusted
from convert.converters.surroundings import CHANCE, ENVIRONMENT, KEPT, MEMORY, of_event, of_value

WORLDS = ((0.0, None), (34_567_890.0, "AAA-9:17"), (-345_678_901.0, "BBB+8:43"), (456_789_012.0, "CCC-1:01")) * 2
"""Seconds added to the clock, and the time zone (POSIX, TZ), of each run; each run also has its own seeds.

There are enough runs that a random choice shows both of its results.
"""
_OWN = ("convert", "onnx", "google", "skl2onnx")
_EXCUSED = ("logging", "warnings", "traceback", "linecache")
"""Modules that read clocks and files without effect on an answer."""
_IMPORTING = "_find_and_load"  # of importlib._bootstrap
_SHARED: Any = getattr(random.random, "__self__", None)
"""The generator behind the functions of `random`; other generators have a seed, or differ from run to run."""
_ENVIRON = frozenset(part.__code__ for part in vars(type(os.environ)).values() if isinstance(part, FunctionType))
_DEPTH = 6
_MOST_ITEMS = 10_000
_notes: list[_Notes] = []


class Outside(RuntimeError):
    """Stops a function before it does something outside of its input."""


class _Notes:
    """The first finding in the thread that runs the function."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.found: str | None = None

    def note(self, what: str, name: str) -> None:
        self.found = self.found or f"{what} ({name})"


def outside(trace: Callable[[Tensor], Tensor], function: Any, arguments: Mapping[str, Any]) -> str | None:
    """Return what `trace`, which calls `function` with `arguments`, uses beside its tensor, in words, or None.

    An error of `trace` is not a finding: the caller runs it again and reports it.
    """
    sheets, before = [], {}
    for seed, (seconds, zone) in enumerate(WORLDS):
        if seed == len(WORLDS) - 1:
            before = _kept(function, arguments)  # earlier runs may have filled a cache
        sheet = _Sheet()
        with _unheard(), elsewhere(seed, seconds, zone), _watched() as notes:
            try:
                result = trace(Tensor(Graph(sheet, sheet), "x")).name
            except Exception:  # noqa: BLE001 - the user's function may raise anything when given a tensor
                result = ""
        if notes.found:
            return notes.found
        if not result:
            return None
        sheets.append((result, sheet.written()))
    if any(sheet != sheets[0] for sheet in sheets):
        return "answers otherwise at another time, in another time zone or with other random numbers"
    after = _kept(function, arguments)
    changed = [name for name in after if after[name] != before.get(name)]
    return f"{KEPT} ({changed[0]})" if changed else None


class _Sheet:
    """A graph that is thrown away: scope and container in one, with the parts that expressions use."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self._names = 0

    def get_unique_variable_name(self, seed: str) -> str:
        self._names += 1
        return f"{seed}{self._names}"

    get_unique_operator_name = get_unique_variable_name

    def add_node(self, op: str, inputs: list[str], outputs: list[str], op_domain: str, name: str, **rest: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, domain=op_domain, **rest))

    def written(self) -> list[bytes]:
        """Return all that stands in the graph."""
        parts: list[NodeProto | TensorProto] = [*self.nodes, *self.initializers]
        return [part.SerializeToString(deterministic=True) for part in parts]


@contextmanager
def _watched() -> Iterator[_Notes]:
    """Record what is done outside, in this thread. Announced writes and reads are stopped."""
    notes = _Notes()
    if not _hooked:
        sys.addaudithook(_audit)  # an audit hook cannot be removed; it does nothing while nobody watches
        _hooked.append(True)
    profile = sys.getprofile()
    _notes.append(notes)
    sys.setprofile(_called)
    try:
        yield notes
    finally:
        sys.setprofile(profile)
        _notes.pop()


_hooked: list[bool] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _notes or _notes[-1].thread != threading.get_ident():
        return
    what = of_event(event)
    if what is None or _is_excused(sys._getframe(1)):
        return
    first = f": {arguments[0]!r}" if arguments and isinstance(arguments[0], str | bytes | int) else ""
    _notes[-1].note(what, f"{event}{first}")
    raise Outside(f"{what} ({event})")


def _called(frame: FrameType, event: str, value: Any) -> None:
    """Record what is called; see sys.setprofile."""
    if event == "c_call":
        what = of_value(value)
        caller = str(frame.f_globals.get("__name__"))
        if what is None or caller.partition(".")[0] in _OWN:
            return
        if is_trusted(caller) and (what == MEMORY or value.__name__ == "urandom"):  # seeds are drawn and then replaced
            return
        if what == CHANCE and isinstance(value.__self__, random.Random) and not _is_shared(value.__self__):
            return
        name = f"{_owner(value)}.{value.__name__}"
    elif event == "call" and frame.f_code in _ENVIRON:
        what, name = ENVIRONMENT, "os.environ"
    else:
        return
    if not _is_excused(frame):
        _notes[-1].note(what, name)


def _is_shared(generator: random.Random) -> bool:
    return generator is _SHARED or isinstance(generator, random.SystemRandom)


def _owner(function: Any) -> str:
    owner = getattr(function, "__self__", None)
    if owner is None or isinstance(owner, ModuleType):
        return str(function.__module__)
    kind = owner if isinstance(owner, type) else type(owner)
    return f"{kind.__module__}.{kind.__name__}"


def _is_excused(frame: FrameType | None) -> bool:
    """Return whether a frame runs for a module that is excused."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module == __name__:
            return False
        if module.partition(".")[0] in _EXCUSED or frame.f_code.co_name == _IMPORTING:
            return True
        frame = frame.f_back
    return True  # of a thread that is not ours


@contextmanager
def elsewhere(seed: int, seconds: float, zone: str | None) -> Iterator[None]:
    """Replace the clock, the time zone and the random numbers."""
    now, now_ns, states = time.time, time.time_ns, (random.getstate(), np.random.get_state())
    before = os.environ.get("TZ")
    random.seed(seed)
    np.random.seed(seed)
    _set_zone(before if zone is None else zone)
    # date.today() asks time.time as it stands in its module.
    if seconds:
        time.time = lambda: now() + seconds
        time.time_ns = lambda: now_ns() + int(seconds) * 10**9
    try:
        yield
    finally:
        time.time, time.time_ns = now, now_ns
        _set_zone(before)
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def _unheard() -> Iterator[None]:
    """Show only the last run's printed output."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def _set_zone(zone: str | None) -> None:
    if zone is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = zone
    if hasattr(time, "tzset"):
        time.tzset()


def _kept(function: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return {name: a fingerprint} of all that a function keeps between calls, or shares with others."""
    kept = {name: _look(value, _DEPTH) for name, value in arguments.items()}
    waiting, seen = [function], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, MethodType):
            waiting += [value.__func__, value.__self__]
            continue
        own = _held(value)
        kept |= {name: _look(held, _DEPTH) for name, held in own.items()}
        waiting += [held for held in own.values() if callable(held) and not isinstance(held, type)]
    return kept


def _held(value: Any) -> dict[str, Any]:
    """Return {name: value} of what a function's globals, cells, defaults and attributes hold, or an object's."""
    held = dict(getattr(value, "__dict__", {}))
    if isinstance(value, FunctionType):
        if is_trusted(value.__module__):
            return {}
        names = _names(value.__code__)
        held |= {name: value.__globals__[name] for name in names if name in value.__globals__}
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        held |= {name: cell.cell_contents for name, cell in cells if _is_bound(cell)}
        held |= {f"default {index}": default for index, default in enumerate(value.__defaults__ or ())}
        held |= value.__kwdefaults__ or {}
    return {name: part for name, part in held.items() if not isinstance(part, ModuleType)}


def _names(code: CodeType) -> set[str]:
    inner = (part for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _is_bound(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _look(value: Any, depth: int) -> Any:
    """Return a fingerprint of a value, to be compared with `==`; parts that are nested too deeply are left out."""
    if depth == 0 or isinstance(value, ModuleType | type | FunctionType):
        return None
    if isinstance(value, np.ndarray):
        return value.shape, repr(value) if value.dtype.kind == "O" else hashlib.blake2b(value.tobytes()).digest()
    if isinstance(value, dict):
        items = list(value.items())[:_MOST_ITEMS]
        return len(value), [(repr(key), _look(part, depth - 1)) for key, part in items]
    if isinstance(value, list | tuple):
        return len(value), [_look(part, depth - 1) for part in value[:_MOST_ITEMS]]
    if isinstance(value, set | frozenset):
        return len(value), sorted(map(repr, value))[:_MOST_ITEMS]
    if isinstance(value, str | bytes | int | float | complex | np.generic | None):
        return repr(value)
    if inner := getattr(value, "__dict__", None):
        return _look(dict(inner), depth - 1)
    return repr(value) if type(value).__module__ in ("itertools", "collections", "builtins") else None

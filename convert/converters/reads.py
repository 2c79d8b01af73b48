"""Finds what a function uses besides its input, by following the names in its bytecode to what they stand for.

Names are followed through modules, imports inside the function, defaults, closures, partials, methods and every
third-party function that is reached. Functions of NumPy, SciPy, pandas, scikit-learn and Python's own library are known
by name (`surroundings`). What is reached in other ways is found when the function runs (`rehearsal`).
"""

from __future__ import annotations

import ast
import builtins
import datetime
import dis
import functools
import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from convert.converters import imports
from convert.converters.surroundings import CHANCE, CLOCK, KEPT, SEEDED, of_attribute, of_value

_TRUSTED = frozenset(sys.stdlib_module_names) | {"numpy", "scipy", "pandas", "sklearn", "polars", "pyarrow", "convert"}
_NOW = frozenset({"now", "today", "utcnow"})
_TAKES_NOW = frozenset({"datetime64", "Timestamp", "to_datetime", "Period", "DatetimeIndex", "date_range", "Series"})
_IDLE = frozenset(
    {"CACHE", "PRECALL", "PUSH_NULL", "RESUME", "NOP", "EXTENDED_ARG", "COPY_FREE_VARS", "MAKE_CELL", "SWAP"}
)
_MAKING = ("__new__", "__init__", "__post_init__", "__call__")
_PLAIN = (str, bytes, int, float, complex, type(None), np.ndarray, np.generic)
_MOST_NAMES = 5_000  # functions followed from one function; beyond this the rest is not read
_UNKNOWN = object()


def outside(function: Any, arguments: Mapping[str, Any]) -> str | None:
    """Return what `function(x, **arguments)` uses besides `x`, in words ("reads the clock (time.time)"), or None."""
    reader = _Reader()
    name = getattr(function, "__name__", type(function).__name__)
    return next(iter(reader.value(function, name)), None) or next(
        (found for key, value in arguments.items() for found in reader.value(value, key)), None
    )


def is_trusted(module: str | None) -> bool:
    """Return whether a module belongs to a library whose functions are known by name."""
    return (module or "").partition(".")[0] in _TRUSTED


class _Reader:
    """Reads one function and all that it reaches, each once."""

    def __init__(self) -> None:
        self._read: dict[int, Any] = {}  # kept, since Python reuses ids
        self._asked: set[tuple[int, int]] = set()
        """For methods, the function and the object, since Python makes a new method object each time."""

    def value(self, value: Any, name: str) -> Iterator[str]:
        """Yield what is found in a value that a function uses under a name."""
        if isinstance(value, _PLAIN) or value is vars(builtins):
            return
        if id(value) in self._read or len(self._read) > _MOST_NAMES:
            return
        self._read[id(value)] = value
        if what := of_value(value):
            yield f"{what} ({name})"
        elif isinstance(value, functools.partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                yield from self.value(part, getattr(part, "__name__", name))
        elif isinstance(value, MethodType):
            yield from self._method(value.__func__, name, value.__self__)
        elif isinstance(value, FunctionType):
            yield from self._method(value, name)
        elif isinstance(value, list | tuple | set | frozenset | dict):
            for part in list(value.values() if isinstance(value, dict) else value)[:_MOST_NAMES]:
                yield from self.value(part, name)
        elif not isinstance(value, ModuleType | BuiltinFunctionType):
            yield from self._object(value, name)

    def _object(self, value: Any, name: str) -> Iterator[str]:
        """Yield what an object uses when it is called, and what it wraps."""
        for inner in (getattr(value, "__wrapped__", None), getattr(value, "pyfunc", None)):
            yield from self.value(inner, name)
        if not isinstance(value, type):
            yield from self._method(getattr(type(value), "__call__", None), name, value)  # noqa: B004 - as Python does

    def _class(self, kind: type, name: str, used: Iterable[str]) -> Iterator[str]:
        """Yield what a class uses when an object is made of it and asked by the names in `used`."""
        for called in (*_MAKING, *used):
            part = vars(kind).get(called)
            own = getattr(part, "__func__", getattr(part, "fget", part))  # of class methods, static ones, properties
            if not isinstance(own, FunctionType) or id(own) in self._read:
                continue
            self._read[id(own)] = own
            yield from self._method(own, f"{name}.{called}")
            yield from self._class(kind, name, own.__code__.co_names)

    def _method(self, function: Any, name: str, owner: Any = _UNKNOWN) -> Iterator[str]:
        """Yield what a third-party function uses, called as a method of `owner` where that is known."""
        key = id(function), id(owner)
        if isinstance(function, FunctionType) and not is_trusted(function.__module__) and key not in self._asked:
            self._asked.add(key)
            first = function.__code__.co_varnames[:1]
            yield from self._function(function, name, {} if owner is _UNKNOWN else dict.fromkeys(first, owner))

    def _function(self, function: FunctionType, name: str, given: dict[str, Any]) -> Iterator[str]:
        if (wrapped := getattr(function, "__wrapped__", None)) is not None:
            yield from self.value(wrapped, name)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            yield from self.value(default, name)
        namespace = dict(vars(builtins)) | function.__globals__
        for cell, held in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                namespace[cell] = held.cell_contents
            except ValueError:  # not yet bound
                namespace.pop(cell, None)
        yield from self.code(function.__code__, namespace, given, frozenset(function.__code__.co_freevars))
        # A function that was pickled with its globals has those of the training, as has one of the script that trains.
        module = sys.modules.get(function.__module__)
        if module is not None and function.__globals__ is vars(module):
            yield from self._computed(module, set(_names(function.__code__)), function.__code__)

    def code(
        self, code: CodeType, namespace: dict[str, Any], given: dict[str, Any], cells: frozenset[str] = frozenset()
    ) -> Iterator[str]:
        """Yield what is found in bytecode whose names stand in `namespace`, the arguments that are known in `given`.

        `cells` are the variables that it shares with the function that made it, and so keeps.
        """
        follower, is_dated = _Follower(namespace, dict(given)), False
        for instruction in dis.get_instructions(code):
            op, name = instruction.opname, instruction.argval
            if op in ("STORE_GLOBAL", "DELETE_GLOBAL") or (op in ("STORE_DEREF", "DELETE_DEREF") and name in cells):
                yield f"{KEPT} ({name})"
            if follower.unseeded(instruction):
                yield f"{CHANCE} ({follower.name} without a seed)"
            if follower.step(instruction):
                is_dated |= isinstance(follower.value, type) and issubclass(follower.value, datetime.date)
                yield from self._loaded(follower, code)
        yield from _now_as_text(code, is_dated)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                own = {name: follower.locals[name] for name in code.co_cellvars if name in follower.locals}
                yield from self.code(constant, namespace | own, {}, cells - set(code.co_cellvars))

    def _loaded(self, follower: _Follower, code: CodeType) -> Iterator[str]:
        """Yield what is found in the value that was loaded last."""
        value, name, module = follower.value, follower.name, follower.module
        if module is not None:
            attribute = name.rpartition(".")[2]
            if what := of_attribute(module, attribute):
                yield f"{what} ({name})"
            yield from self._computed(module, {attribute})
        yield from self.value(value, name)
        if isinstance(value, type) and not is_trusted(value.__module__):
            yield from self._class(value, name, code.co_names)

    def _computed(self, module: ModuleType, names: set[str], code: CodeType | None = None) -> Iterator[str]:
        """Yield what a module computed these of its values from when it was imported, and the defaults of `code`."""
        if is_trusted(module.__name__) or module.__name__ == "__main__":
            return
        for name, expression in imports.expressions(module, names, code):
            if id(expression) not in self._read:
                self._read[id(expression)] = expression
                compiled = compile(ast.Expression(expression), "<import>", "eval")
                namespace = dict(vars(builtins)) | vars(module)
                yield from (f"{found}, by {name} at its import" for found in self.code(compiled, namespace, {}))
        for name, origin in imports.origins(module, names):
            yield from self._computed(origin, {name})


class _Follower:
    """Follows names from one instruction to the next: `datetime`, then `.date` of it, then `.today`."""

    def __init__(self, namespace: dict[str, Any], given: dict[str, Any]) -> None:
        self.namespace = namespace
        self.locals = given
        self.value: Any = _UNKNOWN
        self.name = ""
        self.imported: Any = _UNKNOWN
        self.module: ModuleType | None = None
        """The module of which `value` is an attribute, where it is one."""

    def unseeded(self, instruction: dis.Instruction) -> bool:
        """Return whether the last value is a source of random numbers that is called here without a seed."""
        is_call = instruction.opname.startswith("CALL") and instruction.arg == 0
        return is_call and self.value is not _UNKNOWN and getattr(self.value, "__name__", "") in SEEDED

    def step(self, instruction: dis.Instruction) -> bool:
        """Take one instruction; return whether `value` is another than before, and known."""
        op, name = instruction.opname, instruction.argval
        if op in _IDLE:
            return False
        if op.startswith(("STORE_FAST", "STORE_DEREF", "STORE_NAME")):
            first, *second = name if isinstance(name, tuple) else (name,)  # Python 3.13 has two in one
            self.locals[str(first)] = self.value
            loaded = self.locals.get(second[0], _UNKNOWN) if second and op.endswith("LOAD_FAST") else _UNKNOWN
            return self._is(loaded, "".join(second))
        if op.startswith("LOAD_FAST"):
            name = name[-1] if isinstance(name, tuple) else name
            return self._is(self.locals.get(name, _UNKNOWN), str(name))
        if op in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF"):
            return self._is(self.locals.get(name, self.namespace.get(name, _UNKNOWN)), str(name))
        if op == "IMPORT_NAME":
            self.imported = _imported(str(name))
            return self._is(sys.modules.get(str(name).partition(".")[0], _UNKNOWN), str(name).partition(".")[0])
        if op == "IMPORT_FROM":
            return self._attribute(self.imported, getattr(self.imported, "__name__", ""), str(name))
        if op in ("LOAD_ATTR", "LOAD_METHOD"):
            return self._attribute(self.value, self.name, str(name))
        return self._is(_UNKNOWN, "")

    def _attribute(self, before: Any, called: str, name: str) -> bool:
        if before is _UNKNOWN:
            return self._is(_UNKNOWN, "")
        try:
            own = inspect.getattr_static(before, name, None)
            found = MethodType(own.fget, before) if isinstance(own, property) and own.fget else getattr(before, name)
        except Exception:  # noqa: BLE001 - properties of others raise what they like
            found = _UNKNOWN
        self._is(found, f"{called}.{name}")
        self.module = before if isinstance(before, ModuleType) else None
        return found is not _UNKNOWN

    def _is(self, value: Any, name: str) -> bool:
        self.value, self.name, self.module = value, name, None
        return value is not _UNKNOWN


def _imported(name: str) -> Any:
    """Return the module of this name, imported as the function would import it."""
    try:
        return importlib.import_module(name)
    except Exception:  # noqa: BLE001 - the function itself will raise it
        return _UNKNOWN


def _now_as_text(code: CodeType, is_dated: bool) -> Iterator[str]:
    """Yield that code asks NumPy, pandas or, where it `is_dated`, a class of dates for "now" or "today"."""
    texts = {text.lower() for constant in code.co_consts for text in _texts(constant)}
    is_dated |= bool(_TAKES_NOW.intersection(code.co_names)) or any(text.startswith("datetime64") for text in texts)
    if is_dated and (words := _NOW & texts):
        yield f"{CLOCK} ({min(words)!r} as a date)"


def _texts(constant: Any) -> list[str]:
    if isinstance(constant, tuple | frozenset):
        return [text for part in constant for text in _texts(part)]
    return [constant] if isinstance(constant, str) else []


def _names(code: CodeType) -> Iterator[str]:
    """Yield every name in bytecode, and in that of the functions inside."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)

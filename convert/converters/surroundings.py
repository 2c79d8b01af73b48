"""Knows what a function may not use besides its input: the clock, random numbers, the environment, files, the network.

A graph would keep for ever the value that it had at the conversion.
"""

from __future__ import annotations

import datetime
import io
import os
import random
import socket
import sqlite3
import sys
from types import ModuleType
from typing import Any

import numpy as np

CLOCK = "reads the clock"
CHANCE = "draws random numbers"
ENVIRONMENT = "reads the environment"
FILES = "reads or writes files"
NETWORK = "uses the network"
PROCESS = "runs or asks processes"
DATABASE = "asks a database"
PERSON = "asks the one at the keyboard"
MEMORY = "uses what differs from process to process"
KEPT = "changes what it keeps between calls"

_GENERATORS = frozenset({"default_rng", "Generator", "RandomState", "SeedSequence", "BitGenerator"})
_GENERATORS |= {"PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"}
SEEDED = _GENERATORS | {"Random"}
"""Sources that draw the same numbers each time if they get a seed."""

# Module -> what its functions do, and the functions that do not.
_MODULES: dict[str, tuple[str, frozenset[str]]] = {
    "time": (CLOCK, frozenset({"strptime", "struct_time", "sleep"})),
    "random": (CHANCE, frozenset({"Random"})),
    "numpy.random": (CHANCE, _GENERATORS),
    "secrets": (CHANCE, frozenset({"compare_digest"})),
    "uuid": (CHANCE, frozenset({"UUID", "uuid3", "uuid5", "SafeUUID"})),
    "os": (ENVIRONMENT, frozenset({"fspath", "fsencode", "fsdecode", "PathLike"})),
    "posix": (ENVIRONMENT, frozenset({"fspath"})),
    "nt": (ENVIRONMENT, frozenset({"fspath"})),
    "genericpath": (FILES, frozenset({"commonprefix"})),
    "io": (FILES, frozenset({"StringIO", "BytesIO", "text_encoding", "UnsupportedOperation"})),
    "_io": (FILES, frozenset({"StringIO", "BytesIO", "text_encoding", "UnsupportedOperation"})),
    "urllib.parse": (NETWORK, frozenset({"urlparse", "quote", "unquote", "urlencode", "urljoin"})),
    "importlib.resources": (FILES, frozenset()),
    "importlib.metadata": (ENVIRONMENT, frozenset()),
    "joblib": (FILES, frozenset({"Parallel", "delayed", "hash"})),
}
_WHOLE_MODULES = {
    FILES: "tempfile shutil glob fileinput linecache mmap fcntl",
    ENVIRONMENT: "platform locale _locale getpass pwd grp sysconfig resource psutil ctypes gc site",
    PROCESS: "subprocess _posixsubprocess multiprocessing signal pty",
    NETWORK: "socket _socket ssl http urllib requests httpx aiohttp ftplib smtplib poplib imaplib telnetlib xmlrpc",
    DATABASE: "sqlite3 _sqlite3 sqlalchemy psycopg psycopg2 pymongo redis duckdb",
}
_MODULES |= {name: (what, frozenset()) for what, names in _WHOLE_MODULES.items() for name in names.split()}
_OF_PATHS = frozenset({"exists", "lexists", "isfile", "isdir", "islink", "ismount", "samefile", "getsize", "getmtime"})
_OF_PATHS |= {"getatime", "getctime", "realpath", "abspath", "expanduser", "expandvars"}
_OF_NUMPY = frozenset({"load", "loadtxt", "genfromtxt", "fromfile", "memmap", "save", "savez", "savetxt"})
_OF_NUMPY |= {"savez_compressed"}
# The harmful functions of modules that are otherwise harmless.
_NAMES: dict[str, tuple[str, frozenset[str]]] = {
    "numpy": (FILES, _OF_NUMPY),
    "posixpath": (FILES, _OF_PATHS),
    "ntpath": (FILES, _OF_PATHS),
    "pkgutil": (FILES, frozenset({"get_data"})),
    "threading": (MEMORY, frozenset({"get_ident", "get_native_id", "active_count", "current_thread", "enumerate"})),
    "_thread": (MEMORY, frozenset({"get_ident", "get_native_id"})),
    "sys": (
        MEMORY,
        frozenset({"getrefcount", "getsizeof", "getallocatedblocks", "getswitchinterval"}),
    ),
}
_BUILTINS = {"open": FILES, "input": PERSON, "breakpoint": PERSON, "id": MEMORY, "hash": MEMORY}
_NOW = frozenset({"now", "utcnow", "today"})
_ATTRIBUTES = {
    "sys": frozenset(
        {"argv", "orig_argv", "stdin", "path", "executable", "platform", "prefix", "base_prefix", "flags"}
    ),
    "time": frozenset({"timezone", "altzone", "daylight", "tzname"}),
    "os": frozenset({"environ", "environb", "name", "devnull"}),
    "posix": frozenset({"environ"}),
    "nt": frozenset({"environ"}),
}
_INSTANCES: tuple[tuple[type, str], ...] = (
    (random.Random, CHANCE),
    (np.random.Generator, CHANCE),
    (np.random.RandomState, CHANCE),
    (np.random.BitGenerator, CHANCE),
    (type(os.environ), ENVIRONMENT),
    (io.IOBase, FILES),
    (socket.socket, NETWORK),
    (sqlite3.Connection, DATABASE),
)
_SILENT = (io.StringIO, io.BytesIO)

# Audit events (https://docs.python.org/3/library/audit_events.html) by their beginning.
_EVENTS: tuple[tuple[str, str], ...] = (
    ("open", FILES),
    ("os.", FILES),
    ("shutil.", FILES),
    ("glob.", FILES),
    ("pathlib.", FILES),
    ("tempfile.", FILES),
    ("fcntl.", FILES),
    ("mmap.", FILES),
    ("subprocess.", PROCESS),
    ("signal.", PROCESS),
    ("pty.", PROCESS),
    ("socket.", NETWORK),
    ("urllib.", NETWORK),
    ("http.", NETWORK),
    ("ftplib.", NETWORK),
    ("smtplib.", NETWORK),
    ("imaplib.", NETWORK),
    ("poplib.", NETWORK),
    ("ssl.", NETWORK),
    ("webbrowser.", NETWORK),
    ("sqlite3.", DATABASE),
    ("builtins.input", PERSON),
    ("ctypes.", ENVIRONMENT),
    ("syslog.", FILES),
)


def of_value(value: Any) -> str | None:
    """Return what a function that uses `value` (a function, an object) does outside of its input, or None."""
    if isinstance(value, type):
        return _of_named(value.__module__, value.__name__)
    for kind, what in _INSTANCES:
        if isinstance(value, kind) and not (isinstance(value, _SILENT) or value in (sys.stdout, sys.stderr)):
            return what
    owner = getattr(value, "__self__", None)
    name = getattr(value, "__name__", "")
    if isinstance(owner, type) and issubclass(owner, datetime.date | datetime.datetime) and name in _NOW:
        return CLOCK
    if name == "now" and getattr(owner, "__name__", "") == "Period":
        return CLOCK
    if name == "rvs" and owner is not None:
        return CHANCE
    if owner is not None and not isinstance(owner, ModuleType | type):
        return of_value(owner) if not callable(owner) else None
    if not callable(value) or not isinstance(name, str):
        return None
    return _of_named(str(getattr(value, "__module__", None) or getattr(owner, "__name__", "")), name)


def of_attribute(module: ModuleType, name: str) -> str | None:
    """Return what a function does that uses a plain attribute of a module, such as `sys.argv`, or None."""
    return ENVIRONMENT if name in _ATTRIBUTES.get(module.__name__, ()) else None


def of_event(event: str) -> str | None:
    """Return the meaning of an audit event, or None for an event that does not concern us."""
    return next((what for beginning, what in _EVENTS if event.startswith(beginning)), None)


def _of_named(module: str, name: str) -> str | None:
    if module == "builtins":
        return _BUILTINS.get(name)
    if module in ("pandas", "pandas.io") or module.startswith("pandas.io."):
        return FILES if name.startswith("read_") or name in ("ExcelFile", "ExcelWriter", "HDFStore") else None
    if module in _NAMES or module.startswith("numpy.lib"):
        what, names = _NAMES.get(module, _NAMES["numpy"])
        return what if name in names else None
    parent = module
    while parent:
        if parent in _MODULES:
            what, harmless = _MODULES[parent]
            return None if name in harmless else what
        parent = parent.rpartition(".")[0]
    return None

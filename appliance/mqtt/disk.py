"""One SQLite file whose commits survive a power cut: each one reaches the disk before it returns.

Threads: the loop's thread has it. end() alone may run on another one, the committer's, while the loop's thread reads; a
lock keeps the two apart, since a connection is for one thread at a time. Between begin() and end() nothing else may be
written: it would belong to the same transaction.
"""

import contextlib
import errno
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from appliance import nofollow
from appliance.errors import StoreError
from appliance.store import durable

log = logging.getLogger(__name__)

Write = tuple[str, Sequence[Sequence[Any]]]
"""(SQL statement, one tuple of parameters for each time it runs)."""

ROW_OVERHEAD = 100
"""Bytes that a row takes beside its texts and blobs; quotas count it."""

_BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps beside the file, by its name

_SCHEMA = """
create table if not exists answers (
    seq integer primary key, way integer not null, created real not null, topic text not null, payload blob not null,
    qos integer not null, retain integer not null, expiry integer not null, content_type text not null,
    correlation blob not null, model text not null, version text not null, user text not null default '');
create table if not exists parked (
    seq integer primary key, created real not null, subscription text not null, topic text not null,
    payload blob not null, response text not null, correlation blob not null);
create table if not exists parked_users (seq integer primary key, user text not null);
create index if not exists waiting on parked (subscription, seq);
create table if not exists observations (
    seq integer primary key, rows text not null, key text not null, feed text not null, at real not null,
    value blob not null);
create index if not exists observed on observations (rows, key, feed, at);
create table if not exists kept (mid integer primary key, digest blob not null);
create table if not exists notes (name text primary key, value text not null);
"""
_ADDED = "alter table answers add column user text not null default ''"


class Disk:
    """The file, opened by one process. All methods are for one thread, but for end(), beside which it may read."""

    def __init__(self, path: Path) -> None:
        """Open or make it; a damaged file is set aside and a fresh one made, since it must not stop the flow.

        Raises StoreError when it can be neither read nor made.
        """
        self.path = path
        self._lock = threading.Lock()
        self.set_aside: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._opened()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # absent rights, a full disk, a lock: the file may be good
                raise self._failed("open", error) from error
            self._connection = self._anew(error)
        except OSError as error:
            raise self._failed("open", error) from error

    def commit(self, writes: Iterable[Write]) -> None:
        """Write all or nothing, and return when it is on the disk. Raises StoreError, as on a full disk."""
        self.begin(writes)
        self.end()

    def begin(self, writes: Iterable[Write]) -> None:
        """Write all of it, which counts only with end(); nothing else may be written before that. Raises StoreError."""
        connection = self._connection
        try:
            connection.execute("begin immediate")
            for statement, parameters in writes:
                connection.executemany(statement, parameters)
        except sqlite3.Error as error:
            raise self._undone(error) from error
        except BaseException:
            self._roll_back()
            raise

    def end(self) -> None:
        """Return when what was begun is on the disk. Raises StoreError; nothing of it was written then."""
        try:
            with self._lock:
                self._connection.execute("commit")
        except sqlite3.Error as error:
            raise self._undone(error) from error

    def read(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query. Raises StoreError."""
        try:
            with self._lock:
                return self._connection.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._failed("read", error) from error

    def read_some(self, query: str, parameters: Sequence[Any], column: int, most: int) -> list[tuple[Any, ...]]:
        """Return the first rows of a query: no more once what stands in `column` has `most` bytes together.

        Raises StoreError.
        """
        found: list[tuple[Any, ...]] = []
        try:
            with self._lock, contextlib.closing(self._connection.execute(query, parameters)) as cursor:
                for row in cursor:
                    found.append(row)
                    most -= len(row[column])
                    if most <= 0:
                        break
        except sqlite3.Error as error:
            raise self._failed("read", error) from error
        return found

    def shrink(self) -> None:
        """Give freed pages back to the file system, a few at a time."""
        with contextlib.suppress(sqlite3.Error):  # there is no hurry
            self._connection.execute("pragma incremental_vacuum(1000)").fetchall()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _opened(self) -> sqlite3.Connection:
        """Return a connection whose commits are durable, the tables made."""
        self._refuse_links()
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=5, check_same_thread=False)
        try:
            connection.execute("pragma auto_vacuum = incremental")  # has a meaning before the first table alone
            connection.execute("pragma journal_mode = wal").fetchall()
            connection.execute("pragma synchronous = full")  # WAL's default would lose the last commits of a power cut
            # A small log: on a full disk its space is what lets the next commit through.
            connection.execute("pragma wal_autocheckpoint = 250")
            connection.execute("pragma journal_size_limit = 1048576")
            connection.executescript(_SCHEMA)
            if all(row[1] != "user" for row in connection.execute("pragma table_info(answers)")):
                connection.execute(_ADDED)  # a file of a version that had no user properties, which reads it still
            connection.execute("select count(*) from answers, parked, observations, kept, notes where 0").fetchall()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _refuse_links(self) -> None:
        """Make the file where it is absent, and raise StoreError where one of its names leads elsewhere.

        SQLite opens by name alone, but follows no link to the files beside it. It gives them the rights of the file.
        """
        within = self.path.parents[1]
        os.close(durable.open_or_make(self.path, os.O_RDWR, 0o600, within=within))
        for suffix in _BESIDE:
            with contextlib.suppress(FileNotFoundError):
                os.close(nofollow.open_file(self.path.with_name(self.path.name + suffix), within=within))

    def _anew(self, error: sqlite3.DatabaseError) -> sqlite3.Connection:
        """Set the damaged file aside and return a connection to a fresh one."""
        mark = f".damaged-{int(time.time())}"
        for suffix in ("", *_BESIDE):
            damaged = self.path.with_name(self.path.name + suffix)
            if damaged.exists():
                damaged.rename(damaged.with_name(damaged.name + mark))
        self.set_aside = self.path.with_name(self.path.name + mark)
        log.error("outbox is damaged and was set aside", extra={"file": str(self.set_aside), "error": str(error)})
        try:
            return self._opened()
        except (sqlite3.Error, OSError) as second:
            raise self._failed("open", second) from second

    def _undone(self, error: sqlite3.Error) -> StoreError:
        """Undo what was begun and return the error to raise."""
        self._roll_back()
        self._make_room()
        return self._failed("write", error)

    def _roll_back(self) -> None:
        """Undo what was begun."""
        with contextlib.suppress(sqlite3.Error):  # SQLite did it already
            self._connection.execute("rollback")

    def _make_room(self) -> None:
        """Move what the log holds into the file: on a full disk that frees the log's own space for the next commit."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("pragma wal_checkpoint(truncate)").fetchall()

    def _failed(self, verb: str, error: Exception) -> StoreError:
        """Return the error of an operation on the file."""
        next_step = "free some space; the flow goes on by itself" if is_full(error) else "see: appliance doctor"
        return StoreError(f"{verb} {self.path}", str(error), next_step)


def is_full(error: BaseException | None) -> bool:
    """Return whether an error says that there is no space: of the system, or SQLITE_FULL (sqlite.org/rescode.html)."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not isinstance(error, sqlite3.Error):
        return False
    code: int = getattr(error, "sqlite_errorcode", 0)  # absent where Python's module and not SQLite raises
    return code & 0xFF == sqlite3.SQLITE_FULL

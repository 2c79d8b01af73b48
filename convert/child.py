"""Runs a job in its own process: if the model's code crashes, hangs or takes too much memory, only that process ends.

The process guards against accidents, not against attacks: a pickle's code has the rights of the user who runs the
conversion. Messages are MessagePack, never pickles, so that no code of the model runs on this side.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from appliance import errors
from appliance.errors import ApplianceError, ConversionRefused
from convert.job import Job, LintJob, run, run_lint
from convert.proof.certificate import Parity

if TYPE_CHECKING:
    from convert.conversion import Conversion
    from convert.lint import Finding

START = 120.0  # seconds until the process begins its first step: time for heavy imports on a busy machine
PATIENCE = 10  # a proof asks the model many times: it may take this many times the limit of one conversion
MEMORY_SHARE = 0.8  # of this machine's
_TICK = 1.0  # seconds
_SELDOM = 0.25  # seconds between two messages on rows


class _Progress(msgspec.Struct, tag=True):
    """The next step has begun; `loads` says that it only loads the model."""

    message: str
    loads: bool


class _Proved(msgspec.Struct, tag=True):
    """So many rows of so many have been proved in this step."""

    done: int
    total: int


class _Report(msgspec.Struct, tag=True):
    """A proof's report, as JSON."""

    report: msgspec.Raw


class _Done(msgspec.Struct, tag=True):
    """The result, encoded, and notes on it."""

    result: msgspec.Raw
    notes: list[str]


class _Failed(msgspec.Struct, tag=True):
    """An error of the family of appliance.errors, by the name of its class."""

    kind: str
    tried: str
    found: str
    next_step: str


_Message = _Progress | _Proved | _Report | _Done | _Failed


def convert(
    job: Job,
    progress: Callable[[str], None] = lambda message: None,
    reports: Callable[[Any], None] = lambda report: None,
    memory: int | None = None,
    proved: Callable[[int, int], None] = lambda done, total: None,
    tick: Callable[[], None] = lambda: None,
) -> "tuple[Conversion, tuple[str, ...]]":
    """Return the Conversion of a job and notes on it, made in a child process.

    `proved` hears of rows proved and of all to be proved, `tick` is called about once a second. Each step that
    `progress` hears of may take `job.time_limit` seconds, the conversion and the proof PATIENCE times as long. `memory`
    is in bytes; by default it is MEMORY_SHARE of this machine's. Raises what the job raises, and ConversionRefused when
    the process hangs or dies.
    """
    done = _ask("convert the model", job, progress, reports, memory, proved, tick)
    from convert.conversion import Conversion

    return msgspec.msgpack.decode(done.result, type=Conversion), tuple(done.notes)


def lint(job: LintJob, memory: int | None = None) -> "list[Finding]":
    """Return what is known of each step of a model that is loaded in a child process; limits and errors as above."""
    done = _ask("lint the model", job, lambda message: None, lambda report: None, memory)
    from convert.lint import Finding

    return msgspec.msgpack.decode(done.result, type=list[Finding])


def _ask(
    tried: str,
    job: Job | LintJob,
    progress: Callable[[str], None],
    reports: Callable[[Any], None],
    memory: int | None,
    proved: Callable[[int, int], None] = lambda done, total: None,
    tick: Callable[[], None] = lambda: None,
) -> _Done:
    """Return the result of a job in its own process; `tried` is the first part of an error."""
    context = multiprocessing.get_context("spawn")  # a fork would share the registries' open connections
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, sender, memory or _memory()))
    process.start()
    sender.close()
    step, limit = "starting", max(START, job.time_limit * PATIENCE)
    end = time.monotonic() + limit
    try:
        while True:
            while not receiver.poll(max(0.0, min(_TICK, end - time.monotonic()))) and time.monotonic() < end:
                tick()
            if not receiver.poll(0):
                found = f"it did not end within {limit:g} s while {step}"
                raise ConversionRefused(tried, found, "give a longer --time-limit, or a simpler model")
            message: _Message = msgspec.msgpack.decode(receiver.recv_bytes(), type=_Message)
            if isinstance(message, _Progress):
                step, limit = message.message, job.time_limit * (1 if message.loads else PATIENCE)
                end = time.monotonic() + limit
                progress(step)
            elif isinstance(message, _Proved):
                proved(message.done, message.total)
            elif isinstance(message, _Report):
                reports(msgspec.msgpack.decode(message.report, type=Parity))
            elif isinstance(message, _Done):
                return message
            else:
                raise _error(message)
    except (EOFError, msgspec.MsgspecError) as error:
        process.join(1)
        found = f"its process died while {step} (exit code {process.exitcode})"
        next_step = "check that the file is whole and that the machine has the memory for it"
        raise ConversionRefused(tried, found, next_step) from error
    finally:
        _end(process)
        receiver.close()


def _work(job: Job | LintJob, sender: Connection, memory: int) -> None:
    """Run the job and send what comes of it; the child's standard output is this command's standard error."""
    if sys.platform != "win32":
        os.setsid()  # so that processes it starts end with it
    os.dup2(2, 1)  # what the model's code prints must not appear in the report
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit_memory(memory)

    def send(message: _Message) -> None:
        sender.send_bytes(msgspec.msgpack.encode(message))

    def progress(message: str, loads: bool = False) -> None:
        send(_Progress(message, loads))

    told = 0.0

    def proved(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > _SELDOM:
            told = time.monotonic()
            send(_Proved(done, total))

    def reports(report: Any) -> None:
        send(_Report(msgspec.Raw(msgspec.msgpack.encode(report))))

    try:
        result: Any
        notes: tuple[str, ...] = ()
        if isinstance(job, LintJob):
            result = run_lint(job, progress)
        else:
            result, notes = run(job, progress, reports, proved)
        send(_Done(msgspec.Raw(msgspec.msgpack.encode(result)), list(notes)))
    except ApplianceError as error:
        send(_Failed(type(error).__name__, error.tried, error.found, error.next_step))
    except MemoryError:
        found = f"it needs more than {memory / 2**30:.1f} GiB of memory"
        send(
            _Failed("ConversionRefused", "load and convert the model", found, "use a larger machine or a smaller model")
        )
    except Exception as error:  # noqa: BLE001 - the model's own code runs here, and may raise anything anywhere
        where = traceback.extract_tb(error.__traceback__)[-1]
        first = (str(error).strip().splitlines() or [""])[0]
        found = f"{type(error).__name__}: {first} ({Path(where.filename).name}, line {where.lineno})"
        next_step = "if the model answers its own sample in Python, this is a fault of `appliance`: please report it"
        send(_Failed("ConversionRefused", "load and convert the model", found, next_step))


def _end_with_parent() -> None:
    """End this process and those that it started when the command that waits for it ends, even if it is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        _kill_all(os.getpid())
        os._exit(1)


def _error(failed: _Failed) -> ApplianceError:
    kind = getattr(errors, failed.kind, ConversionRefused)
    if not (isinstance(kind, type) and issubclass(kind, ApplianceError)):
        kind = ConversionRefused
    return kind(failed.tried, failed.found, failed.next_step)


def _memory() -> int:
    """Return MEMORY_SHARE of this machine's memory, in bytes; no limit where the system does not tell its size."""
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_SHARE)
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def _limit_memory(memory: int) -> None:
    """Let allocations beyond the limit fail, on systems that have such limits."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = memory if most == resource.RLIM_INFINITY else min(memory, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _end(process: Any) -> None:
    """End the process and those that it started; it has nothing more to say."""
    if not _kill_all(process.pid):
        process.kill()
    process.join()


def _kill_all(group: int) -> bool:
    """Kill a group of processes; return False where there are no groups, it is over, or was not made yet."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (AttributeError, ProcessLookupError, PermissionError):
        return False
    return True

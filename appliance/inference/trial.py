"""A version's load and self-test in a process of its own, with a limit of time and one of memory.

A graph is a program: it may loop forever or ask for any amount of memory, when it is loaded as well as when it runs.
Threads cannot be ended and memory of one's own cannot be bounded; a process can. It inherits no descriptor, holds no
lock, ends with the thread that started it, and its memory is the first that the kernel takes.
"""

import json
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import appliance
from appliance import ahead, errors
from appliance.errors import ApplianceError, NotReady, SelfTestFailed
from appliance.inference.figures import SelfTest

WORD = "__trial__"
"""First argument that makes the command `appliance` such a process: a frozen program has no other way to start one."""

_LOOK_SECONDS = 0.05  # between two looks at the memory of the process
_GRACE = 10  # looks within as much time, before a process that has answered is ended
_LONGEST_ANSWER = 64 * 1024
_SLACK_BYTES = 96 * 1024**2  # resident memory of the program itself, and of what is freed late
_LEAST_BYTES = 512 * 1024**2
_TIMES_MODEL = 8  # a forest takes some four times its file while it is loaded


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """What a version may take: seconds of load and self-test together, bytes beside the program itself."""

    seconds: float = 30.0
    memory_bytes: int = _LEAST_BYTES


class TrialResult(msgspec.Struct):
    """What the process says: figures, or the kind and the three parts of an error."""

    passed: SelfTest | None = None
    refused: tuple[str, str, str, str] | None = None


def default_memory(model_bytes: int, limit_bytes: int) -> int:
    """Return the memory limit of a model of `model_bytes` on a host of `limit_bytes`: what its size explains.

    At most half of what there is: the version that serves must go on.
    """
    return min(limit_bytes // 2, max(_LEAST_BYTES, _TIMES_MODEL * model_bytes))


def run(
    file: Path, limits: TrialLimits, within: Path | None = None, stopping: threading.Event | None = None
) -> SelfTest:
    """Return the figures of the version in `file`, an installed version's folder or a bundle, from its own process.

    `within` is the state folder, below which no link is followed; `stopping` ends the trial when it is set. One at a
    time in this process. Raises SelfTestFailed (also at a limit, which it names), NotReady when another trial does not
    end, or the service ends; and what reading the version raises.
    """
    tried = f"self-test of {file.parent.name} {file.name}" if file.is_dir() else f"self-test of {file.name}"
    if not _alone.acquire(timeout=limits.seconds):
        raise NotReady(tried, "another version is being tried", "repeat it in a moment")
    try:
        return _result(tried, limits, *_ended(file, within, limits, tried, stopping or threading.Event()))
    finally:
        _alone.release()


_alone = threading.Lock()


def _ended(
    file: Path, within: Path | None, limits: TrialLimits, tried: str, stopping: threading.Event
) -> tuple[int, bytes]:
    """Run the process to its end, or end it; return its exit code and what it said."""
    asked = {"file": str(file), "within": str(within) if within else None, "parent": os.getpid()}
    deadline = time.monotonic() + limits.seconds
    bundle = None if file.is_dir() else ahead.open_file(file)  # its way may be closed to the process
    try:
        text = json.dumps({**asked, "seconds": limits.seconds, "memory_bytes": limits.memory_bytes})
        pid, end = _start(text, bundle.fileno() if bundle else None)
    finally:
        if bundle:
            bundle.close()
    said = b""
    code = None
    try:
        while True:
            if select.select([end], [], [], _LOOK_SECONDS)[0]:
                piece = os.read(end, _LONGEST_ANSWER)
                said += piece
                if not piece or len(said) > _LONGEST_ANSWER:
                    break
            elif stopping.is_set():
                raise NotReady(tried, "the service ends", "repeat it once it runs again")
            elif time.monotonic() > deadline:
                raise _over(tried, f"{limits.seconds:g} seconds", "self_test_seconds")
            elif _resident(pid) > limits.memory_bytes + _SLACK_BYTES:
                raise _over(tried, f"{limits.memory_bytes} bytes of memory", "max_memory_bytes")
    finally:
        os.close(end)
        code = _reap(pid)
    return code, said


def _start(asked: str, bundle: int | None) -> tuple[int, int]:
    """Start the process; return its id, and the end of a pipe on which it answers.

    It inherits nothing else but a `bundle` as its standard input.
    """
    read, write = os.pipe()
    try:
        command = [*_command(), asked]
        if os.access(command[0], os.X_OK) and os.access(appliance.__file__, os.R_OK):
            actions: list[Any] = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 2)]
            actions += [
                (os.POSIX_SPAWN_DUP2, write, 1),
                *([(os.POSIX_SPAWN_DUP2, bundle, 0)] if bundle is not None else []),
            ]
            pid = os.posix_spawn(command[0], command, _environment(), file_actions=actions, setsid=True)
        else:
            pid = _fork(asked, write, bundle)
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
    return pid, read


def _fork(asked: str, write: int, bundle: int | None) -> int:
    """Start the process where this program's files are closed to its user: by a copy of this one.

    For root's commands that became the owner of the state folder (cli.owner): they have one thread and no onnxruntime.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number, into in ((nothing if bundle is None else bundle, 0), (write, 1), (nothing, 2)):
            os.dup2(number, into)
        from appliance.inference import trial_process

        sys.argv = [sys.argv[0], asked]
        trial_process.main()
    finally:
        os._exit(1)


def _reap(pid: int) -> int:
    """End a process, which may have ended, and return its exit code."""
    found, status = os.waitpid(pid, os.WNOHANG)
    for _ in range(_GRACE):  # it has answered and is about to end
        if found:
            break
        time.sleep(_LOOK_SECONDS / _GRACE)
        found, status = os.waitpid(pid, os.WNOHANG)
    if not found:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _result(tried: str, limits: TrialLimits, code: int, said: bytes) -> SelfTest:
    """Return what the process found, or raise it."""
    try:
        answer = msgspec.json.decode(said, type=TrialResult)
    except msgspec.MsgspecError:
        answer = TrialResult()
    if answer.passed:
        return answer.passed
    if answer.refused:
        name, *parts = answer.refused
        kind = getattr(errors, name, SelfTestFailed)
        raise kind(*parts) if isinstance(kind, type) and issubclass(kind, ApplianceError) else SelfTestFailed(*parts)
    if code == -signal.SIGXCPU:
        raise _over(tried, f"{limits.seconds:g} seconds", "self_test_seconds")
    found = f"its process ended by itself ({_reason(code)}); more than {limits.memory_bytes} bytes of memory end it too"
    raise SelfTestFailed(tried, f"{found} ([models] max_memory_bytes)", "do not use this version here")


def over_memory(tried: str, limit: int) -> SelfTestFailed:
    """Return the refusal of a version that asks for more memory than it may have."""
    return _over(tried, f"{limit} bytes of memory", "max_memory_bytes")


def _over(tried: str, limit: str, setting: str) -> SelfTestFailed:
    found = f"load and self-test take more than {limit} ([models] {setting})"
    return SelfTestFailed(tried, found, f"raise [models] {setting} where such a model is meant")


def _reason(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _command() -> list[str]:
    """Return how to start such a process."""
    if getattr(sys, "frozen", False):
        return [sys.executable, WORD]
    # -P: never a module of the folder that this was started in.
    return [sys.executable, "-P", "-m", "appliance.inference.trial_process"]


def _environment() -> dict[str, str]:
    """Return our environment, in which the same package is found."""
    root = str(Path(appliance.__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, known] if known else [root])}


def _resident(pid: int) -> int:
    """Return the bytes of memory that a process has now; 0 when it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0

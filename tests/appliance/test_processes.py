"""Several processes under one supervisor: real forks, real signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys, time
from appliance import processes
from appliance.processes import Supervisor
processes._FIRST_PAUSE = 0.05
folder, kind = sys.argv[1], sys.argv[2]

def work(slot, ready):
    if kind == "fails" and slot == 1:
        return 4
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    with open(f"{folder}/{slot}", "a") as file:
        file.write(f"{os.getpid()}\\n")
    ready()
    while not stopped:
        time.sleep(0.01)
    open(f"{folder}/ended-{slot}-{os.getpid()}", "w").close()
    return 0

sys.exit(Supervisor(2, work).run())
"""


def _start(folder: Path, kind: str = "works") -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), kind], stderr=subprocess.DEVNULL)


def _pids(folder: Path, slot: int, count: int) -> list[int]:
    """Wait until `slot` was started `count` times."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        path = folder / str(slot)
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return [int(line) for line in lines]
        time.sleep(0.01)
    pytest.fail(f"slot {slot} was not started {count} times")


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_every_process_cleanly(tmp_path, number):
    supervisor = _start(tmp_path)
    pids = [_pids(tmp_path, slot, 1)[0] for slot in (0, 1)]
    supervisor.send_signal(number)
    assert supervisor.wait(20) == 0
    assert all(_gone(pid) for pid in pids)
    assert {path.name for path in tmp_path.glob("ended-*")} == {f"ended-{slot}-{pid}" for slot, pid in enumerate(pids)}


def test_process_that_dies_is_started_again_in_its_slot(tmp_path):
    supervisor = _start(tmp_path)
    other = _pids(tmp_path, 0, 1)[0]
    for count in (1, 2):
        os.kill(_pids(tmp_path, 1, count)[-1], signal.SIGKILL)
    assert len(set(_pids(tmp_path, 1, 3))) == 3
    assert _pids(tmp_path, 0, 1) == [other]
    supervisor.terminate()
    assert supervisor.wait(20) == 0


def test_process_that_cannot_start_ends_them_all_with_its_exit_code(tmp_path):
    supervisor = _start(tmp_path, "fails")
    assert supervisor.wait(20) == 4
    for path in tmp_path.glob("[01]"):
        assert all(_gone(int(pid)) for pid in path.read_text().split())


def test_no_process_outlives_a_supervisor_that_was_killed(tmp_path):
    supervisor = _start(tmp_path)
    pids = [_pids(tmp_path, slot, 1)[0] for slot in (0, 1)]
    supervisor.kill()
    supervisor.wait(20)
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob("ended-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert {path.name for path in tmp_path.glob("ended-*")} == {f"ended-{slot}-{pid}" for slot, pid in enumerate(pids)}

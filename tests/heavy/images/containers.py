"""Containers of the image under test, driven by the docker command; for the tests beside it."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DOCKER = os.environ.get("DOCKER", "docker").split()
FLOWERS = [[6.3, 3.3, 6.0, 2.5], [5.1, 3.5, 1.4, 0.2], [5.9, 3.0, 4.2, 1.5]]
HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
SECONDS = 180
"""For anything to happen: an emulated processor starts slowly."""


ARCHIVE = Path(os.environ["IMAGE_ARCHIVE"])
"""Of the image under test, as `make images` wrote it."""


def docker(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    ended = subprocess.run([*DOCKER, *arguments], capture_output=True, text=True, timeout=SECONDS * 3)
    assert not check or ended.returncode == 0, ended.stderr
    return ended


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(true: Callable[[], Any], what: str) -> Any:
    """Return what `true` gives once it is truthy."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.1)
    pytest.fail(f"never {what}")


def ask(url: str, body: object = None) -> tuple[int, Any]:
    """Return (status, answer) of a request; (0, None) while nothing answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, None


class Container:
    """A running container of the image; by default as hard as its documentation says, its port on loopback."""

    def __init__(self, image: str, *flags: str, command: tuple[str, ...] = ()) -> None:
        self.id = docker("run", "--detach", *HARDENED, *flags, image, *command).stdout.strip()

    @property
    def url(self) -> str:
        return f"http://{docker('port', self.id, '8080/tcp').stdout.split()[0]}"

    def inspect(self, what: str) -> str:
        return docker("inspect", "--format", what, self.id).stdout.strip()

    def run(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return docker("exec", self.id, *command, check=check)

    def log(self) -> str:
        return docker("logs", self.id).stderr

    def is_ready(self) -> bool:
        if self.inspect("{{.State.Running}}") != "true":
            pytest.fail(f"the container has ended: {self.log()}")
        return self.run("appliance", "status", "--ready", check=False).returncode == 0

    def ready(self) -> "Container":
        wait_for(self.is_ready, "ready")
        return self

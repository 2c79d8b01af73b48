"""The image reaches nothing but the broker that it was given: not one packet, not one name that is looked up."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest
from containers import Container, docker, wait_for
from namespace import APPLIANCE, RESOLVER, Space, build_fast_clock, fast_clock, hold, idle_for_an_hour, live, made_space

# The service begins when strace has been tied to the process that becomes it.
WAIT_THEN_SERVE = "until [ -e /given/open ]; do sleep 0.1; done; exec env %s appliance serve"

Serve = Callable[[dict[str, str]], AbstractContextManager[Container]]


@pytest.fixture
def holder(image: str) -> Iterator[str]:
    """A container that has nothing but a network namespace."""
    started = docker("run", "--detach", "--network=none", "--entrypoint=sleep", image, "3600").stdout.strip()
    yield started
    docker("rm", "--force", started)


@pytest.fixture
def space(holder: str, tmp_path: Path) -> Iterator[Space]:
    process = int(docker("inspect", "--format={{.State.Pid}}", holder).stdout)
    with made_space(f"image{os.getpid()}", tmp_path, process) as made:
        yield made


@pytest.fixture
def serve(start, preloaded, holder, space, tmp_path) -> Serve:
    """Return a context manager that serves iris 1.0.0 in the space, under strace, and ends it cleanly."""
    given = tmp_path / "given"
    given.mkdir()
    given.chmod(0o755)
    (given / "appliance.toml").write_text(APPLIANCE)
    (given / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")
    tmp_path.chmod(0o755)
    files = (f"--volume={given}:/given:ro", f"--volume={given}/resolv.conf:/etc/resolv.conf:ro")
    settings = ("--env=APPLIANCE_CONFIG=/given/appliance.toml", "--env=APPLIANCE_HTTP_HOST=127.0.0.1")
    network = f"--network=container:{holder}"

    @contextmanager
    def serve(variables: dict[str, str]) -> Iterator[Container]:
        named = " ".join(f"{name}={value}" for name, value in variables.items())
        wait = ("-c", WAIT_THEN_SERVE % named)
        container = start(*preloaded, *files, *settings, network, "--entrypoint=sh", command=wait)
        process = container.inspect("{{.State.Pid}}")
        line = ["strace", "-f", "-qq", "-e", "trace=%network", "-o", str(tmp_path / "trace"), "-p", process]
        strace = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: "TracerPid:\t0" not in Path(f"/proc/{process}/status").read_text(), "traced")
        (given / "open").touch()
        yield container.ready()
        docker("stop", "--time=60", container.id)
        assert container.inspect("{{.State.ExitCode}}") == "0", container.log()
        assert strace.wait(60) == 0

    return serve


def test_it_reaches_its_broker_alone_in_all_that_it_does(serve, space, tmp_path):
    with serve({}) as container:
        live(space, partial(container.run, "appliance"), "/bundles")
    hold(space, tmp_path / "trace")


def test_it_reaches_its_broker_alone_in_an_hour(serve, space, tmp_path):
    build_fast_clock(tmp_path / "given")
    with serve(fast_clock("/given/fast_clock.so")):
        idle_for_an_hour(space)
        assert space.predict(200) == "1.0.0 virginica"
        assert space.predict_over_mqtt("late")["version"] == "1.0.0"
    hold(space, tmp_path / "trace")

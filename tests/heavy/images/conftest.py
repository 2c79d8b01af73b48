"""The image under test and its containers; `make images-test` sets what it needs."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import ARCHIVE, FLOWERS, Container, ask, docker

BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def image() -> str:
    """Load the image under test; its name."""
    assert ARCHIVE.exists(), f"{ARCHIVE} is not there: make images"
    return docker("load", "--quiet", "--input", str(ARCHIVE)).stdout.rpartition("Loaded image: ")[2].strip()


@pytest.fixture
def start(image: str) -> Iterator[Callable[..., Container]]:
    """Return a function that starts a container, removed with its volumes in the end."""
    containers: list[Container] = []

    def start(*flags: str, command: tuple[str, ...] = ()) -> Container:
        containers.append(Container(image, *flags, command=command))
        return containers[-1]

    yield start
    for container in containers:
        docker("rm", "--force", "--volumes", container.id, check=False)


@pytest.fixture(scope="session")
def preloaded(bundles: Path) -> tuple[str, ...]:
    """Flags that have version 1.0.0 served from the start."""
    bundle = bundles / "iris-1.0.0.bundle"
    return (f"--volume={bundle}:/opt/ml/model/{bundle.name}:ro", f"--volume={bundles}:/bundles:ro")


@pytest.fixture(scope="session")
def expected(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the service answers to FLOWERS on this host, from Python."""
    state = ["--state-dir", str(tmp_path_factory.mktemp("state") / "state")]
    appliance = str(BIN / "appliance")
    subprocess.run([appliance, "install", str(bundles / "iris-1.0.0.bundle"), *state], check=True)
    subprocess.run([appliance, "activate", "iris", "1.0.0", *state], check=True)
    service = subprocess.Popen([appliance, "serve", "--port=0", *state], stderr=subprocess.PIPE, text=True)
    assert service.stderr
    url = next(entry["url"] for line in service.stderr if "url" in (entry := json.loads(line)))
    yield ask(f"{url}/predict", {"features": FLOWERS})[1]
    service.terminate()
    service.wait(30)
    service.stderr.close()


@pytest.fixture
def open_port() -> tuple[str, ...]:
    """Flags that publish the port on this host's loopback, and say outright that it needs no token."""
    return ("--publish=127.0.0.1::8080", "--env=APPLIANCE_HTTP_AUTH=none")

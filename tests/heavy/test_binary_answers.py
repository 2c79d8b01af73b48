"""What the binary that `make binary` left answers; for another processor than this machine's, under emulation.

Emulated, it finds its C library below QEMU_LD_PREFIX, the root that it was built in.
"""

import json
import os
import subprocess
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespace import ROW

ROOT = Path(__file__).parents[2]
PROGRAM = Path(os.environ["BINARY"]).resolve() / "appliance" / "appliance"


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Variables of a state of its own, on a port that the system chooses."""
    state = tmp_path_factory.mktemp("state") / "state"
    return {**os.environ, "APPLIANCE_STATE_DIR": str(state), "APPLIANCE_HTTP_PORT": "0"}


def appliance(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def url(environment, bundles) -> Iterator[str]:
    """Serve iris 1.0.0; where."""
    appliance(environment, "install", str(bundles / "iris-1.0.0.bundle"))
    appliance(environment, "activate", "iris", "1.0.0")
    service = subprocess.Popen([PROGRAM, "serve"], env=environment, stderr=subprocess.PIPE, text=True)
    assert service.stderr
    yield next(entry["url"] for line in service.stderr if "url" in (entry := json.loads(line)))
    service.terminate()
    service.communicate(timeout=120)
    assert service.returncode == 0


def test_it_is_of_this_version(environment):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert appliance(environment, "--version").split()[2] == version


def test_its_self_test_passes_on_that_processor(environment, bundles):
    assert "self-test passed" in appliance(environment, "verify", str(bundles / "iris-1.0.0.bundle"), "--self-test")


def test_it_answers_as_the_original_model_did(url, environment):
    body = json.dumps({"features": ROW}).encode()
    with urllib.request.urlopen(f"{url}/predict", body, timeout=60) as answer:
        said = json.load(answer)
    assert (said["prediction"], said["version"]) == (["virginica"], "1.0.0")
    # Every example of the bundle, asked of the service that runs.
    asked = {**environment, "APPLIANCE_HTTP_PORT": url.rpartition(":")[2]}
    found = json.loads(appliance(asked, "probe", "iris", "--wait", "60", "--json"))
    assert found["failures"] == 0
    assert found["examples"] > 10
